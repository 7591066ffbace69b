#!/usr/bin/env bash
# One folder for a machine with a GPU that has neither Rust nor network: emm with kernels for every GPU from A100 on,
# bench/gpu.sh and all that it reads. It works wherever it is copied.
#
#   bench/pack.sh [--images FILE] [--out DIR]
#
# --images FILE   adds images.zip, 500 images of FILE, of each class as many, for bench/gpu-study.sh. FILE is what `emm data
#                 import` reads. JPEG: import it with --allow-lossy first, into a zip with "lossy" in its name
# --out DIR       target/gpu; what this script packed there before is replaced
#
# nvcc is the one that build.rs finds, else comes from the wheels of kernels/nvcc.txt (pip). The binary is the release
# build's, stripped. Fails if it is not what bench/pack_check.py says it has to be.
set -euo pipefail
cd_from=$PWD
cd "$(dirname "$0")/.."

refuse() {
    echo "pack.sh: $*" >&2
    exit 2
}
absolute() { case $1 in /*) echo "$1" ;; *) echo "$cd_from/$1" ;; esac }

images=
out=$PWD/target/gpu
while (($#)); do
    case $1 in
        --images | --out) [[ ${2:-} ]] || refuse "$1: a path has to follow" ;;
    esac
    case $1 in
        --images) images=$(absolute "$2") ;;
        --out) out=$(absolute "$2") ;;
        -h | --help) sed -n '2,/^set/s/^# \{0,1\}//p' "$0" && exit ;;
        *) refuse "$1: is neither --images FILE nor --out DIR" ;;
    esac
    shift 2
done
if [[ $images && ! -e $images ]]; then refuse "--images: $images: no such file or folder"; fi
out=${out%/}
if [[ -d $out/bench/runs ]]; then
    refuse "--out: $out/bench/runs holds results; move them away, or name another folder"
elif [[ -e $out ]] && ! grep -qs 'packed by bench/pack.sh' "$out/README.txt" && ! rmdir "$out" 2>/dev/null; then
    refuse "--out: $out is there and was not packed by this script; name another folder"
fi
if ! command -v cargo >/dev/null; then PATH=$PATH:$HOME/.cargo/bin; fi
for tool in cargo strip python3; do
    command -v "$tool" >/dev/null || refuse "$tool is not on PATH; building takes Rust (https://rustup.rs), binutils, Python 3"
done

work=$(mktemp -d)
new=$out.unfinished
trap 'rm -rf "$work" "$new"' EXIT

# As .ci/run sets it for the tests, so that both use one build.
export EMM_CUDA_ARCHS=all
build() { # what cargo says of a missing nvcc is not shown: that is mended
    cargo build --locked --release --bin emm --message-format json-render-diagnostics 2>&1 >"$work/built" |
        tee "$work/said" | sed -u '/no nvcc was found/,$d' >&2
}
if ! build; then
    grep -q 'no nvcc was found' "$work/said" || exit 1
    NVCC=$(bench/nvcc.sh)
    export NVCC
    build
fi
emm=$(sed -n 's/.*"executable":"\([^"]*\)".*/\1/p' "$work/built")

rm -rf "$new"
mkdir -p "$new/bench/peers" "$new/tests/goldens"
strip -o "$new/emm" "$emm"
cp LICENSE-* "$new/"
cp bench/gpu*.sh bench/gpu_summary.py "$new/bench/"
cp bench/peers/*.py "$new/bench/peers/"
rm "$new/bench/peers/all.py" # runs the others from a checkout
cp tests/goldens/network.py "$new/tests/goldens/" # the peers' network
if [[ $images ]]; then
    take() { "$new/emm" data import "$images" --size 500 --out "$new/images.zip" --quiet "$@" >/dev/null; }
    take --spread 2>/dev/null || take # sets without classes have none to spread over
fi

commit=$(git describe --always --dirty 2>/dev/null) || commit='no commit known'
{
    echo "$("$new/emm" --version), $commit, packed by bench/pack.sh for a machine with a CUDA GPU."
    glibc=$(grep -ao 'GLIBC_2\.[0-9]*' "$new/emm" | sort -Vu | tail -n 1)
    echo "It needs $(uname -m) Linux with glibc ${glibc#*_}, NVIDIA's driver 580, or newer ones; Python 3 for the script, and"
    echo "PyTorch for what emm is measured beside."
    echo
    echo "  bench/gpu.sh           checks, benches and peers, what is worth most first, into bench/runs; BUDGET_S=600 for more"
    echo "  bench/gpu.sh '' FOLDER the same, into FOLDER"
    echo "  bench/gpu-study.sh images.zip FOLDER   Table 3 at scale mini on these images, for BUDGET_S seconds"
    echo "  ./emm doctor           what this machine and this build have and lack"
    if [[ $images ]]; then
        echo
        echo "images.zip: 500 images of ${images##*/}."
        if [[ ${images##*/} == *[Ll][Oo][Ss][Ss][Yy]* ]]; then
            echo "Lossy: their pixels went through JPEG, so no result of theirs stands beside the paper's."
        fi
    fi
} >"$new/README.txt"
told=$(python3 -B bench/pack_check.py "$new")
rm -rf "$out"
mv "$new" "$out"
printf 'folder   %s\n%s\nthere    bench/gpu.sh\n' "$out" "$told"

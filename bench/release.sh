#!/usr/bin/env bash
# What emm is handed out as, for x86-64 Linux with glibc 2.28 or newer, with kernels for every GPU from sm_80 on inside:
#
#   bench/release.sh [--repository URL] [wheel] [crate] [tarball]      all three unless some are named
#
# wheel            target/wheels/emm_diffusion-VERSION-….whl, for pip and uv
# crate            target/dist/emm-VERSION.crate, for a registry: `cargo install` needs no nvcc
# tarball          target/dist/emm-VERSION-x86_64-unknown-linux-gnu.tar.gz, which cargo-binstall finds too
# --repository URL where these will lie: goes into the crate's metadata. Nothing is uploaded
#
# target/dist/SHA256SUMS holds the checksums of what was made (cd target && sha256sum -c dist/SHA256SUMS). nvcc, maturin and
# zig come as wheels (pip). It fails if what it
# made is not what bench/release_check.py says it has to be.
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD

refuse() {
    echo "release.sh: $*" >&2
    exit 2
}
repository=
parts=()
while (($#)); do
    case $1 in
        --repository)
            [[ ${2:-} == https://* ]] || refuse "--repository: an address that begins with https:// has to follow"
            repository=$2
            shift
            ;;
        wheel | crate | tarball) parts+=("$1") ;;
        -h | --help) sed -n '2,/^# made/s/^# \{0,1\}//p' bench/release.sh && exit ;;
        *) refuse "$1: is neither wheel, crate, tarball nor --repository URL" ;;
    esac
    shift
done
((${#parts[@]})) || parts=(wheel crate tarball)
wanted() { [[ " ${parts[*]} " == *" $1 "* ]]; }
if ! command -v cargo >/dev/null; then PATH=$PATH:$HOME/.cargo/bin; fi
for tool in cargo cc c++ python3 git; do
    command -v "$tool" >/dev/null || refuse "$tool is not on PATH"
done
if [[ $root${CARGO_HOME:-$HOME} == *[[:space:]]* ]]; then refuse "$root: a path with a space does not go through RUSTFLAGS"; fi
# What is packed is said here alone.
unset EMM_CUDA_ARCHS EMM_CUDA_LINES

venv=$(bench/wheels.sh bench/release.txt)

# The kernels are compiled once, by the build that pack.sh and the tests use, and taken over.
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
NVCC=${NVCC:-$(bench/nvcc.sh)}
export NVCC
EMM_CUDA_ARCHS=all cargo build --locked --release --bin emm --message-format json-render-diagnostics \
    >"$work/built"
built=$(sed -n 's/.*"executable":"\([^"]*\)".*/\1/p' "$work/built")
out_dir=$(sed -n '/"build-script-executed"/{/[/#]emm[@#]/s/.*"out_dir":"\([^"]*\)".*/\1/p}' "$work/built")
kernels=$(ls -td "$out_dir"/cuda-*-sm_120-compute_80 | head -n 1)

# The files that git knows, as they are here, and the kernels.
tree=target/release-tree
rm -rf "$tree"
mkdir -p "$tree/kernels/compiled"
git ls-files -z | while IFS= read -r -d '' file; do if [[ -e $file ]]; then printf '%s\0' "$file"; fi; done |
    tar --null -T - -cf - | tar -xf - -C "$tree"
for source in kernels/*.cu; do
    cp -p "$kernels/$(basename "$source" .cu).fatbin" "$tree/kernels/compiled/"
done
cp -p "$kernels/archs" "$tree/kernels/compiled/"
if [[ $repository ]]; then sed -i "s|^license = .*|&\nrepository = \"$repository\"|" "$tree/Cargo.toml"; fi
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
mkdir -p target/wheels target/dist
rm -f target/dist/SHA256SUMS

name=emm-$version-x86_64-unknown-linux-gnu
if wanted wheel || wanted tarball; then
    rm -f target/wheels/emm_diffusion-*.whl
    # Names of folders here are nobody's business.
    export RUSTFLAGS="--remap-path-prefix=${CARGO_HOME:-$HOME/.cargo}=/cargo --remap-path-prefix=$root=/emm"
    (
        cd "$tree"
        PATH=$venv/bin:$PATH CARGO_TARGET_DIR=$root/target/release-target \
            "$venv/bin/maturin" build --quiet --release --locked --zig --compatibility manylinux_2_28 \
            --out "$root/target/wheels"
    )
    unset RUSTFLAGS
fi
if wanted tarball; then
    rm -f target/dist/emm-*.tar.gz
    mkdir -p "$work/$name"
    python3 -m zipfile -e target/wheels/emm_diffusion-*.whl "$work/wheel"
    install -m 755 "$work"/wheel/*.data/scripts/emm "$work/$name/emm"
    cp README.md CHANGELOG.md LICENSE-* "$work/$name/"
    tar -C "$work" --sort=name --owner=0 --group=0 --numeric-owner -czf "target/dist/$name.tar.gz" "$name"
fi
if wanted crate; then
    rm -f target/dist/emm-*.crate
    (cd "$tree" && CARGO_TARGET_DIR=$root/target/crate-target cargo package --quiet --locked --allow-dirty)
    cp "target/crate-target/package/emm-$version.crate" target/dist/
fi
if wanted tarball && ! wanted wheel; then parts+=(wheel); fi # its program is the wheel's
python3 -B bench/release_check.py "$built" "${parts[@]}"
made=()
if wanted wheel; then made+=(wheels/emm_diffusion-*.whl); fi
if wanted crate; then made+=(dist/emm-*.crate); fi
if wanted tarball; then made+=(dist/emm-*.tar.gz); fi
(cd target && sha256sum ${made[@]}) >target/dist/SHA256SUMS # unquoted: these are patterns, of names without spaces
cat target/dist/SHA256SUMS

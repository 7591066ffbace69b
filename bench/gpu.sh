#!/usr/bin/env bash
# Everything that a machine with a CUDA card can tell, by one command, within nine minutes. It needs the built binary,
# and for the peers Python with PyTorch; neither Rust nor this repository's history.
#
#   bench/gpu.sh target/release/emm                 writes bench/runs/<date>-<card>/
#   bench/gpu.sh target/release/emm /tmp/there      writes /tmp/there
#
# In the environment: PYTHON (python3), BUDGET_S (540), BATCH (128, images of a training step), DEVICE (cuda), for both
# sides; PEER_DEVICE, for PyTorch alone; SMALL=1, tiny settings that try the script itself on any machine.
# Each part has a time limit of its own and what is left of the budget; README.md in the folder says what was skipped.
# Every op is checked, and every launch and step timed, in each precision of the device. Left out for the time: the
# compiled peer in other precisions than bf16, and convolutions alone by PyTorch in tf32; sampling is in bf16.
set -euo pipefail

if (($# < 1 || $# > 2)) || [[ ! -x $1 ]]; then
    echo "usage: bench/gpu.sh EMM [FOLDER]    EMM: the built binary" >&2
    exit 2
fi
here=$(cd "$(dirname "$0")" && pwd)
emm=$(realpath "$1")
python=${PYTHON:-python3}
budget=${BUDGET_S:-540}
device=${DEVICE:-cuda}
peer_device=${PEER_DEVICE:-${device%%:*}}
batch=${BATCH:-128}
small=${SMALL:-}

raw=$(mktemp -d)
trap 'rm -rf "$raw"' EXIT
parts=$raw/parts.tsv
: >"$parts"
start=$SECONDS

# part NAME LIMIT_S COMMAND...: what it prints goes to NAME.json, what it says to NAME.log.
part() {
    local name=$1 limit=$2 left began status=0 why=ok
    shift 2
    # Ten seconds stay for the summary.
    left=$((budget - (SECONDS - start) - 10))
    if ((left < 5)); then
        printf '%s\tskipped: no time left\t0\t%s\n' "$name" "$*" >>"$parts"
        return
    fi
    began=$SECONDS
    printf '== %s (at %d s)\n' "$name" $((SECONDS - start)) >&2
    timeout -k 3 $((limit < left ? limit : left)) "$@" >"$raw/$name.json" 2>"$raw/$name.log" || status=$?
    case $status in
        0) ;;
        124 | 137) why="stopped after $((SECONDS - began)) s" ;;
        *) why="failed with $status: $(tail -n 1 "$raw/$name.log" | tr '\t' ' ' | cut -c1-200)" ;;
    esac
    if ((status)); then rm -f "$raw/$name.json"; fi
    printf '%s\t%s\t%d\t%s\n' "$name" "$why" $((SECONDS - began)) "$*" >>"$parts"
    printf '   %s\n' "$why" >&2
}

bench() { # bench NAME LIMIT_S WHAT FLAGS...
    local name=$1 limit=$2 what=$3
    shift 3
    part "$name" "$limit" "$emm" bench "$what" --json --device "$device" "$@"
}
peer() { # peer NAME LIMIT_S SCRIPT FLAGS...
    local name=$1 limit=$2 script=$3
    shift 3
    part "$name" "$limit" "$python" "$here/peers/$script.py" --device "$peer_device" "$@"
}

if [[ $small ]]; then
    net=(--resolution 4 --channels 16 --mult "1,1" --blocks 1 --batch 4)
    images=(--samples 4 --steps 2 --at-a-time 4)
    search=(--queries 20 --references 200 --pixels 48)
    conv=(--resolution 4 --channels 16 --batch 2)
    repeats=1
else
    net=(--batch "$batch")
    images=(--samples 256 --at-a-time 256)
    search=(--queries 10000 --references 50000)
    conv=(--batch "$batch")
    repeats=10
fi

precisions=(bf16 fp32 tf32) # the most wanted first
if [[ $device == cpu ]]; then precisions=(bf16 fp32); fi

part doctor 20 "$emm" doctor --json
part check 60 "$emm" check --json --device "$device"
for precision in "${precisions[@]}"; do
    bench "step-$precision" 50 step "${net[@]}" --repeats "$repeats" --precision "$precision"
    peer "step-$precision-pytorch" 45 step "${net[@]}" --repeats "$repeats" --precision "$precision" --layout channels_last
done
for precision in "${precisions[@]}"; do
    bench "kernels-$precision" 40 kernels "${net[@]}" --repeats "$repeats" --precision "$precision"
done
peer conv-bf16-pytorch 40 conv "${conv[@]}" --repeats "$repeats" --precision bf16
bench nearest 40 nearest "${search[@]}" --repeats "$repeats"
peer nearest-pytorch 40 nearest "${search[@]}" --repeats "$repeats" --with torch
bench sample 60 sample "${net[@]}" "${images[@]}" --repeats 3
peer step-bf16-pytorch-compiled 100 step "${net[@]}" --repeats "$repeats" --precision bf16 --layout channels_last --compile
peer conv-fp32-pytorch 40 conv "${conv[@]}" --repeats "$repeats" --precision fp32

out=${2:-}
if [[ -z $out ]]; then
    card=$("$python" - "$raw/doctor.json" "$device" <<'PY'
import json, re, sys
try:
    devices = json.load(open(sys.argv[1]))["devices"]
except (OSError, ValueError):
    devices = []
kind = sys.argv[2].split(":")[0]
name = next((d["name"] for d in devices if d["device"].startswith(kind)), kind)
print(re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-"))
PY
    )
    out=$here/runs/$(date +%F)-$card
fi
mkdir -p "$out"
cp "$raw"/* "$out"/
find "$out" -name '*.log' -empty -delete
"$python" "$here/gpu_summary.py" "$out" "$(sha256sum "$emm" | cut -d' ' -f1)" >"$raw/README.md"
mv "$raw/README.md" "$out/README.md"
cat "$out/README.md"
printf 'written to %s after %d s\n' "$out" $((SECONDS - start)) >&2

#!/usr/bin/env bash
# Everything that a machine with a CUDA GPU can tell, by one command: checks, benches, and PyTorch beside them, what is
# worth most first. It needs the built binary and Python 3, for the peers PyTorch; neither Rust nor this repository's
# history (bench/pack.sh lays out what it takes).
#
#   bench/gpu.sh [EMM [FOLDER]]
#
# EMM: the packed binary beside bench/, else target/release/emm. FOLDER: bench/runs/<date>-<gpu>; it gets README.md and
# results.tar.gz, made anew after each part, and must hold none. A line a part goes to stdout, and a last one with the
# verdict. If no case of `emm check` passes, each op is tried by itself and under compute-sanitizer, and that is all.
#
# In the environment:
#   BUDGET_S (240)  seconds; what does not fit is skipped, and said
#   PARTS (*)       only these parts, by name or pattern: PARTS='check peer-*' for a second call; doctor runs always
#   BATCH (512)     images of a training step
#   DEVICE (cuda)   or cpu; PEER_DEVICE for PyTorch alone; PYTHON (python3)
#   SMALL=1         tiny settings, which try the script itself on any machine
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=bench/gpu-parts.sh
. "$here/gpu-parts.sh"
arguments 0 2 "$@"
emm=$(find_emm "$here" "${1:-}")
if [[ ${2:-} && -e $2/results.tar.gz ]]; then
    echo "gpu.sh: FOLDER: $2 has a results.tar.gz already; name another, or move it away" >&2
    exit 2
fi
begin "$emm" "${2:-}"
peer_device=${PEER_DEVICE:-${device%%:*}}

if [[ ${SMALL:-} ]]; then
    net=(--resolution 4 --channels 16 --mult "1,1" --blocks 1 --batch 4)
    few=("${net[@]}" --repeats 1)
    real=(--network 2,16,8)
    images=(--samples 4 --steps 2 --at-a-time 4)
    search=(--queries 20 --references 200)
    optimum=(--images 2 --references 40 --steps 2)
    repeats=1
else # the paper's basic model
    net=(--batch "${BATCH:-512}")
    few=(--batch 4 --repeats 8) # ten steps, which a CPU can follow
    real=()
    images=(--samples 256 --at-a-time 256)
    search=(--queries 10000 --references 50000)
    optimum=(--images 256 --references 10000)
    repeats=10
fi

bench_on() { # bench_on DEVICE NAME LIMIT_S WHAT FLAGS...
    local on=$1 name=$2 limit=$3 what=$4
    shift 4
    part "$name" "$limit" "$emm" bench "$what" --json --device "$on" "$@"
}
bench() { bench_on "$device" "$@"; }

torch=
peer() { # peer NAME LIMIT_S SCRIPT FLAGS...
    local name=peer-$1 limit=$2 script=$3
    shift 3
    wanted "$name" || return 0
    if [[ ! $torch ]]; then
        PARTS="${PARTS:-*} peer-torch"
        part peer-torch 90 "$python" "$here/peers/step.py" --device "$peer_device" --about
        if gate peer-torch; then torch=yes; else torch=no; fi
    fi
    case $torch in
        yes) part "$name" "$limit" "$python" "$here/peers/$script.py" --device "$peer_device" "$@" ;;
        no) skip "$name" "no PyTorch" ;;
    esac
}

sanitizer=$(command -v compute-sanitizer || command -v /usr/local/cuda/bin/compute-sanitizer || true)
# sanitized NAME LIMIT_S FLAGS...: memcheck of emm check, its ops' own processes too. What a call of the driver returns
# is no error here: a kernel is looked for in one module after the other.
sanitized() {
    local name=$1 limit=$2
    shift 2
    if [[ $sanitizer ]]; then
        part "$name" "$limit" "$sanitizer" --target-processes all --report-api-errors no --print-limit 20 \
            --error-exitcode 9 "$emm" check --device "$device" --sizes golden --limit-s 60 "$@"
    elif wanted "$name"; then
        skip "$name" "no compute-sanitizer on PATH"
    fi
}

# Nothing works: what each op says by itself, where a launch is waited for, so that minutes stay for a mended second call.
diagnose() {
    local op ops
    PARTS="diagnose-*"
    mapfile -t ops < <(summary --failed-ops | head -n 3)
    for op in ${ops[@]+"${ops[@]}"}; do
        part "diagnose-$op" 15 env CUDA_LAUNCH_BLOCKING=1 "$emm" check --json --device "$device" --limit-s 4 --op "$op"
    done
    if ((${#ops[@]} == 0)); then
        part diagnose-all 20 env CUDA_LAUNCH_BLOCKING=1 "$emm" check --json --device "$device" --sizes golden --limit-s 4
    fi
    sanitized diagnose-sanitizer 20 ${ops[0]:+--op "${ops[0]}"}
    finish 1
}

# Reading PyTorch from a cold disk takes as long as a whole part: it is read while nothing is timed.
if [[ $device != cpu ]]; then
    "$python" -c 'import torch' >/dev/null 2>&1 &
    aside+=($!)
fi

# Without a persistence daemon the driver shuts a GPU down when its last user ends, and each of some fifty processes
# would wait seconds for it: this one keeps it open.
for gpu in /dev/nvidia[0-9]*; do
    if [[ -r $gpu ]]; then exec {keep_open}<"$gpu"; fi
done

part doctor 60 "$emm" doctor --json
gate doctor || diagnose
clocks before
part check 75 "$emm" check --json --device "$device" --sizes golden --limit-s 10
gate check || diagnose

others=(tf32 fp32)
if [[ $device == cpu ]]; then others=(fp32); fi

bench step-bf16 45 step "${net[@]}" --repeats "$repeats" --precision bf16
clocks loaded
bench kernels-bf16 45 kernels "${net[@]}" --repeats "$repeats" --precision bf16
bench_on cpu losses-cpu 40 step "${few[@]}" --precision fp32
for precision in bf16 "${others[@]}"; do
    bench "losses-$precision" 30 step "${few[@]}" --precision "$precision"
done
if [[ $device != cpu ]]; then
    part check-real 120 "$emm" check --json --device "$device" --sizes real --limit-s 20 ${real[@]+"${real[@]}"}
    sanitized memcheck 45
fi
bench nearest 30 nearest "${search[@]}" --repeats "$repeats" --pixels 3072
bench nearest-3000 30 nearest "${search[@]}" --repeats "$repeats" --pixels 3000
bench optimal 30 optimal "${optimum[@]}" --repeats 3
bench_on cpu optimal-cpu 40 optimal "${optimum[@]}" --repeats 1
bench sample 40 sample "${net[@]}" "${images[@]}" --repeats 3
for precision in "${others[@]}"; do
    bench "step-$precision" 45 step "${net[@]}" --repeats "$repeats" --precision "$precision"
done
for precision in "${others[@]}"; do
    bench "kernels-$precision" 45 kernels "${net[@]}" --repeats "$repeats" --precision "$precision"
done

step=("${net[@]}" --repeats "$repeats")
peer step-bf16 60 step "${step[@]}" --precision bf16 --layout channels_last
peer conv-bf16 60 conv "${step[@]}" --precision bf16 --layout channels_last
peer nearest 40 nearest "${search[@]}" --repeats "$repeats" --with torch
peer sample 60 sample "${net[@]}" "${images[@]}" --repeats 3 --precision bf16 --layout channels_last
for precision in "${others[@]}"; do # in PyTorch's better layout
    peer "step-$precision" 60 step "${step[@]}" --precision "$precision"
done
for precision in "${others[@]}"; do
    peer "conv-$precision" 60 conv "${net[@]}" --repeats 3 --precision "$precision"
done
peer step-bf16-compiled 300 step "${step[@]}" --precision bf16 --layout channels_last --compile
clocks after
finish 0

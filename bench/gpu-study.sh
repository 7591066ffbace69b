#!/usr/bin/env bash
# The paper's Table 3 at scale mini on real images, on a GPU, for as long as it is lent: small sets first, then larger
# ones as the images allow, several runs side by side. The same command goes on where the last one stopped.
#
#   bench/gpu-study.sh IMAGES.zip [FOLDER]
#
# IMAGES.zip: a set as `emm data import` writes it. FOLDER: bench/runs/<date>-<gpu>; it gets README.md with the table so
# far and results.tar.gz with figure, settings and scores, made anew whenever a look is scored. A line a part goes to
# stdout, and a last one with the verdict. Elsewhere the study goes on from the folder `runs` of that archive, as RUNS.
#
# In the environment:
#   BUDGET_S (240)  seconds; then the runs under way are saved
#   RUNS (runs)     folder of runs
#   SIZES ("1000,2000 3000,4000 5000")  the paper's sizes, those of a group at once
#   JOBS (6)        runs side by side on the GPU: each has a stream of its own in one process
#   STUDY (table3), SCALE (mini), SEED (1024)
#   DEVICE (cuda)   or cpu, where the machine's threads say how many runs go side by side; EMM; PYTHON (python3)
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=bench/gpu-parts.sh
. "$here/gpu-parts.sh"
arguments 1 2 "$@"
emm=$(find_emm "$here" "${EMM:-}")
if [[ ! -f $1 ]]; then
    echo "gpu-study.sh: IMAGES.zip: there is no file $1" >&2
    exit 2
fi
begin "$emm" "${2:-}"
name=${STUDY:-table3}
runs=${RUNS:-runs}
read -ra groups <<<"${SIZES:-1000,2000 3000,4000 5000}"
precision=bf16
jobs=(--jobs-per-device "${JOBS:-6}")
if [[ $device == cpu ]]; then
    precision=fp32 jobs=()
fi
study=(--scale "${SCALE:-mini}" --data "$1" --runs "$runs" --precision "$precision" --seed "${SEED:-1024}")

# Table, figure and status of the finished runs, by the CPU; settings and scores of all.
look() {
    local run file views=("${study[@]}" --device cpu --threads 2 --quiet)
    timeout 15 "$emm" table "$name" "${views[@]}" --out "$raw/table.md" --force || true
    timeout 15 "$emm" figure "$name" "${views[@]}" --out "$raw/figure.png" --out "$raw/figure.csv" --force || true
    timeout 15 "$emm" sweep status "$name" "${views[@]}" --json >"$raw/status.json" || true
    for run in "$runs"/*/; do
        if [[ ! -d $run ]]; then continue; fi
        mkdir -p "$raw/runs/$(basename "$run")"
        for file in config.toml scores.csv rescored.csv stats.jsonl; do
            if [[ -f $run$file ]]; then cp "$run$file" "$raw/runs/$(basename "$run")" || true; fi
        done
    done
} >"$raw/look.log" 2>&1

# Whenever a run has scored again.
seen=$(cksum </dev/null)
meanwhile() {
    local now
    now=$({ cat "$runs"/*/scores.csv "$runs"/*/rescored.csv 2>/dev/null || true; } | cksum)
    if [[ $now != "$seen" ]]; then
        seen=$now
        look
        publish
    fi
}

part doctor 60 "$emm" doctor --json
if ! gate doctor; then finish 1; fi
clocks before
for group in "${groups[@]}"; do
    only=()
    for size in ${group//,/ }; do only+=(--only "size=$size"); done
    part "sizes-${group//,/-}" "$budget" "$emm" sweep run "$name" "${study[@]}" "${only[@]}" "${jobs[@]}" --device "$device" --quiet
done
look
publish
clocks after
finish 0

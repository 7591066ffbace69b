#!/bin/bash
# The paper's study at scale tiny on the bundled digits, over three training seeds:
# bench/tiny.sh EMM OUT [HOURS [STUDY]...]
#
#   EMM    the program, built with --release
#   OUT    folder for the results, such as bench/runs/2026-11-28-tiny
#   HOURS  after so many by the clock (2 by default) what has not finished is left out and named
#   STUDY  more studies, after the others
#
# Each group of studies is one `emm sweep run`, which works on as many runs at once as the CPU has threads; the groups
# that decide most of the paper's signs come first. Stopped by anything, the same command goes on. Snapshots and states
# lie in WORK (target/tiny by default), as does cpu_s, what the runs took of the CPUs: beside other work the clock says
# little. OUT gets each run's settings and scores, tables, figures, and a README whose table sets the paper's signs beside
# these (bench/tiny_signs.py).
#
# Two cores take less than two hours. What would take two more is not run unless named: embedding, edm-50k, size, depth,
# skip-number. Nor are width-depth, as dear as all of these, and blend, which needs a second set.
set -u
here=$(cd "$(dirname "$0")" && pwd)
refuse() {
    echo "tiny.sh: $1" >&2
    exit 2
}
[ $# -ge 2 ] || refuse "EMM, OUT: not given, the program and a folder for the results"
emm=$(realpath "$1") out=$2 hours=${3:-2}
[ -f "$emm" ] && [ -x "$emm" ] || refuse "EMM: $1: no program; cargo build --release makes target/release/emm"
[[ $hours =~ ^[0-9]+(\.[0-9]+)?$ ]] || refuse "HOURS: '$hours' is no number of hours, such as 2 or 0.5"
work=${WORK:-$here/../target/tiny}
# A name that is none is told now, not after hours.
for study in "${@:4}"; do
    "$emm" sweep plan "$study" --print > /dev/null || exit
done
mkdir -p "$work" "$out/runs" || exit
end=$(awk -v now="$(date +%s)" -v h="$hours" 'BEGIN { printf "%d", now + h * 3600 }')
cpu_s=$work/cpu_s
[ -e "$cpu_s" ] || echo 0 > "$cpu_s"

groups=(
    "labels table3 random-labels unique-labels"
    "weight-decay skip-resolution skip-location skip-deletion"
    "width"
    "classes resolution edm-size batch ema-rate bootstrap"
)
shift $(($# < 3 ? $# : 3))
groups+=("$@")
flags=(--scale tiny --repeats 3)

TIMEFORMAT="%U %S"
for group in "${groups[@]}"; do
    left=$((end - $(date +%s)))
    [ "$left" -gt 0 ] || break
    # shellcheck disable=SC2086 # A group is several words.
    { time timeout --foreground -s INT "$left" "$emm" sweep run $group "${flags[@]}" --runs "$work/runs" 2>&3; } \
        3>&2 2> "$work/time"
    code=$?
    awk '{ s += $1 + $2 } END { print s }' "$cpu_s" "$work/time" > "$cpu_s.new" && mv "$cpu_s.new" "$cpu_s"
    # Out of time is 124; a run that diverged (5) keeps no other from its end.
    case $code in
        0 | 5) ;;
        124) break ;;
        *) exit "$code" ;;
    esac
done

for run in "$work"/runs/*/; do
    name=$(basename "$run")
    # A heading and four looks: the finished ones.
    [ "$(wc -l 2> /dev/null < "$run/scores.csv")" = 5 ] || continue
    mkdir -p "$out/runs/$name"
    # Where the run lay is nobody else's.
    sed "s|^directory = .*|directory = \"runs/$name\"|" "$run/config.toml" > "$out/runs/$name/config.toml"
    for file in scores.csv rescored.csv; do
        [ -e "$run/$file" ] && cp "$run/$file" "$out/runs/$name/"
    done
done

cd "$out" || exit 1
studies=()
for group in "${groups[@]}"; do
    for study in $group; do studies+=("$study"); done
done
for study in "${studies[@]}"; do
    "$emm" table "$study" "${flags[@]}" --force --out "$study.md" > /dev/null
    "$emm" table "$study" "${flags[@]}" --json > "$study.json"
done
for figure in 1c 2a 2b 3a 3b 4a 4b 4c 4d 5a 5b 5c 6 8b 9; do
    "$emm" figure "$figure" "${flags[@]}" --force --out "figure-$figure.svg" > /dev/null
done
for figure in 3a 4a 5b 9; do
    "$emm" figure "$figure" "${flags[@]}" --force --out "figure-$figure.png" > /dev/null
done
python3 "$here/tiny_signs.py" . --cpu-s "$(cat "$cpu_s")" > README.md

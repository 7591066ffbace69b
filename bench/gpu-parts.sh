# shellcheck shell=bash
# What bench/gpu.sh and bench/gpu-study.sh share: a call is a list of parts, each with a time limit of its own, and
# after each of them FOLDER/results.tar.gz and FOLDER/README.md are made anew and a line is printed. So a call that is
# cut off at any moment has lost the part that ran, and nothing else. Sourced, not run.

python=${PYTHON:-python3}
budget=${BUDGET_S:-240}
device=${DEVICE:-cuda}
start=$SECONDS
reserve=10 # seconds that stay for the end
child=
aside=()

# arguments FEWEST MOST ARGUMENTS...: -h prints what the script's head says; so does another number of them, as an error.
arguments() {
    local fewest=$1 most=$2
    shift 2
    case ${1:-} in
        -h | --help) sed -n '2,/^set/s/^# \{0,1\}//p' "$0" && exit ;;
    esac
    if (($# < fewest || $# > most)); then
        sed -n '2,/^set/s/^# \{0,1\}//p' "$0" >&2
        exit 2
    fi
}

# From the arguments of the script: the binary, by default the packed one beside bench/, else the one that cargo built.
find_emm() {
    local here=$1 given=$2 candidate
    for candidate in ${given:+"$given"} "$here/../emm" "$here/../target/release/emm"; do
        if [[ -f $candidate && -x $candidate ]]; then
            realpath "$candidate"
            return
        fi
        if [[ $given ]]; then break; fi
    done
    echo "${0##*/}: EMM: ${given:-$here/../emm} is no program; build it with cargo build --release" >&2
    return 2
}

# begin EMM FOLDER: where results go; without FOLDER into a new one of bench/runs, named once the GPU is known.
begin() {
    local tool
    emm=$1 out=$2
    if [[ ! $budget =~ ^[1-9][0-9]*$ ]]; then
        echo "${0##*/}: BUDGET_S: '$budget' is no number of seconds, such as 240" >&2
        exit 2
    fi
    for tool in "$python" tar timeout sha256sum; do
        if ! command -v "$tool" >/dev/null; then
            echo "${0##*/}: $tool is not here and is needed (PYTHON names a Python 3)" >&2
            exit 2
        fi
    done
    if [[ $out ]] && ! mkdir -p "$out" 2>/dev/null; then
        echo "${0##*/}: FOLDER: $out cannot be made: a file, or nothing that may be written to, is in its place" >&2
        exit 2
    fi
    raw=$(mktemp -d)
    trap 'end_children; rm -rf "$raw"' EXIT
    trap 'stopped INT' INT
    trap 'stopped TERM' TERM
    trap 'stopped HUP' HUP
    : >"$raw/parts.tsv"
    printf '{"script": "%s", "date": "%s", "device": "%s", "budget_s": %d, "binary": "%s"}\n' "${0##*/}" "$(date +%F)" \
        "$device" "$budget" "$(sha256sum "$emm" | cut -d' ' -f1)" >"$raw/about.json"
}

place() {
    local base n=2
    base=$here/runs/$(date +%F)-$(summary --gpu)
    out=$base
    while [[ -e $out ]]; do
        out=$base-$n
        n=$((n + 1))
    done
    mkdir -p "$out"
}

summary() { "$python" "$here/gpu_summary.py" "$raw" "$@"; }

# publish [NAME]: the archive and the page, made beside and renamed; then the line of part NAME on stdout, so that what
# has a line has been kept.
publish() {
    local line
    if [[ ! $out ]]; then place; fi
    if ! line=$(summary --part "${1:-}"); then
        line="${1:-} the summary failed; the archive has the part's output"
        cp "$raw/parts.tsv" "$raw/README.md"
    fi
    # 1 is a file that grew while it was read: what is still written is not worth the call.
    tar -C "$raw" -czf "$out/results.tar.gz.new" . 2>/dev/null || (($? == 1))
    cp "$raw/README.md" "$out/README.md.new"
    sync "$out/results.tar.gz.new" "$out/README.md.new" 2>/dev/null || true
    mv -f "$out/results.tar.gz.new" "$out/results.tar.gz"
    mv -f "$out/README.md.new" "$out/README.md"
    if [[ $line ]]; then printf '%s\n' "$line"; fi
}

row() { # row NAME HOW SECONDS COMMAND
    printf '%s\t%s\t%d\t%s\n' "$1" "${2//$'\t'/ }" "$3" "$4" >>"$raw/parts.tsv"
    publish "$1"
}
skip() { row "$1" "skipped: $2" 0 ""; } # skip NAME WHY

# Whether PARTS, a list of names or patterns of names (check peer-*), has this one. What tells which GPU it was is
# always wanted.
wanted() {
    local pattern patterns
    if [[ $1 == doctor || $1 == clocks-* ]]; then return 0; fi
    read -ra patterns <<<"${PARTS:-*}"
    for pattern in "${patterns[@]//,/}"; do
        # shellcheck disable=SC2053 # a pattern
        if [[ $1 == $pattern ]]; then return 0; fi
    done
    return 1
}

# The first and the last half of a megabyte of what is longer.
capped() {
    local half=$((1 << 19))
    if (($(stat -c %s "$1") > 2 * half)); then
        {
            head -c $half "$1"
            printf '\n...\n'
            tail -c $half "$1"
        } >"$1.short"
        mv "$1.short" "$1"
    fi
}

# part NAME LIMIT_S COMMAND...: its stdout is kept as NAME.json (or .txt), its stderr as NAME.log, whether it succeeds or
# not. A function `meanwhile`, if there is one, is called every second while it runs.
part() {
    local name=$1 limit=$2 began=$SECONDS left how
    shift 2
    wanted "$name" || return 0
    left=$((budget - (SECONDS - start) - reserve))
    if ((left < 5)); then
        skip "$name" "no time left"
        return
    fi
    if ((limit > left)); then limit=$left; fi
    running=$name command="$*"
    printf '== %s (at %d s)\n' "$name" $((SECONDS - start)) >&2
    timeout -k 5 "$limit" "$@" >"$raw/$name.out" 2>"$raw/$name.log" </dev/null &
    child=$!
    if declare -F meanwhile >/dev/null; then
        while kill -0 "$child" 2>/dev/null; do
            meanwhile
            sleep 1
        done
    fi
    how=0
    wait "$child" || how=$?
    child=
    case $how in
        0) how=ok ;;
        124 | 137) how="stopped after $((SECONDS - began)) s" ;;
        *) how="failed with $how: $(last_words "$name")" ;;
    esac
    keep "$name"
    running=
    row "$name" "$how" $((SECONDS - began)) "$*"
}

last_words() {
    local file
    for file in "$raw/$1.log" "$raw/$1.out"; do
        if grep -q '[^[:space:]]' "$file" 2>/dev/null; then
            grep '[^[:space:]]' "$file" | tail -n 1 | cut -c1-400
            return
        fi
    done
    echo "it said nothing"
}

keep() {
    local file form=txt
    if [[ $(head -c 1 "$raw/$1.out") == "{" ]]; then form=json; fi
    mv "$raw/$1.out" "$raw/$1.$form"
    for file in "$raw/$1.$form" "$raw/$1.log"; do
        if [[ -s $file ]]; then capped "$file"; else rm -f "$file"; fi
    done
}

end_children() {
    # timeout passes the signal on to all that it started.
    if [[ $child ]]; then kill "$child" 2>/dev/null || true; fi
    if ((${#aside[@]})); then kill "${aside[@]}" 2>/dev/null || true; fi
}

stopped() {
    trap '' INT TERM HUP
    end_children
    if [[ ${running:-} ]]; then
        wait "$child" 2>/dev/null || true
        keep "$running"
        row "$running" "stopped by SIG$1" 0 "$command"
    fi
    exit 1
}

# Clocks, power and temperature now, as clocks-WHEN.txt.
clocks() {
    local reserve=0
    [[ $device != cpu ]] || return 0
    if ! command -v nvidia-smi >/dev/null; then
        skip "clocks-$1" "no nvidia-smi on PATH"
        return
    fi
    local fields=name,driver_version,pstate,clocks.sm,clocks.max.sm,clocks.mem,power.draw,power.limit,temperature.gpu
    part "clocks-$1" 15 nvidia-smi "--query-gpu=$fields" --format=csv,noheader
}

# Whether part NAME leaves anything to measure; says why not. A part that was not asked for does.
gate() { ! wanted "$1" || summary --gate "$1"; }

# What PARTS names and this call does not have.
unmatched() {
    local pattern patterns name found
    read -ra patterns <<<"${PARTS:-*}"
    for pattern in "${patterns[@]//,/}"; do
        found=
        while IFS=$'\t' read -r name _; do
            # shellcheck disable=SC2053 # a pattern
            if [[ $name == $pattern ]]; then found=yes; fi
        done <"$raw/parts.tsv"
        if [[ ! $found ]]; then printf ' %s' "$pattern"; fi
    done
}

# The last line: the verdict.
finish() { # finish STATUS
    local status=$1 lacking
    lacking=$(unmatched)
    if [[ $lacking ]]; then
        echo "${0##*/}: PARTS: this call has no part$lacking" >&2
        status=2
    fi
    printf '%s; %d s; %s\n' "$(summary --verdict)" $((SECONDS - start)) "$out/results.tar.gz"
    exit "$status"
}

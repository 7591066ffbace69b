#!/usr/bin/env bash
# Prints the folder of a Python environment that holds the wheels of a list, and makes it where it is not there:
#
#   bench/wheels.sh kernels/nvcc.txt      target/nvcc-venv
set -euo pipefail
list=$1
cd "$(dirname "$0")/.."
name=$(basename "$list" .txt)
venv=target/$name-venv
if ! cmp -s "$list" "$venv/$name.txt"; then
    echo "== wheels of $list into $venv" >&2
    rm -rf "$venv"
    mkdir -p target
    python3 -m venv "$venv" >&2
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check -r "$list" >&2
    cp "$list" "$venv/$name.txt" # last: what an interrupted run left is made again
fi
printf '%s\n' "$PWD/$venv"

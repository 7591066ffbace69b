#!/usr/bin/env bash
# Prints the path of the nvcc of kernels/nvcc.txt, whose wheels it puts into target/nvcc-venv if they are not there.
set -euo pipefail
cd "$(dirname "$0")/.."
venv=target/nvcc-venv
if ! cmp -s kernels/nvcc.txt "$venv/nvcc.txt"; then
    echo "== nvcc of kernels/nvcc.txt into $venv" >&2
    rm -rf "$venv"
    mkdir -p target
    python3 -m venv "$venv" >&2
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check -r kernels/nvcc.txt >&2
    cp kernels/nvcc.txt "$venv/nvcc.txt" # last: what an interrupted run left is made again
fi
printf '%s\n' "$PWD/$venv"/lib/python3*/site-packages/nvidia/cu13/bin/nvcc

#!/usr/bin/env bash
# Prints the path of the nvcc of kernels/nvcc.txt, whose wheels it puts into target/nvcc-venv if they are not there.
set -euo pipefail
cd "$(dirname "$0")/.."
venv=$(bench/wheels.sh kernels/nvcc.txt)
printf '%s\n' "$venv"/lib/python3*/site-packages/nvidia/cu13/bin/nvcc

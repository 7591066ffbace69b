#!/usr/bin/env python3
"""What each CUDA kernel takes of a multiprocessor, by ptxas: prints a table in Markdown.

    python bench/kernel_resources.py [--nvcc PATH] [--archs sm_80,sm_90a] [FILE.cu ...] > bench/kernel-resources.md

Compiles kernels/*.cu (or the files named) for each architecture and fails if a kernel spills registers, if ptxas warns
of serialized tensor-core instructions (C75xx), or if static shared memory passes what a block may have (99 KB).
Shared memory given at launch is not in the table.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SHARED_LIMIT = 99 * 1024
ENTRY = re.compile(r"Compiling entry function '(\w+)' for '(\w+)'")
STACK = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")
USED = re.compile(r"Used (\d+) registers")
SHARED = re.compile(r"(\d+) bytes smem")
SERIALIZED = re.compile(r"\bC75\d\d\b")


def compile_one(nvcc, source, arch, folder):
    """What ptxas says of one file."""
    command = [nvcc, "-cubin", f"-arch={arch}", "-std=c++17", "-O3", f"-I{ROOT / 'kernels'}", "-Xptxas", "-v",
               str(source), "-o", str(Path(folder) / f"{source.stem}-{arch}.cubin")]
    done = subprocess.run(command, capture_output=True, text=True)
    text = done.stdout + done.stderr
    if done.returncode:
        sys.exit(f"{source}: nvcc for {arch} failed:\n{text}")
    return text


def read(text, file, arch):
    """Kernels with their (registers, shared bytes, stack bytes), and complaints."""
    kernels, complaints, entry = {}, [], None
    for line in text.splitlines():
        if found := ENTRY.search(line):
            entry = found[1]
        elif found := STACK.search(line):
            stack, stores, loads = map(int, found.groups())
            if stores or loads:
                complaints.append(f"{file}: {entry} for {arch} spills: {line.strip()}")
        elif found := USED.search(line):
            shared = int(s[1]) if (s := SHARED.search(line)) else 0
            if shared > SHARED_LIMIT:
                complaints.append(f"{file}: {entry} for {arch}: {shared} bytes of static shared memory")
            kernels[entry] = (int(found[1]), shared, stack)
        if SERIALIZED.search(line):
            complaints.append(f"{file}: {arch}: {line.strip()}")
    return kernels, complaints


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nvcc", default="nvcc")
    parser.add_argument("--archs", default="sm_80,sm_90a")
    parser.add_argument("files", nargs="*", type=Path, metavar="FILE.cu")
    args = parser.parse_args()
    archs = args.archs.split(",")
    sources = args.files or sorted((ROOT / "kernels").glob("*.cu"))
    jobs = [(source, arch) for source in sources for arch in archs]
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(os.cpu_count()) as pool:
        texts = list(pool.map(lambda job: compile_one(args.nvcc, *job, folder), jobs))

    rows, complaints = {}, []
    for (source, arch), text in zip(jobs, texts):
        kernels, wrong = read(text, source.name, arch)
        complaints += wrong
        if not kernels:
            complaints.append(f"{source.name}: ptxas named no kernel for {arch}")
        for name, numbers in kernels.items():
            rows.setdefault((source.stem, name), {})[arch] = numbers

    print("Registers a thread, static shared bytes and stack bytes of each kernel, by ptxas; "
          "made by `bench/kernel_resources.py`.\n")
    print("| file | kernel |" + "".join(f" {a} registers | shared | stack |" for a in archs))
    print("|---|---|" + "---:|---:|---:|" * len(archs))
    for (file, name), by_arch in sorted(rows.items()):
        cells = "".join(" {} | {} | {} |".format(*by_arch.get(arch, ("-",) * 3)) for arch in archs)
        print(f"| {file} | {name} |{cells}")
    for complaint in complaints:
        print(complaint, file=sys.stderr)
    return bool(complaints)


if __name__ == "__main__":
    sys.exit(main())

#!/usr/bin/env python3
"""What each CUDA kernel takes of a multiprocessor, by ptxas: prints a table in Markdown.

    python bench/kernel_resources.py [--nvcc PATH] [--archs sm_80,sm_90a] [FILE.cu ...] > bench/kernel-resources.md

Compiles kernels/*.cu (or the files named) for each architecture and fails if a kernel spills registers, if ptxas warns
of serialized tensor-core instructions (C75xx), if shared memory, static and as the file's header says at most dynamic,
passes what a block may have on a card that the header names for it, or on any card where it names none, or if a kernel
on tensor cores lacks their instructions in its SASS, or the asynchronous copies that feed it.
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
# Shared memory that a block may ask for, in KB (CUDA's programming guide, technical specifications).
SHARED_LIMITS = {"sm_80": 163, "sm_86": 99, "sm_89": 99, "sm_90": 227, "sm_100": 227, "sm_120": 99}
# A header's "Launch" says so how much dynamic shared memory its kernels have, on all cards or on those named.
DYNAMIC = re.compile(r"([\d,]+) B\)? dynamic shared(?: on (sm_\d+(?:, sm_\d+)*))?")
# What a kernel's SASS must hold, by the first pattern that its name matches; a name with mma in it must match one.
INSTRUCTIONS = [
    (re.compile(r"(ceiling|primitive)_mma_u8"), ["IMMA.16832.U8.U8"]),
    (re.compile(r"(ceiling|primitive)_mma_(bf16|tf32)"), ["HMMA"]),
    (re.compile(r"primitive_ldmatrix.*"), ["LDSM"]),
    (re.compile(r"primitive_cp_async"), ["LDGSTS"]),
    (re.compile(r"nearest_mma"), ["IMMA.16832.U8.U8", "LDGSTS", "LDSM"]),
    (re.compile(r".*mma.*(bf16|last)|matmul_mma_.*"), ["HMMA.16816.F32.BF16", "LDGSTS", "LDSM"]),
    (re.compile(r".*mma.*tf32"), ["HMMA.1688.F32.TF32", "LDGSTS"]),
    (re.compile(r"norm_slab_.*"), ["LDGSTS"]),
]
ENTRY = re.compile(r"Compiling entry function '(\w+)' for '(\w+)'")
STACK = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")
USED = re.compile(r"Used (\d+) registers")
SHARED = re.compile(r"(\d+) bytes smem")
SERIALIZED = re.compile(r"\bC75\d\d\b")


def dynamic_shared(source):
    """Bytes of dynamic shared memory that a file's kernels take at most, by card, as far as its header says."""
    text = source.read_text()
    if "EMM_DYNAMIC_SHARED" not in text:
        return dict.fromkeys(SHARED_LIMITS, 0)
    header = re.sub(r"\n//\s*", " ", text.split("#include")[0])
    most = {}
    for number, cards in DYNAMIC.findall(header):
        for card in cards.split(", ") if cards else SHARED_LIMITS:
            most[card] = max(most.get(card, 0), int(number.replace(",", "")))
    return most


def wanted_instructions(kernel):
    for pattern, wanted in INSTRUCTIONS:
        if pattern.fullmatch(kernel):
            return wanted
    return None if "mma" in kernel else []


def missing_instructions(nvdisasm, cubin, kernels):
    """Complaints of kernels of a cubin that lack what they are written for."""
    if not any(wanted_instructions(kernel) for kernel in kernels):
        return [f"{kernel}: INSTRUCTIONS says nothing of it" for kernel in kernels if wanted_instructions(kernel) is None]
    done = subprocess.run([nvdisasm, "-c", str(cubin)], capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{cubin.name}: nvdisasm failed:\n{done.stderr}")
    code = dict(re.findall(r"^\.text\.(\w+):\n(.*?)(?=^//-----|\Z)", done.stdout, re.M | re.S))
    complaints = []
    for kernel in kernels:
        wanted = wanted_instructions(kernel)
        if wanted is None:
            complaints.append(f"{kernel}: INSTRUCTIONS says nothing of it")
            continue
        if wanted and kernel not in code:
            complaints.append(f"{kernel}: not in the disassembly")
            continue
        complaints += [f"{kernel}: no {w} in its SASS" for w in wanted if not re.search(rf"\b{re.escape(w)}", code[kernel])]
    return complaints


def cubin_of(source, arch, folder):
    return Path(folder) / f"{source.stem}-{arch}.cubin"


def compile_one(nvcc, nvdisasm, source, arch, folder):
    """What ptxas says of one file, and what its kernels lack."""
    command = [nvcc, "-cubin", f"-arch={arch}", "-std=c++17", "-O3", f"-I{ROOT / 'kernels'}", "-Xptxas", "-v",
               str(source), "-o", str(cubin_of(source, arch, folder))]
    done = subprocess.run(command, capture_output=True, text=True)
    text = done.stdout + done.stderr
    if done.returncode:
        sys.exit(f"{source}: nvcc for {arch} failed:\n{text}")
    kernels = [found[1] for found in ENTRY.finditer(text)]
    lacking = missing_instructions(nvdisasm, cubin_of(source, arch, folder), kernels)
    return text, [f"{source.name}: {arch}: {what}" for what in lacking]


def read(text, file, arch, dynamic):
    """Kernels with their (registers, static shared bytes, stack bytes), and complaints."""
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
            for card, limit in SHARED_LIMITS.items():
                if shared + dynamic.get(card, 0) > limit * 1024:
                    told = f"{shared} + {dynamic[card]} bytes of shared memory, {limit} KB are the most"
                    complaints.append(f"{file}: {entry} on {card}: {told}")
            kernels[entry] = (int(found[1]), shared, stack)
        if SERIALIZED.search(line):
            complaints.append(f"{file}: {arch}: {line.strip()}")
    return kernels, complaints


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nvcc", default="nvcc")
    parser.add_argument("--nvdisasm", help="default: beside nvcc")
    parser.add_argument("--archs", default="sm_80,sm_90a")
    parser.add_argument("files", nargs="*", type=Path, metavar="FILE.cu")
    args = parser.parse_args()
    archs = args.archs.split(",")
    sources = args.files or sorted((ROOT / "kernels").glob("*.cu"))
    jobs = [(source, arch) for source in sources for arch in archs]
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(os.cpu_count()) as pool:
        nvdisasm = args.nvdisasm or str(Path(args.nvcc).parent / "nvdisasm")
        said = list(pool.map(lambda job: compile_one(args.nvcc, nvdisasm, *job, folder), jobs))

    rows, complaints = {}, []
    dynamics = {source: dynamic_shared(source) for source in sources}
    for source, most in dynamics.items():
        if most.keys() != SHARED_LIMITS.keys():
            cards = ", ".join(sorted(SHARED_LIMITS.keys() ^ most.keys()))
            complaints.append(f"{source.name}: how many bytes of dynamic shared memory does its header mean on {cards}?")
    for (source, arch), (text, lacking) in zip(jobs, said):
        kernels, wrong = read(text, source.name, arch, dynamics[source])
        complaints += wrong + lacking
        if not kernels:
            complaints.append(f"{source.name}: ptxas named no kernel for {arch}")
        for name, numbers in kernels.items():
            dynamic = " ".join(map(str, sorted(set(dynamics[source].values()))))
            rows.setdefault((source.stem, name, dynamic), {})[arch] = numbers

    print("Registers a thread, static shared bytes and stack bytes of each kernel, by ptxas, and the dynamic shared bytes "
          "that its file's\nheader allows, the least card's first; made by `bench/kernel_resources.py`.\n")
    print("| file | kernel | dynamic |" + "".join(f" {a} registers | shared | stack |" for a in archs))
    print("|---|---|---:|" + "---:|---:|---:|" * len(archs))
    for (file, name, dynamic), by_arch in sorted(rows.items()):
        cells = "".join(" {} | {} | {} |".format(*by_arch.get(arch, ("-",) * 3)) for arch in archs)
        print(f"| {file} | {name} | {dynamic} |{cells}")
    for complaint in complaints:
        print(complaint, file=sys.stderr)
    return bool(complaints)


if __name__ == "__main__":
    sys.exit(main())

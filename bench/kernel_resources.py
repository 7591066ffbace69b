#!/usr/bin/env python3
"""What each CUDA kernel takes of a multiprocessor, by ptxas, and instructions of loops that count, by nvdisasm: prints
tables in Markdown, and writes their numbers as CSV.

    python bench/kernel_resources.py [--nvcc PATH] [--archs sm_80,sm_90a] [--csv bench/kernel-resources.csv] \
        [--loops bench/kernel-loops.csv] [FILE.cu ...] > bench/kernel-resources.md

Compiles kernels/*.cu (or the files named) for each architecture and fails if a kernel spills registers, if ptxas warns
of serialized tensor-core instructions (C75xx), if shared memory, static and as the file's header says at most dynamic,
passes what a block may have on a GPU that the header names for it, or on any GPU where it names none, or if a kernel
on tensor cores lacks their instructions in its SASS, or the asynchronous copies that feed it, or if the norms' passes
take more instructions an element than device memory leaves time for.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import kernel_loops

ROOT = Path(__file__).resolve().parent.parent
PARAMS = ROOT / "kernels" / "params"
# Shared memory that a block may ask for, in KB (CUDA's programming guide, technical specifications).
KB = {name: int(kb) for name, kb in re.findall(r" (\w+)_SHARED_BYTES = (\d+) << 10;", (PARAMS / "constants.h").read_text())}
SHARED_LIMITS = {"sm_80": KB["A100"], "sm_86": KB["LEAST"], "sm_89": KB["LEAST"], "sm_90": KB["H100"],
                 "sm_100": KB["H100"], "sm_120": KB["LEAST"]}
# A header's "Launch" says so how much dynamic shared memory its kernels have, on all GPUs or on those named.
DYNAMIC = re.compile(r"([\d,]+) B\)? dynamic shared(?: on (sm_\d+(?:, sm_\d+)*))?")
# Each kernel's unit, as kernels/params declares it, and what SASS of the unit holds.
UNIT = {kernel: unit for header in PARAMS.glob("*.h")
        for unit, kernel in re.findall(r"^ENTRY(?:_OF_MAPS)?\((\w+), (\w+),", header.read_text(), re.M)}
PRODUCTS = {"Fp32": [], "TensorTf32": ["HMMA.1688.F32.TF32"], "TensorBf16": ["HMMA.16816.F32.BF16"],
            "TensorU8": ["IMMA.16832.U8.U8"]}
# What else it must hold, by the first pattern that a kernel's name matches.
INSTRUCTIONS = [
    (re.compile(r"ceiling_.*|primitive_mma_.*"), []),
    (re.compile(r"primitive_ldmatrix.*"), ["LDSM"]),
    (re.compile(r"primitive_cp_async|norm_slab_.*|.*_mma_tf32"), ["LDGSTS"]),
    (re.compile(r".*_mma(_.*)?"), ["LDGSTS", "LDSM"]),
]
# The same of kernels that are empty but for sm_90a, which has them in place of all above.
HOPPER = [
    (re.compile(r"primitive_wgmma_.*"), ["HGMMA"]),
    (re.compile(r"primitive_tma_load"), ["UTMALDG", "SYNCS"]),
    (re.compile(r"primitive_tma_store"), ["UTMASTG"]),
    (re.compile(r"primitive_mbarrier"), ["SYNCS"]),
    (re.compile(r"primitive_registers"), ["USETMAXREG"]),
    (re.compile(r"ceiling_wgmma_.*"), ["HGMMA"]),
    (re.compile(r"conv2d_wgmma_.*"), ["HGMMA", "UTMALDG", "UTMASTG", "SYNCS", "USETMAXREG"]),
    (re.compile(r"wgrad_wgmma"), ["HGMMA", "UTMALDG", "SYNCS", "USETMAXREG"]),
]
# Whose loops are listed; of those whose passes all go over the same elements, 8 a piece, the instructions an element,
# and how many those may be: what an H100's memory leaves time for.
LOOPS_OF, PASSES_OF = re.compile(r"norm_slab_.*_bf16|(?!primitive).*_w?g?mma.*"), re.compile(r"norm_slab_..._(plain|silu|silu_drop)_bf16")
MOST_PER_ELEMENT = 38
# Instructions of a main loop for each of its products: more, and the schedulers hold the tensor cores back.
MOST_PER_PRODUCT = [(re.compile(r"conv2d_mma_wide_.*"), 3.3), (re.compile(r"wgrad_mma_wide_.*"), 4.0),
                    (re.compile(r"attention_mma_.*"), 4.0), (re.compile(r".*_wgmma.*"), 25.0)]
# Threads of a block where they are not 256, and what a multiprocessor has.
THREADS = [(re.compile(r".*_wgmma.*"), 384)]
REGISTERS, SHARED_KB = 65536, {"sm_80": 164, "sm_90a": 228}
ENTRY = re.compile(r"Compiling entry function '(\w+)' for '(\w+)'")
STACK = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")
USED = re.compile(r"Used (\d+) registers")
SHARED = re.compile(r"(\d+) bytes smem")
SERIALIZED = re.compile(r"\bC75\d\d\b")


def dynamic_shared(source):
    """Bytes of dynamic shared memory that a file's kernels take at most, by GPU, as far as its header says."""
    text = source.read_text()
    if "EMM_DYNAMIC_SHARED" not in text:
        return dict.fromkeys(SHARED_LIMITS, 0)
    header = re.sub(r"\n//\s*", " ", text.split("#include")[0])
    most = {}
    for number, gpus in DYNAMIC.findall(header):
        for gpu in gpus.split(", ") if gpus else SHARED_LIMITS:
            most[gpu] = max(most.get(gpu, 0), int(number.replace(",", "")))
    return most


def wanted_instructions(kernel, arch):
    hopper = next((wanted for pattern, wanted in HOPPER if pattern.fullmatch(kernel)), None)
    if hopper is not None:
        return hopper if arch == "sm_90a" else []
    others = next((wanted for pattern, wanted in INSTRUCTIONS if pattern.fullmatch(kernel)), [])
    return PRODUCTS[UNIT[kernel]] + others


def disassembled(nvdisasm, cubin):
    """The SASS of each kernel of a cubin."""
    done = subprocess.run([nvdisasm, "-c", str(cubin)], capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{cubin.name}: nvdisasm failed:\n{done.stderr}")
    return dict(re.findall(r"^\.text\.(\w+):\n(.*?)(?=^//-----|\Z)", done.stdout, re.M | re.S))


def missing_instructions(code, kernels, arch):
    """Complaints of kernels of a cubin that lack what they are written for."""
    complaints = [f"{kernel}: kernels/params has no ENTRY" for kernel in kernels if kernel not in UNIT]
    wanted = {kernel: wanted_instructions(kernel, arch) for kernel in kernels if kernel in UNIT}
    for kernel, names in wanted.items():
        if names and kernel not in code:
            complaints.append(f"{kernel}: not in the disassembly")
            continue
        complaints += [f"{kernel}: no {w} in its SASS" for w in names if not re.search(rf"\b{re.escape(w)}", code[kernel])]
    return complaints


def cubin_of(source, arch, folder):
    return Path(folder) / f"{source.stem}-{arch}.cubin"


def compile_one(nvcc, nvdisasm, source, arch, folder):
    """What ptxas says of one file, what its kernels lack, and the loops of those whose loops are listed."""
    command = [nvcc, "-cubin", f"-arch={arch}", "-std=c++17", "-O3", f"-I{ROOT / 'kernels'}", "-Xptxas", "-v",
               str(source), "-o", str(cubin_of(source, arch, folder))]
    done = subprocess.run(command, capture_output=True, text=True)
    text = done.stdout + done.stderr
    if done.returncode:
        sys.exit(f"{source}: nvcc for {arch} failed:\n{text}")
    kernels = [found[1] for found in ENTRY.finditer(text)]
    code = disassembled(nvdisasm, cubin_of(source, arch, folder))
    lacking = missing_instructions(code, kernels, arch)
    listed = [kernel for kernel in kernels if LOOPS_OF.fullmatch(kernel)]
    loops = {kernel: (kernel_loops.loops(code[kernel]), kernel_loops.store_bits(code[kernel])) for kernel in listed}
    return text, [f"{source.name}: {arch}: {what}" for what in lacking], loops


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
            for gpu, limit in SHARED_LIMITS.items():
                if shared + dynamic.get(gpu, 0) > limit * 1024:
                    told = f"{shared} + {dynamic[gpu]} bytes of shared memory, {limit} KB are the most"
                    complaints.append(f"{file}: {entry} on {gpu}: {told}")
            kernels[entry] = (int(found[1]), shared, stack)
        if SERIALIZED.search(line):
            complaints.append(f"{file}: {arch}: {line.strip()}")
    return kernels, complaints


def tell_loops(archs, loops, to):
    """Prints the table of instructions an element, writes those of each loop, returns what is too dear."""
    costs = {key: kernel_loops.per_element(of, 8) for key, (of, _) in loops.items() if PASSES_OF.fullmatch(key[1])}
    if costs:
        print("\nInstructions an element of all passes of the norms over it, by their loops in SASS; those of each loop stand in\n"
              "`kernel-loops.csv`.\n")
        print("| kernel |" + "".join(f" {arch} |" for arch in archs))
        print("|---|" + "---:|" * len(archs))
        for file, kernel in sorted({key[:2] for key in costs}):
            print(f"| {kernel} |" + "".join(f" {costs[file, kernel, arch]:.1f} |" for arch in archs))
    if to:
        lines = ["file,kernel,arch,loop,instructions,pieces,products,shared_bytes,copies"]
        for (file, kernel, arch), (of, _) in sorted(loops.items()):
            main = kernel_loops.main_loop(of)
            for i, (loop, pieces) in enumerate([(main, 0)] if main else kernel_loops.passes(of)):
                numbers = kernel_loops.products(loop), kernel_loops.shared_bytes(loop), kernel_loops.copies(loop)
                lines.append(",".join(map(str, (file, kernel, arch, i, len(loop), pieces, *numbers))))
        to.write_text("\n".join(lines) + "\n")
    return [f"{kernel} for {arch}: {cost:.1f} instructions an element, {MOST_PER_ELEMENT} are the most"
            for (_, kernel, arch), cost in costs.items() if cost > MOST_PER_ELEMENT]


def blocks_at_once(kernel, registers, shared, arch):
    """Blocks that a multiprocessor holds at once, as far as registers and shared memory go."""
    threads = next((n for pattern, n in THREADS if pattern.fullmatch(kernel)), 256)
    # Registers go to warps by 256.
    of_registers = REGISTERS // (-(-registers * 32 // 256) * 256 * threads // 32)
    return min(of_registers, SHARED_KB[arch] * 1024 // (shared + 1024)) if arch in SHARED_KB else of_registers


def tell_products(archs, loops, rows, dynamics):
    """Prints what the main loops of products on tensor cores are made of, returns what is too dear."""
    mains = {key: (main, bits) for key, (of, bits) in loops.items() if (main := kernel_loops.main_loop(of))}
    if not mains:
        return []
    print("\nMain loops of products on tensor cores, by their SASS: instructions, products (HMMA, HGMMA, IMMA of a warp), what there is\n"
          "for each product, and how wide the kernel stores, narrow where a tile is not whole.\n")
    print("| kernel | GPU | instructions | products | instructions each | shared bytes each | copies each | stores, bits | blocks |")
    print("|---|---|---:|---:|---:|---:|---:|---|---:|")
    complaints = []
    for (file, kernel, arch), (main, bits) in sorted(mains.items()):
        products, each = kernel_loops.products(main), len(main) / kernel_loops.products(main)
        dynamic = [b for gpu, b in dynamics[file].items() if gpu == arch.removesuffix("a")] or [0]
        if "_wide" not in kernel and "_wgmma" not in kernel:
            dynamic = list(dynamics[file].values())
        registers, static, _ = rows[file, kernel][arch]
        blocks = blocks_at_once(kernel, registers, static + min(dynamic), arch)
        shared, copies = kernel_loops.shared_bytes(main) / products, kernel_loops.copies(main) / products
        print(f"| {kernel} | {arch} | {len(main)} | {products} | {each:.2f} | {shared:.0f} | {copies:.2f} | "
              f"{', '.join(map(str, bits)) or 'copies'} | {blocks} |")
        most = next((most for pattern, most in MOST_PER_PRODUCT if pattern.fullmatch(kernel)), None)
        if most and each > most:
            complaints.append(f"{kernel} for {arch}: {each:.2f} instructions a product, {most} are the most")
    return complaints


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nvcc", default="nvcc")
    parser.add_argument("--nvdisasm", help="default: beside nvcc")
    parser.add_argument("--archs", default="sm_80,sm_90a")
    parser.add_argument("--csv", type=Path, metavar="FILE", help="where the numbers go")
    parser.add_argument("--loops", type=Path, metavar="FILE", help="where the numbers of loops go")
    parser.add_argument("files", nargs="*", type=Path, metavar="FILE.cu")
    args = parser.parse_args()
    archs = args.archs.split(",")
    sources = args.files or sorted((ROOT / "kernels").glob("*.cu"))
    jobs = [(source, arch) for source in sources for arch in archs]
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(os.cpu_count()) as pool:
        nvdisasm = args.nvdisasm or str(Path(args.nvcc).parent / "nvdisasm")
        said = list(pool.map(lambda job: compile_one(args.nvcc, nvdisasm, *job, folder), jobs))

    rows, complaints, loops = {}, [], {}
    dynamics = {source: dynamic_shared(source) for source in sources}
    for source, most in dynamics.items():
        # Kernels of Hopper's own instructions run nowhere else.
        if most.keys() != SHARED_LIMITS.keys() and not (most.keys() == {"sm_90"} and "not_hopper()" in source.read_text()):
            gpus = ", ".join(sorted(SHARED_LIMITS.keys() ^ most.keys()))
            complaints.append(f"{source.name}: how many bytes of dynamic shared memory does its header mean on {gpus}?")
    for (source, arch), (text, lacking, found) in zip(jobs, said):
        loops |= {(source.stem, kernel, arch): of for kernel, of in found.items()}
        kernels, wrong = read(text, source.name, arch, dynamics[source])
        complaints += wrong + lacking
        if not kernels:
            complaints.append(f"{source.name}: ptxas named no kernel for {arch}")
        for name, numbers in kernels.items():
            dynamic = " ".join(map(str, sorted(set(dynamics[source].values()))))
            rows.setdefault((source.stem, name, dynamic), {})[arch] = numbers

    print("Registers a thread, static shared bytes and stack bytes of each kernel, by ptxas, and the dynamic shared bytes "
          "that its file's\nheader allows, the least GPU's first; made by `bench/kernel_resources.py`, with `kernel-resources.csv` beside it.\n")
    print("| file | kernel | dynamic |" + "".join(f" {a} registers | shared | stack |" for a in archs))
    print("|---|---|---:|" + "---:|---:|---:|" * len(archs))
    for (file, name, dynamic), by_arch in sorted(rows.items()):
        cells = "".join(" {} | {} | {} |".format(*by_arch.get(arch, ("-",) * 3)) for arch in archs)
        print(f"| {file} | {name} | {dynamic} |{cells}")
    if args.csv:
        lines = ["file,kernel,arch,registers,shared_bytes,stack_bytes"]
        lines += [",".join(map(str, (file, name, arch, *numbers))) for (file, name, _), by_arch in sorted(rows.items())
                  for arch, numbers in by_arch.items()]
        args.csv.write_text("\n".join(lines) + "\n")
    by_name = {(file, name): by_arch for (file, name, _), by_arch in rows.items()}
    complaints += tell_products(archs, loops, by_name, {source.stem: most for source, most in dynamics.items()})
    complaints += tell_loops(archs, loops, args.loops)
    for complaint in complaints:
        print(complaint, file=sys.stderr)
    return bool(complaints)


if __name__ == "__main__":
    sys.exit(main())

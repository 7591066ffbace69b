#!/usr/bin/env python3
"""Whether a folder that bench/pack.sh made is what a GPU's machine needs: python bench/pack_check.py FOLDER

Its emm must name sm_90a in `emm doctor --json`, run on every CPU of its architecture, and hold one fatbin for each file
of kernels/, each of exactly the targets that the doctor names. Its Python scripts may import the standard library,
PyTorch, NumPy and each other. All is at most 30 MiB. Prints size and targets, or what is wrong, with exit code 1.
"""

import ast
import json
import struct
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LIMIT_MIB = 30
WANTED = "sm_90a"
LIBRARIES = {"torch", "numpy", "faiss"}

# A fatbin, as nvcc 13 writes it: magic, version, bytes of this header, bytes after it; then its images.
MAGIC, VERSION = 0xBA55ED50, 1
HEADER = struct.Struct("<IHHQ")
# An image: kind, version, bytes of its header, bytes after it, three words, architecture; flags stand at FLAGS_AT.
IMAGE = struct.Struct("<HHIQIIII")
FLAGS_AT, IMAGE_BYTES = 40, 64
KINDS = {1: "compute", 2: "sm"}  # PTX, machine code
VARIANTS = {0x100000: "a", 0x200000: "f"}


def targets(data, start):
    """The targets of the fatbin at `start`, or None where none is: the magic number may stand in code as well."""
    if start + HEADER.size > len(data):
        return None
    magic, version, header_bytes, size = HEADER.unpack_from(data, start)
    at, end = start + header_bytes, start + header_bytes + size
    if magic != MAGIC or version != VERSION or header_bytes != HEADER.size or end > len(data):
        return None
    found = []
    while at < end:
        if at + IMAGE_BYTES > end:
            return None
        kind, _, header_bytes, size, *_, number = IMAGE.unpack_from(data, at)
        (flags,) = struct.unpack_from("<Q", data, at + FLAGS_AT)
        if kind not in KINDS or header_bytes < IMAGE_BYTES or not size:
            return None
        variant = "".join(letter for bit, letter in VARIANTS.items() if flags & bit)
        found.append(f"{KINDS[kind]}_{number}{variant}")
        at += header_bytes + size
    return found if at == end else None


def fatbins(data):
    """The targets of every fatbin in `data`."""
    magic, found, at = struct.pack("<I", MAGIC), [], -1
    while (at := data.find(magic, at + 1)) >= 0:
        found += filter(None, [targets(data, at)])
    return found


def strange_imports(folder):
    """`script imports name`, for what neither Python, LIBRARIES nor the folder has."""
    scripts = sorted(folder.rglob("*.py"))
    known = sys.stdlib_module_names | LIBRARIES | {script.stem for script in scripts}
    for script in scripts:
        for node in ast.walk(ast.parse(script.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
            for name in names:
                if name.split(".")[0] not in known:
                    yield f"{script.relative_to(folder)} imports {name}, which is not packed"


def complaints(folder, doctor):
    named, needs = doctor["kernels_for"], doctor["cpu"]["needs"]
    if WANTED not in named:
        yield f"emm doctor names no kernels for {WANTED}, but {named}"
    if needs:
        yield f"emm runs only on CPUs with {' '.join(needs)}; build without target-cpu and target-feature"
    held = fatbins((folder / "emm").read_bytes())
    sources = len(list((ROOT / "kernels").glob("*.cu")))
    if len(held) != sources:
        yield f"emm holds {len(held)} fatbins, and kernels/ has {sources} files"
    for other in {tuple(sorted(found)) for found in held} - {tuple(sorted(named))}:
        yield f"a fatbin is for {', '.join(other)}, and emm doctor says {', '.join(named)}"
    yield from strange_imports(folder)


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__.splitlines()[0])
    folder = Path(sys.argv[1])
    done = subprocess.run(["./emm", "doctor", "--json"], cwd=folder, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"pack_check.py: {folder}: ./emm doctor --json: exit code {done.returncode}: {done.stderr.strip()}")
    doctor = json.loads(done.stdout)
    wrong = list(complaints(folder, doctor))
    sizes = sorted(((p.stat().st_size, p.name) for p in folder.rglob("*") if p.is_file()), reverse=True)
    mib = sum(size for size, _ in sizes) / 2**20
    if mib > LIMIT_MIB:
        largest = ", ".join(f"{name} {size / 2**20:.1f}" for size, name in sizes[:3])
        wrong.append(f"{mib:.1f} MiB, and {LIMIT_MIB} are the most: {largest}")
    for what in wrong:
        print(f"pack_check.py: {folder}: {what}", file=sys.stderr)
    print(f"size     {mib:.1f} MiB\ntargets  {', '.join(doctor['kernels_for'])}")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())

#!/usr/bin/env python3
"""Whether what bench/release.sh made is fit to be handed out: python bench/release_check.py EMM PART...

EMM is a cargo build of the same sources, with the kernels; PART is wheel, crate or tarball.

wheel    at most 15 MB, no Python inside; installed in a fresh environment, with nothing else on PATH, its emm needs
         glibc 2.28 at most, names all GPUs in `emm doctor --json`, and a small quickstart gives EMM's numbers
crate    at most 10 MiB, a registry's limit; has the kernels, and neither tests (but what `emm check` compares with) nor results of runs
tarball  holds the wheel's program

Prints sizes and what was found, or what is wrong, with exit code 1.
"""

import json
import os
import re
import subprocess
import sys
import tarfile
import tempfile
import venv
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
WHEEL_BYTES, CRATE_BYTES = 15_000_000, 10 * 2**20
GLIBC = (2, 28)
GPUS = {"sm_80", "sm_86", "sm_89", "sm_90a", "sm_100", "sm_120", "compute_80"}
SMALL = ["quickstart", "--epochs", "100", "--quiet"]


def expect(right, what):
    if not right:
        sys.exit(f"release_check.py: {what}")


def the(folder, pattern):
    found = sorted((ROOT / "target" / folder).glob(pattern))
    expect(len(found) == 1, f"target/{folder}: expected one {pattern}, found {len(found)}")
    return found[0]


def size(path, most):
    took = path.stat().st_size
    expect(took <= most, f"{path.name}: {took} bytes, at most {most}")
    return f"{took / 1e6:.2f} MB"


def run(program, *args, **kwargs):
    # Neither Rust nor nvcc: nothing is on PATH but what is installed beside the program.
    env = {"PATH": str(Path(program).parent), "HOME": kwargs.get("cwd", "/"), "CUDA_VISIBLE_DEVICES": ""}
    ended = subprocess.run([program, *args], env=env, capture_output=True, text=True, **kwargs)
    expect(ended.returncode == 0, f"{program} {' '.join(args)}: exit {ended.returncode}: {ended.stderr.strip()}")
    return ended.stdout


def glibc(program):
    names = set(re.findall(rb"GLIBC_(\d+)\.(\d+)", program.read_bytes()))
    return max((int(major), int(minor)) for major, minor in names)


def numbers(program):
    """The networks and scores of a small quickstart, by name: they depend on settings and seed alone."""
    with tempfile.TemporaryDirectory() as folder:
        run(program, *SMALL, cwd=folder)
        files = [f for f in Path(folder).rglob("*") if f.name == "scores.csv" or f.parent.name == "snapshots"]
        expect(files, f"{program}: a small quickstart left neither scores nor snapshots")
        return {str(f.relative_to(folder)): f.read_bytes() for f in files}


def wheel(cargos):
    path = the("wheels", "emm_diffusion-*.whl")
    told = size(path, WHEEL_BYTES)
    python = [n for n in zipfile.ZipFile(path).namelist() if n.endswith((".py", ".so"))]
    expect(not python, f"{path.name}: holds {python}")
    with tempfile.TemporaryDirectory() as folder:
        venv.create(folder, with_pip=True)
        pip = [f"{folder}/bin/python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-index", str(path)]
        subprocess.run(pip, check=True)
        emm = Path(folder, "bin", "emm")
        needs = glibc(emm)
        expect(needs <= GLIBC, f"{path.name}: needs glibc {needs[0]}.{needs[1]}, at most {GLIBC[0]}.{GLIBC[1]}")
        foreign = re.findall(rb"/(?:home|root|Users)/[\w.-]+/[\w./-]*", emm.read_bytes())
        expect(not foreign, f"{path.name}: names folders of where it was built: {foreign[:3]}")
        kernels = set(json.loads(run(str(emm), "doctor", "--json"))["kernels_for"])
        expect(kernels == GPUS, f"{path.name}: kernels for {sorted(kernels)}, expected {sorted(GPUS)}")
        expect(numbers(str(emm)) == numbers(cargos), f"{path.name}: a small quickstart gives other numbers than {cargos}")
        return f"{path.name}  {told}, glibc {needs[0]}.{needs[1]}, {' '.join(sorted(kernels))}"


def crate(_):
    path = the("dist", "emm-*.crate")
    told = size(path, CRATE_BYTES)
    with tarfile.open(path) as tar:
        names = ["/".join(name.split("/")[1:]) for name in tar.getnames()]
    kernels = {Path(n).stem for n in names if n.startswith("kernels/compiled/") and n.endswith(".fatbin")}
    expect(kernels == {f.stem for f in (ROOT / "kernels").glob("*.cu")}, f"{path.name}: has kernels {sorted(kernels)}")
    spare = [n for n in names if n.startswith(("tests/", "bench/", "docs/")) and not n.startswith("tests/goldens/ops/")]
    expect(not spare, f"{path.name}: holds {spare[:3]}")
    return f"{path.name}  {told}, {len(names)} files"


def tarball(_):
    path = the("dist", "emm-*.tar.gz")
    with tarfile.open(path) as tar, zipfile.ZipFile(the("wheels", "*.whl")) as zipped:
        program = next(n for n in zipped.namelist() if n.endswith("scripts/emm"))
        folder = path.name.removesuffix(".tar.gz")
        expect(tar.extractfile(f"{folder}/emm").read() == zipped.read(program), f"{path.name}: emm is not the wheel's")
    return f"{path.name}  {path.stat().st_size / 1e6:.2f} MB"


def main():
    if len(sys.argv) < 3 or not os.access(sys.argv[1], os.X_OK):
        sys.exit(__doc__)
    for part in sys.argv[2:]:
        print({"wheel": wheel, "crate": crate, "tarball": tarball}[part](sys.argv[1]))


if __name__ == "__main__":
    main()

"""Runs `emm bench step`, `nearest` or `optimal` and its peer in turn and reports the ratio of median speeds.

    python bench/peers/compare.py step --out bench/runs/2026-11-24-mymachine -- \\
        --channels 32 --mult 2,2,2 --blocks 2 --resolution 8 --batch 32
    python bench/peers/compare.py nearest -- --queries 2000 --references 50000
    python bench/peers/compare.py optimal -- --data images.npy --latents latents.npy

What follows `--` goes to both. Order A B A B …, at least 5 of each, so that a machine that slows down
slows both. Prints one JSON object; with --out DIR also writes it as DIR/<what>-<settings>.json.
Speeds are images per second: trained (step), searched for (nearest) or sampled (optimal, whose samples must be
nearest to the same training images on both sides, and as many of them copies).
"""

import argparse
import json
import os
import pathlib
import platform
import statistics
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]


def cpu_model():
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def run(command):
    """The JSON object that `command` prints."""
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(command)}: exit code {done.returncode}")
    return json.loads(done.stdout)


def speed(result):
    """Images per second of one run."""
    return result["images_per_s"] if "images_per_s" in result else result["queries"] / result["median_s"]


def decided_alike(runs):
    """Ends the program unless all samplings of the optimum copy the same training images."""
    if len({(r["memorized"], *r["nearest"]) for r in runs}) > 1:
        sys.exit("optimal: the samples are not copies of the same images on all sides")


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("what", choices=["step", "nearest", "optimal"])
    p.add_argument("--emm", default=str(ROOT / "target" / "release" / "emm"), help="the binary")
    p.add_argument("--runs", type=int, default=5, help="runs of each, at least 5")
    p.add_argument("--peer-args", default="", help='flags for the peer alone, e.g. "--compile"')
    p.add_argument("--emm-args", default="", help='flags for emm alone, e.g. "--micro-batch 8"')
    p.add_argument("--out", type=pathlib.Path, help="folder for the raw numbers: bench/runs/<date>-<machine>")
    cut = sys.argv.index("--") if "--" in sys.argv else len(sys.argv)
    a, settings = p.parse_args(sys.argv[1:cut]), sys.argv[cut + 1 :]
    if a.runs < 5:
        p.error(f"--runs: {a.runs} is too few, at least 5 are needed")

    emm = [a.emm, "bench", a.what, "--json", *settings, *a.emm_args.split()]
    peer = [sys.executable, str(ROOT / "bench" / "peers" / f"{a.what}.py"), *settings, *a.peer_args.split()]
    load = os.getloadavg()[0]
    if load > 0.5:
        print(f"load average {load:.1f}: other work distorts both, the peer often more", file=sys.stderr)
    runs = {"emm": [], "peer": []}
    for i in range(a.runs):
        for name, command in (("emm", emm), ("peer", peer)):
            runs[name].append(run(command))
            print(f"{i + 1}/{a.runs} {name}: {speed(runs[name][-1]):.2f} images/s", file=sys.stderr)

    if a.what == "optimal":
        decided_alike(runs["emm"] + runs["peer"])
    medians = {name: statistics.median(map(speed, rs)) for name, rs in runs.items()}
    result = {
        "images_per_s": medians,
        "ratio": medians["emm"] / medians["peer"],
        "cpu": cpu_model(),
        "cores": os.cpu_count(),
        "load_average_before": load,
        "settings": settings,
        "runs": runs,
    }
    print(json.dumps(result))
    if a.out:
        a.out.mkdir(parents=True, exist_ok=True)
        name = "-".join(s.lstrip("-").replace(",", ".").replace("/", ".") for s in settings) or "default"
        (a.out / f"{a.what}-{name}.json").write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()

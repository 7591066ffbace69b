"""Everything beside its peers: one command that measures what the README states, by turns, on this machine's CPU.

    python bench/peers/all.py --out bench/runs/2026-11-24-mymachine
    python bench/peers/all.py --only step-8x8-fp32,nearest-2000 --out /tmp/there
    python bench/peers/all.py --images images.npy --out ...     with real images: see nearest.py --make
    python bench/peers/all.py --what step --out ... -- --channels 48 --batch 16       settings of your own

Each task runs its contenders in turn, A B C A B C …, at least five times each, in processes of their own, and is
written as OUT/<task>.json: medians, the ratio to the best peer, every run's own JSON, the processor, threads, and the
binary's hash. A task of a folder that is there already is measured anew only with --again. OUT/README.md is their table;
`bench/readme.py` puts them into the project's README. A peer whose script or library is missing is skipped and named.

A task is an entry of TASKS: what emm runs, and for each peer a script of this folder with its flags. With --what, what
follows `--` goes to `emm bench WHAT` and to the peers alike, as one more task.
"""

import argparse
import hashlib
import importlib.util
import json
import os
import pathlib
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
DIGITS = ROOT / "data" / "digits8x8-images-idx3-ubyte"


def cpu_model():
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def run(command, **settings):
    """The JSON object that `command` prints, with `settings` added to its environment."""
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, env={**os.environ, **settings})
    if done.returncode:
        sys.exit(f"{' '.join(command)}: exit code {done.returncode}")
    return json.loads(done.stdout)


def speed(result):
    """Images per second of one run."""
    return result["images_per_s"] if "images_per_s" in result else result["queries"] / result["median_s"]


class Task:
    """`bench` and its peers, all with `settings`; speeds are images per second. What `agree` names in the results of
    one contender must be the same in all. `held_to` is the environment that holds emm, and emm alone, to less."""

    def __init__(self, title, bench, settings, peers, needs_images=False, latents=False, agree=(), held_to=None):
        self.title, self.bench, self.settings, self.peers = title, bench, settings.split(), peers
        self.needs_images, self.latents, self.agree, self.held_to = needs_images, latents, agree, held_to or {}

    def contenders(self, emm, images, scratch):
        """Name → a function that runs it once and returns its JSON. The first is emm."""
        settings = [*self.settings, *(["--data", str(images)] if self.needs_images else [])]
        if self.latents:
            path = str(scratch / "latents.npy")
            subprocess.run([sys.executable, str(HERE / "optimal.py"), "--make-latents", path], check=True, stdout=subprocess.DEVNULL)
            settings += ["--latents", path]
        found = {"emm": [emm, "bench", self.bench, "--json", "--device", "cpu", *settings]}
        for name, (script, library, flags) in self.peers.items():
            if not (HERE / script).exists() or not importlib.util.find_spec(library):
                print(f"  {name} skipped: no {script} or no {library}", file=sys.stderr)
                continue
            found[name] = [sys.executable, str(HERE / script), *settings, *flags.split()]
        held_to = {"emm": self.held_to}
        return {name: (lambda c=command, e=held_to.get(name, {}): run(c, **e)) for name, command in found.items()}


class Linear:
    """Seconds of four times as much work over those of the work itself; emm alone."""

    def __init__(self, title, command):
        self.title, self.command, self.needs_images, self.agree = title, command, False, ()

    def contenders(self, emm, _images, scratch):
        return {"1×": lambda: self.once(emm, scratch, 1), "4×": lambda: self.once(emm, scratch, 4)}

    def once(self, emm, scratch, times):
        command = [emm, *self.command(times, scratch)]
        if command[1] == "bench":
            result = run(command)
            return {**result, "seconds": result["median_s"]}
        shutil.rmtree(scratch / "run", ignore_errors=True)
        start = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        return {"seconds": time.perf_counter() - start}


PEERS = {  # of what emm bench runs
    "step": {
        "PyTorch eager": ("step.py", "torch", "--layout best"),
        "PyTorch compiled": ("step.py", "torch", "--layout best --compile"),
    },
    "sample": {"PyTorch": ("sample.py", "torch", "")},
    "nearest": {"FAISS": ("nearest.py", "faiss", "--with faiss"), "PyTorch": ("nearest.py", "torch", "--with torch")},
    "optimal": {"PyTorch": ("optimal.py", "torch", "")},
}
AGREE = {"optimal": ("memorized", "nearest")}
NETWORKS = {
    "8x8": ("8×8×3, 32 channels, batch 32", "--resolution 8 --channels 32 --batch 32"),
    "16x16": ("16×16×3, 64 channels, batch 16", "--resolution 16 --channels 64 --batch 16 --repeats 6"),
    "basic": ("the paper's basic model, 32×32×3, batch 8", "--batch 8 --repeats 4"),
}


def nearest(times, what):
    sizes = {"queries": 500, "references": 12_500}
    sizes[what] *= times
    return ["bench", "nearest", "--json", "--device", "cpu", "--repeats", "1"] + [w for k, v in sizes.items() for w in (f"--{k}", str(v))]


def train(scratch, size, epochs):
    """A training without looks, on the first images of the digits."""
    data = scratch / f"digits-{size}.zip"
    if not data.exists():
        emm = os.environ["EMM"]
        whole = scratch / "digits.zip"
        if not whole.exists():
            subprocess.run([emm, "data", "import", str(DIGITS), "--out", str(whole), "--quiet"], check=True, stdout=subprocess.DEVNULL)
        subset = ["data", "subset", str(whole), "--size", str(size), "--out", str(data), "--quiet"]
        subprocess.run([emm, *subset], check=True, stdout=subprocess.DEVNULL)
    network = "--precond edm --channels 16 --mult 2,2 --blocks 1 --batch 20 --lr 2e-3 --looks 0"
    return ["train", "--data", str(data), "--run", str(scratch / "run"), "--epochs", str(epochs), "--quiet", "--device", "cpu", *network.split()]


TASKS = {
    **{
        f"step-{name}-{precision}": Task(title, "step", f"{flags} --precision {precision}", PEERS["step"])
        for precision in ("fp32", "bf16")
        for name, (title, flags) in NETWORKS.items()
    },
    "sample-8x8": Task(
        "1,000 images of 8×8×3, 32 channels, 18 steps", "sample",
        "--resolution 8 --channels 32 --samples 1000 --at-a-time 250 --repeats 1", PEERS["sample"],
    ),
    **{
        f"nearest-{queries}": Task(
            f"nearest 2 of 50,000 for {queries:,} random images of 3,072 bytes", "nearest",
            f"--queries {queries} --references 50000 --repeats 1", PEERS["nearest"],
        )
        for queries in (2000, 10000)
    },
    **{
        f"nearest-real-{queries}": Task(
            f"nearest 2 of 50,000 for {queries:,} real images of 3,072 bytes", "nearest",
            f"--queries {queries} --references 50000 --repeats 1", PEERS["nearest"], needs_images=True,
        )
        for queries in (2000, 10000)
    },
    **{
        f"nearest-{kind}avx2-2000": Task(
            f"nearest 2 of 50,000 for 2,000 {told} images, emm held to AVX2", "nearest", "--queries 2000 --references 50000 --repeats 1",
            {"FAISS": PEERS["nearest"]["FAISS"]}, needs_images=kind == "real-", held_to={"EMM_X86_LEVEL": "3"},
        )
        for kind, told in (("", "random"), ("real-", "real"))
    },
    "optimal": Task(
        "256 optimal samples of 10,000 real images, 18 steps", "optimal", "--repeats 1", PEERS["optimal"],
        needs_images=True, latents=True, agree=AGREE["optimal"],
    ),
    "linear-queries": Linear("search, 4 × the queries", lambda times, _: nearest(times, "queries")),
    "linear-references": Linear("search, 4 × the references", lambda times, _: nearest(times, "references")),
    "linear-epochs": Linear("training, 4 × the epochs", lambda times, scratch: train(scratch, 60, 80 * times)),
    "linear-images": Linear("training, 4 × the images", lambda times, scratch: train(scratch, 60 * times, 80)),
}  # fmt: skip


def measure(task, emm, images, scratch, runs):
    """The task's JSON object."""
    contenders = task.contenders(emm, images, scratch)
    load = os.getloadavg()[0]
    found = {name: [] for name in contenders}
    for i in range(runs):
        for name, once in contenders.items():
            found[name].append(once())
            last = found[name][-1]
            told = f"{last['seconds']:.3f} s" if "seconds" in last else f"{speed(last):.2f} images/s"
            print(f"  {i + 1}/{runs} {name}: {told}", file=sys.stderr)
    for key in task.agree:
        answers = [r[key] for rs in found.values() for r in rs]
        if answers.count(answers[0]) < len(answers):
            sys.exit(f"the contenders differ in {key}")
    linear = isinstance(task, Linear)
    value = (lambda r: r["seconds"]) if linear else speed
    medians = {name: statistics.median(map(value, rs)) for name, rs in found.items()}
    first, *peers = medians
    # Linear: how much longer; else how much faster than the fastest peer.
    best = max(peers, key=medians.get) if peers else None
    ratio = None if best is None else medians[best] / medians[first] if linear else medians[first] / medians[best]
    return {
        "title": task.title,
        "unit": "s" if linear else "images_per_s",
        "medians": medians,
        "best_peer": best,
        "ratio": ratio,
        "cpu": cpu_model(),
        "cores": os.cpu_count(),
        "binary_sha256": hashlib.sha256(pathlib.Path(emm).read_bytes()).hexdigest(),
        "load_average_before": load,
        "settings": getattr(task, "settings", None),
        "runs": found,
    }


def summary(out):
    """The folder's README: a line a task."""
    lines = ["| task | medians | ratio |", "|---|---|---:|"]
    for name in TASKS:
        path = out / f"{name}.json"
        if path.exists():
            r = json.loads(path.read_text())
            unit = "s" if r["unit"] == "s" else "img/s"
            medians = ", ".join(f"{k} {v:,.4g} {unit}" for k, v in r["medians"].items())
            ratio = "" if r["ratio"] is None else f"{r['ratio']:.2f}"
            lines.append(f"| {r['title']} ({name}) | {medians} | {ratio} |")
            machine = f"{r['cores']} cores of {r['cpu']}"
    return f"# {out.name}\n\nMade by `bench/peers/all.py` on {machine}; the raw runs are beside this page. The ratio is to the best peer.\n\n" + "\n".join(lines) + "\n"


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--emm", default=str(ROOT / "target" / "release" / "emm"), help="the binary")
    p.add_argument("--out", type=pathlib.Path, required=True, help="bench/runs/<date>-<machine>")
    p.add_argument("--only", default=",".join(TASKS), help="tasks, by commas: " + ", ".join(TASKS))
    p.add_argument("--runs", type=int, default=5, help="of each contender, at least 5")
    p.add_argument("--images", type=pathlib.Path, help="unsigned bytes [N,32,32,3] as .npy, for the tasks with real images")
    p.add_argument("--again", action="store_true", help="measure what the folder holds already, too")
    p.add_argument("--what", choices=PEERS, help="measure this with the settings that follow --, and nothing else")
    cut = sys.argv.index("--") if "--" in sys.argv else len(sys.argv)
    a, settings = p.parse_args(sys.argv[1:cut]), " ".join(sys.argv[cut + 1 :])
    if a.runs < 5:
        p.error(f"--runs: {a.runs} is too few, at least 5 are needed")
    if settings and not a.what:
        p.error(f"--what: wanted before `-- {settings}`: one of {', '.join(PEERS)}")
    if a.what:
        a.only = "-".join([a.what, *(s.lstrip("-").replace(",", ".").replace("/", ".") for s in settings.split())])
        TASKS[a.only] = Task(f"{a.what} {settings}".strip(), a.what, settings, PEERS[a.what], agree=AGREE.get(a.what, ()))
    unknown = [name for name in a.only.split(",") if name not in TASKS]
    if unknown:
        p.error(f"--only: no task {unknown[0]}; there are {', '.join(TASKS)}")
    os.environ["EMM"] = a.emm
    a.out.mkdir(parents=True, exist_ok=True)
    failed = []
    for name in a.only.split(","):
        path = a.out / f"{name}.json"
        task = TASKS[name]
        if (path.exists() and not a.again) or (task.needs_images and not a.images):
            print(f"{name}: skipped: {'measured already' if path.exists() else 'no --images'}", file=sys.stderr)
            continue
        print(f"{name}: {task.title}", file=sys.stderr)
        try:
            with tempfile.TemporaryDirectory() as scratch:
                result = measure(task, a.emm, a.images, pathlib.Path(scratch), a.runs)
        except (SystemExit, subprocess.CalledProcessError) as e:  # what failed has said why
            print(f"{name}: {e}", file=sys.stderr)
            failed.append(name)
            continue
        path.write_text(json.dumps(result, indent=1) + "\n")
        (a.out / "README.md").write_text(summary(a.out))
    sys.exit(f"failed: {', '.join(failed)}" if failed else 0)


if __name__ == "__main__":
    main()

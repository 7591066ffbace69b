"""The paper's signs beside those of a folder that bench/tiny.sh made, as the folder's README.

python bench/tiny_signs.py FOLDER [--cpu-s S] > FOLDER/README.md

Reads FOLDER/<study>.json (`emm table STUDY --json`) and the scores of the runs that these name. A finding is a
difference between two groups of cells, in points of the ratio of memorization, taken for each training seed: it shows
if every seed has the paper's sign and the mean is at least a point, is reversed if every seed has the other, and is
not told apart in between.
"""

import argparse
import csv
import json
from pathlib import Path
from statistics import mean

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("folder", type=Path)
parser.add_argument("--cpu-s", type=float, help="what the runs took of the CPUs, in seconds")
args = parser.parse_args()

HEAD = """# The paper's study at scale tiny

`bench/tiny.sh` made this folder: on the bundled 8×8 digits, in fp32 on the CPU, {runs} runs{hours}, training seeds
1024 to 1026. What tiny shrinks is in the project's README, and every table and figure here says it too. `runs/<name>`
holds each run's settings and scores, from which tables, figures and the table below are made.

A difference is in points of the ratio of memorization and taken for each seed: *shows* is every seed with the paper's
sign and a mean of at least a point, *reversed* every seed with the other, *not told apart* what lies between. Numbers
of the paper are its own scale's; sizes in brackets are the paper's.

| finding | the paper | here | difference, over seeds | |
|---|---|---|---:|---|
"""


class Missing(Exception):
    """A cell that the scale lacks, or whose runs have not all finished."""


def value(run):
    """The ratio of a run, in percent: its best look, as scored again if it was."""
    for file in ["rescored.csv", "scores.csv"]:
        path = args.folder / run / file
        if path.exists():
            with open(path, newline="") as rows:
                return 100 * max(float(row["ratio"]) for row in csv.DictReader(rows))
    raise Missing(run)


class Study:
    def __init__(self, name):
        path = args.folder / f"{name}.json"
        parts = json.loads(path.read_text())["parts"] if path.exists() else [{"cells": []}]
        self.name, self.cells = name, parts[0]["cells"]

    def values(self, **at):
        """The paper's names of an axis' values, of the cells that are `at`, in order and as far as they are there."""
        axis = at.pop("of")
        found = [c for c in self.cells if all(c["at"][k]["paper"] == v for k, v in at.items()) and not c["impossible"]]
        if not found:
            raise Missing(f"{self.name}: {at}")
        return list(dict.fromkeys(c["at"][axis]["paper"] for c in found))

    def __call__(self, **at):
        """Mean over the cells that are `at`, for each seed."""
        at = {name.replace("_", " "): v if isinstance(v, list) else [v] for name, v in at.items()}
        found = [c for c in self.cells if all(c["at"][k]["paper"] in v for k, v in at.items())]
        found = [c for c in found if not c["impossible"]]
        if not found or any(c["runs_done"] < len(c["runs"]) for c in found):
            raise Missing(f"{self.name}: {at}")
        seeds = zip(*([value(run) for run in cell["runs"]] for cell in found), strict=True)
        return [mean(seed) for seed in seeds]


def less(a, b):
    return [x - y for x, y in zip(a, b, strict=True)]


def percents(**of):
    return ", ".join(f"{name.replace('_', ' ')} {mean(v):.1f}" for name, v in of.items())


FINDINGS = []


def finding(text, paper):
    """Adds a finding: what is measured gives a text and, for each seed, a difference that the paper has above 0."""
    return lambda measure: FINDINGS.append((text, paper, measure))


labels, table3, random = Study("labels"), Study("table3"), Study("random-labels")
SIZES = ["1000", "2000", "3000", "4000", "5000"]


@finding("The ratio falls with the number of images (Table 3)", "92, 61, 35, 17, 9")
def _():
    all_sizes = [table3(labels="unconditional", size=n) for n in SIZES]
    return ", ".join(f"{mean(v):.1f}" for v in all_sizes), less(all_sizes[0], all_sizes[-1])


@finding("True labels memorize more than none (Table 3)", "mean of five sizes 58 and 43")
def _():
    true, none = table3(labels="true labels"), table3(labels="unconditional")
    return percents(true=true, none=none), less(true, none)


@finding("Random labels of ten classes memorize more than none (Figure 5a)", "about 59 and 43")
def _():
    drawn, none = labels(labels="random labels"), labels(labels="unconditional")
    return percents(random=drawn, none=none), less(drawn, none)


@finding("Random labels do as true ones do: nearer to them than to none (Figure 5a)", "about 59, 58 and 43")
def _():
    # Ten images of ten classes are one of each either way.
    drawn, true, none = (labels(labels=l, size=SIZES[1:]) for l in ["random labels", "true labels", "unconditional"])
    nearer = [abs(d - n) - abs(d - t) for d, t, n in zip(drawn, true, none, strict=True)]
    return percents(random=drawn, true=true, none=none), nearer


for size in ["1000", "2000", "5000"]:

    @finding(f"More random classes, more memorization, N = {size} (Figure 5b)", "rises at each step")
    def _(size=size):
        classes = random.values(of="classes", size=size)
        ratios = [random(size=size, classes=c) for c in classes]
        shown = ", ".join(f"{c}: {mean(r):.1f}" for c, r in zip(classes, ratios, strict=True))
        return shown, less(ratios[-1], ratios[0])


@finding("Unique labels memorize nearly everything (Table 3)", "100 to 99.6, against 92 to 9 of none")
def _():
    unique, none = table3(labels="unique labels"), table3(labels="unconditional")
    least = min(mean(table3(labels="unique labels", size=n)) for n in SIZES)
    return percents(unique=unique, none=none) + f"; least {least:.1f}", less(unique, none)


@finding("Unique labels on all images, EDM (Figure 5d)", "about 65 and 0")
def _():
    study = Study("edm-50k")
    unique, none = study(labels="unique labels"), study(labels="unconditional")
    return percents(unique=unique, none=none), less(unique, none)


@finding("EDM memorizes small sets and not large ones (Figure 1c)", "[2000] well above [50000], which is 0")
def _():
    study = Study("edm-size")
    small, large = study(size="2000"), study(size="50000")
    return percents(least=small, most=large), less(small, large)


@finding("Trained ten times as long EDM memorizes more (Figures 1c and 1d)", "at [5000] and [10000]")
def _():
    long, short = Study("size")(size=["5000", "10000"]), Study("edm-size")(size=["5000", "10000"])
    return percents(long=long, short=short), less(long, short)


@finding("The widest network memorizes more than the narrowest (Figure 3a)", "rises with the width")
def _():
    study = Study("width")
    widths = [study(width=w) for w in ["128", "192", "256", "320"]]
    return ", ".join(f"{mean(v):.1f}" for v in widths), less(widths[-1], widths[0])


for size in ["1000", "2000"]:

    @finding(f"Depth has its best in between, N = {size} (Figure 3c)", "4 to 8 blocks above both ends")
    def _(size=size):
        study = Study("depth")
        blocks = [study(blocks=b, size=size) for b in ["2", "4", "6", "8", "10", "12"]]
        between = [max(seed[1:-1]) - max(seed[0], seed[-1]) for seed in zip(*blocks, strict=True)]
        return ", ".join(f"{mean(v):.1f}" for v in blocks), between


for blocks in ["2", "4"]:

    @finding(f"Fourier features memorize less than positional ones, {blocks} blocks (Figure 3d)", "clearly less")
    def _(blocks=blocks):
        study = Study("embedding")
        positional, fourier = study(network=f"positional, {blocks} blocks"), study(network=f"Fourier, {blocks} blocks")
        return percents(positional=positional, Fourier=fourier), less(positional, fourier)


skips = Study("skip-resolution")


@finding("NCSN++ memorizes less than DDPM++ (Figure 4)", "clearly less at 1,000 images")
def _():
    ddpm, ncsn = skips(network="DDPM++", skips="all"), skips(network="NCSN++", skips="all")
    return percents(**{"DDPM++": ddpm, "NCSN++": ncsn}), less(ddpm, ncsn)


for network in ["DDPM++", "NCSN++"]:
    for high, low in [("32", "16"), ("16", "8"), ("32", "8")]:

        @finding(f"Skips at {high} matter more than at {low}, {network} (Figures 4a and 4c)", "more")
        def _(network=network, high=high, low=low):
            names = skips.values(of="skips", network=network)
            at = {r: skips(network=network, skips=[n for n in names if f" at {r}" in n]) for r in [high, low]}
            return percents(**{f"at {r}": v for r, v in at.items()}), less(at[high], at[low])


@finding("One skip at the highest resolution does more than one at the lowest (Figure 4b)", "93, 93, 92, near all skips' 92; 13, 3, 0")
def _():
    study = Study("skip-location")
    places = {r: study(network="DDPM++", place=[str(p + k) for k in range(3)]) for r, p in [("32", 1), ("8", 7)]}
    every = skips(network="DDPM++", skips="all")
    nearer = less(places["32"], places["8"])
    return percents(**{f"one at {r}": v for r, v in places.items()}, all=every), nearer


@finding("Deleting three skips harms most at the highest resolution (Figure 8b)", "only there")
def _():
    study = Study("skip-deletion")
    high, others = study(skips="3 at 32"), study(skips=["3 at 16", "3 at 8"])
    return percents(**{"3 at 32": high, "3 elsewhere": others}), less(others, high)


@finding("Which skips are kept matters when few are (Figure 8a)", "spread of five draws large at 1, small at 8")
def _():
    study = Study("skip-number")
    spread = lambda kept: [max(v) - min(v) for v in zip(*(study(kept=kept, draw=str(d)) for d in range(1, 6)))]
    few, many = spread("1"), spread("8")
    return percents(**{"1 kept": few, "8 kept": many}), less(few, many)


for size in ["1000", "2000"]:

    @finding(f"Strong weight decay kills memorization, N = {size} (Table 2)", {"1000": "92 to 1", "2000": "61 to 0"}[size])
    def _(size=size):
        study = Study("weight-decay")
        without, strong = study(size=size, weight_decay="0"), study(size=size, weight_decay="1e-1")
        return percents(**{"0": without, "1e-1": strong}), less(without, strong)


@finding("Weak weight decay, up to 1e-4, changes little: less than 5 points (Table 2)", "less than 1")
def _():
    study = Study("weight-decay")
    without, weak = study(weight_decay="0"), study(weight_decay=["1e-5", "1e-4"])
    return percents(**{"0": without, "weak": weak}), [5 - abs(d) for d in less(without, weak)]


@finding("Larger batches memorize more (Table 1)", "by 3 and 5 points from 128 to 896")
def _():
    study = Study("batch")
    small, large = study(batch="128 (0.5e-4)"), study(batch="896 (3.5e-4)")
    return percents(**{"128": small, "896": large}), less(large, small)


@finding("The EMA's rate changes little: less than 5 points between 0.99929 and 0 (Table 2)", "2")
def _():
    study = Study("ema-rate")
    rule, none = study(ema_rate="0.99929"), study(ema_rate="0.0")
    return percents(**{"0.99929": rule, "0.0": none}), [5 - abs(d) for d in less(rule, none)]


@finding("A lower resolution memorizes more (Figure 2a)", "16×16 above 32×32")
def _():
    study = Study("resolution")
    sizes = ["1000", "2000", "4000"]
    full, half = study(resolution="32", size=sizes), study(resolution="16", size=sizes)
    return percents(full=full, half=half), less(half, full)


@finding("More classes of images memorize less (Figure 2b)", "a little")
def _():
    study = Study("classes")
    sizes = ["1000", "1500", "2000"]
    one, ten = study(classes="1", size=sizes), study(classes="10", size=sizes)
    return percents(one=one, ten=ten), less(one, ten)


def row(text, paper, measure):
    try:
        here, differences = measure()
    except Missing:
        return f"| {text} | {paper} | not measured | | |"
    lowest, highest = min(differences), max(differences)
    if lowest > 0 and mean(differences) >= 1:
        verdict = "shows"
    elif highest < 0:
        verdict = "**reversed**"
    else:
        verdict = "not told apart"
    spread = f"{mean(differences):+.1f} ({lowest:+.1f} to {highest:+.1f})"
    return f"| {text} | {paper} | {here} | {spread} | {verdict} |"


runs = sum(1 for _ in (args.folder / "runs").glob("*/scores.csv"))
hours = f" of {args.cpu_s / 3600:.1f} CPU hours in all" if args.cpu_s else ""
print(HEAD.format(runs=runs, hours=hours) + "\n".join(row(*f) for f in FINDINGS))

"""Puts measured figures into README.md, or with --check says whether they stand there.

    python bench/readme.py [--check] [README.md ...]

What lies between a line `<!-- bench/readme.py: TABLE FOLDER -->` and the next `<!-- end -->` is made from FOLDER's JSON
files, which bench/peers/all.py writes. TABLE is one of: step, search, sample, linear.
"""

import argparse
import json
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "bench" / "peers"))
from all import TASKS  # noqa: E402

BLOCK = re.compile(r"(<!-- bench/readme\.py: (\w+) (\S+) -->\n)(.*?)(<!-- end -->)", re.S)
TABLES = {"step": "step-", "search": ("nearest-", "optimal"), "sample": "sample-", "linear": "linear-"}


def number(value):
    return f"{value:,.3f}" if value < 1 else f"{value:,.1f}" if value < 1000 else f"{value:,.0f}"


def row(name, task):
    first, *peers = task["medians"]
    precision = name.rsplit("-", 1)[-1]
    title = task["title"] + (f", {precision}" if precision in ("bf16", "fp32") else "")
    unit = " s" if task["unit"] == "s" else ""
    best = task["best_peer"]
    theirs = f"{number(task['medians'][best])}{unit or f' ({best})'}" if best else ""
    ratio = f"{task['ratio']:.2f}" if task["ratio"] else ""
    return f"| {title} | {number(task['medians'][first])}{unit} | {theirs} | {ratio} |"


def table(which, folder):
    """The Markdown table of a folder's tasks of one kind."""
    files = [folder / f"{name}.json" for name in TASKS if name.startswith(TABLES[which])]
    tasks = {path.stem: json.loads(path.read_text()) for path in files if path.exists()}
    if not tasks:
        sys.exit(f"{folder}: no results for the table {which}")
    head = "work | once | four times | ratio" if which == "linear" else "images per second | emm | best peer | ratio"
    lines = [f"| {head} |", "|---|---:|---:|---:|", *(row(*item) for item in tasks.items())]
    return "\n".join(lines) + "\n"


def generated(text):
    return BLOCK.sub(lambda m: m[1] + table(m[2], ROOT / m[3]) + m[5], text)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--check", action="store_true", help="change nothing; exit code 1 where figures differ")
    p.add_argument("files", nargs="*", type=pathlib.Path, default=[ROOT / "README.md"])
    a = p.parse_args()
    stale = []
    for path in a.files:
        text = path.read_text()
        if not BLOCK.search(text):
            sys.exit(f"{path}: no table of bench/readme.py")
        if generated(text) != text:
            stale.append(str(path))
            if not a.check:
                path.write_text(generated(text))
    if a.check and stale:
        sys.exit(f"{', '.join(stale)}: figures differ from the measurements: python bench/readme.py")


if __name__ == "__main__":
    main()

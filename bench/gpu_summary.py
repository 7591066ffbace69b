"""What the parts of bench/gpu.sh and bench/gpu-study.sh say.

    python bench/gpu_summary.py RAW --part NAME     writes RAW/README.md; prints the part's line
    python bench/gpu_summary.py RAW --gate NAME     exit code 1 if nothing is left to do after this part
    python bench/gpu_summary.py RAW --failed-ops    the ops of emm check that failed, a line each
    python bench/gpu_summary.py RAW --gpu          the GPU's name, for a folder
    python bench/gpu_summary.py RAW --verdict       one line on all

RAW holds about.json, parts.tsv (name, how it went, seconds, command) and what each part printed: NAME.json or NAME.txt,
and NAME.log. Anything of them may be missing or broken.
"""

import argparse
import contextlib
import io
import json
import math
import re
import sys
from pathlib import Path

PRECISIONS = ("bf16", "tf32", "fp32")
# How far ten losses may be from fp32's, relatively: in fp32 as tests/model.rs holds them to float64. Roundings grow from
# step to step; of the paper's network the CPU's losses in bf16 were up to 3.4e-3 from fp32's. tf32 rounds a quarter of that.
LOSS_BARS = {"fp32": 1e-4, "tf32": 5e-3, "bf16": 2e-2}


class Results:
    """The parts that have run so far."""

    def __init__(self, folder):
        self.folder = folder
        self.about = self.json("about") or {}
        self.parts = {}
        for line in self.text("parts.tsv").splitlines():
            name, how, seconds, command = line.split("\t")
            self.parts[name] = {"how": how, "seconds": int(seconds), "command": command}

    def text(self, name):
        try:
            return (self.folder / name).read_text(errors="replace")
        except OSError:
            return ""

    def json(self, name):
        try:
            found = json.loads(self.text(f"{name}.json"))
        except ValueError:
            return None
        return found if isinstance(found, dict) else None

    def how(self, name):
        return self.parts.get(name, {}).get("how", "")

    def get(self, name, *keys):
        """A value inside a part's JSON; `None` if it is not there."""
        found = self.json(name)
        for key in keys:
            found = found.get(key) if isinstance(found, dict) else None
        return found

    def on_gpu(self):
        return self.about.get("device", "cuda") != "cpu"

    def gpu(self):
        """The doctor's entry for the device that is measured."""
        wanted = self.about.get("device", "cuda")
        wanted = "cuda:0" if wanted == "cuda" else wanted
        return next((d for d in self.get("doctor", "devices") or [] if d.get("device") == wanted), None)

    def named(self):
        return (self.gpu() or {}).get("name", "no GPU")


# ------------------------------------------------------------------------------------------------------ what went wrong


# A line of emm check: op, whether at a real size, precision, cases, bar, worst error, verdict.
LINE = re.compile(r"(\S+)( real)?\s+(bf16|tf32|fp32)\s+(\d+)\s+\S+\s+(\S+)\s+(ok|FAIL.*)")


# Small cases, and those of the network in use.
CHECKS = ("check", "check-real")


def checked(r, names=CHECKS):
    """The ops of emm check: of its JSON or, where it did not come to its end, of the lines until then."""
    return [op for name in names for op in ops_of(r, name)]


def ops_of(r, name):
    ops = r.get(name, "ops")
    if ops is not None:
        return ops
    found = []
    for said in r.text(f"{name}.log").splitlines():
        if m := LINE.fullmatch(said.strip()):
            op, _, precision, cases, worst, verdict = m.groups()
            failed = None if verdict == "ok" else verdict.removeprefix("FAIL").strip()
            found.append({"op": op, "precision": precision, "cases": int(cases), "worst_error": float(worst), "ok": verdict == "ok", "failed": failed})
    return found


def cannot(r, name):
    """Why nothing is left to do after part `name`, or None."""
    if name == "doctor":
        if not r.on_gpu():
            return None
        if not r.json("doctor"):
            return f"emm doctor {r.how('doctor') or 'did not run'}"
        if not r.gpu():
            return r.get("doctor", "cuda_trouble") or f"there is no {r.about.get('device')}"
        if not r.gpu().get("usable"):
            kernels = ", ".join(r.get("doctor", "kernels_for") or []) or "no GPU"
            return f"the binary has kernels for {kernels}, and {r.named()} is {r.gpu().get('capability')}"
        return None
    if name == "check":
        ops = ops_of(r, name)
        if any(op.get("ok") for op in ops):
            return None
        why = next((f"{op.get('op')}: {op['failed']}" for op in ops if op.get("failed")), None)
        return f"no case of emm check passes: {why or 'it ' + r.how('check')}"
    return None if r.how(name) == "ok" else r.how(name)


def failed_ops(r):
    """Each op once, in the order of the check."""
    return list(dict.fromkeys(op["op"] for op in checked(r) if not op.get("ok")))


def losses(r, name):
    """The losses of a part, NaN where one is null; `None` if it has none."""
    found = r.get(name, "losses")
    return [math.nan if v is None else v for v in found] if found else None


def apart(ours, theirs):
    """The largest relative difference of the steps that both took; NaN if one of them is, or there are none."""
    differences = [abs(a - b) / abs(b) for a, b in zip(ours, theirs)]
    bad = any(math.isnan(d) for d in differences)
    return math.nan if bad or not differences else max(differences)


def compared(r):
    """(what, precision, largest relative difference, bar) of all losses that something can be compared with."""
    rows = []
    for precision in PRECISIONS:
        ours, cpu = losses(r, f"losses-{precision}"), losses(r, "losses-cpu")
        if ours and cpu:
            rows.append(("the CPU's in fp32", precision, apart(ours, cpu), LOSS_BARS[precision]))
    full = losses(r, "step-fp32")
    for precision in ("bf16", "tf32"):
        ours = losses(r, f"step-{precision}")
        if ours and full:
            rows.append(("fp32's at the whole batch", precision, apart(ours, full), LOSS_BARS[precision]))
    return rows


def alerts(r):
    """What a reader has to know first."""
    found = []
    for name in ("doctor", "check"):
        why = cannot(r, name) if name in r.parts else None
        if why:
            found.append(f"Nothing was measured: {why}")
            break
    ops = checked(r)
    for name in CHECKS:
        if ops_of(r, name) and not r.json(name):
            found.append(f"emm {name} did not come to its end: {r.how(name)}")
    bad = [op for op in ops if not op.get("ok")]
    if bad and len(bad) < len(ops):
        said = "; ".join(f"{op.get('op')} in {op.get('precision')}: {op.get('failed')}" for op in bad[:5])
        found.append(f"emm check: {len(bad)} of {len(ops)} fail: {said}")
    for name in r.parts:
        if any(math.isnan(v) for v in losses(r, name) or []):
            found.append(f"{name}: a loss is not finite")
    for what, precision, difference, bar in compared(r):
        if not difference <= bar:
            found.append(f"losses in {precision} are off from {what} by {difference:.1e}, more than {bar:.1e}")
    ours, cpu = r.get("optimal", "nearest"), r.get("optimal-cpu", "nearest")
    if ours and cpu and ours != cpu:
        differ = sum(a != b for a, b in zip(ours, cpu)) + abs(len(ours) - len(cpu))
        found.append(f"optimum: {differ} of {len(cpu)} samples are nearest to another image than on the CPU")
    found += [f"{name}: {part['how']}" for name, part in r.parts.items() if name.startswith("sizes-") and "failed" in part["how"]]
    errors = sanitizer_errors(r, "memcheck")
    if errors:
        found.append(f"compute-sanitizer: {errors}")
    return found


def sanitizer_errors(r, name):
    """What compute-sanitizer reports first, or None."""
    lines = [line.strip("= \n") for line in r.text(f"{name}.txt").splitlines() if line.startswith("=========")]
    quiet = ("COMPUTE-SANITIZER", "ERROR SUMMARY: 0 errors", "")
    return next((line for line in lines if not line.startswith(quiet[:2]) and line), None)


# --------------------------------------------------------------------------------------------------------------- numbers


def number(value, digits=1):
    return f"{value:,.{digits}f}" if value is not None else ""


def ratio(ours, theirs):
    return f"{ours / theirs:.2f}" if ours and theirs else ""


BROKEN = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)


def unlike(e):
    """Why what a part printed cannot be shown. It may be of any other form than expected: the rest is shown."""
    return f"it printed something else than expected ({type(e).__name__}: {e})"


def news(r, name):
    """The one figure of a part."""
    try:
        return figure(r, name)
    except BROKEN as e:
        return unlike(e)


def figure(r, name):
    found = r.json(name)
    if name == "doctor" and found:
        return cannot(r, name) or f"{r.named()}; driver: {found.get('cuda_driver') or 'none'}"
    ops = ops_of(r, name) if name in CHECKS else (found or {}).get("ops")
    if ops:
        bad = next((f"; {op.get('op')} in {op.get('precision')}: {op.get('failed')}" for op in ops if not op.get("ok")), "")
        return f"{sum(bool(op.get('ok')) for op in ops)} of {len(ops)} pass{bad}"
    if name.startswith("losses") and losses(r, name):
        first = ", ".join(f"{v:.6g}" for v in losses(r, name)[:3])
        rows = [f"; {d:.1e} from {what}" for what, p, d, _ in compared(r) if name == f"losses-{p}" and "CPU" in what]
        return first + "".join(rows)
    if name.startswith("kernels") and found:
        total = sum(row["count"] * row["median_s"] for row in found.get("layers") or [])
        return f"{total * 1e3:.1f} ms of launches"
    if name.startswith("clocks"):
        return r.text(f"{name}.txt").strip()
    if name == "memcheck" and r.text("memcheck.txt"):
        to_its_end = "ERROR SUMMARY: 0 errors" in r.text("memcheck.txt") and r.how(name) == "ok"
        return sanitizer_errors(r, name) or ("no error seen" if to_its_end else "no error seen so far")
    if name == "status":
        return f"{found.get('done')} runs done" if found else ""
    if found and found.get("images_per_s"):
        return f"{number(found['images_per_s'])} img/s"
    if found and found.get("median_s"):
        return f"{found['median_s'] * 1e3:.1f} ms"
    return ""


def line(r, name):
    part = r.parts[name]
    said = "; ".join(s for s in (part["how"], news(r, name)) if s)
    return f"{name:<24} {part['seconds']:>4} s  {said}"


def verdict(r):
    worst = alerts(r)
    counts = {"ok": 0, "failed": 0, "stopped": 0, "skipped": 0}
    for part in r.parts.values():
        counts[re.split(r"\W", part["how"])[0]] += 1
    said = [f"{'FAILED: ' + worst[0] if worst else 'ok'}"]
    for name, what in (("step-bf16", "a training step in bf16"), ("peer-step-bf16", "PyTorch's")):
        if r.get(name, "images_per_s"):
            said.append(f"{what} {number(r.get(name, 'images_per_s'))} img/s")
    if r.get("status", "done") is not None:
        said.append(news(r, "status"))
    said.append("parts: " + ", ".join(f"{n} {what}" for what, n in counts.items() if n))
    return f"{r.about.get('script')}: {r.named()}: " + "; ".join(said)


# ------------------------------------------------------------------------------------------------------------- the page


def head(r):
    print(f"# {r.named() if r.on_gpu() else 'CPU'}, {r.about.get('date')}\n")
    worst = alerts(r)
    for alert in worst:
        print(f"- **{alert}**")
    good = ["every op that was checked passes"] if checked(r) else []
    good += ["losses agree"] if compared(r) else []
    if good and not worst:
        said = ", ".join(good)
        print(f"{said[0].upper()}{said[1:]}.")
    doctor = r.json("doctor") or {}
    print("\n| | |\n|---|---|")
    print(f"| made by | `bench/{r.about.get('script')}`; raw numbers in results.tar.gz |")
    gpu = r.gpu() or {}
    print(f"| device | {r.about.get('device')}: {r.named()}{', ' + gpu['capability'] if gpu.get('capability') else ''} |")
    print(f"| driver | {doctor.get('cuda_trouble') or 'CUDA ' + str(doctor.get('cuda_driver'))} |")
    print(f"| binary | sha256 {r.about.get('binary')}, kernels for {', '.join(doctor.get('kernels_for') or ['none'])} |")
    for name in r.parts:
        if name.startswith("clocks-") and news(r, name):
            print(f"| {name.removeprefix('clocks-')} (name, driver, state, SM, its most, memory, W, limit, °C) | {news(r, name)} |")
    print()
    ops = checked(r)
    if ops:
        print("| `emm check` | cases | verdict | worst error |\n|---|---:|---|---:|")
    for precision in dict.fromkeys(op.get("precision") for op in ops):
        these = [op for op in ops if op.get("precision") == precision]
        bad = sum(not op.get("ok") for op in these)
        errors = [op["worst_error"] for op in these if op.get("worst_error") is not None]
        cases = sum(op.get("cases") or 0 for op in these)
        worst = f"{max(errors):.1e}" if errors else ""
        print(f"| {precision} | {cases} | {f'{bad} ops FAIL' if bad else 'pass'} | {worst} |")
    if ops:
        print()


def loss_table(r):
    rows = compared(r)
    if rows:
        print("## The first ten losses\n\n| in | compared with | largest difference | bar |\n|---|---|---:|---:|")
        for what, precision, difference, bar in rows:
            print(f"| {precision} | {what} | {difference:.1e}{'' if difference <= bar else ' **FAIL**'} | {bar:.1e} |")
        print()


def beside(r):
    """Speeds, ours and PyTorch's."""
    rows = []

    def row(what, ours, theirs, faster, note=""):
        if ours is not None or theirs is not None:
            rows.append(f"| {what}{note} | {number(ours)} | {number(theirs)} | {faster} |")

    def speeds(what, ours, theirs):
        a, b = r.get(ours, "images_per_s"), r.get(theirs, "images_per_s")
        batch, of = r.get(theirs, "settings", "batch"), r.get(ours, "batch")
        less = f" (PyTorch at {batch}, memory holds no more)" if batch and of and batch < of else ""
        row(what, a, b, ratio(a, b), less)

    for precision in PRECISIONS:
        step = f"step-{precision}"
        speeds(f"training step, {precision}, img/s", step, f"peer-{step}")
        if r.json(f"peer-{step}-compiled"):
            speeds(f"training step, {precision}, compiled, img/s", step, f"peer-{step}-compiled")
    speeds("sampling, img/s", "sample", "peer-sample")
    for name, what in (("nearest", "nearest 2, 3,072 bytes, ms"), ("nearest-3000", "nearest 2, 3,000 bytes, ms")):
        a, b = ((v and v * 1e3) for v in (r.get(name, "median_s"), r.get(f"peer-{name}", "median_s")))
        row(what, a, b, ratio(b, a))
    if rows:
        print("## Beside PyTorch\n\n| work | emm | PyTorch | ratio |\n|---|---:|---:|---:|")
        print("\n".join(rows) + "\n")
    a, b = r.get("optimal", "images_per_s"), r.get("optimal-cpu", "images_per_s")
    if a:
        print(f"The optimum's samples: {number(a)} img/s, {number(b) or 'not measured'} on the CPU.\n")


def kernel_table(r, precision):
    kernels = r.json(f"kernels-{precision}")
    if not kernels:
        return
    ceilings = ", ".join(f"{k} {v:.4g}" for k, v in kernels["ceilings"].items())
    print(f"## Kernels, {precision}, {kernels['images']} images a micro-batch\n\nMeasured ceilings: {ceilings}.\n")
    print("| kernel | of | shapes | count | ms each | TFLOP/s | GB/s | of ceiling |\n|---|---|---|---:|---:|---:|---:|---:|")
    for k in kernels["layers"][:30]:
        print(f"| {k['name']} | {k['of']} | {k['shapes']} | {k['count']} | {k['median_s'] * 1e3:.4f} | "
              f"{k['flop_per_s'] / 1e12:.1f} | {k['bytes_per_s'] / 1e9:.0f} | {k['of_ceiling'] * 100:.0f}% |")  # fmt: skip
    print()


def conv_table(r, precision):
    conv = r.json(f"peer-conv-{precision}")
    if not conv:
        return
    print(f"## PyTorch's convolutions alone, {precision}, {conv['batch']} images, TFLOP/s\n")
    print("| in → out, pixels | forward | dgrad | wgrad |\n|---|---:|---:|---:|")
    for c in conv["cases"]:
        rates = " | ".join(f"{c[k]['flop_per_s'] / 1e12:.1f}" for k in ("forward", "dgrad", "wgrad"))
        print(f"| {c['in']} → {c['out']}, {c['resolution']}² | {rates} |")
    print()


def study(r):
    """The table that gpu-study.sh has so far."""
    if r.text("table.md"):
        print(r.text("table.md"))
        if (r.folder / "figure.png").exists():
            print("`figure.png`, `figure.csv` and each run's settings and scores (`runs`) are in results.tar.gz.\n")


def part_table(r):
    print("## Parts\n\n| part | how it went | s | command |\n|---|---|---:|---|")
    for name, part in r.parts.items():
        short = " ".join(w.rsplit("/", 1)[-1] if "/" in w else w for w in part["command"].split())
        how = part["how"].replace("|", "/")
        print(f"| {name} | {how} | {part['seconds']} | {f'`{short}`' if short else ''} |")


def page(r):
    """All sections; one that cannot be made, because a part printed something else, says so in its place."""
    of_precisions = [(f"{table.__name__} of {p}", table, (p,)) for table in (kernel_table, conv_table) for p in PRECISIONS]
    sections = [(section.__name__, section, ()) for section in (head, study, loss_table, beside)]
    for name, section, arguments in [*sections, *of_precisions, ("part_table", part_table, ())]:
        text = io.StringIO()
        try:
            with contextlib.redirect_stdout(text):
                section(r, *arguments)
            print(text.getvalue(), end="")
        except BROKEN as e:
            print(f"**{name.replace('_', ' ')}: {unlike(e)}**\n")


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("raw", type=Path)
    ways = p.add_mutually_exclusive_group(required=True)
    ways.add_argument("--part", metavar="NAME")
    ways.add_argument("--gate", metavar="NAME")
    for flag in ("--failed-ops", "--gpu", "--verdict"):
        ways.add_argument(flag, action="store_true")
    a = p.parse_args()
    r = Results(a.raw)
    if a.part is not None:
        with open(a.raw / "README.md", "w") as file, contextlib.redirect_stdout(file):
            page(r)
        if a.part in r.parts:
            print(line(r, a.part))
    elif a.gate:
        sys.exit(1 if cannot(r, a.gate) else 0)
    elif a.failed_ops:
        for op in failed_ops(r):
            print(op)
    elif a.gpu:
        print(re.sub(r"[^a-z0-9]+", "-", r.named().lower()).strip("-"))
    else:
        try:
            print(verdict(r))
        except BROKEN as e:
            print(f"{r.about.get('script')}: no verdict, of one part {unlike(e)}")


if __name__ == "__main__":
    main()

"""The README of a folder that bench/gpu.sh wrote: python bench/gpu_summary.py FOLDER SHA256_OF_THE_BINARY"""

import json
import sys
from pathlib import Path


PRECISIONS = ("bf16", "tf32", "fp32")


def load(folder, name):
    try:
        return json.loads((folder / f"{name}.json").read_text())
    except (OSError, ValueError):
        return None


def ratio(ours, theirs):
    return f"{ours / theirs:.2f}" if ours and theirs else ""


def number(value, digits=1):
    return f"{value:,.{digits}f}" if value is not None else ""


def main():
    folder, binary = Path(sys.argv[1]), sys.argv[2]
    get = lambda name: load(folder, name)  # noqa: E731
    doctor = get("doctor") or {}
    cards = [d["name"] for d in doctor.get("devices", []) if d["device"].startswith("cuda")]
    print(f"# {cards[0] if cards else 'No card'}, {folder.name[:10]}\n")
    print(f"Made by `bench/gpu.sh`; driver {doctor.get('cuda_driver')}, binary {binary[:16]}. Raw numbers beside this page.\n")
    check = get("check")
    if check:
        print(f"`emm check` on {check['device']}:")
        for precision in PRECISIONS:
            ops = [o for o in check["ops"] if o["precision"] == precision]
            if ops:
                verdict = "pass" if all(o["ok"] for o in ops) else "FAIL"
                worst = max(o["worst_error"] for o in ops)
                print(f"{sum(o['cases'] for o in ops)} cases {verdict} in {precision}, worst error {worst:.1e}.")
        print()

    print("## Beside PyTorch\n\n| work | emm | PyTorch | ratio |\n|---|---:|---:|---:|")
    speed = lambda name: (get(name) or {}).get("images_per_s")  # noqa: E731
    for precision in PRECISIONS:
        ours = speed(f"step-{precision}")
        for how, name in (("eager", f"step-{precision}-pytorch"), ("compiled", f"step-{precision}-pytorch-compiled")):
            if (folder / f"{name}.json").exists() or (how == "eager" and ours):
                print(f"| training step, {precision}, {how}, img/s | {number(ours)} | {number(speed(name))} | {ratio(ours, speed(name))} |")
    ours, theirs = ((get(name) or {}).get("median_s") for name in ("nearest", "nearest-pytorch"))
    print(f"| nearest 2, ms | {number(ours and ours * 1e3)} | {number(theirs and theirs * 1e3)} | {ratio(theirs, ours)} |")
    print(f"| sampling, img/s | {number(speed('sample'))} | | |\n")

    for precision in PRECISIONS:
        kernels = get(f"kernels-{precision}")
        if not kernels:
            continue
        ceilings = ", ".join(f"{k} {v:.4g}" for k, v in kernels["ceilings"].items())
        print(f"## Kernels, {precision}, {kernels['images']} images a micro-batch\n\nMeasured ceilings: {ceilings}.\n")
        print("| kernel | of | shapes | count | ms each | TFLOP/s | GB/s | of ceiling |\n|---|---|---|---:|---:|---:|---:|---:|")
        for r in kernels["layers"][:30]:
            print(f"| {r['name']} | {r['of']} | {r['shapes']} | {r['count']} | {r['median_s'] * 1e3:.4f} | "
                  f"{r['flop_per_s'] / 1e12:.1f} | {r['bytes_per_s'] / 1e9:.0f} | {r['of_ceiling'] * 100:.0f}% |")  # fmt: skip
        print()
    for precision in PRECISIONS:
        conv = get(f"conv-{precision}-pytorch")
        if not conv:
            continue
        print(f"## PyTorch's convolutions alone, {precision}, {conv['batch']} images, TFLOP/s\n")
        print("| in → out, pixels | forward | dgrad | wgrad |\n|---|---:|---:|---:|")
        for c in conv["cases"]:
            rates = " | ".join(f"{c[k]['flop_per_s'] / 1e12:.1f}" for k in ("forward", "dgrad", "wgrad"))
            print(f"| {c['in']} → {c['out']}, {c['resolution']}² | {rates} |")
        print()

    print("## Parts\n\n| part | how it went | s | command |\n|---|---|---:|---|")
    for line in (folder / "parts.tsv").read_text().splitlines():
        name, why, seconds, command = line.split("\t")
        short = " ".join(w.rsplit("/", 1)[-1] if "/" in w else w for w in command.split())
        print(f"| {name} | {why.replace('|', '/')} | {seconds} | `{short}` |")


if __name__ == "__main__":
    main()

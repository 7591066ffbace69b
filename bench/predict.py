#!/usr/bin/env python3
"""What a training step would take on a GPU that is not here, by what holds each kernel back: no measurement, a prediction.

    python bench/predict.py [--emm target/release/emm] [--device h100|a100] [--preset paper-basic] [--json]
    python bench/predict.py --plan plan.json --device h100

Reads every launch of a step, its blocks, FLOP and bytes from `emm plan --device D --json --launches`, and what kernels'
loops cost from bench/kernel-resources.csv and kernel-loops.csv, which the compiler's own output is. The floor of `plan`
assumes that each kernel reaches its ceiling; this one asks, block by block, whether the tensor cores, shared memory,
the schedulers' issue slots, or the device's memory hold it back, and what last waves, prologues and launches add.

ASSUMPTIONS below holds every rate and efficiency with where it comes from.
"""

import argparse
import collections
import csv
import dataclasses
import json
import math
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ARCH = {"h100": "sm_90a", "a100": "sm_80"}


@dataclasses.dataclass
class Gpu:
    name: str
    multiprocessors: int
    clock: float  # 1/s, sustained under load
    bytes_per_s: float
    hmma_cycles: float  # of a scheduler, for an mma.sync of m16n8k16
    wgmma_flop: float  # per s, whole GPU, sustained; 0: none
    registers: int = 65536
    shared: int = 228 * 1024


# Every number that no compiler says.
GPUS = {
    # SXM5. Clock: 1.98 GHz at most, about 1.72 at the 700 W wall. mma.sync: 63% of the peak (arXiv 2501.12084: 494 of
    # 757 TFLOP/s on an H800). wgmma: 620 TFLOP/s sustained (DeepGEMM 657-670, torch 597-624 at the wall).
    "h100": Gpu("h100", 132, 1.72e9, 3.0e12, 6.35, 620e12),
    # SXM4 80 GB. mma.sync reaches its peak of 2,048 FLOP a cycle and multiprocessor.
    "a100": Gpu("a100", 108, 1.38e9, 1.75e12, 8.0, 0.0, shared=164 * 1024),
}
LAUNCH_S = 0.9e-6  # between two nodes of a graph, on both (measured by others: 0.7-1.2 us)
L2_STORES = 1.8  # times the memory's rate, that blocks write at while others compute (H100: 5.5 TB/s by public microbenchmarks)
L2_LOADS = 1.8  # the same of what blocks copy from there, operands that others have read
MEMORY_SHARE = 0.85  # of the rate above that a kernel which only streams reaches
PIPE_SHARE = 0.84  # of the pipe that binds it, that a loop of two blocks, or of 64 x 64 warps, reaches
PIPE_SHARE_NARROW_ALONE = 0.62  # the same where one block of 64 x 32 warps has a multiprocessor to itself
SHARED_BYTES_A_CYCLE = 128
SLOTS_SHARE = 0.75  # of issue slots that elementwise code fills forward; backward waits more for its loads
SLOTS_SHARE_BWD = 0.65
ATTENTION_SOFTMAX, ATTENTION_STORE = 1500, 850  # issue slots that a warp takes between products, and behind them
SMALL_S = {"sum_rows": 6e-6}  # few blocks: the memory's answers in series


def rows(path):
    return list(csv.DictReader((ROOT / "bench" / path).open()))


class Compiled:
    """What the compiler made of the kernels for one architecture."""

    def __init__(self, arch):
        self.registers = {r["kernel"]: int(r["registers"]) for r in rows("kernel-resources.csv") if r["arch"] == arch}
        self.loops = collections.defaultdict(list)
        for r in rows("kernel-loops.csv"):
            if r["arch"] == arch:
                self.loops[r["kernel"]].append(r)

    def main_loop(self, kernel):
        """Instructions of the loop with the most products, and the products."""
        best = max(self.loops[kernel], key=lambda r: int(r["products"]), default=None)
        if best is None or not int(best["products"]):
            sys.exit(f"bench/kernel-loops.csv: no main loop of {kernel}; make it anew by bench/kernel_resources.py")
        return int(best["instructions"]), int(best["products"])

    def per_element(self, kernel):
        """Instructions of all passes over an element of 16-byte pieces of 8."""
        passes = [(r["shared_bytes"], int(r["instructions"]) / int(r["pieces"])) for r in self.loops[kernel] if int(r["pieces"])]
        if "_bwd_" in kernel:
            # Loops that read the same of shared memory are forms of one pass, which writes or adds; the dearest counts.
            passes = {shared: max(cost for of, cost in passes if of == shared) for shared, _ in passes}.items()
        return sum(cost for _, cost in passes) / 8


@dataclasses.dataclass
class Launch:
    name: str
    layer: str
    op: str
    backward: bool
    shapes: str
    blocks: int
    threads: int
    shared: int
    flop: float
    bytes: float
    floor_s: float

    def resident(self, gpu, compiled):
        """Blocks that a multiprocessor holds at once."""
        by_registers = gpu.registers // (compiled.registers.get(self.name, 64) * self.threads)
        by_shared = gpu.shared // (self.shared + 1024)
        return max(1, min(by_registers, by_shared, 2048 // self.threads))


def waves(blocks, slots):
    """Rounds of `slots` blocks; the last one counts whole, unless there are so many that blocks run on unevenly."""
    exact = blocks / slots
    return math.ceil(exact) if exact < 8 else exact + 0.5


def mma(launch, gpu, compiled):
    """A product by mma.sync: a tile a block, k-steps of 128 bytes of depth."""
    wide = "_wide" in launch.name
    columns, width = (256, 64) if wide else (128, 32)
    together = launch.resident(gpu, compiled)
    instructions, products = compiled.main_loop(launch.name)
    steps = max(1.0, launch.flop / launch.blocks / (2 * 128 * columns * 64))
    tensor = 8 / 4 * products * gpu.hmma_cycles
    # ldmatrix: a warp reads 64 lines of A and `width` of B; the ring is filled once.
    shared = (8 * (64 + width) * 128 + (128 + columns) * 128) / SHARED_BYTES_A_CYCLE
    issue = 8 / 4 * instructions
    share = PIPE_SHARE if wide or together > 1 else PIPE_SHARE_NARROW_ALONE
    step = max(tensor, shared, issue) / share
    # Sums into shared memory and out again, some 45 instructions for 8 results, and the first loads.
    results = 128 * columns
    epilogue = 2 * 4 * results / SHARED_BYTES_A_CYCLE + results / 8 / 32 * 45 / 4 + 1500
    if launch.name.startswith("wgrad"):
        epilogue += results * 4 / (L2_STORES * gpu.bytes_per_s / gpu.multiprocessors / gpu.clock)
    # Blocks that share a multiprocessor hide each other's epilogues by half.
    cycles = steps * step + epilogue * (0.5 if together > 1 else 1.0)
    bound = ("tensor cores", "shared memory", "issue")[[tensor, shared, issue].index(max(tensor, shared, issue))]
    return waves(launch.blocks, gpu.multiprocessors * together) * together * cycles / gpu.clock, bound


def wgmma(launch, gpu, compiled):
    """A product by wgmma: persistent tiles of the convolution, a tile a block of the weight's gradient."""
    per_sm = gpu.wgmma_flop / gpu.multiprocessors
    if launch.name == "wgrad_wgmma":
        store = 128 * 256 * 4 / (L2_STORES * gpu.bytes_per_s / gpu.multiprocessors)
        block = launch.flop / launch.blocks / per_sm + store + 2.5e-6
        return waves(launch.blocks, gpu.multiprocessors) * block, "tensor cores"
    columns = int(launch.name.rsplit("_", 1)[1])
    pixels, out = pixels_of(launch.shapes), out_channels(launch)
    tiles = math.ceil(pixels / 128) * math.ceil(out / columns)
    tile = launch.flop / tiles / per_sm + 1.2e-6
    return waves(tiles, gpu.multiprocessors) * tile + 3e-6, "tensor cores"


def pixels_of(shapes):
    """Pixels of all images of the first output."""
    n, h, w, _ = dimensions(shapes.split(" → ")[1].split(" ")[0])
    return n * h * w


def out_channels(launch):
    """Channels that the product gives: y's forward, backward those of the input whose gradient has its FLOP."""
    ins, out = ([dimensions(s) for s in side.split(" ")] for side in launch.shapes.split(" → "))
    n, h, w, o = out[0]
    if not launch.backward:
        return o
    fit = [shape[3] for shape in ins if len(shape) == 4
           for taps in (9, 1) if launch.flop == 2 * n * h * w * o * taps * shape[3]]
    return fit[0] if fit else ins[0][3]


def dimensions(text):
    return [int(n) for n in text.split("×")]


def norm(launch, gpu, compiled):
    """A norm of slabs: memory, or the issue slots that its passes over an element take."""
    first, out = launch.shapes.split(" → ")
    n, h, w, _ = dimensions(first.split(" ")[0])
    channels = dimensions(out.split(" ")[0])[3]
    instructions = compiled.per_element(launch.name)
    share = SLOTS_SHARE_BWD if launch.backward else SLOTS_SHARE
    slots = gpu.multiprocessors * 4 * share * gpu.clock
    # Setting up, sums over the block, its statistics: for a warp, by a reading of the SASS (270 for a thread and what the
    # sums' loops add; 700 and 900 before they were rewritten).
    fixed = launch.blocks * 8 * (450 if launch.backward else 400)
    issue = (n * h * w * channels * instructions / 32 + fixed) / slots
    memory = launch.bytes / gpu.bytes_per_s / MEMORY_SHARE
    return max(issue, memory), "issue" if issue > memory else "memory"


def attention(launch, gpu, compiled):
    """Attention on chip: a block's two products (of the gradient of keys and values one), step by step, and between them
    what is done by all threads at once. A multiprocessor has one block, so nothing hides that; memory's time passes beside it."""
    ins, outs = launch.shapes.split(" → ")
    _, h, w, channels = dimensions(ins)
    t, c, of_keys = h * w, channels // 3, launch.name.endswith("_keys")
    instructions, products = compiled.main_loop(launch.name)
    # A scheduler has two warps, of rows 64 apart; those beyond the image do nothing. A warp's 64 x 64 at 64 depths are 128
    # products. Of A and of B a step copies the lines that there are.
    warps, rows_of_a, channels_of_b = min(2, math.ceil(t / 64)), min(t, 128), min(c, 256)
    cycles, bound = 1500, collections.Counter()
    if of_keys:
        parts = [(math.ceil(t / 64), 64, rows_of_a + channels_of_b)]
    else:
        parts = [(math.ceil(c / 64), 64, rows_of_a + t), (math.ceil(t / 32) * math.ceil(c / 256), 32, channels_of_b)]
    for steps, depth, lines in parts:
        of_warp, copied = 2 * depth, lines * depth * 2
        limits = {
            "tensor cores": warps * of_warp * gpu.hmma_cycles / PIPE_SHARE,
            "issue": warps * of_warp * instructions / products / PIPE_SHARE,
            "shared memory": (warps * 4 * of_warp * 128 + copied) / SHARED_BYTES_A_CYCLE / PIPE_SHARE,
            "second-level cache": copied / (L2_LOADS * gpu.bytes_per_s / gpu.multiprocessors / gpu.clock),
        }
        most = max(limits, key=limits.get)
        cycles += steps * limits[most]
        bound[most] += steps * limits[most]
    # Instructions of a warp by a reading of the SASS: the softmax or its gradient, and 16-byte pieces of the sums.
    cycles += warps * (ATTENTION_STORE + (0 if of_keys else ATTENTION_SOFTMAX))
    return waves(launch.blocks, gpu.multiprocessors) * cycles / gpu.clock, bound.most_common(1)[0][0]


def predict(launch, gpu, compiled):
    """Seconds of a launch, and what holds it back."""
    memory = launch.bytes / gpu.bytes_per_s / MEMORY_SHARE
    if launch.name in SMALL_S or launch.name.removesuffix("_bf16") in SMALL_S:
        seconds, bound = max(memory, SMALL_S[launch.name.removesuffix("_bf16")]), "latency"
    elif "_wgmma" in launch.name:
        seconds, bound = wgmma(launch, gpu, compiled)
    elif re.match(r"(conv2d|wgrad)_mma", launch.name):
        seconds, bound = mma(launch, gpu, compiled)
    elif launch.name.startswith("norm_slab"):
        seconds, bound = norm(launch, gpu, compiled)
    elif launch.name.startswith("attention_mma"):
        seconds, bound = attention(launch, gpu, compiled)
    elif launch.name.startswith("matmul_mma"):
        # One tile of few k-steps a block, results stored two bytes at a time: measured by nobody, twice its floor.
        seconds, bound = 2 * launch.floor_s, "latency"
    else:
        seconds, bound = max(memory, launch.floor_s, 2e-6), "memory"
    if launch.name.startswith("attention_mma") and memory > seconds:
        bound = "memory"
    return max(seconds, memory) + LAUNCH_S, bound


def launches(plan):
    for layer in plan["layers"]:
        for k in layer["launches"]:
            (x, y, z), threads, shared = k["geometry"]
            yield Launch(k["name"], layer["layer"], layer["op"], layer["backward"], layer["shapes"], x * y * z, threads, shared,
                         k["flop"], k["bytes"], k["floor_s"])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--emm", type=Path, default=ROOT / "target/release/emm")
    parser.add_argument("--plan", type=Path, help="what emm plan printed, instead of asking --emm")
    parser.add_argument("--device", choices=GPUS, default="h100")
    parser.add_argument("--preset", default="paper-basic")
    parser.add_argument("--json", action="store_true")
    a = parser.parse_args()
    if a.plan:
        plan = json.loads(a.plan.read_text())
    else:
        command = [a.emm, "plan", "--device", a.device, "--preset", a.preset, "--json", "--launches"]
        plan = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    gpu, compiled = GPUS[a.device], Compiled(ARCH[a.device])
    seconds, floors, counts = collections.Counter(), collections.Counter(), collections.Counter()
    bounds = collections.defaultdict(collections.Counter)
    for launch in launches(plan):
        s, bound = predict(launch, gpu, compiled)
        seconds[launch.name] += s
        floors[launch.name] += launch.floor_s
        counts[launch.name] += 1
        bounds[launch.name][bound] += s
    # Of the whole step, beside the recorded launches: the batch, Adam with its check.
    listed = set(seconds)
    for share in plan["kernels"]:
        if share["name"] not in listed:
            seconds[share["name"]] = share["bytes"] / gpu.bytes_per_s / MEMORY_SHARE + share["launches"] * LAUNCH_S
            floors[share["name"]], counts[share["name"]] = share["floor_s"], share["launches"]
            bounds[share["name"]]["memory"] = 1.0
    step, images = sum(seconds.values()), plan["micro_batch"]
    if a.json:
        kernels = [{"name": k, "launches": counts[k], "predicted_s": s, "floor_s": floors[k],
                    "bound": bounds[k].most_common(1)[0][0]} for k, s in seconds.most_common()]
        print(json.dumps({"device": a.device, "step_s": step, "images_per_s": images / step,
                          "launches": sum(counts.values()), "kernels": kernels}, indent=1))
        return
    print(f"{a.device}, {a.preset}: a step of {images} images in {step * 1e3:.1f} ms, {images / step:,.0f} images/s predicted; "
          f"{sum(counts.values())} launches; floor {sum(floors.values()) * 1e3:.1f} ms\n")
    print("| kernel | launches | predicted ms | us an image | floor ms | held back by |\n|---|---:|---:|---:|---:|---|")
    for k, s in seconds.most_common():
        bound = bounds[k].most_common(1)[0][0]
        print(f"| {k} | {counts[k]} | {s * 1e3:.2f} | {s * 1e6 / images:.1f} | {floors[k] * 1e3:.2f} | {bound} |")


if __name__ == "__main__":
    main()

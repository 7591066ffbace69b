"""Convolutions alone, by PyTorch (cuDNN on a GPU): the 3×3 ones of a network, forward and both gradients.

    python bench/peers/conv.py --device cuda --batch 512 --precision bf16 --layout channels_last

The peer of the conv2d lines of `emm bench kernels`, with the network's flags of step.py. On a GPU: CUDA events, the
second-level cache flushed before each, benchmark mode on. Prints one JSON object: cases of in, out, resolution, and for
forward, dgrad and wgrad seconds (median, of the faster layout), layout and flop_per_s.
"""

import json
import re
import statistics
import time

import step
import torch


def shapes(cfg):
    """(in, out, resolution) of the 3×3 convolutions of the network, without repeats."""
    found = set()
    for name, shape in step.network.shapes(cfg).items():
        at = re.search(r"(\d+)x\d+_", name)
        if at and shape[2:] == (3, 3):
            found.add((shape[1], shape[0], int(at[1])))
    return sorted(found)


def stopwatch(device):
    """A function that runs another so many times and returns the median of their seconds."""
    if torch.device(device).type == "cpu":

        def run(work, repeats):
            work()
            times = []
            for _ in range(repeats):
                start = time.perf_counter()
                work()
                times.append(time.perf_counter() - start)
            return statistics.median(times)

        return run
    other = torch.empty(2 * torch.cuda.get_device_properties(device).L2_cache_size, dtype=torch.uint8, device=device)
    spin = 2_000_000  # clock cycles, about a millisecond

    def once(work):
        """Seconds of `work`. The GPU spins while the host queues it, so that the time holds no dispatch."""
        nonlocal spin
        while True:
            other.zero_()
            torch.cuda.synchronize(device)
            before, start, end = (torch.cuda.Event(enable_timing=True) for _ in range(3))
            queued = time.perf_counter()
            before.record()
            torch.cuda._sleep(spin)
            start.record()
            work()
            end.record()
            queued = time.perf_counter() - queued
            end.synchronize()
            if queued < before.elapsed_time(start) / 1e3:
                return start.elapsed_time(end) / 1e3
            spin *= 2

    def run(work, repeats):
        for _ in range(3):
            work()
        return statistics.median(once(work) for _ in range(repeats))

    return run


def times(a, shape, layout, seconds):
    """Seconds of each pass of one convolution."""
    i, o, r = shape
    memory = torch.channels_last if layout == "channels_last" else torch.contiguous_format
    dtype = torch.bfloat16 if a.precision == "bf16" else torch.float32
    tensor = lambda *s: torch.randn(s, dtype=dtype, device=a.device).contiguous(memory_format=memory)  # noqa: E731
    x, w, dy = tensor(a.batch, i, r, r), tensor(o, i, 3, 3), tensor(a.batch, o, r, r)
    gradient = lambda mask: torch.ops.aten.convolution_backward(  # noqa: E731
        dy, x, w, None, [1, 1], [1, 1], [1, 1], False, [0, 0], 1, mask
    )
    return {
        "forward": seconds(lambda: torch.nn.functional.conv2d(x, w, padding=1), a.repeats),
        "dgrad": seconds(lambda: gradient([True, False, False]), a.repeats),
        "wgrad": seconds(lambda: gradient([False, True, False]), a.repeats),
    }


def main():
    a = step.flags(__doc__).parse_args()
    if a.threads:
        torch.set_num_threads(a.threads)
    step.allow_tf32(a)
    seconds, cases = stopwatch(a.device), []
    layouts = ["nchw", "channels_last"] if a.layout == "best" else [a.layout]
    for i, o, r in shapes(step.config(a)):
        tried = {layout: times(a, (i, o, r), layout, seconds) for layout in layouts}
        flop, rates = 2 * a.batch * r * r * 9 * i * o, {}
        for name in ("forward", "dgrad", "wgrad"):
            layout = min(layouts, key=lambda layout: tried[layout][name])
            best = tried[layout][name]
            rates[name] = {"median_s": best, "layout": layout, "flop_per_s": flop / best}
        cases.append({"in": i, "out": o, "resolution": r, **rates})
    about = {"batch": a.batch, "precision": a.precision, "device": a.device, "torch": torch.__version__}
    print(json.dumps({"cases": cases, **about}))


if __name__ == "__main__":
    main()

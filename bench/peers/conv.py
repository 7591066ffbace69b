"""Convolutions alone, by PyTorch (cuDNN on a card): the 3×3 ones of a network, forward and both gradients.

    python bench/peers/conv.py --device cuda --batch 128 --precision bf16

The peer of the conv2d lines of `emm bench kernels`. On a card: CUDA events, the second-level cache flushed before each,
benchmark mode on, channels_last. Prints one JSON object: cases of in, out, resolution, and for forward, dgrad and wgrad
seconds (median) and flop_per_s.
"""

import argparse
import json
import statistics
import time

import torch


def shapes(a):
    """(in, out, resolution) of the 3×3 convolutions of the network, without repeats."""
    wide = [m * a.channels for m in a.mult]
    found = {(a.channels, wide[0], a.resolution)}
    for level, width in enumerate(wide):
        r = a.resolution >> level
        found.add((width, width, r))
        before = a.channels if level == 0 else wide[level - 1]
        found.add((before, width, r))
        # The decoder joins the running image with a skip of the same resolution.
        found.add((2 * width, width, r))
        found.add((width + before, width, r))
    return sorted(s for s in found if s[2] > 0)


def stopwatch(device):
    """A function that runs another so many times and returns the median of their seconds."""
    if device == "cpu":

        def run(work, repeats):
            work()
            times = []
            for _ in range(repeats):
                start = time.perf_counter()
                work()
                times.append(time.perf_counter() - start)
            return statistics.median(times)

        return run
    other = torch.empty(2 * torch.cuda.get_device_properties(0).L2_cache_size, dtype=torch.uint8, device=device)

    def run(work, repeats):
        for _ in range(3):
            work()
        times = []
        for _ in range(repeats):
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            other.zero_()
            start.record()
            work()
            end.record()
            end.synchronize()
            times.append(start.elapsed_time(end) / 1e3)
        return statistics.median(times)

    return run


def main():
    ints = lambda text: [int(v) for v in text.split(",")]  # noqa: E731
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--resolution", type=int, default=32)
    p.add_argument("--channels", type=int, default=128)
    p.add_argument("--mult", type=ints, default=[2, 2, 2], help="2,2,2")
    p.add_argument("--batch", type=int, default=128)
    p.add_argument("--precision", choices=["fp32", "tf32", "bf16"], default="fp32")
    p.add_argument("--repeats", type=int, default=10)
    p.add_argument("--device", default="cpu")
    a = p.parse_args()
    torch.backends.cudnn.benchmark = True
    torch.backends.cudnn.allow_tf32 = a.precision == "tf32"
    dtype = torch.bfloat16 if a.precision == "bf16" else torch.float32
    seconds = stopwatch(a.device)
    cases = []
    for i, o, r in shapes(a):
        tensor = lambda *s: torch.randn(s, dtype=dtype, device=a.device).contiguous(memory_format=torch.channels_last)  # noqa: E731
        x, w, dy = tensor(a.batch, i, r, r), tensor(o, i, 3, 3), tensor(a.batch, o, r, r)
        gradient = lambda mask: torch.ops.aten.convolution_backward(  # noqa: E731
            dy, x, w, None, [1, 1], [1, 1], [1, 1], False, [0, 0], 1, mask
        )
        times = {
            "forward": seconds(lambda: torch.nn.functional.conv2d(x, w, padding=1), a.repeats),
            "dgrad": seconds(lambda: gradient([True, False, False]), a.repeats),
            "wgrad": seconds(lambda: gradient([False, True, False]), a.repeats),
        }
        flop = 2 * a.batch * r * r * 9 * i * o
        rates = {name: {"median_s": t, "flop_per_s": flop / t} for name, t in times.items()}
        cases.append({"in": i, "out": o, "resolution": r, **rates})
    about = {"batch": a.batch, "precision": a.precision, "device": a.device, "torch": torch.__version__}
    print(json.dumps({"cases": cases, **about}))


if __name__ == "__main__":
    main()

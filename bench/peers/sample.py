"""The PyTorch peer of `emm bench sample`: the same network sampled by EDM's deterministic Heun steps.

    python bench/peers/sample.py --channels 32 --resolution 8 --samples 1000 --at-a-time 250

The state is float64, the network float32, or in bf16 by autocast; both layouts are tried. Prints one JSON object:
images_per_s (from the median of the repeats, images brought to the host), sample_s {min, median, max}, threads, layout,
torch, settings.

Source: Karras et al. 2022, arXiv:2206.00364, Algorithm 1.
"""

import json
import statistics
import time

import step
import torch
from step import network


def noise_levels(precond, steps, rho=7):
    """Noise levels from the highest down, then zero."""
    low, high = {"vp": (0.002, 80), "ve": (0.02, 80), "edm": (0.002, 80)}[precond]
    i = torch.arange(steps, dtype=torch.float64) / max(steps - 1, 1)
    levels = (high ** (1 / rho) + i * (low ** (1 / rho) - high ** (1 / rho))) ** rho
    return [*levels.tolist(), 0.0]


@torch.inference_mode()
def heun(cfg, p, x, levels):
    """Images from noise x (float64, of the first level's standard deviation)."""

    def slope(x, sigma):
        d = network.denoise(cfg, p, x.float(), x.new_full([len(x)], sigma, dtype=torch.float32))
        return (x - d.double()) / sigma

    for now, then in zip(levels[:-1], levels[1:]):
        first = slope(x, now)
        moved = x + (then - now) * first
        if then > 0:
            moved = x + (then - now) * (first + slope(moved, then)) / 2
        x = moved
    return x


def sampler(cfg, a, layout):
    """A function that samples `n` images, so many at a time."""
    memory = torch.channels_last if layout == "channels_last" else torch.contiguous_format
    p, levels, autocast = step.parameters(cfg, a, memory), noise_levels(cfg["precond"], a.steps), step.bf16_where_asked(a)

    def sample(n):
        for first in range(0, n, a.at_a_time):
            shape = (min(a.at_a_time, n - first), cfg["image_channels"], cfg["resolution"], cfg["resolution"])
            x = torch.randn(shape, dtype=torch.float64, device=a.device).contiguous(memory_format=memory)
            with autocast:
                heun(cfg, p, x * levels[0], levels).float().cpu()

    return sample


def timed(sample, n):
    start = time.perf_counter()
    sample(n)
    return time.perf_counter() - start


def main():
    p = step.flags(__doc__)
    p.add_argument("--samples", type=int, default=64)
    p.add_argument("--at-a-time", type=int, default=64)
    p.add_argument("--steps", type=int, default=18)
    a = p.parse_args()
    if a.threads:
        torch.set_num_threads(a.threads)
    step.allow_tf32(a)
    cfg = step.config(a)
    layouts = ["nchw", "channels_last"] if a.layout == "best" else [a.layout]
    trial = min(a.samples, a.at_a_time)
    tried = [(timed(s, trial), timed(s, trial), layout, s) for layout in layouts for s in [sampler(cfg, a, layout)]]
    _, _, layout, sample = min(tried, key=lambda t: t[1])
    times = [timed(sample, a.samples) for _ in range(a.repeats)]
    median = statistics.median(times)
    print(
        json.dumps(
            {
                "images_per_s": a.samples / median,
                "sample_s": {"min": min(times), "median": median, "max": max(times)},
                "threads": torch.get_num_threads(),
                "layout": layout,
                "precision": a.precision,
                "device": a.device,
                "torch": torch.__version__,
                "settings": {**cfg, "samples": a.samples, "at_a_time": a.at_a_time, "steps": a.steps},
            }
        )
    )


if __name__ == "__main__":
    main()

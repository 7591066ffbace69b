"""The peer of `emm bench optimal`: the closed-form optimum sampled with EDM's Heun sampler, in PyTorch.

    python bench/peers/optimal.py --images 256 --references 10000 --data images.npy --latents latents.npy
    python bench/peers/optimal.py --make-latents latents.npy

The optimum is two matrix products and a softmax in float32 (its exponents from x·y and ‖y‖², the fastest way of
writing it), the sampler's state float64, as in EDM. Prints one JSON object: images_per_s, median_s, prepare_s,
images, references, steps, memorized, and the nearest training image of each sample, decided in integers.
"""

import argparse
import json
import statistics
import time

import numpy as np
import torch


def noise_levels(steps, rho=7.0, low=0.002, high=80.0):
    i = np.arange(steps) / max(steps - 1, 1)
    levels = (high ** (1 / rho) + i * (low ** (1 / rho) - high ** (1 / rho))) ** rho
    return [*levels, 0.0]


def optimum(y, half_squares, x, sigma):
    """D*(x; sigma) = softmax(-|x - y|^2 / 2 sigma^2) y; what all y share drops out."""
    exponents = torch.addmm(half_squares, x.float(), y.T, beta=-1).div_(sigma * sigma)
    return (torch.softmax(exponents, 1) @ y).double()


def heun(denoise, latents, levels):
    x = latents.double() * levels[0]
    for t, t_next in zip(levels, levels[1:]):
        slope = (x - denoise(x, t)) / t
        following = x + (t_next - t) * slope
        if t_next > 0:
            slope = 0.5 * slope + 0.5 * (following - denoise(following, t_next)) / t_next
            following = x + (t_next - t) * slope
        x = following
    return x


def decide(pixels, references):
    """The nearest reference of each sample, and how many are memorized: 9·D1 < D2."""
    nearest, memorized = [], 0
    for p in pixels.astype(np.int32):
        squared = np.square(references - p).sum(1)
        first = int(squared.argmin())
        d1, squared[first] = int(squared[first]), np.iinfo(np.int32).max
        nearest.append(first)
        memorized += 9 * d1 < int(squared.min())
    return nearest, memorized


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--images", type=int, default=256)
    p.add_argument("--references", type=int, default=10000)
    p.add_argument("--data", help="unsigned bytes [N,H,W,C], the first are taken")
    p.add_argument("--latents", help="float32 [S,C,H,W], the first are taken")
    p.add_argument("--steps", type=int, default=18)
    p.add_argument("--repeats", type=int, default=5)
    p.add_argument("--threads", type=int, default=0, help="0 takes PyTorch's own choice")
    p.add_argument("--make-latents", metavar="F.npy", help="write 1,000 latents for images of 32x32x3, and end")
    a = p.parse_args()
    if a.make_latents:
        rng = np.random.default_rng(1024)
        return np.save(a.make_latents, rng.standard_normal((1000, 3, 32, 32), np.float32))
    if a.threads:
        torch.set_num_threads(a.threads)
    rng = np.random.default_rng(1024)
    if a.data:
        references = np.load(a.data, mmap_mode="r")[: a.references]
    else:
        references = rng.integers(0, 256, (a.references, 32, 32, 3), np.uint8)
    if a.latents:
        latents = np.load(a.latents)[: a.images].transpose(0, 2, 3, 1)
    else:
        latents = rng.standard_normal((a.images, *references.shape[1:]), np.float32)
    if len(references) < a.references or len(latents) < a.images:
        p.error(f"found {len(references)} references and {len(latents)} latents, too few")
    references = np.array(references).reshape(a.references, -1)
    latents = torch.from_numpy(np.ascontiguousarray(latents)).reshape(a.images, -1)

    start = time.perf_counter()
    y = torch.from_numpy(references).float().div_(127.5).sub_(1)
    half_squares = y.square().sum(1).div_(2)
    prepare_s, levels, times = time.perf_counter() - start, noise_levels(a.steps), []
    with torch.inference_mode():
        for repeat in range(a.repeats + 1):
            start = time.perf_counter()
            images = heun(lambda x, sigma: optimum(y, half_squares, x, sigma), latents, levels)
            if repeat:
                times.append(time.perf_counter() - start)
    pixels = (127.5 * images.float().double() + 128).clamp(0, 255).to(torch.uint8).numpy()
    nearest, memorized = decide(pixels, references.astype(np.int32))
    median = statistics.median(times)
    result = {"images_per_s": a.images / median, "median_s": median, "prepare_s": prepare_s, "images": a.images}
    result |= {"references": a.references, "steps": a.steps, "memorized": memorized, "nearest": nearest}
    print(json.dumps({**result, "sample_s": times, "with": f"torch {torch.__version__}", "threads": torch.get_num_threads()}))


if __name__ == "__main__":
    main()

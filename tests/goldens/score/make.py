"""Makes this folder's goldens in float64 with NumPy and SciPy, from the definitions and none of the program's code.

    python tests/goldens/score/make.py      (numpy, scipy, safetensors; seed 20231003)
"""
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file
from scipy.stats import binomtest

HERE = Path(__file__).parent
DATA = HERE.parents[2] / "data"
rng = np.random.default_rng(20231003)


def noise_levels(lo=0.002, hi=80.0, steps=18, rho=7.0):
    i = np.arange(steps)
    return (hi ** (1 / rho) + i / (steps - 1) * (lo ** (1 / rho) - hi ** (1 / rho))) ** rho


# --- the closed-form optimum ---------------------------------------------------------------------------------

def optimum(x, sigma, y):
    e = -((x[None] - y) ** 2).sum(1) / (2 * sigma**2)
    w = np.exp(e - e.max())
    return (w / w.sum()) @ y


def optimal_case(images, labels):
    """Noised images, points halfway between two images, and noised images with classes, at all 18 levels."""
    y = images.reshape(len(images), -1).astype(np.float64) / 127.5 - 1
    xs, sigmas, classes, outs = [], [], [], []
    for sigma in noise_levels():
        a, b = rng.integers(0, len(y), 2)
        noise = rng.standard_normal((4, y.shape[1]))
        for x, k in [
            (y[a] + sigma * noise[0], -1),
            (y[-1] + sigma * noise[1], -1),  # the last two images differ in one pixel by one
            ((y[a] + y[b]) / 2 + 1e-4 * noise[2], -1),
            (y[a] + sigma * noise[3], labels[b]),
        ]:
            x = x.astype(np.float32)
            xs.append(x)
            sigmas.append(sigma)
            classes.append(k)
            outs.append(optimum(x.astype(np.float64), sigma, y if k < 0 else y[labels == k]))
    return {
        "images": images,
        "labels": labels.astype(np.int64),
        "x": np.stack(xs),
        "sigma": np.array(sigmas),
        "class": np.array(classes, np.int64),  # -1: over all images
        "denoised": np.stack(outs),
    }


def with_near_duplicate(images):
    last = images[-1:].copy()
    last.flat[5] = last.flat[5] + 1 if last.flat[5] < 255 else 254
    return np.concatenate([images, last])


idx = (DATA / "digits8x8-images-idx3-ubyte").read_bytes()
digits = np.frombuffer(idx, np.uint8, offset=16).reshape(-1, 8, 8, 1)
digit_labels = np.frombuffer((DATA / "digits8x8-labels-idx1-ubyte").read_bytes(), np.uint8, offset=8)
digits, digit_labels = with_near_duplicate(digits[:50]), np.append(digit_labels[:50], digit_labels[49])
save_file(optimal_case(digits, digit_labels), HERE / "optimal_digits.safetensors")

rgb = with_near_duplicate(rng.integers(0, 256, (30, 8, 8, 3), dtype=np.uint8))
save_file(optimal_case(rgb, rng.integers(0, 3, len(rgb))), HERE / "optimal_rgb.safetensors")


# --- the sampler ---------------------------------------------------------------------------------------------

def philox(counter, key):
    c, k = [int(v) for v in counter], [key & 0xFFFFFFFF, key >> 32]
    for _ in range(10):
        a, b = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
        c = [b >> 32 ^ c[1] ^ k[0], b & 0xFFFFFFFF, a >> 32 ^ c[3] ^ k[1], a & 0xFFFFFFFF]
        k = [(k[0] + 0x9E3779B9) & 0xFFFFFFFF, (k[1] + 0xBB67AE85) & 0xFFFFFFFF]
    return c


def normals(n, step, stream, key):
    out = []
    for block in range(-(-n // 4)):
        w = philox([block, 0, step, stream << 16], key)
        for a, b in (w[:2], w[2:]):
            u, v = (a + 0.5) / 2**32, (b + 0.5) / 2**32
            r = np.sqrt(-2 * np.log(u))
            out += [r * np.cos(2 * np.pi * v), r * np.sin(2 * np.pi * v)]
    return np.array(out[:n])


LATENT, CHURN = 5, 7


def heun(denoise, seed, n, t, churn=0.0, s_min=0.0, s_max=np.inf, s_noise=1.0):
    """Karras et al. 2022, Algorithm 2."""
    x, steps, t = t[0] * normals(n, 0, LATENT, seed), len(t), np.append(t, 0)
    for i in range(steps):
        gamma = min(churn / steps, np.sqrt(2) - 1) if s_min <= t[i] <= s_max else 0.0
        t_hat = t[i] + gamma * t[i]
        if gamma > 0:
            x = x + np.sqrt(t_hat**2 - t[i] ** 2) * s_noise * normals(n, i, CHURN, seed)
        d = (x - denoise(x, t_hat)) / t_hat
        x_next = x + (t[i + 1] - t_hat) * d
        if t[i + 1] > 0:
            d_next = (x_next - denoise(x_next, t[i + 1])) / t[i + 1]
            x_next = x + (t[i + 1] - t_hat) * (d + d_next) / 2
        x = x_next
    return x


def gaussian(x, sigma):
    """The optimum for data N(mu, 0.25), mu_i = cos i."""
    return (0.25 * x + sigma**2 * np.cos(np.arange(len(x)))) / (0.25 + sigma**2)


seeds = [0, 5, 2**40 + 3]
save_file(
    {
        "seeds": np.array(seeds, np.int64),
        "levels": noise_levels(),
        "plain": np.stack([heun(gaussian, s, 27, noise_levels()) for s in seeds]),
        "narrow": np.stack([heun(gaussian, s, 27, noise_levels(0.02, 50, 7, 5)) for s in seeds]),
        "churned": np.stack([heun(gaussian, s, 27, noise_levels(), 40, 0.05, 50, 1.003) for s in seeds]),
    },
    HERE / "heun.safetensors",
)


# --- nearest neighbours --------------------------------------------------------------------------------------

def nearest_case(queries, references):
    q, r = (v.reshape(len(v), -1).astype(np.int64) for v in (queries, references))
    squared = ((q[:, None] - r[None]) ** 2).sum(2)
    order = np.argsort(squared, axis=1, kind="stable")[:, :2]
    return {
        "queries": queries.reshape(len(q), -1),
        "references": references.reshape(len(r), -1),
        "index": np.ascontiguousarray(order),
        "squared": np.ascontiguousarray(np.take_along_axis(squared, order, 1)),
    }


def images(n, length, top=256):
    return rng.integers(0, top, (n, length), dtype=np.uint8)


refs = images(101, 192)
refs[70] = refs[3]  # a duplicated training image
queries = np.concatenate([images(30, 192), refs[[3, 70, 100]], np.zeros((1, 192), np.uint8), np.full((1, 192), 255, np.uint8)])
save_file(nearest_case(queries, refs), HERE / "nearest_random.safetensors")
# Few grey levels: many equal distances.
save_file(nearest_case(images(50, 7, 2), images(40, 7, 2)), HERE / "nearest_ties.safetensors")


# --- Wilson's interval ---------------------------------------------------------------------------------------

for k, n in [(0, 10), (10, 10), (1, 3), (9209, 10000), (1, 10000), (500, 1000)]:
    ci = binomtest(k, n).proportion_ci(0.95, "wilson")
    print(f"(({k}, {n}), [{float(ci.low)!r}, {float(ci.high)!r}]),")

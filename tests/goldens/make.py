"""Makes the golden files that the tests and `emm check` compare with.

    python tests/goldens/make.py            all of them again (NumPy, PyTorch), seconds
    python tests/goldens/make.py --check    NumPy alone: recomputes conv2d, norm, attention, linear and
                                            philox from the formulas and compares; exit 1 on a difference

ops/<op>.safetensors    tensors `<case>/<tensor>`; metadata `cases` = {case: attributes}
models/<name>.safetensors    whole networks: parameters p/..., inputs, D, loss, gradients g/...
ten_losses.safetensors    ten training steps of a tiny network

Inputs are drawn as float32 and everything is computed in float64 by PyTorch (gradients by its
autograd); results are stored as float32, losses as float64. Activations are N,H,W,C and conv weights
[O,kh,kw,C] in ops/; whole models hold PyTorch's shapes. A case's random numbers depend on its name
alone, so adding one leaves the others as they are. Metadata names the generator and its versions.

Cases whose inputs lose what matters when they are stored in bf16 (a mean far from 0, large logits) have
the attribute float32_only, and a twin `..._rounded` whose inputs are bf16 numbers to begin with.
"""

import argparse
import math
import sys

import numpy as np

import plain
from cases import FOLDER, Op, bf16, draws, nchw, nhwc, normal, per_image, vp_sigma

SQRT_HALF = math.sqrt(0.5)


def conv2d():
    """y = (conv(x) + b + emb + residual + shortcut) · scale; shortcut = 1×1 conv of [s1, s2, off zeros]."""
    import torch
    import torch.nn.functional as F

    op = Op("conv2d")

    def case(name, n, h, c, o, kernel=3, stride=1, pad=None, scale=1.0, emb=None, residual=False, c1=0, c2=0, off=0, last=False):
        rng = draws("conv2d", name)
        pad = kernel // 2 if pad is None else pad
        ho = (h + 2 * pad - kernel) // stride + 1
        total = c1 + c2 + off
        t = {"x": normal(rng, n, h, h, c), "w": normal(rng, o, kernel, kernel, c), "b": normal(rng, o)}
        # emb: the first of this convolution's columns of it, and how many it has.
        if emb:
            t["emb"] = normal(rng, n, emb[1])
        if residual:
            t["residual"] = normal(rng, n, ho, ho, o)
        if c1:
            t["s1"] = normal(rng, n, ho, ho, c1)
            if c2:
                t["s2"] = normal(rng, n, ho, ho, c2)
            t["sw"], t["sb"] = normal(rng, o, total), normal(rng, o)

        def compute(t):
            y = nhwc(F.conv2d(nchw(t["x"]), nchw(t["w"]), t["b"], stride, pad))
            if emb:
                y = y + t["emb"][:, None, None, emb[0] : emb[0] + o]
            if residual:
                y = y + t["residual"]
            if c1:
                s = [t["s1"]] + ([t["s2"]] if c2 else [])
                s = torch.cat(s + [torch.zeros(n, ho, ho, off, dtype=y.dtype)], 3)
                y = y + F.linear(s, t["sw"], t["sb"])
            return {"y": y * scale}

        attrs = dict(kernel=kernel, stride=stride, pad=pad, scale=scale, c1=c1, c2=c2, off=off, skip_total=total)
        attrs |= {"last": True} if last else {}
        attrs |= {"emb_first": emb[0]} if emb else {}
        op.case(name, attrs, t, compute, ["y"])

    case("plain", 3, 6, 20, 12)
    case("plain_one_pixel", 5, 1, 9, 7)
    case("plain_two_pixels", 3, 2, 13, 18)
    case("plain_four_pixels", 5, 4, 9, 20)
    case("one_channel_in", 3, 8, 1, 8)
    case("three_channels_out", 3, 8, 8, 3)
    case("pointwise", 3, 4, 12, 36, kernel=1)
    case("pointwise_odd", 5, 2, 7, 11, kernel=1)
    case("pointwise_residual", 3, 4, 12, 12, kernel=1, residual=True, scale=SQRT_HALF)
    case("emb", 5, 4, 12, 9, emb=(3, 14))
    case("residual", 3, 6, 9, 9, residual=True, scale=SQRT_HALF)
    case("shortcut_one", 2, 4, 12, 12, c1=20, scale=SQRT_HALF)
    case("shortcut_two", 3, 4, 12, 12, c1=20, c2=12, scale=SQRT_HALF)
    case("shortcut_two_odd", 5, 2, 11, 11, c1=5, c2=9, scale=SQRT_HALF)
    case("shortcut_off", 3, 4, 12, 12, c1=20, off=12, scale=SQRT_HALF)
    case("stride_two", 3, 9, 9, 12, stride=2, pad=0, residual=True, scale=SQRT_HALF)
    case("stride_two_image", 3, 5, 3, 8, stride=2, pad=0, residual=True, scale=SQRT_HALF)
    case("stride_two_one_pixel", 5, 3, 1, 8, stride=2, pad=0, residual=True, scale=SQRT_HALF)
    case("sixteen", 1, 16, 20, 8)
    case("wide", 1, 4, 68, 7)
    case("last", 1, 3, 8, 3, last=True)
    case("last_odd", 3, 2, 9, 1, last=True)
    # Channels in whole 16-byte pieces of bf16, as the tensor-core kernels take them.
    case("even", 2, 3, 16, 8)
    case("even_pointwise", 1, 2, 72, 8, kernel=1)
    case("even_first", 3, 4, 3, 8)
    case("even_residual", 9, 1, 8, 8, residual=True, emb=(5, 15), scale=SQRT_HALF)
    case("even_shortcut", 3, 2, 8, 8, kernel=1, c1=16, scale=SQRT_HALF)
    case("even_shortcut_two_off", 2, 2, 8, 8, c1=8, c2=16, off=8, scale=SQRT_HALF)
    case("even_stride", 1, 5, 8, 8, stride=2, pad=0, residual=True, scale=SQRT_HALF)
    case("even_stride_first", 2, 5, 3, 8, stride=2, pad=0, residual=True, scale=SQRT_HALF)
    return op


def norm():
    """GroupNorm (eps 1e-6) of [x1, x2, off zeros], then SiLU, dropout, resample as asked; xr = resampled x1."""
    import torch
    import torch.nn.functional as F

    op = Op("norm")

    def resample(x, how):
        taps = torch.tensor(plain.FILTERS[how], dtype=x.dtype)
        f = (torch.outer(taps, taps) / taps.sum() ** 2).expand(x.shape[3], 1, -1, -1)
        pad, x = (len(taps) - 1) // 2, nchw(x)
        if how.endswith("down"):
            return nhwc(F.conv2d(x, f, stride=2, padding=pad, groups=x.shape[1]))
        return nhwc(F.conv_transpose2d(x, f * 4, stride=2, padding=pad, groups=x.shape[1]))

    def case(name, n, h, c1, groups, c2=0, off=0, silu=True, how="none", mean=0.0, rounded=False, **drop):
        rng = draws("norm", name)
        c = c1 + c2 + off
        attrs = dict(groups=groups, silu=silu, p=0.0, seed=1024, step=0, layer=0, first_image=0)
        attrs |= dict(resample=how, off=off, **drop)
        attrs |= {"float32_only": True} if mean and not rounded else {}
        t = {"x1": normal(rng, n, h, h, c1) + np.float32(mean)}
        if rounded:
            t["x1"] = bf16(t["x1"])
        if c2:
            t["x2"] = normal(rng, n, h, h, c2)
        t["gamma"], t["beta"] = normal(rng, c), normal(rng, c)

        def compute(t):
            x = torch.cat([t["x1"]] + ([t["x2"]] if c2 else []), 3)
            x = F.pad(x, (0, off))
            y = nhwc(F.group_norm(nchw(x), groups, t["gamma"], t["beta"], eps=1e-6))
            if silu:
                y = F.silu(y)
            if attrs["p"]:
                y = y * torch.from_numpy(plain.dropout_mask(tuple(y.shape), attrs))
            if how == "none":
                return {"y": y}
            return {"y": resample(y, how), "xr": resample(t["x1"], how)}

        op.case(name, attrs, t, compute, ["y"] if how == "none" else ["y", "xr"])

    case("silu", 3, 5, 20, 5)
    case("no_silu", 5, 3, 20, 5, silu=False)
    case("one_pixel", 5, 1, 12, 3)
    case("many_groups", 3, 2, 64, 16)
    case("far_mean", 3, 4, 16, 4, mean=10.0)
    case("far_mean_rounded", 1, 4, 16, 4, mean=10.0, rounded=True)
    case("two_inputs", 2, 4, 12, 8, c2=20)
    case("two_inputs_straddle", 5, 3, 10, 5, c2=10)
    case("off", 2, 4, 12, 8, off=20)
    case("off_straddle", 3, 4, 10, 4, off=6)
    case("two_inputs_off_straddle", 3, 2, 6, 5, c2=9, off=5)
    case("dropout", 3, 4, 20, 5, p=0.13, seed=1024, step=7, layer=3, first_image=0)
    case("dropout_late_images", 5, 4, 12, 3, p=0.13, seed=0x1234_5678_9ABC_DEF0, step=3_000_000_000, layer=41, first_image=509)
    case("dropout_ragged_block", 3, 1, 12, 3, p=0.5, seed=7, step=1, layer=2, first_image=5)
    case("dropout_two_inputs", 3, 2, 10, 5, c2=10, p=0.3, seed=1024, step=2, layer=1, first_image=3)
    case("down", 2, 8, 12, 3, how="down")
    case("down_two_pixels", 5, 2, 20, 5, how="down")
    case("up", 2, 4, 12, 3, how="up")
    case("up_one_pixel", 5, 1, 20, 5, how="up")
    case("fir_down", 2, 8, 12, 3, how="fir_down")
    case("fir_down_two_pixels", 5, 2, 20, 5, how="fir_down")
    case("fir_up", 2, 4, 12, 3, how="fir_up")
    case("fir_up_one_pixel", 5, 1, 20, 5, how="fir_up")
    # Channels in whole 16-byte pieces of bf16, as the one-pass kernels take them.
    case("even", 2, 3, 16, 4)
    case("even_two_inputs_dropout", 1, 2, 8, 8, c2=24, p=0.3, seed=1024, step=2, layer=1, first_image=3)
    case("even_two_inputs_off_straddle", 1, 2, 16, 3, c2=8, off=24)
    case("even_down", 1, 4, 16, 4, how="down")
    case("even_up", 1, 2, 16, 4, how="up")
    case("even_fir_down", 1, 4, 16, 4, how="fir_down")
    case("even_fir_up", 1, 2, 16, 4, how="fir_up")
    return op


def attention():
    """Channels of qkv are [q | k | v]; y = softmax over keys of (q·k/√C), times v."""
    import torch

    op = Op("attention")

    def case(name, n, h, c, size=1.0, rounded=False):
        def compute(t):
            q, k, v = t["qkv"].reshape(n, h * h, 3 * c).split(c, 2)
            p = torch.softmax(q @ k.transpose(1, 2) / math.sqrt(c), 2)
            return {"y": (p @ v).reshape(n, h, h, c)}

        qkv = normal(draws("attention", name), n, h, h, 3 * c)
        qkv[..., : 2 * c] *= np.float32(size)
        qkv = bf16(qkv) if rounded else qkv
        attrs = {"float32_only": True} if size > 1 and not rounded else {}
        op.case(name, attrs, {"qkv": qkv}, compute, ["y"])

    case("one_pixel", 5, 1, 12)
    case("two_pixels", 3, 2, 4)
    case("four_pixels", 2, 4, 12)
    case("odd_channels", 3, 4, 7)
    case("eight_pixels", 1, 8, 12)
    case("wide", 1, 4, 40)
    case("large_logits_rounded", 1, 4, 8, size=6.0, rounded=True)
    case("large_logits", 3, 4, 8, size=6.0)  # products past 88 overflow exp unless the maximum is taken off
    return op


def linear():
    """y = act(x·wᵀ + b), act = SiLU or nothing; w holds the rows of linears of these widths, one after another."""
    import torch.nn.functional as F

    op = Op("linear")

    def case(name, n, i, widths, silu):
        o = sum(widths)
        rng = draws("linear", name)

        def compute(t):
            y = F.linear(t["x"], t["w"], t["b"])
            return {"y": F.silu(y) if silu else y}

        op.case(name, dict(silu=silu, widths=widths), {"x": normal(rng, n, i), "w": normal(rng, o, i), "b": normal(rng, o)}, compute, ["y"])

    case("silu", 5, 16, [64], True)
    case("no_silu", 3, 40, [4, 4, 4, 8], False)
    case("odd", 5, 33, [7], False)
    case("odd_silu", 3, 7, [9, 9, 9, 6], True)
    case("one_image", 1, 20, [12], True)
    case("many_images", 37, 6, [1, 2, 2], False)
    return op


def label_embed():
    """y = e + table[label]·√L + b, L = label_dim."""
    op = Op("label_embed")

    def case(name, label_dim, d, labels):
        rng = draws("label_embed", name)
        t = {"e": normal(rng, len(labels), d), "labels": np.array(labels, np.int32), "table": normal(rng, label_dim, d), "b": normal(rng, d)}

        def compute(t):
            return {"y": t["e"] + t["table"][t["labels"]] * math.sqrt(label_dim) + t["b"]}

        op.case(name, dict(label_dim=label_dim), t, compute, ["y"])

    case("repeats", 10, 16, [3, 9, 3, 0, 3])
    case("one_class", 1, 12, [0, 0, 0])
    case("sparse", 100, 20, [99, 0, 50, 99, 1, 0, 7])
    return op


def levels(precond):
    """Noise levels over the whole range that a network of this preconditioning accepts."""
    low, high = {"vp": (vp_sigma(1e-5), vp_sigma(1.0)), "ve": (0.02, 100.0), "edm": (1e-3, 300.0)}[precond]
    return np.geomspace(low, high, 9)


def noise_embed():
    """e = [sin(f·c), cos(f·c)] of c = c_noise(sigma); Fourier: f·2π with given f."""
    import torch

    import network

    op = Op("noise_embed")
    for precond in ("vp", "ve", "edm"):
        for kind, channels in (("positional", 16), ("positional", 6), ("fourier", 16)):
            name = f"{precond}_{kind}_{channels}"
            t = {"sigma": levels(precond)}
            if kind == "fourier":
                t["freqs"] = normal(draws("noise_embed", name), channels // 2) * np.float32(16)

            def compute(t):
                c_noise = network.coefficients(precond, t["sigma"])[3]
                return {"y": network.noise_embedding(c_noise, channels, t.get("freqs"))}

            op.case(name, dict(precond=precond, kind=kind, channels=channels), t, compute)
    return op


def fir_pad():
    """g[j] = Σ_m f[m]·x[j+m−2] along both axes, f = [1,3,3,1]/8, zero outside: H → H+1.

    A stride-2 3×3 conv of g without padding equals NCSN++'s aux branch, which pads by 2, convolves, then
    filters with stride 2; asserted here.
    """
    import torch
    import torch.nn.functional as F

    op = Op("fir_pad")
    taps = torch.tensor([1.0, 3.0, 3.0, 1.0], dtype=torch.float64) / 8
    square = torch.outer(taps, taps)

    def filtered(x, stride, pad):
        return F.conv2d(x, square.expand(x.shape[1], 1, 4, 4), stride=stride, padding=pad, groups=x.shape[1])

    def case(name, n, h, c):
        def compute(t):
            g = filtered(nchw(t["x"]), 1, 2)
            w = torch.from_numpy(normal(draws("fir_pad", name, "w"), 5, c, 3, 3)).double()
            gap = F.conv2d(g, w, stride=2) - filtered(F.conv2d(nchw(t["x"]), w, padding=2), 2, 0)
            assert gap.abs().max() < 1e-12, f"fir_pad {name}: moving the filter changes the result by {gap.abs().max()}"
            return {"g": nhwc(g)}

        op.case(name, {}, {"x": normal(draws("fir_pad", name), n, h, h, c)}, compute, ["g"])

    case("image", 3, 8, 3)
    case("one_channel", 5, 4, 1)
    case("wide", 3, 4, 12)
    case("two_pixels", 5, 2, 7)
    return op


def precondition():
    """xin = c_in·(y + sigma·noise)."""
    import network

    op = Op("precondition")
    for precond in ("vp", "ve", "edm"):
        t = images("precondition", precond, "y", "noise")

        def compute(t):
            c_in = network.coefficients(precond, t["sigma"])[2]
            return {"xin": per_image(c_in) * (t["y"] + per_image(t["sigma"]) * t["noise"])}

        op.case(precond, dict(precond=precond), t, compute)
    return op


def loss():
    """loss[n] = weight·Σ(D(y + sigma·noise) − y)², D = c_skip·x + c_out·f; df = d(Σ loss / batch)/df."""
    import torch

    import network

    op = Op("loss")
    for precond in ("vp", "ve", "edm"):
        for name, batch in ((precond, 9), (f"{precond}_micro", 512)):
            t = images("loss", name, "f", "y", "noise")

            def compute(t):
                f, y, sigma = t["f"].requires_grad_(), t["y"], per_image(t["sigma"])
                c_skip, c_out, _, _ = network.coefficients(precond, sigma)
                d = c_skip * (y + sigma * t["noise"]) + c_out * f
                each = (network.weight(precond, sigma) * (d - y) ** 2).sum((1, 2, 3))
                (df,) = torch.autograd.grad(each.sum() / batch, f)
                return {"loss": each, "df": df}

            op.case(name, dict(precond=precond, batch=batch), t, compute)
    return op


def denoise():
    """d = c_skip·x + c_out·f."""
    import network

    op = Op("denoise")
    for precond in ("vp", "ve", "edm"):
        t = images("denoise", precond, "x", "f")

        def compute(t):
            c_skip, c_out, _, _ = network.coefficients(precond, per_image(t["sigma"]))
            return {"d": c_skip * t["x"] + c_out * t["f"]}

        op.case(precond, dict(precond=precond), t, compute)
    return op


def images(op, name, *keys):
    """Random [9,H,W,C] tensors (y within [-1, 1], on the 8-bit grid) and a noise level for each image."""
    rng = draws(op, name)
    shape = (9, 4, 4, 3) if "edm" not in name else (9, 3, 3, 1)
    t = {k: normal(rng, *shape) for k in keys}
    if "y" in t:
        t["y"] = (rng.integers(0, 256, shape) / 127.5 - 1).astype(np.float32)
    return {**t, "sigma": levels(name[:3].rstrip("_"))}


def adam_ema():
    """One step of Adam (beta1 0.9; eps 1e-8 outside the root; L2 decay added to g), then EMA.

    `step` counts from 0: the bias corrections use step + 1. Results are w1, m1, v1, ema1.
    """
    op = Op("adam_ema")

    def case(name, n, step, lr, beta, weight_decay, beta2=0.999):
        rng = draws("adam_ema", name)
        t = {k: normal(rng, n) for k in ("w", "g", "m", "v", "ema")}
        t["v"] = t["v"] ** 2
        t["g"] *= np.float32(10.0) ** rng.integers(-8, 3, n).astype(np.float32)
        t["g"][0] = 0
        if step == 0:
            t["m"][:], t["v"][:] = 0, 0

        def compute(t):
            g = t["g"] + weight_decay * t["w"]
            m = 0.9 * t["m"] + (1 - 0.9) * g
            v = beta2 * t["v"] + (1 - beta2) * g * g
            root = (v / (1 - beta2 ** (step + 1))).sqrt()
            w = t["w"] - lr * m / (1 - 0.9 ** (step + 1)) / (root + 1e-8)
            return {"w1": w, "m1": m, "v1": v, "ema1": beta * t["ema"] + (1 - beta) * w}

        op.case(name, dict(step=step, lr=lr, beta=beta, weight_decay=weight_decay, beta2=beta2), t, compute)

    case("first", 37, 0, 2e-4, 0.0, 0.0)
    case("second", 37, 1, 1e-3, 0.5, 0.0)
    case("late", 100, 123_456, 2e-4, 0.99929, 0.0)
    case("decay", 100, 10, 2e-4, 0.999, 0.05)
    case("ramp_start", 37, 3, 0.0, 0.9, 1e-2)
    case("second_rate", 100, 6, 1e-3, 0.9, 1e-3, beta2=0.95)
    case("second_rate_none", 37, 2, 1e-3, 0.9, 0.0, beta2=0.0)
    return op


def philox():
    """Philox4x32-10: Random123's known answers, and random counters and keys (low word, high word)."""
    op = Op("philox")
    counter, key, words = (np.array(v, np.uint32) for v in zip(*plain.KNOWN))
    assert np.array_equal(plain.philox(counter, key), words)
    rng = draws("philox", "random")
    random = {"counter": rng.integers(0, 2**32, (64, 4), np.uint32), "key": rng.integers(0, 2**32, (64, 2), np.uint32)}
    op.cases = {"known": {}, "random": {}}
    op.tensors = {"known/counter": counter, "known/key": key, "known/words": words}
    op.tensors |= {f"random/{k}": v for k, v in random.items()}
    op.tensors["random/words"] = plain.philox(random["counter"], random["key"])
    return op


OPS = [conv2d, norm, attention, linear, label_embed, noise_embed, fir_pad, precondition, loss, denoise, adam_ema, philox]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="compare the committed files with NumPy's results")
    if parser.parse_args().check:
        errors, count = plain.check(FOLDER)
        print("\n".join(errors) or f"{count} cases agree to {plain.TOLERANCE:.0e}")
        sys.exit(bool(errors))
    import models  # needs PyTorch

    for op in OPS:
        op().save()
    for name, cfg in models.MODELS.items():
        models.model(name, cfg)
    models.ten_losses()
    files = sorted(f for folder in ("", "ops", "models") for f in (FOLDER / folder).glob("*.safetensors"))
    for f in files:
        print(f"{f.stat().st_size:9}  {f.relative_to(FOLDER)}")
    print(f"{sum(f.stat().st_size for f in files):9}  total")


if __name__ == "__main__":
    main()

"""Goldens of whole networks: three small models with every gradient, and ten training steps."""

import math

import numpy as np
import torch

import network
from cases import FOLDER, draws, nchw, nhwc, normal, per_image, save, vp_sigma


def config(**changes):
    """An `emm.model` dict: a small DDPM++ of 8×8 images with the changes given."""
    cfg = dict(arch="ddpmpp", precond="vp", resolution=8, image_channels=3, label_dim=0, model_channels=8)
    cfg |= dict(channel_mult=[1, 2], num_blocks=1, attn_resolutions=[4], embedding="positional")
    cfg |= dict(skip_connections=[1, 1, 1, 1], dropout=0.0)
    return cfg | changes


MODELS = {
    "ddpmpp_vp_labels": config(label_dim=5, skip_connections=[1, 0, 0, 1]),
    "ddpmpp_edm_gray": config(
        precond="edm", image_channels=1, num_blocks=2, model_channels=4, attn_resolutions=[8, 4],
        embedding="fourier", skip_connections=[1, 1, 0, 1, 1, 0],
    ),
    "ncsnpp_ve_labels": config(
        arch="ncsnpp", precond="ve", embedding="fourier", model_channels=4, channel_mult=[1, 2, 1],
        label_dim=3, attn_resolutions=[4, 2], skip_connections=[1, 0, 0, 1, 1, 1],
    ),
}


def parameters(cfg, rng):
    """Values far from an initialisation's: no zero biases, no unit gains, no tiny weights."""
    p = {}
    for name, shape in network.shapes(cfg).items():
        v = normal(rng, *shape)
        if name.endswith("freqs"):
            v *= np.float32(16)
        elif len(shape) > 1:
            v *= np.float32(math.prod(shape[1:]) ** -0.5)
        elif "norm" in name and name.endswith("weight"):
            v = 1 + np.float32(0.3) * v
        else:
            v *= np.float32(0.3)
        p[name] = v
    return p


def batch(cfg, rng, n):
    """y on the 8-bit grid, noise, and sigma drawn as training draws it."""
    side, c = cfg["resolution"], cfg["image_channels"]
    y = (rng.integers(0, 256, (n, side, side, c)) / 127.5 - 1).astype(np.float32)
    u = (np.arange(n) + rng.random(n)) / n  # one draw in each n-th of the range
    if cfg["precond"] == "vp":
        sigma = np.array([vp_sigma(1 + v * (1e-5 - 1)) for v in u])
    else:
        sigma = 0.02 * 5000**u if cfg["precond"] == "ve" else np.exp(1.2 * rng.standard_normal(n) - 1.2)
    return {"y": y, "noise": normal(rng, n, side, side, c), "sigma": sigma}


def as_float64(arrays):
    return {k: torch.from_numpy(v).double() if v.dtype.kind == "f" else torch.from_numpy(v).long() for k, v in arrays.items()}


@torch.no_grad()
def bf16_error(cfg, p, x, sigma, labels, d):
    """Relative error of D (two digits) where PyTorch computes the network in bf16: weights, image and activations."""
    c_skip, c_out, c_in, c_noise = network.coefficients(cfg["precond"], per_image(sigma))
    low = {k: v if k.endswith("freqs") else v.bfloat16() for k, v in p.items()}
    f = network.forward(cfg, low, (c_in * x).bfloat16(), c_noise.flatten(), labels)
    return float(f"{(c_skip * x + c_out * f.double() - d).norm() / d.norm():.1e}")


def model(name, cfg):
    """D, loss (mean over the batch) and every gradient of one network at given parameters."""
    rng = draws("model", name)
    params = parameters(cfg, rng)
    data = batch(cfg, rng, 3)
    if cfg["label_dim"]:
        data["labels"] = np.array([1, cfg["label_dim"] - 1, 1], np.int32)
    p, t = as_float64(params), as_float64(data)
    trained = [k for k in p if not k.endswith("freqs")]
    for k in trained:
        p[k].requires_grad_()
    y, noise, labels = nchw(t["y"]), nchw(t["noise"]), t.get("labels")
    with torch.no_grad():
        d = network.denoise(cfg, p, y + noise * per_image(t["sigma"]), t["sigma"], labels)
    total = network.loss(cfg, p, y, noise, t["sigma"], labels)
    grads = torch.autograd.grad(total, [p[k] for k in trained])
    rounded = bf16_error(cfg, p, y + noise * per_image(t["sigma"]), t["sigma"], labels, d)
    tensors = {f"p/{k}": v for k, v in params.items()} | data | {"D": nhwc(d), "loss": total}
    tensors |= {f"g/{k}": g for k, g in zip(trained, grads)}
    save(FOLDER / "models" / f"{name}.safetensors", tensors, config=cfg, bf16_error=rounded)


def ten_losses():
    """Ten steps of Adam (lr 1e-3, betas 0.9 and 0.999, eps 1e-8) at batch 4, without dropout.

    Tensors: p/… at the start, y, noise [10,4,H,W,C], sigma [10,4], loss [10] (each before its update),
    after/… at the end. The key rows of qkv.bias have no gradient in exact arithmetic, so in float32 Adam
    moves them at random: they change nothing and can't be compared.
    """
    cfg = config(model_channels=4, image_channels=1)
    rng = draws("ten_losses")
    params = parameters(cfg, rng)
    p = as_float64(params)
    for v in p.values():
        v.requires_grad_()
    adam = torch.optim.Adam(p.values(), lr=1e-3, betas=(0.9, 0.999), eps=1e-8)
    steps, losses = [], []
    for _ in range(10):
        data = batch(cfg, rng, 4)
        t = as_float64(data)
        total = network.loss(cfg, p, nchw(t["y"]), nchw(t["noise"]), t["sigma"])
        adam.zero_grad()
        total.backward()
        adam.step()
        steps.append(data)
        losses.append(total.item())
    tensors = {k: np.stack([s[k] for s in steps]) for k in steps[0]} | {"loss": np.array(losses)}
    tensors |= {f"p/{k}": v for k, v in params.items()} | {f"after/{k}": v for k, v in p.items()}
    save(FOLDER / "ten_losses.safetensors", tensors, config=cfg, lr=1e-3)

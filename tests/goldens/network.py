"""The network, its preconditioning and loss, in PyTorch: the statement behind the whole-model goldens.

Written for reading and for float64; `bench/peers/step.py` runs it in float32 as the peer of
`emm bench step`. Images are N,C,H,W; parameters are a dict in EDM's names and PyTorch's shapes.
`cfg` is the `emm.model` dict of a model file.

Sources: Song et al. 2021, arXiv:2011.13456 (architectures, VP, VE); Karras et al. 2022,
arXiv:2206.00364 (preconditioning, Table 1).
"""

import math

import torch
import torch.nn.functional as F

SQRT_HALF = math.sqrt(0.5)
DATA_SIGMA = 0.5


# -------------------------------------------------------------------------- preconditioning, loss


def coefficients(precond, sigma):
    """c_skip, c_out, c_in, c_noise at noise levels sigma."""
    one = torch.ones_like(sigma)
    if precond == "vp":
        t = (torch.sqrt(0.1**2 + 2 * 19.9 * torch.log1p(sigma**2)) - 0.1) / 19.9
        return one, -sigma, torch.rsqrt(sigma**2 + 1), 999 * t
    if precond == "ve":
        return one, sigma, one, torch.log(sigma / 2)
    total = torch.sqrt(sigma**2 + DATA_SIGMA**2)
    return (DATA_SIGMA / total) ** 2, sigma * DATA_SIGMA / total, 1 / total, torch.log(sigma) / 4


def weight(precond, sigma):
    """Weight of the squared error at noise levels sigma."""
    if precond == "edm":
        return (sigma**2 + DATA_SIGMA**2) / (sigma * DATA_SIGMA) ** 2
    return sigma**-2


def noise_embedding(c_noise, channels, freqs=None):
    """[sin, cos] of c_noise times frequencies: geometric from 1 to 1/10000, or the Fourier ones given."""
    half = channels // 2
    if freqs is None:
        f = 1e4 ** -(torch.arange(half, dtype=c_noise.dtype, device=c_noise.device) / (half - 1))
    else:
        f = 2 * math.pi * freqs.to(c_noise.dtype)
    angle = torch.outer(c_noise, f)
    return torch.cat([angle.sin(), angle.cos()], 1)


def loss(cfg, p, y, noise, sigma, labels=None, dropout=0.0):
    """Mean over the batch of weight·Σ(D(y + sigma·noise; sigma) − y)², sigma [N]."""
    s = sigma[:, None, None, None]
    d = denoise(cfg, p, y + s * noise, sigma, labels, dropout)
    return (weight(cfg["precond"], s) * (d - y) ** 2).sum() / len(y)


def denoise(cfg, p, x, sigma, labels=None, dropout=0.0):
    """D(x; sigma) = c_skip·x + c_out·F(c_in·x; c_noise)."""
    c_skip, c_out, c_in, c_noise = coefficients(cfg["precond"], sigma[:, None, None, None])
    return c_skip * x + c_out * forward(cfg, p, c_in * x, c_noise.flatten(), labels, dropout)


# ---------------------------------------------------------------------------------------- network


def plan(cfg):
    """Layers in order: (name, kind, channels in, channels out, attention?).

    Kinds: conv (the first layer), block, down, up, join (a block that takes a skip), aux (NCSN++'s
    residual branch). The channels in of a join include its skip's.
    """
    c = aux = cfg["image_channels"]
    layers, skips = [], []
    levels = [(cfg["resolution"] >> i, cfg["model_channels"] * m) for i, m in enumerate(cfg["channel_mult"])]
    for i, (r, width) in enumerate(levels):
        attend = r in cfg["attn_resolutions"]
        if i == 0:
            layers.append((f"enc.{r}x{r}_conv", "conv", c, cfg["model_channels"], False))
            c = cfg["model_channels"]
        else:
            layers.append((f"enc.{r}x{r}_down", "down", c, c, False))
            if cfg["arch"] == "ncsnpp":
                layers.append((f"enc.{r}x{r}_aux_residual", "aux", aux, c, False))
                aux = c
        skips.append(c)
        for b in range(cfg["num_blocks"]):
            layers.append((f"enc.{r}x{r}_block{b}", "block", c, width, attend))
            c = width
            skips.append(c)
    for i, (r, width) in reversed(list(enumerate(levels))):
        if i == len(levels) - 1:
            layers.append((f"dec.{r}x{r}_in0", "block", c, c, True))
            layers.append((f"dec.{r}x{r}_in1", "block", c, c, False))
        else:
            layers.append((f"dec.{r}x{r}_up", "up", c, c, False))
        for b in range(cfg["num_blocks"] + 1):
            attend = b == cfg["num_blocks"] and r in cfg["attn_resolutions"]
            layers.append((f"dec.{r}x{r}_block{b}", "join", c + skips.pop(), width, attend))
            c = width
    return layers


def shapes(cfg):
    """Shape of every parameter, in module order; Fourier frequencies included."""
    noise = cfg["model_channels"] * (2 if cfg["arch"] == "ncsnpp" else 1)
    emb, out = 4 * cfg["model_channels"], {}

    def add(name, o, *inner):
        out[f"model.{name}.weight"], out[f"model.{name}.bias"] = (o, *inner), (o,)

    if cfg["embedding"] == "fourier":
        out["model.map_noise.freqs"] = (noise // 2,)
    if cfg["label_dim"]:
        add("map_label", noise, cfg["label_dim"])
    add("map_layer0", emb, noise)
    add("map_layer1", emb, emb)
    for name, kind, i, o, attend in plan(cfg):
        if kind in ("conv", "aux"):
            add(name, o, i, 3, 3)
            continue
        add(f"{name}.norm0", i)
        add(f"{name}.conv0", o, i, 3, 3)
        add(f"{name}.affine", o, emb)
        add(f"{name}.norm1", o)
        add(f"{name}.conv1", o, o, 3, 3)
        if kind in ("down", "up") or i != o:
            add(f"{name}.skip", o, i, 1, 1)
        if attend:
            add(f"{name}.norm2", o)
            add(f"{name}.qkv", 3 * o, o, 1, 1)
            add(f"{name}.proj", o, o, 1, 1)
    r = cfg["resolution"]
    add(f"dec.{r}x{r}_aux_norm", o)
    add(f"dec.{r}x{r}_aux_conv", cfg["image_channels"], o, 3, 3)
    return out


def forward(cfg, p, x, c_noise, labels=None, dropout=0.0):
    """F(x; c_noise): x [N,C,H,W], c_noise [N], labels [N] or None; dropout is a probability."""

    def wb(name):
        return p[f"model.{name}.weight"], p[f"model.{name}.bias"]

    def norm(name, h):
        return F.group_norm(h, min(32, h.shape[1] // 4), *wb(name), eps=1e-6)

    def block(name, kind, x, attend):
        h = resample(cfg, F.silu(norm(f"{name}.norm0", x)), kind)
        h = F.conv2d(h, *wb(f"{name}.conv0"), padding=1)
        h = h + F.linear(e, *wb(f"{name}.affine"))[:, :, None, None]
        h = F.silu(norm(f"{name}.norm1", h))
        if dropout:
            h = F.dropout(h, dropout)
        h = F.conv2d(h, *wb(f"{name}.conv1"), padding=1)
        x = resample(cfg, x, kind)
        if f"model.{name}.skip.weight" in p:
            x = F.conv2d(x, *wb(f"{name}.skip"))
        x = (x + h) * SQRT_HALF
        if attend:
            h = F.conv2d(norm(f"{name}.norm2", x), *wb(f"{name}.qkv"))
            q, k, v = h.flatten(2).unflatten(1, (-1, 3)).transpose(1, 3).unbind(2)
            if x.is_cuda:  # the fused kernels want a dimension of heads; without, PyTorch is slower than it could be
                h = F.scaled_dot_product_attention(*(t.unsqueeze(1) for t in (q, k, v))).squeeze(1)
            else:
                h = F.scaled_dot_product_attention(q, k, v)
            h = h.transpose(1, 2).reshape(x.shape)
            x = (x + F.conv2d(h, *wb(f"{name}.proj"))) * SQRT_HALF
        return x

    channels = p["model.map_layer0.weight"].shape[1]
    e = noise_embedding(c_noise, channels, p.get("model.map_noise.freqs")).to(x.dtype)
    if cfg["label_dim"]:
        table, b = wb("map_label")
        e = e + b if labels is None else e + table.T[labels] * math.sqrt(cfg["label_dim"]) + b
    e = F.silu(F.linear(e, *wb("map_layer0")))
    e = F.silu(F.linear(e, *wb("map_layer1")))

    skips, aux, switches = [], x, iter(cfg["skip_connections"])
    for name, kind, _, _, attend in plan(cfg):
        if kind == "aux":
            w, b = wb(name)
            aux = fir(F.conv2d(aux, w, padding=2), 0) + b[:, None, None]
            x = aux = (x + aux) * SQRT_HALF
            if skips[-1] is not None:
                skips[-1] = x
            continue
        if kind == "conv":
            x = F.conv2d(x, *wb(name), padding=1)
        else:
            if kind == "join":
                skip = skips.pop()
                if skip is None:  # switched off: zeros, as many channels as norm0 says are missing
                    missing = len(p[f"model.{name}.norm0.weight"]) - x.shape[1]
                    skip = x.new_zeros(len(x), missing, *x.shape[2:])
                x = torch.cat([x, skip], 1)
            x = block(name, kind, x, attend)
        if name.startswith("enc."):
            skips.append(x if next(switches) else None)
    r = cfg["resolution"]
    return F.conv2d(F.silu(norm(f"dec.{r}x{r}_aux_norm", x)), *wb(f"dec.{r}x{r}_aux_conv"), padding=1)


def fir(x, padding, up=False):
    """Halves (or doubles) both sides of [N,C,H,W] with the separable filter [1,3,3,1]."""
    f = torch.tensor([1.0, 3.0, 3.0, 1.0], dtype=x.dtype, device=x.device) / 8
    f = torch.outer(f, f).expand(x.shape[1], 1, 4, 4)
    if up:
        return F.conv_transpose2d(x, 4 * f, stride=2, padding=padding, groups=x.shape[1])
    return F.conv2d(x, f, stride=2, padding=padding, groups=x.shape[1])


def resample(cfg, x, kind):
    if kind not in ("down", "up"):
        return x
    if cfg["arch"] == "ncsnpp":
        return fir(x, 1, kind == "up")
    return F.avg_pool2d(x, 2) if kind == "down" else F.interpolate(x, scale_factor=2, mode="nearest")

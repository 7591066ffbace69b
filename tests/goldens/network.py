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

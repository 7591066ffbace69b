"""What every golden shares: random numbers, files, and the bookkeeping of an op's cases."""

import json
import math
import pathlib
import zlib

import numpy as np

import plain

FOLDER = pathlib.Path(__file__).resolve().parent
SEED = 2310


def draws(*name):
    """The random numbers of one case."""
    return np.random.default_rng([SEED, zlib.crc32("/".join(name).encode())])


def save(path, tensors, **metadata):
    """Writes a golden file; float64 arrays become float32 unless named loss… or sigma."""
    import torch

    out = {}
    for name, value in tensors.items():
        value = np.asarray(value.detach() if isinstance(value, torch.Tensor) else value)
        wide = name.split("/")[-1].startswith(("loss", "sigma"))
        if value.dtype == np.float64 and not wide:
            value = value.astype(np.float32)
        assert value.dtype.kind in "iu" or np.isfinite(value).all(), f"{path.name}: {name} is not finite"
        out[name] = np.ascontiguousarray(value)
    made = {"generator": "tests/goldens/make.py", "seed": SEED, "torch": torch.__version__, "numpy": np.__version__}
    metadata = {k: v if isinstance(v, str) else json.dumps(v) for k, v in {**made, **metadata}.items()}
    plain.write(path, out, metadata)


class Op:
    """The cases of one op: `case(name, attributes, inputs, compute)`."""

    def __init__(self, name):
        self.name, self.cases, self.tensors = name, {}, {}

    def case(self, name, attrs, inputs, compute, seeds=()):
        """Stores inputs, outputs and gradients of one case.

        - inputs: name -> array; float32 ones get gradients `d<name>` when the case has output gradients.
        - compute(tensors) -> name -> float64 tensor.
        - seeds: the outputs that get a random gradient `d<output>`; their inner product is differentiated.
        """
        import torch

        t = {}
        for key, value in inputs.items():
            t[key] = torch.from_numpy(np.asarray(value).astype(np.float64 if value.dtype.kind == "f" else np.int64))
            if value.dtype == np.float32 and seeds:
                t[key].requires_grad_()
        outs = compute(t)
        stored = {**inputs, **outs}
        if seeds:
            rng = draws(self.name, name, "gradient")
            objective = 0
            for out in seeds:
                dy = rng.standard_normal(tuple(outs[out].shape), dtype=np.float32)
                stored["d" + out] = dy
                objective = objective + (outs[out] * torch.from_numpy(dy).double()).sum()
            leaves = [k for k, v in t.items() if v.requires_grad]
            grads = torch.autograd.grad(objective, [t[k] for k in leaves])
            stored.update({"d" + k: g for k, g in zip(leaves, grads)})
        self.cases[name] = attrs
        self.tensors.update({f"{name}/{k}": v for k, v in stored.items()})

    def save(self):
        save(FOLDER / "ops" / f"{self.name}.safetensors", self.tensors, cases=self.cases)


def normal(rng, *shape):
    return rng.standard_normal(shape, dtype=np.float32)


def bf16(x):
    """float32 values rounded to the nearest bf16, ties to even."""
    u = x.view(np.uint32)
    return ((u + 0x7FFF + (u >> 16 & 1)) & np.uint32(0xFFFF0000)).view(np.float32)


def nchw(x):
    return x.permute(0, 3, 1, 2)


def nhwc(x):
    return x.permute(0, 2, 3, 1)


def per_image(v):
    return v.reshape(-1, 1, 1, 1)


def vp_sigma(t):
    return math.sqrt(math.expm1(0.5 * 19.9 * t * t + 0.1 * t))

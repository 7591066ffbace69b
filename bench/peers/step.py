"""The PyTorch peer of `emm bench step`: the same network's training step, in float32, tf32 or by bf16 autocast.

    python bench/peers/step.py --channels 32 --mult 2,2,2 --blocks 2 --resolution 8 --batch 32

One step = noise levels and noise drawn, forward, backward, Adam, EMA. Where memory does not hold the batch, a half, a
quarter … of it is taken. Prints one JSON object: images_per_s (from the median step), step_s {min, median, max},
threads, layout, torch, settings with the batch.
"""

import argparse
import json
import pathlib
import statistics
import sys
import time

import torch

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "tests" / "goldens"))
import network  # noqa: E402

MAX_WARMUP_S = 20.0


def flags(doc):
    """The parser of the flags that describe a network, for this peer and others."""
    ints = lambda text: [int(v) for v in text.split(",")]  # noqa: E731
    p = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--arch", choices=["ddpmpp", "ncsnpp"], default="ddpmpp")
    p.add_argument("--precond", choices=["vp", "ve", "edm"], default="vp")
    p.add_argument("--resolution", type=int, default=32)
    p.add_argument("--image-channels", type=int, default=3)
    p.add_argument("--channels", type=int, default=128)
    p.add_argument("--mult", type=ints, default=[2, 2, 2], help="2,2,2")
    p.add_argument("--blocks", type=int, default=2)
    p.add_argument("--dropout", type=float, default=0.13)
    p.add_argument("--batch", type=int, default=8)
    p.add_argument("--precision", choices=["fp32", "tf32", "bf16"], default="fp32", help="bf16: by autocast")
    p.add_argument("--layout", choices=["nchw", "channels_last", "best"], default="best")
    p.add_argument("--compile", action="store_true", help="torch.compile the loss")
    p.add_argument("--threads", type=int, help="default: PyTorch's choice")
    p.add_argument("--repeats", type=int, default=10, help="measured steps")
    p.add_argument("--device", default="cpu")
    return p


def config(a):
    """The `emm.model` dict of the flags."""
    fourier = a.arch == "ncsnpp"
    return dict(
        arch=a.arch, precond=a.precond, resolution=a.resolution, image_channels=a.image_channels,
        label_dim=0, model_channels=a.channels, channel_mult=a.mult, num_blocks=a.blocks,
        attn_resolutions=[a.resolution // 2], embedding="fourier" if fourier else "positional",
        skip_connections=[1] * (len(a.mult) * (a.blocks + 1)), dropout=a.dropout,
    )  # fmt: skip


def draw_sigma(precond, n, device):
    """Noise levels as training draws them, in float64."""
    u = torch.rand(n, dtype=torch.float64, device=device)
    if precond == "vp":
        t = 1 + u * (1e-5 - 1)
        return torch.expm1(0.5 * 19.9 * t**2 + 0.1 * t).sqrt()
    if precond == "ve":
        return 0.02 * 5000**u
    return torch.exp(1.2 * torch.randn(n, dtype=torch.float64, device=device) - 1.2)


def parameters(cfg, a, memory):
    """Small random parameters in EDM's names."""
    torch.manual_seed(1024)
    p = {}
    for name, shape in network.shapes(cfg).items():
        v = torch.randn(shape) * (0.02 if len(shape) > 1 else 0) + ("norm" in name and name.endswith("weight"))
        if name.endswith("freqs"):
            v = torch.randn(shape) * 16
        p[name] = v.to(a.device, memory_format=memory if v.ndim == 4 else torch.contiguous_format)
    return p


def bf16_where_asked(a):
    return torch.autocast(torch.device(a.device).type, torch.bfloat16, enabled=a.precision == "bf16")


def allow_tf32(a):
    """In float32 alone nothing is rounded to tf32; by bf16's autocast what stays in float32 may be."""
    torch.backends.cudnn.benchmark = True
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = a.precision != "fp32"


def finished(a):
    """Waits until the GPU has done what it was given."""
    if torch.device(a.device).type == "cuda":
        torch.cuda.synchronize(a.device)


def trainer(cfg, a, layout):
    """A function that runs one training step."""
    memory = torch.channels_last if layout == "channels_last" else torch.contiguous_format
    p = parameters(cfg, a, memory)
    trained = [v.requires_grad_() for k, v in p.items() if not k.endswith("freqs")]
    ema = [v.detach().clone() for v in trained]
    adam = torch.optim.Adam(trained, lr=2e-4, fused=True)
    shape = (a.batch, cfg["image_channels"], cfg["resolution"], cfg["resolution"])
    y = (torch.rand(shape, device=a.device) * 2 - 1).contiguous(memory_format=memory)
    objective = torch.compile(network.loss) if a.compile else network.loss

    autocast = bf16_where_asked(a)

    def step():
        sigma = draw_sigma(cfg["precond"], a.batch, a.device).float()
        adam.zero_grad()
        with autocast:
            loss = objective(cfg, p, y, torch.randn_like(y), sigma, None, cfg["dropout"])
        loss.backward()
        adam.step()
        with torch.no_grad():
            torch._foreach_lerp_(ema, trained, 1e-3)
        finished(a)

    return step


def timed(step):
    start = time.perf_counter()
    step()
    return time.perf_counter() - start


def warmed(cfg, a, layout):
    """A step that has run 2 to 5 times (5 where it compiles itself in the first ones), and its last time."""
    step = trainer(cfg, a, layout)
    start, runs = time.perf_counter(), 0
    while runs < (5 if a.compile else 2) or (runs < 5 and time.perf_counter() - start < MAX_WARMUP_S):
        last, runs = timed(step), runs + 1
    return last, layout, step


def fitting(cfg, a, layout):
    """As warmed, per image, at the largest part of the batch that memory holds."""
    while True:
        try:
            last, layout, step = warmed(cfg, a, layout)
            return last / a.batch, layout, step
        except torch.OutOfMemoryError:
            if a.batch == 1:
                raise
        # Here, where the exception no longer holds what was reserved.
        a.batch //= 2
        torch.cuda.empty_cache()


def about(a):
    """What PyTorch finds; starts the GPU."""
    finished(a)
    kind = torch.device(a.device).type
    name = torch.cuda.get_device_name(a.device) if kind == "cuda" else kind
    return {"torch": torch.__version__, "cuda": torch.version.cuda, "device": name, "sum": torch.ones(8, device=a.device).sum().item()}


def main():
    p = flags(__doc__)
    p.add_argument("--about", action="store_true", help="say what PyTorch finds, and end")
    a = p.parse_args()
    if a.about:
        return print(json.dumps(about(a)))
    if a.threads:
        torch.set_num_threads(a.threads)
    allow_tf32(a)
    cfg = config(a)
    layouts = ["nchw", "channels_last"] if a.layout == "best" else [a.layout]
    _, layout, step = min((fitting(cfg, a, layout) for layout in layouts), key=lambda w: w[0])
    times = [timed(step) for _ in range(a.repeats)]
    median = statistics.median(times)
    print(
        json.dumps(
            {
                "images_per_s": a.batch / median,
                "step_s": {"min": min(times), "median": median, "max": max(times)},
                "threads": torch.get_num_threads(),
                "layout": layout,
                "compiled": a.compile,
                "precision": a.precision,
                "torch": torch.__version__,
                "device": a.device,
                "settings": {**cfg, "batch": a.batch, "repeats": a.repeats},
            }
        )
    )


if __name__ == "__main__":
    main()

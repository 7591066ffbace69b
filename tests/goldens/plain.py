"""NumPy alone: golden files, Philox, and a second statement of some ops.

`make.py` makes the goldens with PyTorch's float64 autograd. `check()` compares them with what this
file computes from the formulas, without PyTorch: forward values directly, gradients by central
differences along themselves and along random directions.
"""

import json
import struct

import numpy as np

DTYPES = {"F32": "<f4", "F64": "<f8", "I32": "<i4", "U32": "<u4"}
TOLERANCE = 1e-6  # of the values' norm; the files hold float32, which rounds at 6e-8


def read(path):
    """Tensors and metadata of a safetensors file."""
    data = path.read_bytes()
    (size,) = struct.unpack_from("<Q", data)
    header = json.loads(data[8 : 8 + size])
    meta = header.pop("__metadata__", {})
    tensors = {}
    for name, t in header.items():
        begin, end = t["data_offsets"]
        raw = data[8 + size + begin : 8 + size + end]
        tensors[name] = np.frombuffer(raw, DTYPES[t["dtype"]]).reshape(t["shape"])
    return tensors, meta


def write(path, tensors, metadata):
    """Writes a safetensors file; equal contents give equal bytes. `metadata` maps strings to strings."""
    names = {np.dtype(v): k for k, v in DTYPES.items()}
    header, offset = {"__metadata__": metadata}, 0
    order = sorted(tensors, key=lambda name: -tensors[name].itemsize)  # keeps float64 aligned
    for name in order:
        t = tensors[name]
        end = offset + t.nbytes
        header[name] = {"dtype": names[t.dtype], "shape": t.shape, "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    path.parent.mkdir(exist_ok=True)
    data = b"".join(tensors[name].tobytes() for name in order)
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


def philox(counter, key):
    """Philox4x32-10 (Salmon et al. 2011). counter [..., 4], key [..., 2] (low, high) -> words [..., 4]."""
    c = np.moveaxis(np.asarray(counter, np.uint64), -1, 0).copy()
    k = np.moveaxis(np.asarray(key, np.uint64), -1, 0).copy()
    low, half = np.uint64(0xFFFFFFFF), np.uint64(32)
    for _ in range(10):
        a, b = np.uint64(0xD2511F53) * c[0], np.uint64(0xCD9E8D57) * c[2]
        c = np.stack([(b >> half) ^ c[1] ^ k[0], b & low, (a >> half) ^ c[3] ^ k[1], a & low])
        k[0] = (k[0] + np.uint64(0x9E3779B9)) & low
        k[1] = (k[1] + np.uint64(0xBB67AE85)) & low
    return np.moveaxis(c, 0, -1).astype(np.uint32)


# The three known answers of Random123's kat_vectors: counter, key, words.
KNOWN = [
    ([0] * 4, [0] * 2, [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]),
    ([0xFFFFFFFF] * 4, [0xFFFFFFFF] * 2, [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]),
    (
        [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344],
        [0xA4093822, 0x299F31D0],
        [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1],
    ),
]


def dropout_mask(shape, attrs):
    """What dropout multiplies by: 0 or 65536/threshold, for activations [N,H,W,C].

    Element e of an image (in H,W,C order) uses 16 bits of Philox at the counter
    (e // 8, first_image + n, step, 4 << 16 | layer): word j // 2 of the block, j = e % 8, its low
    half for even j, its high half for odd j.
    """
    n, length = shape[0], int(np.prod(shape[1:]))
    blocks = -(-length // 8)
    counter = np.zeros((n, blocks, 4), np.uint64)
    counter[..., 0] = np.arange(blocks)
    counter[..., 1] = attrs["first_image"] + np.arange(n)[:, None]
    counter[..., 2] = attrs["step"]
    counter[..., 3] = 4 << 16 | attrs["layer"]
    key = [attrs["seed"] & 0xFFFFFFFF, attrs["seed"] >> 32]
    words = philox(counter, np.broadcast_to(np.array(key, np.uint64), (n, blocks, 2)))
    bits = np.stack([words & 0xFFFF, words >> 16], -1).reshape(n, blocks * 8)[:, :length]
    threshold = round((1 - attrs["p"]) * 65536)
    return np.where(bits < threshold, 65536 / threshold, 0.0).reshape(shape)


def silu(x):
    return x / (1 + np.exp(-x))


def conv(x, w, stride, pad):
    """x [N,H,W,C], w [O,k,k,C] -> [N,Ho,Wo,O]."""
    k = w.shape[1]
    x = np.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    ho, wo = (x.shape[1] - k) // stride + 1, (x.shape[2] - k) // stride + 1
    y = np.zeros((x.shape[0], ho, wo, w.shape[0]))
    for i in range(k):
        for j in range(k):
            tap = x[:, i : i + (ho - 1) * stride + 1 : stride, j : j + (wo - 1) * stride + 1 : stride]
            y += tap @ w[:, i, j].T
    return y


def conv2d(t, a):
    y = conv(t["x"], t["w"], a["stride"], a["pad"]) + t["b"]
    if "emb" in t:
        y = y + t["emb"][:, None, None, a["emb_first"] : a["emb_first"] + y.shape[3]]
    if "residual" in t:
        y = y + t["residual"]
    if "sw" in t:
        s = np.concatenate([t["s1"], *([t["s2"]] if "s2" in t else [])], 3)
        y = y + s @ t["sw"][:, : s.shape[3]].T + t["sb"]
    return {"y": y * a["scale"]}


FILTERS = {"down": [1, 1], "up": [1, 1], "fir_down": [1, 3, 3, 1], "fir_up": [1, 3, 3, 1]}


def resample(x, how):
    """Halves or doubles both sides of [N,H,W,C] with the separable filter of `how`; zeros outside."""
    f = np.array(FILTERS[how], np.float64) / sum(FILTERS[how])
    pad = (len(f) - 1) // 2
    for axis in (1, 2):
        x = np.moveaxis(x, axis, 0)
        size = x.shape[0]
        if how.endswith("down"):
            x = np.pad(x, ((pad, pad),) + ((0, 0),) * 3)
            x = sum(f[m] * x[m : m + size - 1 : 2] for m in range(len(f)))
        else:
            full = np.zeros((2 * size + len(f) - 2, *x.shape[1:]))
            for m in range(len(f)):
                full[m : m + 2 * size - 1 : 2] += 2 * f[m] * x
            x = full[pad : pad + 2 * size]
        x = np.moveaxis(x, 0, axis)
    return x


def norm(t, a):
    x = np.concatenate([t["x1"], *([t["x2"]] if "x2" in t else [])], 3)
    x = np.concatenate([x, np.zeros((*x.shape[:3], a["off"]))], 3)
    n, h, w, c = x.shape
    g = x.reshape(n, h * w, a["groups"], c // a["groups"])
    g = g - g.mean((1, 3), keepdims=True)
    g = g / np.sqrt((g**2).mean((1, 3), keepdims=True) + 1e-6)
    y = g.reshape(x.shape) * t["gamma"] + t["beta"]
    if a["silu"]:
        y = silu(y)
    if a["p"]:
        y = y * dropout_mask(y.shape, a)
    if a["resample"] == "none":
        return {"y": y}
    return {"y": resample(y, a["resample"]), "xr": resample(t["x1"], a["resample"])}


def attention(t, a):
    n, h, w, c3 = t["qkv"].shape
    q, k, v = np.split(t["qkv"].reshape(n, h * w, c3), 3, 2)
    s = q @ k.transpose(0, 2, 1) / np.sqrt(c3 // 3)
    p = np.exp(s - s.max(2, keepdims=True))
    p /= p.sum(2, keepdims=True)
    return {"y": (p @ v).reshape(n, h, w, c3 // 3)}


def linear(t, a):
    y = t["x"] @ t["w"].T + t["b"]
    return {"y": silu(y) if a["silu"] else y}


OPS = {"conv2d": conv2d, "norm": norm, "attention": attention, "linear": linear}


def compare(what, got, want, errors):
    """Adds a line to `errors` unless got equals want to TOLERANCE; NaN never passes."""
    got, want = np.asarray(got, np.float64), np.asarray(want, np.float64)
    if got.shape != want.shape:
        errors.append(f"{what}: shape {got.shape}, the file has {want.shape}")
        return
    err = np.linalg.norm(got - want) / max(np.linalg.norm(want), 1e-30)
    if not err < TOLERANCE:
        errors.append(f"{what}: differs by {err:.2e} of its norm, {TOLERANCE:.0e} allowed")


def check_op(folder, op, errors):
    """Recomputes every case of one op; returns how many."""
    tensors, meta = read(folder / "ops" / f"{op}.safetensors")
    cases = json.loads(meta["cases"])
    for case, attrs in cases.items():
        t = {k.split("/")[1]: v.astype(np.float64) for k, v in tensors.items() if k.startswith(case + "/")}
        outs = OPS[op](t, attrs)
        for name, value in outs.items():
            compare(f"{op} {case} {name}", value, t[name], errors)

        def objective(inputs):
            return sum((v * t["d" + k]).sum() for k, v in OPS[op](inputs, attrs).items())

        rng = np.random.default_rng(0)
        for name in [k for k in t if "d" + k in t and k not in outs]:
            gradient = t["d" + name]
            size = max(np.linalg.norm(gradient), 1e-6)
            for v in (gradient / size, *rng.standard_normal((3, *gradient.shape))):
                h = 1e-4 / np.linalg.norm(v)
                high, low = (objective({**t, name: t[name] + s * v}) for s in (h, -h))
                slope, want = (high - low) / (2 * h), (v * gradient).sum()
                if not abs(slope - want) / size < TOLERANCE:
                    errors.append(f"{op} {case} d{name}: slope {slope:.9g}, the file says {want:.9g}")
    return len(cases)


def check(folder):
    """Problems found in the goldens under `folder`, and the number of cases looked at."""
    errors, count = [], 0
    for counter, key, words in KNOWN:
        if philox(counter, key).tolist() != words:
            errors.append(f"philox: counter {counter} gives {philox(counter, key)}, not {words}")
    tensors, _ = read(folder / "ops" / "philox.safetensors")
    for case in sorted({k.split("/")[0] for k in tensors}):
        words = philox(tensors[f"{case}/counter"], tensors[f"{case}/key"])
        if not np.array_equal(words, tensors[f"{case}/words"]):
            errors.append(f"philox {case}: words differ")
        count += 1
    for op in OPS:
        count += check_op(folder, op, errors)
    return errors, count

"""Turns a network pickle of EDM or DiffMemorize into a model file of emm, running none of the pickle's code.

    python data/edm_to_safetensors.py network-snapshot-040000.pkl model.safetensors

Needs NumPy. Such a pickle is a dict with the network under `ema` (--key picks another entry). Its
modules are "persistent" objects: class name, the source text of their module, and their state; loading
one in the ordinary way executes that source. Here an unpickler with a list of allowed names builds inert
records instead, and any other name is refused.

Supported: pickles whose tensors are stored by `torch._utils._rebuild_tensor_v2` over
`torch.storage._load_from_bytes`, that is torch's format before its zip files, nested in the outer
pickle: what EDM's training loop writes. Networks: SongUNet as DDPM++ or NCSN++ under VPPrecond,
VEPrecond or EDMPrecond. An augmentation embedding is dropped (sampling never uses it).
"""

import argparse
import collections
import io
import json
import os
import pathlib
import pickle
import struct
import sys

import numpy as np


class Refused(Exception):
    """The file is not, or not safely, a network pickle; the message says why."""


# ------------------------------------------------------------------------------ inert unpickling


class Record:
    """Stands for an object of the pickle: its class name and its state, no behaviour."""

    def __init__(self, class_name="", state=None):
        self.class_name, self.state = class_name, state or {}

    def __setstate__(self, state):
        self.state = state


class EasyDict(dict):
    """A dict whose keys are also attributes in EDM; here a dict."""


def record_persistent(meta):
    """Takes the place of EDM's reconstruction, which would execute meta["module_src"]."""
    if not isinstance(meta, dict) or meta.get("type") != "class" or not isinstance(meta.get("state"), dict):
        raise Refused("a persistent object without class and state")
    return Record(str(meta.get("class_name")), meta["state"])


STORAGES = {
    "FloatStorage": "<f4", "DoubleStorage": "<f8", "HalfStorage": "<f2", "LongStorage": "<i8",
    "IntStorage": "<i4", "ByteStorage": "<u1", "BoolStorage": "?",
}  # fmt: skip
LEGACY_MAGIC = 0x1950A86A20F9469CFC6C


def storage_from_bytes(blob):
    """The one storage of a torch file in the format before zip: four pickles, keys, sizes and raw values."""
    file, stored = io.BytesIO(blob), {}

    def persistent(pid):
        kind, dtype, key, _, length, *_ = pid
        if kind != "storage" or dtype not in STORAGES.values():
            raise Refused(f"a tensor storage of kind {kind!r}")
        return stored.setdefault(key, (dtype, int(length)))

    def load():
        u = Unpickler(file)
        u.persistent_load = persistent
        return u.load()

    magic, protocol = load(), load()
    if magic != LEGACY_MAGIC or protocol != 1001:
        raise Refused("a tensor that is not in torch's format before zip")
    load()  # sizes of C types on the writer's machine
    (dtype, length), keys = load(), load()
    if len(keys) != 1 or keys[0] not in stored:
        raise Refused(f"a tensor blob with {len(keys)} storages, expected 1")
    (count,) = struct.unpack("<q", file.read(8))
    raw = file.read()
    if count != length or len(raw) != length * np.dtype(dtype).itemsize:
        raise Refused(f"a tensor storage of {length} values that holds {len(raw)} bytes")
    return np.frombuffer(raw, dtype)


def tensor(storage, offset, size, stride, *_):
    """A strided view of a storage; every element must lie inside."""
    last = offset + sum((n - 1) * s for n, s in zip(size, stride))
    inside = 0 <= offset and min(stride, default=0) >= 0 and min(size, default=1) > 0 and last < len(storage)
    if not inside or len(size) != len(stride):
        raise Refused(f"a tensor of size {size}, stride {stride} outside its storage of {len(storage)}")
    strides = [s * storage.itemsize for s in stride]
    return np.lib.stride_tricks.as_strided(storage[offset:], size, strides, writeable=False)


def numpy_scalar(dtype, raw):
    if dtype.hasobject:
        raise Refused("a NumPy scalar of objects")
    return np.frombuffer(raw, dtype, 1)[0]


ALLOWED = {
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("dnnlib.util", "EasyDict"): EasyDict,
    ("torch_utils.persistence", "_reconstruct_persistent_obj"): record_persistent,
    ("torch.nn.modules.container", "ModuleDict"): Record,
    ("torch.storage", "_load_from_bytes"): storage_from_bytes,
    ("torch._utils", "_rebuild_tensor_v2"): tensor,
    ("torch._utils", "_rebuild_parameter"): lambda data, *_: data,
    ("torch", "Size"): tuple,
    ("numpy", "dtype"): np.dtype,
    **{(f"numpy.{core}.multiarray", "scalar"): numpy_scalar for core in ("core", "_core")},
    **{("torch", name): dtype for name, dtype in STORAGES.items()},
}


class Unpickler(pickle.Unpickler):
    def find_class(self, module, name):
        try:
            return ALLOWED[module, name]
        except KeyError:
            raise Refused(f"it asks for {module}.{name}, which no network file needs") from None


# ---------------------------------------------------------------------------- the network inside


def tensors(record, prefix=""):
    """Names and arrays of a module record, parameters and buffers, in module order."""
    found = {}
    for part in ("_parameters", "_buffers"):
        for name, value in record.state.get(part, {}).items():
            if value is not None:
                found[prefix + name] = np.asarray(value)
    for name, child in record.state.get("_modules", {}).items():
        if child is not None:
            found |= tensors(child, f"{prefix}{name}.")
    return found


PRECONDS = {
    "VPPrecond": ("vp", dict(beta_d=19.9, beta_min=0.1, M=1000, epsilon_t=1e-5)),
    "VEPrecond": ("ve", dict(sigma_min=0.02, sigma_max=100)),
    "EDMPrecond": ("edm", dict(sigma_min=0, sigma_max=float("inf"), sigma_data=0.5)),
}
# Encoder and width of the noise embedding tell the two architectures apart; the filter must agree.
ARCHS = {("standard", 1, (1, 1)): "ddpmpp", ("residual", 2, (1, 3, 3, 1)): "ncsnpp"}


def arguments(record, names):
    """A record's constructor arguments by name; `names` are those of its leading positional ones."""
    args, kwargs = record.state.get("_init_args"), record.state.get("_init_kwargs")
    if args is None or kwargs is None:
        raise Refused(f"{record.class_name} did not keep its constructor's arguments")
    return dict(zip(names, args)) | dict(kwargs)


def config(wrapper):
    """The `emm.model` dict of a preconditioned network, from the arguments it was built with."""
    if wrapper.class_name not in PRECONDS:
        raise Refused(f"its network is a {wrapper.class_name!r}, expected one of {', '.join(PRECONDS)}")
    precond, constants = PRECONDS[wrapper.class_name]
    inner = wrapper.state.get("_modules", {}).get("model")
    if not isinstance(inner, Record) or inner.class_name != "SongUNet":
        raise Refused(f"it wraps a {getattr(inner, 'class_name', None)!r}, expected SongUNet")
    outer = arguments(wrapper, ["img_resolution", "img_channels", "label_dim"])
    a = arguments(inner, ["img_resolution", "in_channels", "out_channels", "label_dim"])
    for name, value in constants.items():
        if outer.get(name, value) != value:
            raise Refused(f"{wrapper.class_name} has {name} = {outer[name]}, only {value} is supported")
    for name, value in dict(channel_mult_emb=4, decoder_type="standard", label_dropout=0).items():
        if a.get(name, value) != value:
            raise Refused(f"SongUNet has {name} = {a[name]}, only {value} is supported")
    kind = (a.get("encoder_type", "standard"), a.get("channel_mult_noise", 1), tuple(a.get("resample_filter", [1, 1])))
    if kind not in ARCHS:
        raise Refused(f"encoder, noise channels and filter {kind} are neither DDPM++ nor NCSN++")
    mult, blocks, side = list(a.get("channel_mult", [1, 2, 2, 2])), int(a.get("num_blocks", 4)), int(a["img_resolution"])
    sides = [side >> level for level in range(len(mult))]
    return {
        "arch": ARCHS[kind],
        "precond": precond,
        "resolution": side,
        "image_channels": int(a["in_channels"]),
        "label_dim": int(a.get("label_dim", 0)),
        "model_channels": int(a.get("model_channels", 128)),
        "channel_mult": [int(m) for m in mult],
        "num_blocks": blocks,
        "attn_resolutions": [int(r) for r in a.get("attn_resolutions", [16]) if r in sides],
        "embedding": str(a.get("embedding_type", "positional")),
        "skip_connections": [int(s) for s in a.get("skip_connections", [])] or [1] * (len(mult) * (blocks + 1)),
        "dropout": float(a.get("dropout", 0.10)),
    }


def read(path, key):
    """Tensors (float32) and configuration of the network under `key` of a pickle."""
    with open(path, "rb") as file:
        try:
            data = Unpickler(file).load()
        except Refused:
            raise
        except Exception as e:  # whatever malformed bytes provoke
            raise Refused(f"not a readable pickle: {' '.join(str(e).split())}") from e
    if not isinstance(data, dict) or not isinstance(data.get(key), Record):
        have = ", ".join(map(str, data)) if isinstance(data, dict) else type(data).__name__
        raise Refused(f"no network under {key!r}; it has {have}")
    cfg = config(data[key])
    found = tensors(data[key])
    dropped = [name for name in found if name.startswith("model.map_augment.")]
    return {n: np.ascontiguousarray(v, "<f4") for n, v in found.items() if n not in dropped}, cfg, dropped


def write(path, found, metadata):
    """A safetensors file of float32 tensors, complete or not there at all."""
    header, offset = {"__metadata__": metadata}, 0
    for name, value in found.items():
        header[name] = {"dtype": "F32", "shape": value.shape, "data_offsets": [offset, offset + value.nbytes]}
        offset += value.nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    part = path.with_name(f"{path.name}.part{os.getpid()}")
    try:
        with open(part, "wb") as file:
            file.write(struct.pack("<Q", len(text)) + text)
            for value in found.values():
                file.write(value.tobytes())
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("pickle", type=pathlib.Path)
    p.add_argument("out", type=pathlib.Path, help="the model file to write")
    p.add_argument("--key", default="ema", help="entry of the pickle that holds the network (default: ema)")
    p.add_argument("--force", action="store_true", help="replace an existing output")
    a = p.parse_args()
    if a.out.exists() and not a.force:
        p.error(f"{a.out}: exists; --force replaces it")
    try:
        found, cfg, dropped = read(a.pickle, a.key)
        write(a.out, found, {"emm.model": json.dumps(cfg)})
    except Refused as e:
        print(f"{a.pickle}: {e}", file=sys.stderr)
        sys.exit(3)
    except OSError as e:
        print(e, file=sys.stderr)
        sys.exit(1)
    for name in dropped:
        print(f"{a.pickle}: {name} left out, augmentation labels are not supported", file=sys.stderr)
    print(f"{a.out}: {len(found)} tensors, {cfg['arch']} {cfg['precond']} {cfg['resolution']}×{cfg['resolution']}")


if __name__ == "__main__":
    main()

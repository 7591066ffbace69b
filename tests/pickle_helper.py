"""Tests of data/edm_to_safetensors.py against a pickle as EDM writes it, and against hostile ones.

    python tests/pickle_helper.py           NumPy alone
    python tests/pickle_helper.py --make    makes the pickle again (PyTorch)

No network of EDM's is small enough to keep here, so fixtures/edm_lookalike.pkl imitates one: the same
nesting of persistent objects, module dicts, parameters, buffers and NumPy scalars, written by PyTorch.
Its module source writes a file when it is executed. Values follow from each tensor's name.
"""

import json
import os
import pathlib
import pickle
import subprocess
import sys
import tempfile
import zlib

import numpy as np

HERE = pathlib.Path(__file__).resolve().parent
FIXTURE = HERE / "fixtures" / "edm_lookalike.pkl"
sys.path.insert(0, str(HERE / "goldens"))
import plain  # noqa: E402

CONFIG = dict(
    arch="ncsnpp", precond="ve", resolution=4, image_channels=3, label_dim=2, model_channels=4, channel_mult=[1, 1],
    num_blocks=1, attn_resolutions=[2], embedding="fourier", skip_connections=[1, 0, 1, 1], dropout=0.13,
)  # fmt: skip


def value(name, shape):
    return np.random.default_rng(zlib.crc32(name.encode())).standard_normal(shape, np.float32)


# --------------------------------------------------------------------------------- the look-alike


def make():
    import types

    import network
    import torch

    persistence = types.ModuleType("torch_utils.persistence")

    def _reconstruct_persistent_obj(meta):
        raise NotImplementedError

    _reconstruct_persistent_obj.__module__ = persistence.__name__
    _reconstruct_persistent_obj.__qualname__ = _reconstruct_persistent_obj.__name__
    persistence._reconstruct_persistent_obj = _reconstruct_persistent_obj
    sys.modules |= {"torch_utils": types.ModuleType("torch_utils"), persistence.__name__: persistence}

    class Persistent(torch.nn.Module):
        def __init__(self, class_name, *args, **kwargs):
            super().__init__()
            self._class_name, self._init_args, self._init_kwargs = class_name, args, kwargs

        def __reduce__(self):
            state = {k: v for k, v in self.__dict__.items() if k != "_class_name"}
            source = "import pathlib\npathlib.Path('executed').touch()\n"
            meta = dict(type="class", version=6, module_src=source, class_name=self._class_name, state=state)
            return _reconstruct_persistent_obj, (meta,), None

    def kind(path):
        leaf = path.split(".")[-1]
        if leaf == "map_noise":
            return "FourierEmbedding"
        if "norm" in leaf:
            return "GroupNorm"
        return "Linear" if leaf.startswith(("map_", "affine")) else "Conv2d"

    skipped = ("arch", "precond", "resolution", "image_channels", "embedding")
    kwargs = {k: v for k, v in CONFIG.items() if k not in skipped}
    kwargs |= dict(embedding_type="fourier", encoder_type="residual", decoder_type="standard")
    kwargs |= dict(channel_mult_noise=2, resample_filter=[1, 3, 3, 1], augment_dim=9)
    interface = dict(img_resolution=CONFIG["resolution"], img_channels=3)
    net = Persistent("VEPrecond", **interface, use_fp16=False, model_type="SongUNet", **kwargs)
    unet = dict(img_resolution=CONFIG["resolution"], in_channels=3, out_channels=3)
    net.add_module("model", Persistent("SongUNet", **unet, **kwargs))
    shapes = network.shapes(CONFIG) | {"model.map_augment.weight": (8, 9)}
    for name, shape in shapes.items():
        *path, leaf = name.split(".")
        at = net
        for i, part in enumerate(path):
            if part not in at._modules:
                here = ".".join(path[: i + 1])
                block = i == 2 and len(path) > 3
                module = Persistent("UNetBlock" if block else kind(here), skip_scale=np.sqrt(0.5))
                at.add_module(part, torch.nn.ModuleDict() if part in ("enc", "dec") else module)
            at = at._modules[part]
        t = torch.from_numpy(value(name, shape))
        at.register_buffer(leaf, t) if leaf == "freqs" else at.register_parameter(leaf, torch.nn.Parameter(t))
        if part == "conv0":
            at.register_buffer("resample_filter", torch.ones(1, 1, 4, 4) if "down" in name or "up" in name else None)
    data = dict(ema=net.eval().requires_grad_(False), loss_fn=Persistent("VELoss"), augment_pipe=None)
    FIXTURE.write_bytes(pickle.dumps(data | dict(dataset_kwargs=dict(path="images.zip", use_labels=True))))
    (HERE / "fixtures" / "edm_lookalike.json").write_text(json.dumps(shapes) + "\n")


# ------------------------------------------------------------------------------------------ tests


def convert(folder, data, *flags):
    """Runs the converter in `folder` on a pickle; returns the finished process."""
    (folder / "in.pkl").write_bytes(data)
    script = HERE.parent / "data" / "edm_to_safetensors.py"
    command = [sys.executable, str(script), "in.pkl", "out.safetensors", *flags]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True)


def converts_the_lookalike(folder):
    done = convert(folder, FIXTURE.read_bytes())
    assert done.returncode == 0, done.stderr
    assert "map_augment" in done.stderr
    assert not (folder / "executed").exists(), "the pickle's source was executed"
    tensors, meta = plain.read(folder / "out.safetensors")
    assert json.loads(meta["emm.model"]) == CONFIG, meta
    shapes = json.loads((HERE / "fixtures" / "edm_lookalike.json").read_text())
    expected = {n: value(n, s) for n, s in shapes.items() if "map_augment" not in n}
    found = {n: t for n, t in tensors.items() if not n.endswith("resample_filter")}
    assert len(tensors) > len(found), "buffers are missing"
    assert list(found) and sorted(found) == sorted(expected), set(found) ^ set(expected)
    for name, want in expected.items():
        assert np.array_equal(found[name], want), name
    assert convert(folder, FIXTURE.read_bytes()).returncode == 2, "an existing output was replaced"
    assert convert(folder, FIXTURE.read_bytes(), "--force").returncode == 0


class Call:
    """Pickles as a call of `function`."""

    def __init__(self, function, *args):
        self.call = function, args

    def __reduce__(self):
        return self.call


def hostile():
    """Pickles that must be refused, and what the message has to name."""
    touch = "touch executed"
    nested = pickle.dumps(Call(os.system, touch))

    def call(module, name, argument):  # GLOBAL, argument, TUPLE1, REDUCE, STOP
        return f"\x80\x03c{module}\n{name}\n".encode("latin1") + pickle.dumps(argument, 3)[2:-1] + b"\x85R."

    yield "os.system", pickle.dumps({"ema": Call(os.system, touch)}), "system"
    yield "eval", pickle.dumps({"ema": Call(eval, "open('executed', 'w')")}), "builtins.eval"
    yield "in a tensor blob", call("torch.storage", "_load_from_bytes", nested), "system"
    yield "submodule", call("torch.nn.modules.container", "ModuleDict.__init__", touch), "ModuleDict.__init__"
    yield "no pickle", b"PK\x03\x04 not a pickle", "not a readable pickle"
    yield "truncated", FIXTURE.read_bytes()[:5000], "not a readable pickle"
    yield "another dict", pickle.dumps({"model": 1}), "no network under 'ema'"
    for offset, size, stride in ((0, (8,), (1,)), (-1, (1,), (1,)), (0, (2,), (-1,)), (0, (2, 2), (3, 1))):
        yield f"{offset} {size} {stride}", tensor_pickle(storage_blob(4), offset, size, stride), "outside its storage"


def storage_blob(length):
    """A float32 storage in torch's format before zip."""
    pid = b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpu"
    pid += b"K" + bytes([length]) + b"NtQ."
    parts = [pickle.dumps(v, 2) for v in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True})]
    return b"".join(parts) + b"\x80\x02" + pid + pickle.dumps(["0"], 2) + np.int64(length).tobytes() + bytes(4 * length)


def tensor_pickle(blob, offset, size, stride):
    """A call of _rebuild_tensor_v2(_load_from_bytes(blob), offset, size, stride)."""
    load = b"ctorch.storage\n_load_from_bytes\nB" + len(blob).to_bytes(4, "little") + blob + b"\x85R"
    numbers = b"".join(pickle.dumps(v, 3)[2:-1] for v in (offset, size, stride))
    return b"\x80\x03ctorch._utils\n_rebuild_tensor_v2\n(" + load + numbers + b"tR."


def refuses_hostile_pickles(folder):
    for name, data, message in hostile():
        done = convert(folder, data)
        assert done.returncode == 3, f"{name}: exit code {done.returncode}\n{done.stderr}"
        assert message in done.stderr and done.stderr.count("\n") == 1, f"{name}: {done.stderr}"
        assert not (folder / "executed").exists(), f"{name}: was executed"
        assert [f.name for f in folder.iterdir()] == ["in.pkl"], f"{name}: left something behind"


if __name__ == "__main__":
    if "--make" in sys.argv:
        make()
    for test in (converts_the_lookalike, refuses_hostile_pickles):
        with tempfile.TemporaryDirectory() as folder:
            test(pathlib.Path(folder))
        print(f"{test.__name__}: ok")

"""Makes the goldens of tests/data.rs with Python, NumPy and Pillow.

    python3 tests/goldens/data/make.py

Seeds stand beside what they make. Made with Python 3.11, NumPy 2.4, Pillow 13.0.
"""

import gzip
import io
import json
import pickle
import random
import struct
import tarfile
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image

HERE = Path(__file__).parent
DIGITS = HERE / "../../../data/digits8x8-images-idx3-ubyte"


def resize():
    """Pillow's Lanczos: (height, width, channels) -> side."""
    rng = np.random.default_rng(7)
    digits = np.frombuffer(DIGITS.read_bytes()[16:], np.uint8).reshape(-1, 8, 8)
    mosaic = digits[:64].reshape(8, 8, 8, 8).transpose(0, 2, 1, 3).reshape(64, 64)
    y, x = np.mgrid[0:32, 0:32]
    smooth = np.stack([x * 8, y * 8, (x * y) // 4], -1).astype(np.uint8)
    cases = [
        (rng.integers(0, 256, (32, 32, 3)), 16),
        (rng.integers(0, 256, (32, 32, 3)), 8),
        (rng.integers(0, 2, (32, 32, 3)) * 255, 16),  # overshoots on both sides
        (rng.integers(0, 2, (28, 28)) * 255, 16),
        (rng.integers(0, 256, (33, 33, 3)), 17),
        (rng.integers(0, 256, (20, 31, 3)), 16),  # not square
        (rng.integers(0, 256, (16, 9)), 16),  # one axis stays
        (rng.integers(0, 256, (5, 5)), 3),
        (rng.integers(0, 256, (3, 3)), 11),
        (rng.integers(0, 256, (1, 1, 3)), 4),
        (smooth, 16),
        (smooth, 8),
        (mosaic, 32),
        (mosaic, 7),
        (digits[5], 32),
        (digits[9], 16),
    ]
    arrays = {}
    for i, (pixels, side) in enumerate(cases):
        pixels = pixels.astype(np.uint8)
        arrays[f"{i:02}_in"] = pixels
        arrays[f"{i:02}_out"] = np.asarray(Image.fromarray(pixels).resize((side, side), Image.LANCZOS))
    np.savez_compressed(HERE / "resize.npz", **arrays)


def python_random():
    """random.seed(S), then random.randint(0, C - 1) 700 times: the state turns over once and more."""
    arrays = {}
    for seed in [0, 1, 1024, 2**32 - 1, 2**32 + 5, 2**64 - 1]:
        for classes in [1, 2, 5, 10, 1000, 50000, 2**31 + 1]:
            random.seed(seed)
            draws = [random.randint(0, classes - 1) for _ in range(700)]
            arrays[f"{seed}_{classes}"] = np.array(draws, np.int64)[[*range(20), *range(615, 700)]]
    np.savez_compressed(HERE / "python_random.npz", **arrays)


def png(image, **options):
    out = io.BytesIO()
    image.save(out, "PNG", **options)
    return out.getvalue()


def pillow_zip():
    """An EDM zip as Pillow and zipfile write it, entries and labels out of order, and what it holds."""
    rng = np.random.default_rng(11)
    pixels = rng.integers(0, 256, (5, 8, 8, 3)).astype(np.uint8)
    palette = Image.fromarray(pixels[3]).quantize(16)
    pixels[3] = np.asarray(palette.convert("RGB"))
    pngs = [png(Image.fromarray(p), compress_level=0, optimize=False) for p in pixels]
    pngs[1] = png(Image.fromarray(pixels[1]), compress_level=9)
    pngs[3] = png(palette)
    labels = [3, 0, 7, 7, 1]
    names = [f"00000/img{i:08}.png" for i in range(5)]
    with zipfile.ZipFile(HERE / "pillow.zip", "w", zipfile.ZIP_STORED) as z:
        order = [4, 0, 2, 1, 3]
        z.writestr(zipfile.ZipInfo("dataset.json"), json.dumps({"labels": [[names[i], labels[i]] for i in order]}))
        for i in order:
            info = zipfile.ZipInfo(names[i])
            info.compress_type = zipfile.ZIP_DEFLATED if i == 2 else zipfile.ZIP_STORED
            z.writestr(info, pngs[i])
    np.savez(HERE / "pillow.npz", images=pixels, labels=np.array(labels))


def odd_pngs():
    """PNGs that are grey with 1 and 8 bits, or that no data set may hold; a JPEG."""
    rng = np.random.default_rng(13)
    rgba = rng.integers(0, 256, (8, 8, 4)).astype(np.uint8)
    wide = rng.integers(0, 65536, (8, 8)).astype(np.uint16)
    bits = rng.integers(0, 2, (8, 8)).astype(np.uint8) * 255
    smooth = (np.mgrid[0:16, 0:16].sum(0) * 8).astype(np.uint8)
    jpeg = io.BytesIO()
    Image.fromarray(np.stack([smooth, smooth.T[::-1], 255 - smooth], -1)).save(jpeg, "JPEG", quality=95, subsampling=0)
    files = {
        "bits.png": png(Image.fromarray(bits).convert("1")),
        "rgba.png": png(Image.fromarray(rgba)),
        "grey_alpha.png": png(Image.fromarray(rgba[:, :, :2], "LA")),
        "wide.png": png(Image.fromarray(wide)),
        "photo.jpg": jpeg.getvalue(),
    }
    with zipfile.ZipFile(HERE / "odd.npz", "w") as z:
        for name, data in files.items():
            z.writestr(zipfile.ZipInfo(name + ".npy"), npy(np.frombuffer(data, np.uint8)))
        z.writestr(zipfile.ZipInfo("bits.npy"), npy(bits))
        z.writestr(zipfile.ZipInfo("photo.npy"), npy(np.asarray(Image.open(jpeg))))


def npy(array):
    out = io.BytesIO()
    np.save(out, array)
    return out.getvalue()


def short_string(text):
    return b"U" + bytes([len(text)]) + text


def python2_batch(title, labels, data):
    """A batch as Python 2's cPickle wrote it with protocol 2, opcode by opcode."""
    rows = struct.pack("<H", len(labels))
    out = b"\x80\x02}q\x01(" + short_string(b"batch_label") + b"q\x02" + short_string(title) + b"q\x03"
    out += short_string(b"labels") + b"q\x04]q\x05(" + b"".join(b"K" + bytes([l]) for l in labels) + b"e"
    out += short_string(b"data") + b"q\x06cnumpy.core.multiarray\n_reconstruct\nq\x07cnumpy\nndarray\nq\x08"
    out += b"K\x00\x85" + short_string(b"b") + b"\x87Rq\x09(K\x01M" + rows + b"M\x00\x0c\x86"
    out += b"cnumpy\ndtype\nq\x0a" + short_string(b"u1") + b"K\x00K\x01\x87Rq\x0b(K\x03" + short_string(b"|")
    out += b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89T" + struct.pack("<i", data.size) + data.tobytes()
    out += b"tb" + short_string(b"filenames") + b"q\x0c]q\x0d("
    out += b"".join(short_string(b"image_%d.png" % i) for i in range(len(labels))) + b"eu."
    read = pickle.loads(out, encoding="bytes")
    assert read[b"labels"] == labels and (read[b"data"] == data).all()
    return out


def cifar_batch(batch, rows=4):
    """Planes and labels; tests/data.rs states the same formula."""
    i, c, y, x = np.ogrid[0:rows, 0:3, 0:32, 0:32]
    planes = ((batch * 41 + i * 13 + c * 57 + y * 3 + x * 5) % 256).astype(np.uint8)
    return planes.reshape(rows, 3072), [(batch * 4 + i) % 10 for i in range(rows)]


def cifar():
    """Both archives with the members of the real ones, in the jumbled order of the real ones."""
    for kind in ["python", "binary"]:
        folder, suffix = ("cifar-10-batches-py", "") if kind == "python" else ("cifar-10-batches-bin", ".bin")
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w") as tar:
            info = tarfile.TarInfo(folder)
            info.type, info.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(info)

            def add(name, data):
                info = tarfile.TarInfo(f"{folder}/{name}")
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))

            add("data_batch_4" + suffix, member(kind, 4))
            add("readme.html", b"<p>")
            add("test_batch" + suffix, member(kind, 9))
            for batch in [3, 2, 5, 1]:
                add(f"data_batch_{batch}{suffix}", member(kind, batch))
            add("batches.meta" + (".txt" if suffix else ""), b"airplane\n")
        (HERE / f"cifar-10-{kind}.tar.gz").write_bytes(gzip.compress(out.getvalue(), mtime=0))


def member(kind, batch):
    planes, labels = cifar_batch(batch)
    if kind == "python":
        return python2_batch(b"training batch %d of 5" % batch, labels, planes)
    return b"".join(bytes([l]) + p.tobytes() for l, p in zip(labels, planes))


def arrays():
    """npy files of every type that is read, and of some that are not."""
    rng = np.random.default_rng(17)
    floats = rng.normal(size=(2, 3, 4))
    written = {
        "u8": rng.integers(0, 256, (3, 5)).astype(np.uint8),
        "i32": rng.integers(-(2**31), 2**31, 7).astype(np.int32),
        "i64": rng.integers(-(2**63), 2**63, (2, 2), dtype=np.int64),
        "f32": floats.astype(np.float32),
        "f64": floats,
        "scalar": np.float64(floats[0, 0, 0]),
        "empty": np.zeros((0, 3), np.float32),
        "big_endian": floats.astype(">f4"),
        "fortran": np.asfortranarray(floats),
        "half": floats.astype(np.float16),
        "structured": np.zeros(3, [("a", "<f4"), ("b", "<i4")]),
    }
    out = HERE / "arrays"
    out.mkdir(exist_ok=True)
    for name, array in written.items():
        np.save(out / f"{name}.npy", array)


if __name__ == "__main__":
    resize()
    python_random()
    pillow_zip()
    odd_pngs()
    cifar()
    arrays()

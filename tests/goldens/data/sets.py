"""Makes sets/, image files and sets of others' programs, with what these read in them.

    python3 tests/goldens/data/sets.py

Seeds stand beside what they make. Made with Python 3.11, NumPy 2.4.6, Pillow 13.0.0, pyarrow 26.0.1, SciPy 1.17.1.
"""

import io
import zipfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import scipy.io
from PIL import Image, ImageOps

HERE = Path(__file__).parent / "sets"
STAMP = (1980, 1, 1, 0, 0, 0)


def encoded(image, form, **options):
    out = io.BytesIO()
    image.save(out, form, **options)
    return out.getvalue()


def npy(array):
    out = io.BytesIO()
    np.save(out, array)
    return out.getvalue()


def images():
    """Image files of 7x5 pixels and, beside each, what Pillow reads in it."""
    rng = np.random.default_rng(19)
    rgb = Image.fromarray(rng.integers(0, 256, (5, 7, 3)).astype(np.uint8))
    grey, palette = rgb.convert("L"), rgb.quantize(9)
    bits = grey.point(lambda v: 255 * (v > 127)).convert("1")
    opaque = rgb.convert("RGBA")
    clear = opaque.copy()
    clear.putalpha(grey)
    wide = Image.fromarray(rng.integers(0, 65536, (5, 7)).astype(np.uint16))
    y, x = np.mgrid[0:24, 0:16]
    smooth = Image.fromarray(np.stack([x * 12, y * 9, 255 - x * 5 - y * 4], -1).astype(np.uint8))
    files = {
        "rgb.bmp": encoded(rgb, "BMP"),
        "grey.bmp": encoded(grey, "BMP"),
        "palette.bmp": encoded(palette, "BMP"),
        "bits.bmp": encoded(bits, "BMP"),
        "clear.bmp": encoded(clear, "BMP"),
        "rgb.tif": encoded(rgb, "TIFF"),
        "grey.tif": encoded(grey, "TIFF", compression="tiff_lzw"),
        "deflated.tif": encoded(rgb, "TIFF", compression="tiff_adobe_deflate"),
        "packbits.tif": encoded(rgb, "TIFF", compression="packbits"),
        "wide.tif": encoded(wide, "TIFF"),
        "clear.tif": encoded(clear, "TIFF"),
        "turned.tif": encoded(rgb, "TIFF", tiffinfo={274: 6}),
        "rgb.webp": encoded(rgb, "WEBP", lossless=True),
        "opaque.webp": encoded(opaque, "WEBP", lossless=True, exact=True),
        "clear.webp": encoded(clear, "WEBP", lossless=True, exact=True),
        "lossy.webp": encoded(smooth, "WEBP", quality=95),
    }
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[274] = orientation
        files[f"turned{orientation}.jpg"] = encoded(smooth, "JPEG", quality=95, subsampling=0, exif=exif)
        if orientation in (3, 6):
            files[f"turned{orientation}.webp"] = encoded(rgb, "WEBP", lossless=True, exif=exif)
            files[f"turned{orientation}.png"] = encoded(rgb, "PNG", exif=exif)
    with zipfile.ZipFile(HERE / "images.npz", "w", zipfile.ZIP_DEFLATED) as z:
        for name, data in files.items():
            read = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
            if read.mode == "P":
                read = read.convert("RGB")
            if read.mode == "1":
                read = read.convert("L")
            pixels = np.asarray(read)
            if pixels.dtype != np.uint8:
                pixels = pixels.astype(np.int32)
            for key, array in [(name, np.frombuffer(data, np.uint8)), (name + ".pixels", pixels)]:
                z.writestr(zipfile.ZipInfo(key + ".npy", STAMP), npy(array))


def parquet():
    """Hugging Face's image sets: how `datasets` writes them, and other ways."""
    rng = np.random.default_rng(23)
    pixels = rng.integers(0, 256, (7, 8, 8, 3)).astype(np.uint8)
    pixels[5] = pixels[2]
    pngs = [encoded(Image.fromarray(p), "PNG") for p in pixels]
    labels = np.array([3, 0, 7, 7, 1, 7, 2])
    paths = [f"train_{i}.png" for i in range(7)]
    rows = [{"bytes": b, "path": p} for b, p in zip(pngs, paths)]
    struct = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    table = pa.table({"image": pa.array(rows, struct), "label": pa.array(labels, pa.int64())})
    pq.write_table(table, HERE / "snappy.parquet", compression="snappy")
    pq.write_table(table, HERE / "zstd.parquet", compression="zstd", data_page_version="2.0", row_group_size=3)
    pq.write_table(table, HERE / "gzip.parquet", compression="gzip", use_dictionary=False, row_group_size=4)
    required = pa.schema([
        pa.field("id", pa.float64()),
        pa.field("img", pa.binary(), nullable=False),
        pa.field("fine_label", pa.int32(), nullable=False),
    ])
    plain = pa.table({"id": np.arange(7.0), "img": pngs, "fine_label": pa.array(labels, pa.int32())}, required)
    pq.write_table(plain, HERE / "plain.parquet", compression="none")
    lists = pa.table({"image": pa.array([[b] for b in pngs], pa.list_(pa.binary()))})
    pq.write_table(lists, HERE / "lists.parquet")
    absent = pa.table({"image": pa.array([rows[0], {"bytes": None, "path": "a.png"}], struct)})
    pq.write_table(absent, HERE / "absent.parquet")
    pq.write_table(table, HERE / "brotli.parquet", compression="brotli")
    pq.write_table(table, HERE / "delta.parquet", use_dictionary=False, column_encoding={
        "image.bytes": "DELTA_LENGTH_BYTE_ARRAY", "image.path": "PLAIN", "label": "PLAIN"})
    np.savez_compressed(HERE / "parquet.npz", images=pixels, labels=labels)


def svhn():
    """SVHN's form: X [H,W,C,N], y [N,1] from 1 to 10."""
    rng = np.random.default_rng(29)
    x = rng.integers(0, 256, (8, 8, 3, 5)).astype(np.uint8)
    y = np.array([[1], [10], [3], [10], [9]], np.uint8)
    for name, compressed, labels in [("packed", True, y), ("plain", False, y.astype(np.float64))]:
        scipy.io.savemat(HERE / f"{name}.mat", {"X": x, "y": labels}, do_compression=compressed)
        stamp_free(HERE / f"{name}.mat")
    np.savez_compressed(HERE / "svhn.npz", images=x.transpose(3, 0, 1, 2), labels=y[:, 0] % 10)


def stamp_free(path):
    """The header's text holds the day and hour."""
    data = path.read_bytes()
    path.write_bytes(b"MATLAB 5.0 MAT-file".ljust(116) + data[116:])


if __name__ == "__main__":
    HERE.mkdir(exist_ok=True)
    images()
    parquet()
    svhn()

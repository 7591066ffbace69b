"""The peer of `emm bench nearest`: the two nearest references of each query, by FAISS or PyTorch.

    python bench/peers/nearest.py --queries 2000 --references 50000
    python bench/peers/nearest.py --queries 2000 --references 50000 --data images.npy
    python bench/peers/nearest.py --make images.npy --from data_batch_1.bin ...

Uses FAISS's IndexFlatL2 where it is installed, else torch.cdist and topk in blocks of queries (--with
picks one). Images are random bytes or the first and last of a file, held as float32 before the clock starts. Prints
one JSON object: median_s of searching all queries, prepare_s, queries, references, with.

--make writes unsigned bytes [N,32,32,3] for --data from CIFAR-10's binary batches: from the first four fifths of the
images, flipped and shifted by up to 3 pixels, --references of them, which queries are searched among; then from the
last fifth, augmented likewise, 10,000 queries, none of which comes from an image that is searched.
"""

import argparse
import importlib
import importlib.util
import json
import statistics
import time

import numpy as np

QUERY_BLOCK = 500  # 500 × 50,000 distances are 100 MB
SHIFTS = [(0, 0), (0, 0), (2, 1), (-1, 2), (1, -2), (-2, -1), (3, 0), (-3, 0), (0, 3), (0, -3)]


def faiss_search(references, queries, _device):
    import faiss

    index = faiss.IndexFlatL2(references.shape[1])
    index.add(references)
    return lambda: index.search(queries, 2)[1]


def torch_search(references, queries, device):
    import torch

    r, q = torch.from_numpy(references).to(device), torch.from_numpy(queries).to(device)

    def search():
        found = [torch.cdist(block, r).topk(2, largest=False) for block in q.split(QUERY_BLOCK)]
        if device != "cpu":
            torch.cuda.synchronize()
        return torch.cat([f[1] for f in found]).cpu().numpy()

    return search


def augmented(images, wanted):
    """`wanted` images: `images` as they are, mirrored, then shifted (edges reflected) and half of them mirrored."""
    made = []
    for i, (down, right) in enumerate(SHIFTS):
        moved = np.pad(images, ((0, 0), (3, 3), (3, 3), (0, 0)), "reflect")[:, 3 + down : 35 + down, 3 + right : 35 + right]
        made.append(moved[:, :, ::-1] if i % 2 else moved)
        if (i + 1) * len(images) >= wanted:
            return np.concatenate(made)[:wanted]
    raise SystemExit(f"--make: {len(images)} images give at most {len(SHIFTS) * len(images)}, {wanted} are wanted")


def make(out, batches, references):
    rows = np.concatenate([np.fromfile(b, np.uint8).reshape(-1, 3073)[:, 1:] for b in batches])
    images = rows.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    cut = len(images) * 4 // 5
    np.save(out, np.concatenate([augmented(images[:cut], references), augmented(images[cut:], 10000)]))


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--queries", type=int, default=2000)
    p.add_argument("--references", type=int, default=50000)
    p.add_argument("--pixels", type=int, default=3072, help="values of one image")
    p.add_argument("--data", help="unsigned bytes [N,H,W,C]: the first are searched, the last looked up")
    p.add_argument("--repeats", type=int, default=5, help="searches timed")
    p.add_argument("--with", dest="library", choices=["faiss", "torch"])
    p.add_argument("--device", default="cpu", help="torch alone")
    p.add_argument("--make", metavar="F.npy", help="write images for --data, and end")
    p.add_argument("--from", dest="batches", nargs="+", metavar="BIN", help="CIFAR-10's binary batches, for --make")
    a = p.parse_args()
    if a.make:
        return make(a.make, a.batches, a.references)
    library = a.library or ("faiss" if importlib.util.find_spec("faiss") else "torch")
    if a.data:
        images = np.load(a.data, mmap_mode="r")
        images = images.reshape(len(images), -1)
        if len(images) < a.references + a.queries:
            p.error(f"--data: {len(images)} images are too few")
        references, queries = (x.astype(np.float32) for x in (images[: a.references], images[-a.queries :]))
    else:
        rng = np.random.default_rng(1024)
        references, queries = (rng.integers(0, 256, (n, a.pixels), np.uint8).astype(np.float32) for n in (a.references, a.queries))
    module = importlib.import_module(library)
    start = time.perf_counter()
    search = {"faiss": faiss_search, "torch": torch_search}[library](references, queries, a.device)
    prepare_s, times = time.perf_counter() - start, []
    search()
    for _ in range(a.repeats):
        start = time.perf_counter()
        search()
        times.append(time.perf_counter() - start)
    result = {"median_s": statistics.median(times), "prepare_s": prepare_s, "queries": a.queries}
    result |= {"references": a.references, "pixels": references.shape[1], "search_s": times}
    result |= {"with": f"{library} {module.__version__}"}
    print(json.dumps(result))


if __name__ == "__main__":
    main()

"""The peer of `emm bench nearest`: the two nearest references of each query, by FAISS or PyTorch.

    python bench/peers/nearest.py --queries 2000 --references 50000

Uses FAISS's IndexFlatL2 where it is installed, else torch.cdist and topk in blocks of queries (--with
picks one). Images are random bytes, held as float32 before the clock starts. Prints one JSON object:
median_s of searching all queries, prepare_s, queries, references, with.
"""

import argparse
import importlib
import importlib.util
import json
import statistics
import time

import numpy as np

QUERY_BLOCK = 500  # 500 × 50,000 distances are 100 MB


def faiss_search(references, queries, _device):
    import faiss

    index = faiss.IndexFlatL2(references.shape[1])
    index.add(references)
    return lambda: index.search(queries, 2)


def torch_search(references, queries, device):
    import torch

    r, q = torch.from_numpy(references).to(device), torch.from_numpy(queries).to(device)

    def search():
        found = [torch.cdist(block, r).topk(2, largest=False) for block in q.split(QUERY_BLOCK)]
        if device != "cpu":
            torch.cuda.synchronize()
        return found

    return search


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--queries", type=int, default=2000)
    p.add_argument("--references", type=int, default=50000)
    p.add_argument("--pixels", type=int, default=3072, help="values of one image")
    p.add_argument("--repeats", type=int, default=5, help="searches timed")
    p.add_argument("--with", dest="library", choices=["faiss", "torch"])
    p.add_argument("--device", default="cpu", help="torch alone")
    a = p.parse_args()
    library = a.library or ("faiss" if importlib.util.find_spec("faiss") else "torch")
    rng = np.random.default_rng(1024)
    references, queries = (rng.integers(0, 256, (n, a.pixels), np.uint8).astype(np.float32) for n in (a.references, a.queries))
    importlib.import_module(library)
    start = time.perf_counter()
    search = {"faiss": faiss_search, "torch": torch_search}[library](references, queries, a.device)
    prepare_s, times = time.perf_counter() - start, []
    search()
    for _ in range(a.repeats):
        start = time.perf_counter()
        search()
        times.append(time.perf_counter() - start)
    result = {"median_s": statistics.median(times), "prepare_s": prepare_s, "queries": a.queries}
    print(json.dumps({**result, "references": a.references, "pixels": a.pixels, "with": library}))


if __name__ == "__main__":
    main()

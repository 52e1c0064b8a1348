"""Four readers of one seeded epoch against one: what the store computes for them.

    python benchmarks/cached_epoch.py [--data FOLDER] [--readers 4] [--rounds 3]

Crop and flip for ImageNet, with a seed and ``cache``; the readers are processes that read all pictures in batches, each
in an order of its own, side by side. Counted is the CPU of the store with its transform workers, not that of the
readers. Every round has a seed that was never used. The bytes of all readers are compared. FOLDER has train/NAME.jpg
beside train/NAME.cls; without it, pictures are made by examples/make_samples.py (which needs scikit-image).
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import os
import random
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

from epoch import EXAMPLES, pictures
from harness import cpu_seconds, interleave, print_table

import aistore
from aistore.testing import StoreProcess

_BATCH = 64
_SEEDS = itertools.count()
_RESULT_JPEG = """
import io
from PIL import Image
from torchvision import transforms

augment = transforms.Compose([transforms.RandomResizedCrop(224), transforms.RandomHorizontalFlip()])


def transform(data):
    out = io.BytesIO()
    augment(Image.open(io.BytesIO(data)).convert("RGB")).save(out, "JPEG", quality=90)
    return out.getvalue()
"""


def read_epoch(endpoint: str, etl: str, names: list[str], seed: str, reader: int) -> str:
    """Read all pictures in an order of this reader's own; return a digest of the results that does not know of it."""
    order = random.Random(f"{seed} {reader}").sample(names, len(names))
    results = {}
    with aistore.Client(endpoint) as client:
        bucket = client.bucket("pictures")
        for start in range(0, len(order), _BATCH):
            batch = order[start : start + _BATCH]
            for name, result in zip(batch, bucket.batch(batch, etl=etl, seed=seed), strict=True):
                assert isinstance(result, bytes), result
                results[name] = hashlib.sha256(result).hexdigest()
    return hashlib.sha256(repr(sorted(results.items())).encode()).hexdigest()


def side(
    store: StoreProcess, pool: ProcessPoolExecutor, etl: str, names: list[str], readers: int
) -> Callable[[], dict[str, float]]:
    """Return a function that has so many readers read a new epoch, and returns its figures."""

    def run() -> dict[str, float]:
        seed = f"epoch-{next(_SEEDS)}"
        before, started = cpu_seconds([store.pid]), time.perf_counter()
        digests = list(
            pool.map(
                read_epoch, *zip(*((store.endpoint, etl, names, seed, one) for one in range(readers)), strict=True)
            )
        )
        elapsed, used = time.perf_counter() - started, cpu_seconds([store.pid]) - before
        assert len(set(digests)) == 1, "readers of one seed saw different pictures"
        return {
            "store CPU s": used,
            "CPU ms/picture": 1000 * used / len(names),
            "pictures/s": readers * len(names) / elapsed,
        }

    return run


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder with train/")
    parser.add_argument("--readers", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    many, ratios = f"{options.readers} readers", []
    # Spawned before the store starts, and not the store's children: their CPU is their own.
    with (
        pictures(options.data) as folder,
        ProcessPoolExecutor(options.readers, mp_context=get_context("spawn")) as pool,
        StoreProcess() as store,
    ):
        client = aistore.Client(store.endpoint)
        bucket = client.bucket("pictures").create()
        names = []
        for path in sorted((folder / "train").glob("*.jpg")):
            bucket.object(path.name).put(path)
            names.append(path.name)
        code = {"raw pixels": (EXAMPLES / "imagenet/train_etl.py").read_text(), "jpeg": _RESULT_JPEG}
        dependencies = (EXAMPLES / "imagenet/deps.txt").read_text()
        sides = {}
        for number, (kind, text) in enumerate(code.items()):
            for keeps in (False, True):
                etl = f"epoch-{number}-{'kept' if keeps else 'plain'}"
                client.etl(etl).init_code(text, dependencies=dependencies, cache=keeps)
                for readers in (1, options.readers):
                    what = f"{kind}, {'kept' if keeps else 'not kept'}, {readers} reader{'s' if readers > 1 else ''}"
                    sides[what] = side(store, pool, etl, names, readers)
        for run in sides.values():  # the workers start, the page cache fills
            run()
        rows = interleave(options.rounds, sides)
    for kind in code:
        for keeps in ("not kept", "kept"):
            one, more = rows[f"{kind}, {keeps}, 1 reader"], rows[f"{kind}, {keeps}, {many}"]
            one["ratio"], more["ratio"] = 1.0, more["store CPU s"] / one["store CPU s"]
        ratios.append(rows[f"{kind}, kept, {many}"]["ratio"])
    print_table(
        f"A seeded epoch of {len(names)} pictures, {len(os.sched_getaffinity(0))} cores, median of {options.rounds}; "
        "CPU of the store and its workers",
        rows,
        f"{options.readers} readers of kept results cost {statistics.mean(ratios):.2f} times one, by kind of result: "
        + ", ".join(f"{ratio:.3f}" for ratio in ratios),
    )


if __name__ == "__main__":
    main()

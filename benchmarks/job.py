"""What a job costs: a bucket transformed into another, against the same function in a bare pool of processes.

    python benchmarks/job.py [--objects 2000] [--size 110000] [--rounds 3]

Both sides read as many objects of random bytes, compress each (3 to 4 ms for 110 KB) and write the results: the pool
from files to files, one process per core, the job from bucket to bucket. Beside it: a copy of the same bucket, and a
job on one object from the request to the answer that it has ended.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import random
import statistics
import tempfile
import time
import zlib
from pathlib import Path

from harness import print_table

from aistore import Client
from aistore.testing import StoreProcess

CORES = len(os.sched_getaffinity(0))

TRANSFORM = """
import zlib

def transform(data):
    return zlib.compress(data, 1)
"""


def compress(paths: tuple[str, str]) -> int:
    """Do for a file what the transform does for an object."""
    source, destination = paths
    data = zlib.compress(Path(source).read_bytes(), 1)
    Path(destination).write_bytes(data)
    return len(data)


def pool_seconds(files: list[str], out: str) -> float:
    """Return how long a pool takes, its processes already started."""
    pairs = [(file, os.path.join(out, os.path.basename(file))) for file in files]
    with multiprocessing.get_context("fork").Pool(CORES) as pool:
        pool.map(compress, pairs[: 2 * CORES])
        start = time.perf_counter()
        pool.map(compress, pairs, chunksize=16)
        return time.perf_counter() - start


def job_seconds(client: Client, destination: str, etl: str = "", prefix: str = "") -> float:
    """Return how long a job takes, from the request to the answer that it has ended."""
    source = client.bucket("source")
    start = time.perf_counter()
    job = source.transform(destination, etl, prefix=prefix) if etl else source.copy(destination, prefix=prefix)
    info = job.wait()
    assert not info.error, info.error
    return time.perf_counter() - start


def main() -> None:
    """Measure, interleaved, and print medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--objects", type=int, default=2000)
    parser.add_argument("--size", type=int, default=110_000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    chance = random.Random(1)
    times: dict[str, list[float]] = {"pool": [], "job": [], "copy": [], "one copied": [], "one transformed": []}
    with tempfile.TemporaryDirectory() as folder, StoreProcess() as store:
        client, files, out = Client(store.endpoint), [], os.path.join(folder, "out")
        os.mkdir(out)
        source = client.bucket("source").create()
        for number in range(options.objects):
            data, name = bytes(byte & 63 for byte in chance.randbytes(options.size)), f"{number:06}"
            files.append(os.path.join(folder, name))
            Path(files[-1]).write_bytes(data)
            source.object(name).put(data)
        client.etl("compress-it").init_code(TRANSFORM)
        for round_ in range(options.rounds):
            times["pool"].append(pool_seconds(files, out))
            times["job"].append(job_seconds(client, f"made-{round_}", "compress-it"))
            times["copy"].append(job_seconds(client, f"copied-{round_}"))
            for number in range(10):
                times["one copied"].append(job_seconds(client, f"one-{round_}-{number}", prefix="000001"))
                times["one transformed"].append(
                    job_seconds(client, f"one-made-{round_}-{number}", "compress-it", prefix="000002")
                )
    medians = {name: statistics.median(found) for name, found in times.items()}
    print_table("medians", {name: {"ms": 1000 * seconds} for name, seconds in medians.items()})
    print(f"\nbucket job at {medians['pool'] / medians['job']:.2f} of the pool's rate ({CORES} cores)")


if __name__ == "__main__":
    main()

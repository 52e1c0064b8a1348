"""What a job costs: a bucket transformed into another, against the same function in a bare pool of processes.

    python benchmarks/job.py [--objects 2000] [--size 110000] [--rounds 3]

Both sides read as many objects of random bytes, compress each (3 to 4 ms for 110 KB) and write the results: the pool
from files to new files, one process per core, the job from bucket to bucket. What others wrote is on the disk before
each, so that nobody pays for it. CPU is that of the pool's processes, and of all processes of the store: the difference
is what the store adds to an object. Beside it: a copy of the same bucket, and a job on one object from the request to
the answer that it has ended.
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

from harness import cpu_seconds, print_table

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


def pool_costs(files: list[str], out: str) -> tuple[float, float]:
    """Return how long a pool takes, its processes already started, and the CPU seconds of these."""
    pairs = [(file, os.path.join(out, os.path.basename(file))) for file in files]
    os.mkdir(out)
    with multiprocessing.get_context("fork").Pool(CORES) as pool:
        pool.map(compress, pairs[: 2 * CORES])
        os.sync()
        pids = [process.pid for process in multiprocessing.active_children() if process.pid is not None]
        used, start = cpu_seconds(pids), time.perf_counter()
        pool.map(compress, pairs, chunksize=16)
        return time.perf_counter() - start, cpu_seconds(pids) - used


def job_costs(store: StoreProcess, client: Client, destination: str, etl: str = "") -> tuple[float, float]:
    """Return how long a job on all objects takes, and the CPU seconds of the store meanwhile."""
    os.sync()
    used = cpu_seconds([store.pid])
    seconds = job_seconds(client, destination, etl)
    return seconds, cpu_seconds([store.pid]) - used


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
    sides: dict[str, list[tuple[float, float]]] = {"pool": [], "job": [], "copy": []}
    one: dict[str, list[float]] = {"copied": [], "transformed": []}
    with tempfile.TemporaryDirectory() as folder, StoreProcess() as store:
        client, files = Client(store.endpoint), []
        source = client.bucket("source").create()
        for number in range(options.objects):
            data, name = bytes(byte & 63 for byte in chance.randbytes(options.size)), f"{number:06}"
            files.append(os.path.join(folder, name))
            Path(files[-1]).write_bytes(data)
            source.object(name).put(data)
        client.etl("compress-it").init_code(TRANSFORM)
        for round_ in range(options.rounds):
            sides["pool"].append(pool_costs(files, os.path.join(folder, f"out-{round_}")))
            sides["job"].append(job_costs(store, client, f"made-{round_}", "compress-it"))
            sides["copy"].append(job_costs(store, client, f"copied-{round_}"))
            for number in range(10):
                one["copied"].append(job_seconds(client, f"one-{round_}-{number}", prefix="000001"))
                one["transformed"].append(job_seconds(client, f"1-{round_}-{number}", "compress-it", prefix="000002"))
    rows = {
        name: {
            "ms": 1000 * statistics.median(seconds for seconds, _ in costs),
            "CPU us per object": 1e6 * statistics.median(used for _, used in costs) / options.objects,
        }
        for name, costs in sides.items()
    }
    print_table(f"{options.objects} objects, medians", rows)
    print_table("one object", {name: {"ms": 1000 * statistics.median(found)} for name, found in one.items()})
    ratios = [pool / job for (pool, _), (job, _) in zip(sides["pool"], sides["job"], strict=True)]
    print(f"\nbucket job at {rows['pool']['ms'] / rows['job']['ms']:.2f} of the pool's rate ({CORES} cores), ", end="")
    print(f"in each round: {', '.join(f'{ratio:.2f}' for ratio in ratios)}")


if __name__ == "__main__":
    main()

"""A bucket in an object store (`weed`) listed through a node, against the object store's own listing.

    python benchmarks/shared_listing.py [--objects 20000 | --million] [--rounds 3]

Needs ``weed`` (``pip install 'pyaistore[cluster]'``). The objects are empty, because only their names count. All sides
list all of them from one Python process, with sizes; the object store gives out 1,000 names at a time:

- obstore: the library, in Rust, asks the store.
- own pages: the node's reader of pages asks the store, one page after the other.
- node: the client asks a node for pages of 10,000 names, which asks the store.

CPU is that of the process that lists, of the node, and of `weed`, per name. Goal: 0.8 of the rate of the faster of the
two that ask the store. ``--million`` takes a quarter of an hour, most of it to write the objects.
"""

from __future__ import annotations

import argparse
import functools
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context

import obstore
from harness import cpu_seconds, interleave, memory_mib, print_table
from obstore.store import S3Store

from aistore import Client
from aistore.laptop.weed import BUCKET
from aistore.storage.objectstore.urls import open_object_store
from aistore.testing import LocalCluster

_STORE_PAGE = 1000
_AT_ONCE = 16


def write(prefix: str, first: int, end: int) -> int:
    """Write empty objects into the store that the environment names."""
    store = S3Store(BUCKET, prefix=prefix)

    def put(number: int) -> None:
        obstore.put(store, f"train/{number // 1000:05d}/{number:08d}.jpg", b"", use_multipart=False)

    with ThreadPoolExecutor(_AT_ONCE) as threads:
        for _ in threads.map(put, range(first, end)):
            pass
    return end - first


def fill(prefix: str, count: int) -> None:
    """Write all objects, by as many processes as there are cores."""
    began, step = time.perf_counter(), 2000
    with ProcessPoolExecutor(len(os.sched_getaffinity(0)), mp_context=get_context("spawn")) as processes:
        parts = [processes.submit(write, prefix, first, min(count, first + step)) for first in range(0, count, step)]
        for done, part in enumerate(parts, 1):
            part.result()
            if done % 50 == 0:
                print(
                    f"{done * step:,} objects written, {done * step / (time.perf_counter() - began):,.0f}/s", flush=True
                )


def by_library(prefix: str) -> Iterator[int]:
    """List by the library; yields how many names came."""
    for page in obstore.list(S3Store(BUCKET, prefix=prefix), chunk_size=_STORE_PAGE):
        yield len(page)


def by_pages(url: str, bucket: str) -> Iterator[int]:
    """List page after page, as the node does it."""
    store, after = open_object_store(url, {}), ""
    try:
        while True:
            page = store.list(f"{bucket}/", after, _STORE_PAGE)
            yield len(page.entries)
            after = page.continuation
            if not after:
                return
    finally:
        store.close()


def by_node(endpoint: str, bucket: str) -> Iterator[int]:
    """List through a node."""
    for page in Client(endpoint).bucket(bucket).list_pages():
        yield len(page)


def measured(list_all: Callable[[], Iterator[int]], objects: int, node: int, weed: int) -> dict[str, float]:
    """List once and say how fast, and what it took."""
    before, grown = (cpu_seconds([node]), cpu_seconds([weed])), memory_mib([node])
    began, used = time.perf_counter(), time.process_time()
    count = sum(list_all())
    seconds = time.perf_counter() - began
    assert count == objects, f"{count} names of {objects}"
    mine, after = time.process_time() - used, (cpu_seconds([node]), cpu_seconds([weed]))
    return {
        "names/s": count / seconds,
        "client CPU us": 1e6 * mine / count,
        "node CPU us": 1e6 * (after[0] - before[0]) / count,
        "weed CPU us": 1e6 * (after[1] - before[1]) / count,
        "node grew MiB": memory_mib([node]) - grown,
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--objects", type=int, default=20_000)
    parser.add_argument("--million", action="store_true", help="1,000,000 objects")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    objects = 1_000_000 if options.million else options.objects
    with LocalCluster(nodes=1) as cluster:
        node, bucket = cluster.node(1), "bench"
        cluster.wait_settled()
        Client(node.endpoint).bucket(bucket).create()
        os.environ.update({name: value for name, value in cluster.environment.items() if name.startswith("AWS_")})
        prefix = f"{cluster.store_url.partition(BUCKET + '/')[2]}/{bucket}"
        fill(prefix, objects)
        sides: dict[str, Callable[[], Iterator[int]]] = {
            "obstore": functools.partial(by_library, prefix),
            "own pages": functools.partial(by_pages, cluster.store_url, bucket),
            "node": functools.partial(by_node, node.endpoint, bucket),
        }
        pids = node.process.pid, cluster.weed.process.pid
        measure = {name: functools.partial(measured, side, objects, *pids) for name, side in sides.items()}
        for side in measure.values():
            side()
        rows = interleave(options.rounds, measure)
        best = max(rows["obstore"]["names/s"], rows["own pages"]["names/s"])
        for row in rows.values():
            row["of the best"] = row["names/s"] / best
        print_table(f"listing of {objects:,} objects, median of {options.rounds}", rows, "goal: node >= 0.8")


if __name__ == "__main__":
    main()

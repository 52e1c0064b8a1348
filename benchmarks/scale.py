"""A store with 1,000,000 small objects: ingest, listing, start, memory.

    python benchmarks/scale.py [--objects 1000000] [--gets 1000000] [--quick] [--directory DIR]

Needs ``wrk``. Half of the objects are labels of 3 bytes, half are 1 to 2 KB; names come in scattered order, which is
the hard one for an index. The bulk is written through an engine of this process, beside a running store whose
controller does the housekeeping, as its HTTP workers would; a share goes through HTTP. ``--quick`` is a twentieth of
everything. Takes minutes, and 3 GB of disk.
"""

from __future__ import annotations

import argparse
import glob
import json
import os
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future

import msgspec
import urllib3
import wrk
from harness import cpu_seconds, memory_mib, print_table

from aistore import Client
from aistore.errors import AisError
from aistore.model.objects import ObjectInfo, PutOptions
from aistore.storage.local.engine import LocalEngine
from aistore.storage.local.locks import join_writers
from aistore.testing import StoreProcess

#: Puts in flight at once: what some busy connections make.
_IN_FLIGHT = 64


def names(count: int) -> Iterator[str]:
    """Yield ``count`` names of a data set, labels and pictures in turn, in scattered order."""
    step = 611_953  # prime: numbers times it, modulo another count, come in scattered order and never twice
    for number in range(count):
        place = number * step % count
        yield f"train/{place // 1000:05d}/{place:08d}.{'cls' if place % 2 else 'jpg'}"


def ingest(store: StoreProcess, count: int) -> None:
    """Write ``count`` objects and print the rate of each tenth."""
    Client(store.endpoint).bucket("bench").create()
    rows: dict[str, dict[str, float]] = {}
    writers, engine = join_writers(store.data), LocalEngine(store.data)
    noise = random.Random(1).randbytes(4096)
    options, in_flight = PutOptions(), deque[Future[ObjectInfo]]()
    began, used, kept, done = time.perf_counter(), time.process_time(), cpu_seconds([store.pid]), 0
    try:
        for number, name in enumerate(names(count), 1):
            data = b"123" if name.endswith("cls") else noise[number % 2048 : number % 2048 + 1024 + number % 1024]
            in_flight.append(engine.put("bench", name, data, options))
            if len(in_flight) >= _IN_FLIGHT:
                in_flight.popleft().result()
            if number % (count // 10) == 0:
                now, cpu, house = time.perf_counter(), time.process_time(), cpu_seconds([store.pid])
                rows[f"to {number:,}"] = {
                    "objects/s": (number - done) / (now - began),
                    "CPU us/object": 1e6 * (cpu - used) / (number - done),
                    "housekeeping us": 1e6 * (house - kept) / (number - done),
                    "store MiB": memory_mib([store.pid]),
                }
                began, used, kept, done = time.perf_counter(), time.process_time(), house, number
    finally:
        engine.close()
        writers.close()
    print_table(f"Ingest of {count:,} objects, {_IN_FLIGHT} in flight, tenth by tenth", rows)


def ingest_by_http(store: StoreProcess, seconds: int, root: str) -> None:
    """PUT objects of 1.5 KB through HTTP into the store that has all the others."""
    body = os.path.join(root, "body")
    with open(body, "wb") as file:
        file.write(os.urandom(1500))
    rows = {}
    for connections in (1, 16, 64):
        before = cpu_seconds([store.pid])
        prefix = f"/v1/objects/bench/http/{connections}/"
        figures = wrk.put(_port(store), prefix, body, seconds, connections, root)
        used = cpu_seconds([store.pid]) - before
        rows[f"{connections} connections"] = {**figures, "CPU us/req": 1e6 * used / figures["req/s"] / seconds}
    print_table("PUT of 1.5 KB into it, through HTTP", rows)


def listing(store: StoreProcess, count: int) -> None:
    """List the whole bucket from a process of its own, in both forms."""
    rows = {}
    for form in ("msgpack", "JSON"):
        before, peak, stop = cpu_seconds([store.pid]), [memory_mib([store.pid])], threading.Event()

        def watch(peak: list[float] = peak, stop: threading.Event = stop) -> None:
            while not stop.wait(0.1):
                peak.append(memory_mib([store.pid]))

        thread = threading.Thread(target=watch)
        thread.start()
        command = [sys.executable, __file__, "--list-client", store.endpoint, form]
        said = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        stop.set()
        thread.join()
        if said["names"] < count:
            raise SystemExit(f"the listing has {said['names']} names of {count}")
        rows[form] = {
            "names/s": said["names"] / said["seconds"],
            "store CPU us/name": 1e6 * (cpu_seconds([store.pid]) - before) / said["names"],
            "client CPU us/name": 1e6 * said["cpu"] / said["names"],
            "store grew MiB": max(peak) - peak[0],
            "client grew MiB": said["grew"],
        }
    print_table(f"Listing {said['names']:,} names and sizes, page by page", rows)


def list_client(endpoint: str, form: str) -> None:
    """List the bucket, count, and print what it took as JSON: the other process of ``listing``."""
    before = resource.getrusage(resource.RUSAGE_SELF)
    began, count = time.perf_counter(), 0
    pages = Client(endpoint).bucket("bench").list_pages() if form == "msgpack" else _json_pages(endpoint)
    first = 0
    for page in pages:
        count += len(page)
        first = first or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    seconds, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_SELF)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    print(json.dumps({"names": count, "seconds": seconds, "cpu": cpu, "grew": (after.ru_maxrss - first) / 1024}))


def _json_pages(endpoint: str) -> Iterator[list[object]]:
    pool, token = urllib3.PoolManager(), ""
    while True:
        ask = {"action": "list", "value": {"continuation_token": token, "props": "name,size"}}
        reply = pool.request("GET", f"{endpoint}/v1/buckets/bench", body=msgspec.json.encode(ask))
        page = msgspec.json.decode(reply.data)
        yield page["entries"]
        token = page["continuation_token"]
        if not token:
            return


def starts(data: str, rounds: int) -> None:
    """Time the start, from the command to the first GET answered, after each way to end."""
    rows: dict[str, dict[str, float]] = {}
    for end in ("stopped", "killed while writing", "after a reboot"):
        times, cpu = [], []
        for _ in range(rounds):
            if end == "after a reboot":
                for path in glob.glob(f"{data}/*/boot"):  # what tells the start that the machine was not restarted
                    os.unlink(path)
            began = time.perf_counter()
            store = StoreProcess(data).start()
            try:
                Client(store.endpoint).bucket("bench").object("train/00000/00000000.jpg").get().read()
                times.append(time.perf_counter() - began)
                cpu.append(cpu_seconds([store.pid]))
                if end == "stopped":
                    store.end()
                else:
                    _kill_while_writing(store)
            finally:
                store.stop()
        rows[end] = {
            "first GET s": sorted(times)[rounds // 2],
            "slowest s": max(times),
            "CPU s": sorted(cpu)[rounds // 2],
        }
    print_table(f"Start, median of {rounds}; 'killed' begins with the second", rows)


def _kill_while_writing(store: StoreProcess) -> None:
    writing = threading.Event()

    def write() -> None:
        bucket = Client(store.endpoint).bucket("bench")
        try:
            for number in range(1_000_000):
                bucket.object(f"kill/{number}").put(b"x" * 1500)
                writing.set()
        except AisError:  # it is killed meanwhile
            return

    thread = threading.Thread(target=write)
    thread.start()
    writing.wait(10)
    children = list(store.children())
    store.kill()
    deadline = time.monotonic() + 30
    while any(os.path.exists(f"/proc/{pid}") for pid in children) and time.monotonic() < deadline:
        time.sleep(0.01)
    thread.join()


def memory(store: StoreProcess, count: int, gets: int, root: str) -> None:
    """GET, and print the store's memory every tenth of the way."""
    paths = [f"/v1/objects/bench/{name}" for _, name in zip(range(20_000), names(count), strict=False)]
    wrk.get(_port(store), paths, 2, 16, root)
    rows = {"at first": {"store MiB": memory_mib([store.pid]), "req/s": 0.0}}
    done, shown = 0.0, 1
    while done < gets:
        figures = wrk.get(_port(store), paths, 2, 16, root)
        done += 2 * figures["req/s"]
        while done >= gets * shown / 10 and shown <= 10:
            rows[f"{gets * shown // 10:,} GETs"] = {"store MiB": memory_mib([store.pid]), "req/s": figures["req/s"]}
            shown += 1
    print_table("Memory of the store, of all its processes together, over GETs of 20,000 objects in turn", rows)


def _port(store: StoreProcess) -> int:
    return int(store.endpoint.rpartition(":")[2])


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--objects", type=int, default=1_000_000)
    parser.add_argument("--gets", type=int, default=1_000_000)
    parser.add_argument("--quick", action="store_true", help="a twentieth of both")
    parser.add_argument("--directory", help="where to write (a temporary directory is made in it)")
    parser.add_argument("--list-client", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.list_client:
        list_client(*options.list_client)
        return
    wrk.need("wrk")
    part = 20 if options.quick else 1
    count, gets = options.objects // part, options.gets // part
    root = tempfile.mkdtemp(prefix="ais-bench-", dir=options.directory)
    data = os.path.join(root, "store")
    try:
        with StoreProcess(data) as store:
            ingest(store, count)
            ingest_by_http(store, 3, root)
            listing(store, count)
        starts(data, 3)
        with StoreProcess(data) as store:
            memory(store, count, gets, root)
    finally:
        shutil.rmtree(root)


if __name__ == "__main__":
    main()

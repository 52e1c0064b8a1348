"""The local engine against bare files: put, get, head and list, interleaved in one run.

    python benchmarks/engine.py [--objects 2000] [--size 20000] [--rounds 5] [--directory DIR]

The bare side writes with open + write + close + rename and reads with open + read + close: no index, no checksum, no
group commit. Each round runs every case once; medians over rounds. CPU is of the whole process, committer included.

Creating files dominates puts, and its price is the file system's mood: ext4 passes over inodes freed in the last half
minute one by one, so after mass deletes a create costs ten times as much, in some directories and not in others.
``--directory /dev/shm`` shows what the engine itself costs.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import tempfile
import time
from collections import deque
from collections.abc import Callable

from aistore.model.objects import ListOptions, PutOptions
from aistore.storage.local.engine import LocalEngine

#: Puts in flight at once in the concurrent case: what an HTTP worker with 16 busy connections makes.
IN_FLIGHT = 16

Case = Callable[[int], int]


class Bare:
    """Objects as files, done by hand."""

    def __init__(self, directory: str, data: bytes, objects: int) -> None:
        self.directory = directory
        self.data = data
        self.objects = objects
        os.makedirs(directory)

    def put(self, turn: int) -> int:
        for number in range(self.objects):
            path = f"{self.directory}/{turn}-{number}"
            descriptor = os.open(path + ".new", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            os.write(descriptor, self.data)
            os.close(descriptor)
            os.rename(path + ".new", path)
        return self.objects

    def get(self, turn: int) -> int:
        for number in range(self.objects):
            descriptor = os.open(f"{self.directory}/{turn}-{number}", os.O_RDONLY)
            os.read(descriptor, len(self.data))
            os.close(descriptor)
        return self.objects

    def head(self, turn: int) -> int:
        for number in range(self.objects):
            os.stat(f"{self.directory}/{turn}-{number}")
        return self.objects

    def list(self, turn: int) -> int:
        with os.scandir(self.directory) as entries:
            return len(sorted((entry.name, entry.stat().st_size) for entry in entries))


class Engine:
    """The same objects through the local engine."""

    def __init__(self, directory: str, data: bytes, objects: int) -> None:
        self.engine = LocalEngine(directory)
        self.engine.create_bucket("b", {})
        self.data = data
        self.objects = objects

    def put(self, turn: int) -> int:
        """One after the other: each waits for its commit."""
        for number in range(self.objects):
            self.engine.put("b", f"{turn}-{number}", self.data, PutOptions()).result()
        return self.objects

    def put_concurrent(self, turn: int) -> int:
        return self._put(f"c{turn}", self.data)

    def put_tiny(self, turn: int) -> int:
        return self._put(f"t{turn}", b"123")

    def _put(self, prefix: str, data: bytes) -> int:
        waiting = deque(
            self.engine.put("b", f"{prefix}-{number}", data, PutOptions())
            for number in range(min(IN_FLIGHT, self.objects))
        )
        for number in range(IN_FLIGHT, self.objects):
            waiting.popleft().result()
            waiting.append(self.engine.put("b", f"{prefix}-{number}", data, PutOptions()))
        for future in waiting:
            future.result()
        return self.objects

    def get(self, turn: int) -> int:
        for number in range(self.objects):
            with self.engine.get("b", f"{turn}-{number}") as reading:
                size = reading.info.size
                if reading.read_cached(0, size) is None:
                    reading.read(0, size)
        return self.objects

    def get_tiny(self, turn: int) -> int:
        for number in range(self.objects):
            with self.engine.get("b", f"t{turn}-{number}") as reading:
                reading.read_cached(0, reading.info.size)
        return self.objects

    def head(self, turn: int) -> int:
        for number in range(self.objects):
            self.engine.head("b", f"{turn}-{number}")
        return self.objects

    def list(self, turn: int) -> int:
        listed, after = 0, ""
        while True:
            page = self.engine.list("b", ListOptions(start_after=after))
            listed += len(page.entries)
            if not page.continuation:
                return listed
            after = page.continuation


def measure(cases: dict[str, Case], rounds: int) -> dict[str, tuple[float, float]]:
    """Return for each case the medians of operations per second and CPU microseconds per operation."""
    rates: dict[str, list[float]] = {name: [] for name in cases}
    costs: dict[str, list[float]] = {name: [] for name in cases}
    for turn in range(rounds):
        for name, case in cases.items():
            cpu, wall = time.process_time(), time.perf_counter()
            count = case(turn)
            wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
            rates[name].append(count / wall)
            costs[name].append(cpu / count * 1e6)
    return {name: (statistics.median(rates[name]), statistics.median(costs[name])) for name in cases}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--objects", type=int, default=2000)
    parser.add_argument("--size", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--directory", help="where to write (a temporary directory is made in it)")
    arguments = parser.parse_args()
    directory = tempfile.mkdtemp(dir=arguments.directory)
    data = os.urandom(arguments.size)
    bare = Bare(f"{directory}/bare", data, arguments.objects)
    engine = Engine(f"{directory}/engine", data, arguments.objects)
    try:
        results = measure(
            {
                "put, bare": bare.put,
                "put, engine, one by one": engine.put,
                f"put, engine, {IN_FLIGHT} in flight": engine.put_concurrent,
                "put of 3 bytes, engine": engine.put_tiny,
                "get, bare": bare.get,
                "get, engine": engine.get,
                "get of 3 bytes, engine": engine.get_tiny,
                "head, bare (stat)": bare.head,
                "head, engine": engine.head,
                "list, bare (scandir, stat)": bare.list,
                "list, engine": engine.list,
            },
            arguments.rounds,
        )
    finally:
        engine.engine.close()
        shutil.rmtree(directory)
    print(f"{arguments.objects} objects of {arguments.size} bytes, medians of {arguments.rounds} rounds")
    print(f"{'case':32} {'per second':>12} {'CPU us each':>12} {'of bare':>8}")
    for name, (rate, cost) in results.items():
        base = next(r for n, (r, _) in results.items() if n.startswith(name.split(",")[0].split(" ")[0] + ", bare"))
        print(f"{name:32} {rate:12,.0f} {cost:12.1f} {rate / base:8.2f}")


if __name__ == "__main__":
    main()

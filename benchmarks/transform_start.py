"""How soon a transform takes objects: after `start`, after all of its workers have retired, and warm.

    python benchmarks/transform_start.py [--pictures DIR] [--rounds 5]

Needs torch and torchvision for the ImageNet script (examples/imagenet/code.py).

- *the imports alone*: ``python -c 'import torch, torchvision'``, from the start of the process to its end.
- *start*: `start` of a stopped transform and a GET through it, until the first byte of the result.
- *after idleness*: a GET when no worker was left, only the parent.
- *warm*: a GET with a worker that waits.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import urllib3
from harness import cpu_seconds, interleave, print_table
from transform import EXAMPLES, make_pictures

from aistore import Client
from aistore.testing import StoreProcess

IDLE_SECONDS = 1


def imports_alone() -> dict[str, float]:
    """Return how long the imports take a process that does nothing else."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run([sys.executable, "-c", "import torch, torchvision"], check=True, env=environment)
    elapsed, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"ms": 1000 * elapsed, "CPU ms": 1000 * used}


class Through:
    """GETs of one picture through the transform."""

    def __init__(self, store: StoreProcess, picture: bytes) -> None:
        self._store = store
        client = Client(store.endpoint)
        client.bucket("bench").create()
        client.bucket("bench").object("picture.jpg").put(picture)
        self._etl = client.etl("imagenet")
        code = (EXAMPLES / "imagenet" / "code.py").read_text()
        self._etl.init_code(code, dependencies="torch\ntorchvision\npillow\n", comm_type="io://")
        self._pool = urllib3.PoolManager()
        self._url = f"{store.endpoint}/v1/objects/bench/picture.jpg?etl_name=imagenet"

    def _get(self) -> None:
        reply = self._pool.request("GET", self._url)
        if reply.status != 200:
            raise RuntimeError(reply.data.decode())

    def _timed(self, work: Callable[[], None]) -> dict[str, float]:
        used, start = cpu_seconds([self._store.pid]), time.perf_counter()
        work()
        elapsed = time.perf_counter() - start
        # Of a short one the clock ticks of 10 ms show little; the median over rounds does.
        return {"ms": 1000 * elapsed, "CPU ms": 1000 * (cpu_seconds([self._store.pid]) - used)}

    def _start_and_get(self) -> None:
        self._etl.start()
        self._get()

    def after_start(self) -> dict[str, float]:
        """Return the time from `start` to the first result."""
        self._etl.stop()
        return self._timed(self._start_and_get)

    def after_idleness(self) -> dict[str, float]:
        """Return the time of a GET when the transform has no worker."""
        self._get()
        while self._workers():
            time.sleep(0.1)
        return self._timed(self._get)

    def _workers(self) -> int:
        text = self._pool.request("GET", f"{self._store.endpoint}/metrics").data.decode()
        line = next(line for line in text.splitlines() if line.startswith('ais_etl_workers{etl="imagenet"}'))
        return round(float(line.split()[-1]))

    def warm(self) -> dict[str, float]:
        """Return the time of a GET when a worker waits."""
        for _ in range(10):
            self._get()
        return self._timed(self._get)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", help="folder with *.jpg (default: made from free photographs)")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    limit = ("--limit", f"etl_idle_seconds={IDLE_SECONDS}")
    with tempfile.TemporaryDirectory(prefix="ais-bench-") as root, StoreProcess(arguments=limit) as store:
        files = sorted(map(str, Path(options.pictures).rglob("*.jpg"))) if options.pictures else make_pictures(root)
        through = Through(store, Path(files[0]).read_bytes())
        rows = interleave(
            options.rounds,
            {
                "the imports alone": imports_alone,
                "first byte after start": through.after_start,
                "GET after idleness": through.after_idleness,
                "GET, warm": through.warm,
            },
        )
    ratio = rows["first byte after start"]["ms"] / rows["the imports alone"]["ms"]
    print_table(f"The ImageNet script, median of {options.rounds}", rows, f"start / imports = {ratio:.2f}")


if __name__ == "__main__":
    main()

"""A transform that is a web server, through the store and called directly: NVIDIA's FastAPI class on a core of its own.

    python benchmarks/serving.py [--python SDK] [--rounds 5] [--seconds 3] [--connections 8]

SDK is an interpreter whose environment has ``aistore[etl]==2.0.0`` and ``cloudpickle``; without it one is made for the
run, from the package index. Needs two cores and ``wrk``.

The class returns what it gets in capitals, or compressed, which takes its time. It runs as one process, served in the
same way on both sides, pinned to one core. On the other core there are

- *directly*: ``wrk``, which puts objects to the class;
- *through the store*: ``wrk`` and the whole store, which is asked for the objects through the class.

Both with as many connections. The figure that counts is the second rate over the first.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import http.client
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import wrk
from harness import cpu_seconds, interleave, print_table, tree

from aistore.testing import StoreProcess

SERVE = Path(__file__).resolve().parent.parent / "src/aistore/etl/worker/serve_class.py"

PICKLE = """
import cloudpickle, sys, zlib
from aistore.sdk.etl.webserver.fastapi_server import FastAPIServer
class Upper(FastAPIServer):
    def transform(self, data, path, etl_args):
        return zlib.compress(data) if "/compress-" in path else data.upper()
sys.stdout.buffer.write(cloudpickle.dumps(Upper))
"""


def sdk(root: str) -> str:
    """Make an environment with NVIDIA's SDK; return its interpreter."""
    python = os.path.join(root, "sdk", "bin", "python")
    subprocess.run([sys.executable, "-m", "venv", os.path.join(root, "sdk")], check=True)
    subprocess.run([python, "-m", "pip", "install", "--quiet", "aistore[etl]==2.0.0", "cloudpickle"], check=True)
    return python


def pin(pids: list[int], core: int) -> None:
    """Have processes run on one core, all of their threads."""
    for pid in pids:
        for thread in os.listdir(f"/proc/{pid}/task"):
            with contextlib.suppress(ProcessLookupError):
                os.sched_setaffinity(int(thread), {core})


def serving(pids: list[int]) -> list[int]:
    """Return those of the processes, and of their descendants, that serve a class."""
    found = []
    for pid in tree(pids):
        with contextlib.suppress(OSError):
            if b"serve_class.py" in Path(f"/proc/{pid}/cmdline").read_bytes():
                found.append(pid)
    return found


def wait_until_healthy(port: int) -> None:
    """Return when a server is there."""
    while True:
        connection = http.client.HTTPConnection("127.0.0.1", port)
        try:
            connection.request("GET", "/health")
            if connection.getresponse().status == 200:
                return
        except OSError:
            time.sleep(0.05)
        finally:
            connection.close()


@contextlib.contextmanager
def plain(python: str, pickle: Path, core: int) -> Iterator[tuple[int, int]]:
    """Run the class without a store; yield its port and process."""
    port = wrk.free_port()
    command = [python, SERVE, "--class", pickle, "--port", str(port), "--workers", "1"]
    env = {"PATH": os.environ["PATH"], "AIS_TARGET_URL": "http://127.0.0.1:1"}
    with subprocess.Popen(command, env=env) as process:
        try:
            wait_until_healthy(port)
            pin([process.pid], core)
            yield port, process.pid
        finally:
            process.terminate()


def request(store: StoreProcess, method: str, path: str, body: bytes) -> None:
    """Ask the store for something that has to work."""
    connection = http.client.HTTPConnection(store.endpoint.removeprefix("http://"), timeout=900)
    connection.request(method, path, body)
    reply = connection.getresponse()
    said = reply.read()
    if reply.status != 200:
        sys.exit(f"{method} {path}: {reply.status} {said.decode(errors='replace')}")
    connection.close()


def make(store: StoreProcess, pickle: Path) -> None:
    """Make the class a transform of the store."""
    env = {"ETL_CLASS_PAYLOAD": base64.b64encode(pickle.read_bytes()).decode(), "NUM_WORKERS": "1", "PACKAGES": ""}
    message = {
        "name": "upper-class", "communication": "hpush://", "init_timeout": "15m", "obj_timeout": "45s",
        "support_direct_put": False,
        "runtime": {
            "image": f"aistorage/runtime_python:{sys.version_info[0]}.{sys.version_info[1]}",
            "env": [{"name": name, "value": value} for name, value in env.items()],
        },
    }  # fmt: skip
    request(store, "PUT", "/v1/etl", json.dumps(message).encode())


def main() -> None:
    """Measure and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--python", help="an interpreter with NVIDIA's SDK; default: make one")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=3)
    parser.add_argument("--connections", type=int, default=8)
    options = parser.parse_args()
    wrk.need("wrk")
    here, there = sorted(os.sched_getaffinity(0))[:2]
    os.sched_setaffinity(0, {here})
    with tempfile.TemporaryDirectory() as root:
        python, pickle = options.python or sdk(root), Path(root, "class")
        pickle.write_bytes(subprocess.run([python, "-c", PICKLE], stdout=subprocess.PIPE, check=True).stdout)
        with (
            plain(python, pickle, there) as (port, plainly),
            StoreProcess(arguments=("--workers", "1")) as store,
        ):
            request(store, "POST", "/v1/buckets/bck", b'{"action":"create-bck"}')
            make(store, pickle)
            pin(serving([store.pid]), there)
            for what, size in (("upper", 4 << 10), ("upper", 110 << 10), ("compress", 110 << 10), ("upper", 1 << 20)):
                measure(store, options, port, plainly, what, size, root)


def measure(
    store: StoreProcess, options: argparse.Namespace, port: int, plainly: int, what: str, size: int, root: str
) -> None:
    """Measure both sides with objects of one size."""
    body = Path(root, "body")
    body.write_bytes(os.urandom(size))
    paths = []
    for number in range(64):
        request(store, "PUT", f"/v1/objects/bck/{what}-{size}-{number}", body.read_bytes())
        paths.append(f"/v1/objects/bck/{what}-{size}-{number}?etl_name=upper-class")
    served = serving([store.pid])

    def directly() -> dict[str, float]:
        began = cpu_seconds([plainly])
        figures = wrk.put(port, f"/bck/{what}-", str(body), options.seconds, options.connections, root)
        return row(figures, cpu_seconds([plainly]) - began, 0.0, options.seconds)

    def through() -> dict[str, float]:
        began, all_began = cpu_seconds(served), cpu_seconds([store.pid])
        figures = wrk.get(int(store.endpoint.rpartition(":")[2]), paths, options.seconds, options.connections, root)
        ours = cpu_seconds(served) - began
        return row(figures, ours, cpu_seconds([store.pid]) - all_began - ours, options.seconds)

    results = interleave(options.rounds, {"directly": directly, "through the store": through})
    ratio = results["through the store"]["objects/s"] / results["directly"]["objects/s"]
    print_table(f"{what}, objects of {size >> 10} KiB", results, f"through the store / directly: {ratio:.2f}")


def row(figures: dict[str, float], served: float, store: float, seconds: float) -> dict[str, float]:
    """Return the figures of one run."""
    objects = figures["req/s"] * seconds
    return {
        "objects/s": figures["req/s"], "p50 ms": figures["p50 ms"], "p99 ms": figures["p99 ms"],
        "class, us CPU": served / objects * 1e6, "store, us CPU": store / objects * 1e6,
    }  # fmt: skip


if __name__ == "__main__":
    main()

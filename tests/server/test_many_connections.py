"""Thousands of connections that do nothing, and more than there are descriptors for."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack

import pytest
import urllib3
from footprint import footprint, returns_to
from raw_http import connect, make_bucket, raise_descriptor_limit, read_head, statuses

from aistore.settings import Limits
from aistore.testing import StoreProcess

IDLE = int(os.environ.get("AIS_IDLE_CONNECTIONS", "10000"))
HEALTH = b"GET /v1/health HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"


def use(store: StoreProcess, bucket: str) -> None:
    """Do what clients do, on new connections."""
    with urllib3.PoolManager(retries=False, timeout=60) as client:
        url = f"{store.endpoint}/v1/objects/{bucket}/"
        for number in range(10):
            body = bytes([number]) * (3 << 20 if number % 2 else 1000)
            assert client.request("PUT", f"{url}{number}", body=body).status == 200
            assert client.request("GET", f"{url}{number}").data == body
        assert client.request("GET", f"{store.endpoint}/v1/buckets/{bucket}").status == 200


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="further loopback addresses need Linux")
def test_thousands_of_idle_connections(new_store: Callable[..., StoreProcess]) -> None:
    allowed = raise_descriptor_limit()
    if allowed < IDLE + 500:
        pytest.skip(f"needs {IDLE + 500} open files, and the hard limit is {allowed}")
    store = new_store(arguments=("--workers", "2", "--limit", "io_threads=2"))
    bucket = make_bucket(store)
    use(store, bucket)
    before = footprint(store)
    with ExitStack() as held:
        connections = []
        for number in range(IDLE):
            # A few thousand from each address: there are only so many ports.
            connection = held.enter_context(connect(store, source=f"127.0.0.{2 + number // 4000}"))
            connections.append(connection)
        use(store, bucket)
        for connection in connections:
            connection.sendall(HEALTH)
        for connection in connections:
            assert statuses(read_head(connection)) == [200]
        use(store, bucket)
        assert footprint(store).memory - before.memory < IDLE * 64 * 1024
    returns_to(before, store, files=20)  # those that were replaced stay for a while


def test_more_connections_than_descriptors(new_store: Callable[..., StoreProcess]) -> None:
    """Those beyond wait to be accepted, in peace; those that are accepted are served, with files too."""
    store = new_store(
        arguments=("--workers", "1", "--limit", "io_threads=2", "--limit", "header_seconds=120"),
        through=("sh", "-c", 'ulimit -n 256 && exec "$@"', "sh"),
    )
    bucket = make_bucket(store)
    url = f"{store.endpoint}/v1/objects/{bucket}/large"
    assert urllib3.request("PUT", url, body=bytes(2 << 20)).status == 200
    before = footprint(store)
    with ExitStack() as held:
        connections = [held.enter_context(connect(store)) for _ in range(300)]
        get = f"GET /v1/objects/{bucket}/large HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode()
        accepted, waiting = connections[:80], connections[200:]
        for connection in accepted:
            connection.sendall(get)
        for connection in accepted:
            assert statuses(read_head(connection)) == [200]
        for connection in waiting:
            connection.sendall(HEALTH.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
        (worker,) = [pid for pid, command in store.children().items() if "http_worker" in command]
        spent, started = cpu_seconds(worker), time.monotonic()
        time.sleep(1)  # what is measured is that nothing happens
        assert cpu_seconds(worker) - spent < (time.monotonic() - started) / 2
        for connection in connections[:200]:
            connection.close()
        for connection in waiting:
            assert statuses(read_head(connection)) == [200]
    returns_to(before, store)
    assert "Traceback" not in store.errors()


def cpu_seconds(pid: int) -> float:
    with open(f"/proc/{pid}/stat", encoding="ascii") as stat:
        fields = stat.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@pytest.mark.parametrize("descriptors", [256, 1024, 4096, 20_000])
def test_connections_leave_descriptors_for_files(descriptors: int) -> None:
    program = (
        "import resource; from aistore.settings import Limits; from aistore.server.process import connections_allowed;"
        f"resource.setrlimit(resource.RLIMIT_NOFILE, ({descriptors}, {descriptors}));"
        "print(connections_allowed(Limits()))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    allowed = int(done.stdout)
    assert (descriptors - 100) // 2 <= allowed <= min(descriptors, Limits().connections_per_worker)
    assert allowed + min(allowed, Limits().requests_max) < descriptors

"""Clients that vanish while they wait for a transform: no worker stays busy, nothing stays open."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
import urllib3
from footprint import IO_THREADS, footprint
from raw_http import connect, make_bucket

from aistore.testing import StoreProcess
from aistore.wire.messages import encode_base64

ETL = "sleeps-long"
#: Longer than any test: what ends it is the client's end.
CODE = "import sys, time\nif sys.stdin.read(4) == 'wait': time.sleep(600)\nsys.stdout.write('done')\n"
WORKERS = 2


@pytest.fixture(scope="module")
def store() -> Iterator[StoreProcess]:
    with StoreProcess(arguments=("--workers", "2", "--limit", f"io_threads={IO_THREADS}")) as process:
        message = {"code": encode_base64(CODE), "id": ETL, "workers": WORKERS, "communication_type": "io://"}
        reply = urllib3.request("POST", f"{process.endpoint}/v1/etl/init_code", json=message)
        assert reply.status == 200, reply.data
        yield process
        assert "Traceback" not in process.errors(), process.errors()


@pytest.fixture(scope="module")
def bucket(store: StoreProcess) -> str:
    name = make_bucket(store)
    with urllib3.PoolManager(maxsize=1) as pool:
        for key, data in (("wait", b"wait"), ("wait-large", b"wait" + bytes(3 << 20)), ("quick", b"quick")):
            assert pool.request("PUT", f"{store.endpoint}/v1/objects/{name}/{key}", body=data).status == 200
    for _ in range(8):  # each process of the store has seen the transform
        quick(store, name)
    return name


def quick(store: StoreProcess, bucket: str) -> None:
    """Have an object transformed: a worker is free."""
    reply = urllib3.request("GET", f"{store.endpoint}/v1/objects/{bucket}/quick?etl_name={ETL}", timeout=30)
    assert (reply.status, reply.data) == (200, b"done")


def gauges(store: StoreProcess) -> dict[str, int]:
    wanted = ("ais_target_inflight_requests", "ais_etl_inflight_objects", "ais_etl_busy_workers", "ais_etl_workers")
    lines = urllib3.request("GET", f"{store.endpoint}/metrics").data.decode().splitlines()
    return {line.split("{")[0].split()[0]: int(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(wanted)}


def becomes(store: StoreProcess, **expected: int) -> None:
    deadline = time.monotonic() + 30
    while not (found := gauges(store)).items() >= expected.items():
        assert time.monotonic() < deadline, (found, expected)
        time.sleep(0.02)


def requests(bucket: str) -> dict[str, bytes]:
    host = "Host: 127.0.0.1\r\n"
    entries = [["quick", ""], ["wait", ETL], ["wait-large", ETL], ["missing", ""]] * 10
    body = json.dumps({"entries": entries})
    return {
        "small": f"GET /v1/objects/{bucket}/wait?etl_name={ETL} HTTP/1.1\r\n{host}\r\n".encode(),
        "large": f"GET /v1/objects/{bucket}/wait-large?etl_name={ETL} HTTP/1.1\r\n{host}\r\n".encode(),
        "copy": (
            f"PUT /v1/objects/{bucket}/wait?etl_name={ETL}&object_to=ais%2F%40%23%2F{bucket}%2Fcopied HTTP/1.1\r\n"
            f"{host}Content-Length: 0\r\n\r\n"
        ).encode(),
        "batch": f"POST /v1/batch/{bucket} HTTP/1.1\r\n{host}Content-Length: {len(body)}\r\n\r\n{body}".encode(),
    }


@pytest.mark.parametrize("how", ["close", "reset"])
@pytest.mark.parametrize("what", ["small", "large", "batch", "copy"])
def test_clients_that_vanish_free_their_workers(store: StoreProcess, bucket: str, what: str, how: str) -> None:
    becomes(store, ais_target_inflight_requests=1, ais_etl_inflight_objects=0)
    before = footprint(store)
    with ExitStack() as held:
        for _ in range(10):  # two are with a worker, the others wait in its queue
            connection = held.enter_context(connect(store))
            connection.sendall(requests(bucket)[what])
            if how == "reset":
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        becomes(store, ais_etl_busy_workers=WORKERS, ais_target_inflight_requests=11)
    becomes(store, ais_target_inflight_requests=1, ais_etl_inflight_objects=0, ais_etl_busy_workers=0)
    quick(store, bucket)
    for pid in before.processes & footprint(store).processes:  # killed workers were replaced by others
        deadline = time.monotonic() + 30
        while (now := len(os.listdir(f"/proc/{pid}/fd"))) > before.descriptors[pid] + 2:
            assert time.monotonic() < deadline, f"process {pid} has {now} descriptors, it had {before.descriptors[pid]}"
            time.sleep(0.05)

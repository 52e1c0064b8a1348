"""More than a store can take: a quick "come again", bounded memory, and it goes on answering."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import msgspec
import pytest
import urllib3
from footprint import footprint, returns_to
from raw_http import connect, exchange, make_bucket, raise_descriptor_limit, read_head, read_to_end, statuses

from aistore.testing import StoreProcess

MIB = 1 << 20
UPLOADS = int(os.environ.get("AIS_SLOW_UPLOADS", "2000"))
DOWNLOADS = int(os.environ.get("AIS_SLOW_DOWNLOADS", "500"))


@pytest.fixture(scope="module", autouse=True)
def _descriptors() -> None:
    if raise_descriptor_limit() < UPLOADS + 500:
        pytest.skip(f"needs {UPLOADS + 500} open files, and the hard limit is lower")


def put(bucket: str, name: str, length: int) -> bytes:
    head = f"PUT /v1/objects/{bucket}/{name} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {length}\r\n\r\n"
    return head.encode()


def answers_meanwhile(store: StoreProcess, bucket: str) -> None:
    """Check that a store has time for others: health, what an object is, a small object's bytes."""
    with urllib3.PoolManager(retries=False, timeout=30) as client:
        for _ in range(20):
            assert client.request("GET", f"{store.endpoint}/v1/health").status == 200
            assert client.request("HEAD", f"{store.endpoint}/v1/objects/{bucket}/small").status == 200
            assert client.request("GET", f"{store.endpoint}/v1/objects/{bucket}/small").data == b"small"


def with_small(store: StoreProcess) -> str:
    bucket = make_bucket(store)
    assert urllib3.request("PUT", f"{store.endpoint}/v1/objects/{bucket}/small", body=b"small").status == 200
    return bucket


@pytest.mark.parametrize("limit", ["requests_max=8", f"body_bytes_max={8 * 1000}"])
def test_beyond_a_limit_the_answer_is_come_again(new_store: Callable[..., StoreProcess], limit: str) -> None:
    store = new_store(arguments=("--workers", "1", "--limit", limit, "--limit", "io_threads=2"))
    bucket = with_small(store)
    before = footprint(store)
    with ExitStack() as held:
        waiting = [held.enter_context(connect(store)) for _ in range(8)]
        for number, connection in enumerate(waiting):
            connection.sendall(
                put(bucket, f"o{number}", 1000).replace(b"\r\n\r\n", b"\r\nExpect: 100-continue\r\n\r\n")
            )
            assert statuses(read_head(connection)) == [100]  # it is being read now
        for _ in range(3):
            answer = exchange(store, put(bucket, "more", 1000))
            assert statuses(answer) == [503]
            assert b"retry-after: 1\r\n" in answer
            assert b"ErrBusy" in answer
        answers_meanwhile(store, bucket)
        for connection in waiting:
            connection.sendall(b"x" * 1000)
            assert statuses(read_head(connection)) == [200]
    assert urllib3.request("PUT", f"{store.endpoint}/v1/objects/{bucket}/more", body=b"x" * 1000).status == 200
    returns_to(before, store, files=9)


def test_many_slow_uploads_have_bounded_memory(new_store: Callable[..., StoreProcess]) -> None:
    store = new_store(arguments=("--workers", "2", "--limit", "io_threads=2"))
    bucket = with_small(store)
    before = footprint(store)
    with ExitStack() as held, ThreadPoolExecutor(16) as pool:
        connections = [held.enter_context(connect(store)) for _ in range(UPLOADS)]

        def upload(number: int) -> int:
            """Send three quarters of a body; return the status of what comes back, 0 for nothing yet."""
            connection = connections[number]
            try:
                connection.sendall(put(bucket, f"slow-{number}", MIB) + b"x" * (3 * MIB // 4))
                connection.settimeout(0.001)
                return next(iter(statuses(read_to_end(connection))), 503)
            except (BrokenPipeError, ConnectionResetError):
                return 503  # answered, and closed before all was sent
            except TimeoutError:
                return 0

        answers = list(pool.map(upload, range(UPLOADS)))
        assert set(answers) <= {0, 503}
        assert answers.count(0) > 200
        answers_meanwhile(store, bucket)
        # Two workers may hold 256 MiB of bodies each; the HTTP library and the allocator add to that.
        assert footprint(store).memory - before.memory < 768 * MIB
    returns_to(before, store)


def test_many_slow_downloads_have_bounded_memory(new_store: Callable[..., StoreProcess]) -> None:
    store = new_store(arguments=("--workers", "2", "--limit", "io_threads=2"))
    bucket = with_small(store)
    assert urllib3.request("PUT", f"{store.endpoint}/v1/objects/{bucket}/large", body=bytes(100 * MIB)).status == 200
    before = footprint(store)
    request = f"GET /v1/objects/{bucket}/large HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode()
    with ExitStack() as held:
        for _ in range(DOWNLOADS):
            connection = held.enter_context(connect(store, receive_bytes=4096))
            connection.sendall(request)
            assert statuses(read_head(connection)) == [200]
        answers_meanwhile(store, bucket)
        assert footprint(store).memory - before.memory < 768 * MIB
    returns_to(before, store)


def test_many_batches_that_nobody_reads_have_bounded_memory(new_store: Callable[..., StoreProcess]) -> None:
    limits = ("reply_bytes_max=16000000", "io_threads=2")
    store = new_store(arguments=("--workers", "2", *(part for limit in limits for part in ("--limit", limit))))
    bucket = with_small(store)
    url = f"{store.endpoint}/v1/objects/{bucket}/entry"
    assert urllib3.request("PUT", url, body=bytes(MIB)).status == 200
    before = footprint(store)
    body = msgspec.json.encode({"entries": [["entry", ""]] * 64})
    head = f"POST /v1/batch/{bucket} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {len(body)}\r\n\r\n"
    with ExitStack() as held:
        for _ in range(20):
            connection = held.enter_context(connect(store, receive_bytes=4096))
            connection.sendall(head.encode() + body)
            assert statuses(read_head(connection)) == [200]
        answers_meanwhile(store, bucket)
        # Each has an entry and what the HTTP library takes ahead; all windows would be 640 MiB.
        assert footprint(store).memory - before.memory < 400 * MIB
    returns_to(before, store)
    reply = urllib3.request("POST", f"{store.endpoint}/v1/batch/{bucket}", body=body)
    assert len(reply.data) == 64 * (24 + MIB) + 24

"""Clients that are slow, stop, or vanish: they are ended within a bounded time, and nothing of them stays."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest
import urllib3
from footprint import IO_THREADS, footprint, returns_to
from raw_http import connect, exchange, make_bucket, raise_descriptor_limit, read_head, read_to_end, statuses

from aistore.testing import StoreProcess

LIMITS = {"body_stall_seconds": 1.5, "reply_stall_seconds": 2, "header_seconds": 2, "io_threads": IO_THREADS}
LARGE = 64 << 20


@pytest.fixture(scope="module")
def store() -> Iterator[StoreProcess]:
    """Return a store that waits shortly, with all its threads started."""
    raise_descriptor_limit()
    arguments = [argument for name, value in LIMITS.items() for argument in ("--limit", f"{name}={value}")]
    with StoreProcess(arguments=("--workers", "2", *arguments)) as process:
        bucket = make_bucket(process)
        with ThreadPoolExecutor(32) as pool, urllib3.PoolManager(maxsize=32, num_pools=1) as client:
            url = f"{process.endpoint}/v1/objects/{bucket}/"
            list(pool.map(lambda n: client.request("PUT", f"{url}{n}", body=os.urandom(2 << 20)), range(64)))
            list(pool.map(lambda n: client.request("GET", f"{url}{n}"), range(64)))
        yield process
        assert "Traceback" not in process.errors(), process.errors()


@pytest.fixture(scope="module")
def bucket(store: StoreProcess) -> str:
    name = make_bucket(store)
    urllib3.request("PUT", f"{store.endpoint}/v1/objects/{name}/large", body=os.urandom(LARGE))
    return name


def put(bucket: str, framing: str) -> bytes:
    return f"PUT /v1/objects/{bucket}/slow HTTP/1.1\r\nHost: 127.0.0.1\r\n{framing}\r\n\r\n".encode()


STALLS = {
    "small": ("Content-Length: 1000", b"x" * 999),
    "nothing": ("Content-Length: 1000", b""),
    "large": ("Content-Length: 100000000", b"x" * 3_000_000),
    "chunked": ("Transfer-Encoding: chunked", b"100000\r\n" + b"x" * 0x100000 + b"\r\n3\r\nab"),
    "chunk size": ("Transfer-Encoding: chunked", b"3\r\nabc\r\n1"),
    "last chunk": ("Transfer-Encoding: chunked", b"3\r\nabc\r\n0\r\n"),
    "expect": ("Content-Length: 10\r\nExpect: 100-continue", b""),
}


@pytest.mark.parametrize("kind", STALLS)
def test_a_body_that_stalls_is_answered_and_ended(store: StoreProcess, bucket: str, kind: str) -> None:
    before = footprint(store)
    framing, body = STALLS[kind]
    answer = exchange(store, put(bucket, framing) + body)
    assert statuses(answer)[-1] == 408, answer
    assert b"ErrRequestTimeout" in answer
    assert urllib3.request("GET", f"{store.endpoint}/v1/objects/{bucket}/slow").status == 404
    returns_to(before, store)


@pytest.mark.parametrize("path", ["/v1/buckets/b", "/v1/batch/b", "/v1/etl/init_code"])
def test_a_control_message_that_stalls_is_answered_and_ended(store: StoreProcess, path: str) -> None:
    request = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 50\r\n\r\n{{"
    assert statuses(exchange(store, request.encode())) == [408]


@pytest.mark.parametrize("sent", [b"", b"GET /v1/health HTT", b"GET /v1/health HTTP/1.1\r\nHost: 127.0.0.1\r\nX: "])
def test_headers_that_never_end_are_ended(store: StoreProcess, sent: bytes) -> None:
    with connect(store) as connection:
        connection.sendall(sent)
        assert statuses(read_to_end(connection)) in ([], [408])


def test_slow_headers_do_not_live_by_their_trickle(store: StoreProcess) -> None:
    with connect(store) as connection:
        connection.sendall(b"GET /v1/health HTTP/1.1\r\n")
        connection.settimeout(0.2)
        for _ in range(150):  # a byte every fifth of a second, far beyond the limit
            try:
                connection.sendall(b"X")
                assert connection.recv(100) == b""
                return
            except TimeoutError:
                pass
            except (BrokenPipeError, ConnectionResetError):
                return
        pytest.fail("the store still takes headers")


def test_a_slow_body_that_moves_is_taken(store: StoreProcess, bucket: str) -> None:
    """The limit is on each wait, not on the whole."""
    with connect(store) as connection:
        connection.sendall(put(bucket, "Content-Length: 10\r\nConnection: close"))
        connection.settimeout(0.3)
        for number in range(10):
            connection.sendall(b"%d" % number)
            if number < 9:
                with pytest.raises(TimeoutError):
                    connection.recv(100)
        connection.settimeout(30)
        assert statuses(read_to_end(connection)) == [200]
    url = f"{store.endpoint}/v1/objects/{bucket}/slow"
    assert urllib3.request("GET", url).data == b"0123456789"
    urllib3.request("DELETE", url)


@pytest.mark.parametrize("framing", ["Content-Length: 50000000", "Transfer-Encoding: chunked"])
def test_clients_that_vanish_in_mid_body_leave_nothing(store: StoreProcess, bucket: str, framing: str) -> None:
    before = footprint(store)
    body = b"200000\r\n" + b"x" * 0x200000
    for how in ("reset", "close"):
        with ExitStack() as held:
            for _ in range(50):
                connection = held.enter_context(connect(store))
                connection.sendall(put(bucket, framing) + body)
                if how == "reset":
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    returns_to(before, store)


def test_a_reply_that_nobody_reads_is_ended(store: StoreProcess, bucket: str) -> None:
    before = footprint(store)
    request = f"GET /v1/objects/{bucket}/large HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode()
    with ExitStack() as held:
        for _ in range(30):
            connection = held.enter_context(connect(store, receive_bytes=4096))
            connection.sendall(request)
            assert statuses(read_head(connection)) == [200]
        returns_to(before, store)  # the clients are still there, and read nothing


def test_clients_that_vanish_in_mid_reply_leave_nothing(store: StoreProcess, bucket: str) -> None:
    before = footprint(store)
    request = f"GET /v1/objects/{bucket}/large HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode()
    with ExitStack() as held:
        for _ in range(100):
            connection = held.enter_context(connect(store, receive_bytes=4096))
            connection.sendall(request)
            read_head(connection)
    returns_to(before, store)


def bytes_read(store: StoreProcess) -> int:
    """Return what the HTTP workers have read by system calls, from files and sockets."""
    total = 0
    for pid, command in store.children().items():
        if "http_worker" in command:
            with open(f"/proc/{pid}/io", encoding="ascii") as lines:
                total += next(int(line.split()[1]) for line in lines if line.startswith("rchar"))
    return total


def test_what_nobody_reads_is_not_read_from_the_disk(store: StoreProcess, bucket: str) -> None:
    before, read = footprint(store), bytes_read(store)
    request = f"GET /v1/objects/{bucket}/large HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode()
    for _ in range(10):
        with connect(store, receive_bytes=4096) as connection:
            connection.sendall(request)
            read_head(connection)
    returns_to(before, store)
    assert bytes_read(store) - read < 10 * LARGE // 2

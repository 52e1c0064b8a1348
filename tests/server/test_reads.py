"""Reads that another node answers without waiting: the same answers as over HTTP, whatever becomes of the stream."""

from __future__ import annotations

import asyncio
import contextlib
import http.server
import os
import random
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import urllib3
import uvloop

from aistore.server.peers.reads import BODY_BYTES_MAX, ReadServer, hello

SECRET = "what-all-nodes-know"
NODE = {"ais-cluster-secret": SECRET, "ais-hop": "other;3"}
ANSWER = struct.Struct("<IIH")


class Node:
    """One process of peer_node.py; its standard error goes to this one's."""

    def __init__(self, kind: str, where: str, **environment: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("peer_node.py")), kind, where, "1"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env={**os.environ, "AIS_CLUSTER_SECRET": SECRET, **environment},
        )  # fmt: skip
        assert self.process.stdout is not None
        self.port = int(self.process.stdout.readline())
        self.url = f"http://127.0.0.1:{self.port}"
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        self.worker = int(children.read_text(encoding="ascii"))

    def quickly(self) -> int:
        """Return how many reads it had answered on the stream."""
        return int(urllib3.request("GET", f"{self.url}/-/quickly").data)

    def stop(self) -> None:
        self.process.communicate(timeout=30)


@pytest.fixture
def nodes() -> Iterator[Callable[..., Node]]:
    started: list[Node] = []

    def start(*arguments: str, **environment: str) -> Node:
        started.append(Node(*arguments, **environment))
        return started[-1]

    yield start
    for node in reversed(started):
        node.stop()


@pytest.fixture
def pool() -> Iterator[urllib3.PoolManager]:
    with urllib3.PoolManager(retries=False, maxsize=16) as one:
        yield one


def pair(nodes: Callable[..., Node], pool: urllib3.PoolManager, data: Path) -> tuple[Node, Node]:
    """Return a home with bucket b, and a node that forwards to it."""
    home = nodes("home", str(data / "data"))
    assert pool.request("POST", f"{home.url}/v1/buckets/b", body=b'{"action":"create-bck"}').status == 200
    return home, nodes("forward", home.url, QUICK="0.1", ANSWER_SECONDS="1")


def until_quick(wrong: Node, pool: urllib3.PoolManager, url: str) -> None:
    """Read until the stream is used."""
    before = wrong.quickly()
    while wrong.quickly() == before:
        assert pool.request("GET", url).status == 200


def test_answers_are_those_of_the_home(nodes: Callable[..., Node], pool: urllib3.PoolManager, tmp_path: Path) -> None:
    home, wrong = pair(nodes, pool, tmp_path)
    objects = f"{wrong.url}/v1/objects/b"
    sizes = {
        "empty": 0,
        "o%20%E2%98%83%3F": 1,
        "some": 20_000,
        "most": BODY_BYTES_MAX,
        "more": BODY_BYTES_MAX + 1,
        "big": 3 << 20,
    }
    contents = {name: os.urandom(size) for name, size in sizes.items()}
    for name, data in contents.items():
        assert pool.request("PUT", f"{objects}/{name}", body=data).status == 200
    until_quick(wrong, pool, f"{objects}/some")
    for name in sizes:
        for _ in range(2):
            here = pool.request("GET", f"{objects}/{name}")
            there = pool.request("GET", f"{home.url}/v1/objects/b/{name}", headers=NODE)
            assert (here.status, here.data) == (there.status, there.data) == (200, contents[name])
            own = {"date", "x-request-id"}
            assert {k: v for k, v in here.headers.items() if k not in own} == {
                k: v for k, v in there.headers.items() if k not in own
            }
    missing = pool.request("GET", f"{objects}/missing")
    assert (missing.status, missing.json()["tcode"]) == (404, "ErrObjNotFound")


def test_a_read_after_a_write_has_what_was_written(
    nodes: Callable[..., Node], pool: urllib3.PoolManager, tmp_path: Path
) -> None:
    home, wrong = pair(nodes, pool, tmp_path)
    url = f"{wrong.url}/v1/objects/b/x"
    pool.request("PUT", url, body=b"first")
    until_quick(wrong, pool, url)
    for number in range(200):
        data = f"version {number}".encode()
        assert pool.request("PUT", f"{random.choice((home, wrong)).url}/v1/objects/b/x", body=data).status == 200
        assert pool.request("GET", url).data == data
        assert pool.request("GET", url).data == data
    assert pool.request("DELETE", f"{home.url}/v1/objects/b/x").status in (200, 204)
    assert pool.request("GET", url).status == 404
    assert wrong.quickly() > 200


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
def test_many_readers_get_their_own_object_or_an_error_that_says_so(
    nodes: Callable[..., Node], pool: urllib3.PoolManager, tmp_path: Path, how: signal.Signals
) -> None:
    home, wrong = pair(nodes, pool, tmp_path)
    contents = {f"o{number}": os.urandom(random.randrange(1, 60_000)) for number in range(40)}
    for name, data in contents.items():
        pool.request("PUT", f"{home.url}/v1/objects/b/{name}", body=data)
    until_quick(wrong, pool, f"{wrong.url}/v1/objects/b/o0")
    errors = threading.Event()

    def read(seed: int) -> tuple[int, int]:
        good = 0
        names = random.Random(seed).choices(sorted(contents), k=1_000_000)
        with urllib3.PoolManager(retries=False) as own:
            for name in names:
                reply = own.request("GET", f"{wrong.url}/v1/objects/b/{name}", timeout=30)
                if reply.status == 503:
                    assert reply.json()["tcode"] == "ErrPeerUnreachable"
                    errors.set()
                    return good, 1
                assert (reply.status, reply.data) == (200, contents[name])
                good += 1
        raise AssertionError("the home never failed")

    with ThreadPoolExecutor(6) as readers:
        reading = [readers.submit(read, seed) for seed in range(6)]
        before = wrong.quickly()
        while wrong.quickly() < before + 500:
            time.sleep(0.05)
        os.kill(home.worker, how)
        counts = [one.result() for one in reading]
    if how == signal.SIGSTOP:
        os.kill(home.worker, signal.SIGCONT)
    assert sum(good for good, _ in counts) >= 500


def read_exactly(connection: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        piece = connection.recv(size - len(data))
        assert piece
        data += piece
    return data


class Liar:
    """A home whose HTTP is right and whose stream does what a function does with it."""

    def __init__(self, serve: Callable[[socket.socket], None]) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.taken = 0
        liar = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                port = liar.listener.getsockname()[1]
                body = b'{"port":%d}' % port if self.path == "/v1/internal/reads" else self.path.encode()
                self.send_response(200)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *arguments: object) -> None:
                pass

        self.http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self._threads = [
            threading.Thread(target=self.http.serve_forever, daemon=True),
            threading.Thread(target=self._run, args=(serve,), daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    def _run(self, serve: Callable[[socket.socket], None]) -> None:
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            with connection:
                self._connection = connection
                self.taken += 1
                connection.settimeout(10)
                try:
                    read_exactly(connection, len(hello(SECRET, "forwarder", 7)))
                    serve(connection)
                except OSError:
                    pass

    def stop(self) -> None:
        with contextlib.suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)
        self.http.shutdown()
        self.http.server_close()
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        for thread in self._threads:
            thread.join(30)


WHOLE = ANSWER.pack(1, 4, 200) + b"\x90" + b"evil"


@pytest.mark.parametrize(
    "answer",
    [
        b"", ANSWER.pack(1, 9, 200) + b"\x90" + b"cut", ANSWER.pack(1 << 30, 0, 200), ANSWER.pack(1, 1 << 30, 200),
        ANSWER.pack(4, 0, 200) + b"\xff\xff\xff\xff", os.urandom(5000), None,
    ],
    ids=["ends", "cut", "large-head", "large-body", "no-headers", "noise", "silent"],
)  # fmt: skip
def test_what_a_stream_fails_to_answer_goes_the_ordinary_way(nodes: Callable[..., Node], answer: bytes | None) -> None:
    def serve(connection: socket.socket) -> None:
        connection.recv(65536)  # an ask
        if answer is None:
            while connection.recv(65536):
                pass
        elif answer:
            connection.sendall(answer)

    liar = Liar(serve)
    try:
        wrong = nodes("forward", f"http://127.0.0.1:{liar.http.server_address[1]}", QUICK="0.1")
        with urllib3.PoolManager(retries=False) as pool:
            number = 0
            while liar.taken < 2:  # the stream was made again after it had failed
                number += 1
                reply = pool.request("GET", f"{wrong.url}/v1/objects/b/{number}")
                assert (reply.status, reply.data) == (200, b"/v1/objects/b/%d" % number)
        assert wrong.quickly() == 0
    finally:
        liar.stop()


def test_an_answer_to_nothing_ends_the_stream(nodes: Callable[..., Node]) -> None:
    liar = Liar(lambda connection: connection.sendall(WHOLE))
    try:
        wrong = nodes("forward", f"http://127.0.0.1:{liar.http.server_address[1]}", QUICK="0.1")
        with urllib3.PoolManager(retries=False) as pool:
            while liar.taken < 2:
                assert pool.request("GET", f"{wrong.url}/v1/objects/b/x").data in (b"/v1/objects/b/x", b"evil")
    finally:
        liar.stop()


def serve_reads(test: Callable[[ReadServer], Any]) -> None:
    """Run a test against a server that answers with the path, and not at once to paths with an "n"."""

    def answer(scope: Mapping[str, Any]) -> Any:
        path = scope["raw_path"]
        if b"n" in path:
            return None
        assert (b"ais-hop", b"me;1") in scope["headers"]
        start = {"type": "http.response.start", "status": 200, "headers": [(b"a", b"b")]}
        return start, {"type": "http.response.body", "body": path, "more_body": False}

    async def run() -> None:
        server = ReadServer(answer, SECRET)
        await server.start("127.0.0.1")
        try:
            await asyncio.wait_for(test(server), 30)
        finally:
            server.close()

    uvloop.run(run())


def ask(path: bytes) -> bytes:
    return struct.pack("<H", len(path)) + path


async def next_answer(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    head, body, status = ANSWER.unpack(await reader.readexactly(ANSWER.size))
    await reader.readexactly(head)
    return status, await reader.readexactly(body)


def test_asks_are_answered_in_order_however_they_come() -> None:
    paths = [bytes(random.choices(b"/abn", k=random.randrange(300))) for _ in range(300)]
    data = hello(SECRET, "me", 1) + b"".join(map(ask, paths))

    async def test(server: ReadServer) -> None:
        for size in (1, 7, 1000, len(data)):
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)

            async def send(writer: asyncio.StreamWriter = writer, size: int = size) -> None:
                for at in range(0, len(data), size):
                    writer.write(data[at : at + size])
                    await asyncio.sleep(0)

            sending = asyncio.ensure_future(send())
            for path in paths:
                assert await next_answer(reader) == ((0, b"") if b"n" in path else (200, path))
            await sending
            writer.close()

    serve_reads(test)


@pytest.mark.parametrize(
    "data",
    [
        hello("another secret", "me", 1), hello("", "me", 1), hello(SECRET + "x", "me", 1), b"GET / HTTP/1.1\r\n\r\n",
        hello(SECRET, "me", 1) + b"\xff\xff", b"aisR\xff\xff\xff\xff",
    ],
    ids=["another", "none", "longer", "http", "long-path", "long-hello"],
)  # fmt: skip
def test_who_is_no_node_gets_no_answer(data: bytes) -> None:
    async def test(server: ReadServer) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(data + ask(b"/a"))
        try:
            assert await reader.read() == b""
        except ConnectionError:
            pass
        writer.close()

    serve_reads(test)

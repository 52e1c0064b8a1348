"""Requests that reach the wrong node: real stores and real forwarding processes; and who may say that it is a node."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import urllib3
from raw_http import read_head, read_to_end

from aistore.testing import StoreProcess

NewStore = Callable[..., StoreProcess]
SECRET = "what-all-nodes-know"
TOKEN = "what-users-know"
NODE = {"ais-cluster-secret": SECRET, "ais-hop": "other;3"}


class Forwarder:
    """A node of which every request goes to another one (peer_node.py)."""

    def __init__(self, url: str, **environment: str) -> None:
        command = [sys.executable, str(Path(__file__).with_name("peer_node.py")), "forward", url, "1"]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env={**os.environ, "AIS_CLUSTER_SECRET": SECRET, **environment},
        )  # fmt: skip
        assert self.process.stdout is not None
        self.port = int(self.process.stdout.readline())
        self.url = f"http://127.0.0.1:{self.port}"

    def pid(self) -> int:
        """Return the process that serves."""
        text = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text(encoding="ascii")
        return int(text)

    def connections(self) -> int:
        """Return how many connections it has to the other node."""
        return int(urllib3.request("GET", f"{self.url}/-/connections").data)

    def stop(self) -> str:
        """End it; return what it wrote to standard error."""
        return self.process.communicate(timeout=30)[1]


@pytest.fixture(scope="module")
def home() -> Iterator[StoreProcess]:
    """Return a store with a secret and a token."""
    with StoreProcess(
        arguments=("--workers", "1", "--access-log"),
        env={"AIS_CLUSTER_SECRET": SECRET, "AIS_AUTHN_TOKEN": TOKEN},
    ) as store:
        yield store
        errors = store.errors()
        assert "Traceback" not in errors, errors
        assert SECRET not in errors


@pytest.fixture(scope="module")
def wrong(home: StoreProcess) -> Iterator[Forwarder]:
    """Return a node that forwards to ``home``."""
    node = Forwarder(home.endpoint)
    yield node
    errors = node.stop()
    assert "Traceback" not in errors, errors
    assert SECRET not in errors


@pytest.fixture(scope="module")
def pool() -> Iterator[urllib3.PoolManager]:
    with urllib3.PoolManager(retries=False) as one:
        yield one


@pytest.fixture(scope="module")
def bucket(wrong: Forwarder, pool: urllib3.PoolManager) -> str:
    """Make a bucket through the wrong node; return the URL of objects in it there."""
    reply = pool.request("POST", f"{wrong.url}/v1/buckets/b", body=b'{"action":"create-bck"}')
    assert reply.status == 200
    return f"{wrong.url}/v1/objects/b"


def rss_mib(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")) / 1024


def test_what_comes_back_is_what_the_home_says(home: StoreProcess, bucket: str, pool: urllib3.PoolManager) -> None:
    data = os.urandom(20_000)
    odd = f"{bucket}/a%20b/%C3%A4%2F%3F"
    assert pool.request("PUT", odd, body=data, headers={"ais-custom-md": "a=b"}).status == 200
    direct = home.endpoint + odd[odd.index("/v1/") :]
    for method, url, headers in (
        ("GET", "", {}), ("HEAD", "", {}), ("GET", "", {"range": "bytes=5-9"}), ("GET", "?provider=ais", {}),
        ("GET", "", {"range": "bytes=90000-"}), ("HEAD", "-missing", {}), ("GET", "-missing", {}),
        ("GET", "", {"if-none-match": "*"}), ("PATCH", "", {}), ("GET", "?provider=nonsense", {}),
    ):  # fmt: skip
        here = pool.request(method, odd + url, headers={**headers, "x-request-id": "mine"})
        there = pool.request(method, direct + url, headers={**headers, **NODE, "x-request-id": "mine"})
        assert (here.status, here.reason) == (there.status, there.reason)
        varying = {"date", "hdr-error", "content-length"} if here.status >= 400 else {"date"}
        assert {k: v for k, v in here.headers.items() if k not in varying} == {
            k: v for k, v in there.headers.items() if k not in varying
        }
        assert here.headers["x-request-id"] == "mine"
        if here.status < 400:
            assert here.data == there.data
        elif method != "HEAD":
            told = [{**reply.json(), "remote_addr": ""} for reply in (here, there)]
            assert told[0] == told[1]


def test_the_requests_id_is_the_same_at_both_nodes(home: StoreProcess, bucket: str, pool: urllib3.PoolManager) -> None:
    assert pool.request("PUT", f"{bucket}/traced", body=b"x", headers={"x-request-id": "trace-me"}).status == 200
    line = next(line for line in home.errors().splitlines() if "trace-me" in line)
    assert "/v1/objects/b/traced" in line


def test_a_large_object_passes_in_flat_memory(bucket: str, wrong: Forwarder, pool: urllib3.PoolManager) -> None:
    size = int(os.environ.get("AIS_TEST_FORWARD_MIB", "256"))
    piece = os.urandom(1 << 20)
    pool.request("PUT", f"{bucket}/warm", body=piece * 4)
    before = rss_mib(wrong.pid())
    headers = {"content-length": str(size << 20)}
    assert pool.request("PUT", f"{bucket}/large", body=(piece for _ in range(size)), headers=headers).status == 200
    assert pool.request("PUT", f"{bucket}/chunked", body=(piece for _ in range(16)), chunked=True).status == 200
    reply = pool.request("GET", f"{bucket}/large", preload_content=False)
    got = 0
    for data in reply.stream(1 << 20):
        assert data == piece
        got += 1
    reply.release_conn()
    assert got == size
    assert pool.request("GET", f"{bucket}/chunked").data == piece * 16
    assert rss_mib(wrong.pid()) - before < 100


def test_a_client_that_leaves_its_upload_ends_it_at_the_home(
    home: StoreProcess, bucket: str, wrong: Forwarder, pool: urllib3.PoolManager
) -> None:
    head = b"PUT /v1/objects/b/cut HTTP/1.1\r\nhost: 127.0.0.1\r\n"
    with socket.create_connection(("127.0.0.1", wrong.port)) as client:
        client.sendall(head + b"content-length: 50000000\r\n\r\n" + bytes(9 << 20))
    with socket.create_connection(("127.0.0.1", wrong.port)) as client:
        client.sendall(head + b"transfer-encoding: chunked\r\n\r\n5\r\nhello\r\n")
    wait_until(lambda: home.errors().count("/v1/objects/b/cut") >= 2)  # both have ended over there
    assert pool.request("GET", f"{bucket}/cut").status == 404
    wait_until(lambda: wrong.connections() <= 1)


def wait_until(holds: Callable[[], bool], seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.02)


class Scripted:
    """A peer of few words: takes connections and hands each to a function, in a thread."""

    def __init__(self, serve: Callable[[socket.socket], None]) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        self.ended = threading.Event()
        self._serve = serve
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            while True:
                connection, _ = self.listener.accept()
                try:
                    with connection:
                        connection.settimeout(30)
                        read_head(connection)
                        self._serve(connection)
                except ConnectionError:
                    pass
                self.ended.set()
        except OSError:
            pass

    def stop(self) -> None:
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        self._thread.join(30)


@pytest.fixture
def behind() -> Iterator[Callable[..., tuple[Forwarder, Scripted]]]:
    """Return a function that puts a forwarder before a peer that does what a function does."""
    made: list[Forwarder | Scripted] = []

    def make(serve: Callable[[socket.socket], None], **environment: str) -> tuple[Forwarder, Scripted]:
        peer = Scripted(serve)
        node = Forwarder(peer.url, **environment)
        made.extend((peer, node))
        return node, peer

    yield make
    for one in made:
        one.stop()


def ask(node: Forwarder, method: str = "GET") -> bytes:
    """Return all that a node answers, up to the end of the connection."""
    with socket.create_connection(("127.0.0.1", node.port), 30) as client:
        client.sendall(f"{method} /v1/objects/b/x HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n\r\n".encode())
        return read_to_end(client)


@pytest.mark.parametrize(
    ("answer", "whole"),
    [
        (b"HTTP/1.1 200 OK\r\ncontent-length: 3000000\r\n\r\n" + bytes(2_000_000), b""),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n", b"\r\n0\r\n\r\n"),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n", b"\r\n0\r\n\r\n"),
    ],
)
def test_a_reply_that_the_home_cuts_is_cut_here(
    behind: Callable[..., tuple[Forwarder, Scripted]], answer: bytes, whole: bytes
) -> None:
    node, _ = behind(lambda connection: connection.sendall(answer))
    got = ask(node)
    head, _, body = got.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200")
    assert len(body) < 3_000_000
    assert not whole or not got.endswith(whole)


@pytest.mark.parametrize(
    "answer", [b"", b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhello", b"HTTP/1.1 200 OK\r\n\r\nhello", b"SMTP\r\n"]
)
def test_a_small_reply_that_fails_is_an_error_that_says_so(
    behind: Callable[..., tuple[Forwarder, Scripted]], answer: bytes
) -> None:
    node, _ = behind(lambda connection: connection.sendall(answer))
    got = ask(node)
    assert got.startswith(b"HTTP/1.1 503 ")
    assert b'"tcode":"ErrPeerUnreachable"' in got
    assert b"retry-after: 1" in got.lower()


def test_a_home_that_hangs_or_stalls_ends_in_time(behind: Callable[..., tuple[Forwarder, Scripted]]) -> None:
    node, peer = behind(lambda connection: read_to_end(connection), ANSWER_SECONDS="0.5")
    assert ask(node).startswith(b"HTTP/1.1 503 ")
    assert peer.ended.wait(30)

    def stalls(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 3000000\r\n\r\n" + bytes(1000))
        read_to_end(connection)

    node, peer = behind(stalls, STALL_SECONDS="0.5")
    assert ask(node).startswith(b"HTTP/1.1 200 ")
    assert peer.ended.wait(30)


@pytest.mark.parametrize("method", ["GET", "PUT"])
def test_a_client_that_goes_away_ends_the_forwarded_request(
    behind: Callable[..., tuple[Forwarder, Scripted]], method: str
) -> None:
    asked = threading.Event()

    def hangs(connection: socket.socket) -> None:
        asked.set()
        read_to_end(connection)

    node, peer = behind(hangs)
    with socket.create_connection(("127.0.0.1", node.port), 30) as client:
        body = "content-length: 5\r\n\r\nhello" if method == "PUT" else "\r\n"
        client.sendall(f"{method} /v1/objects/b/x HTTP/1.1\r\nhost: 127.0.0.1\r\n{body}".encode())
        assert asked.wait(30)
    assert peer.ended.wait(30)
    wait_until(lambda: node.connections() == 0)


def test_a_reply_whose_client_goes_away_is_not_read_to_its_end(
    behind: Callable[..., tuple[Forwarder, Scripted]],
) -> None:
    def endless(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000000000\r\n\r\n")
        while True:
            connection.sendall(bytes(1 << 20))

    node, peer = behind(endless)
    with socket.create_connection(("127.0.0.1", node.port), 30) as client:
        client.sendall(b"GET /v1/objects/b/x HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n")
        read_head(client)
    assert peer.ended.wait(30)
    wait_until(lambda: node.connections() == 0)


def test_headers_of_one_connection_stay_there(behind: Callable[..., tuple[Forwarder, Scripted]]) -> None:
    heads: list[bytes] = []
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        connection, _ = listener.accept()
        with connection:
            heads.append(read_head(connection))
            connection.sendall(
                b"HTTP/1.1 200 OK\r\nconnection: keep-alive, x-one\r\nkeep-alive: timeout=5\r\nx-one: 1\r\nx-two: 2\r\n"
                b"content-length: 0\r\n\r\n"
            )

    thread = threading.Thread(target=serve)
    thread.start()
    node = Forwarder(f"http://127.0.0.1:{listener.getsockname()[1]}")
    try:
        with socket.create_connection(("127.0.0.1", node.port), 30) as client:
            client.sendall(
                b"GET /x?y HTTP/1.1\r\nhost: elsewhere\r\nconnection: close, x-hop\r\nx-hop: 1\r\n"
                b"x-end: 2\r\nte: trailers\r\n"
                b"authorization: Bearer of-a-user\r\nais-cluster-secret: guessed\r\nais-hop: evil;9\r\n\r\n"
            )
            answer = read_to_end(client).lower()
        thread.join(30)
    finally:
        listener.close()
        node.stop()
    assert b"x-two: 2" in answer
    assert b"x-one" not in answer
    assert b"keep-alive: " not in answer
    (head,) = heads
    assert head.startswith(b"GET /x?y HTTP/1.1\r\n")
    for absent in (b"x-hop", b"elsewhere", b"of-a-user", b"guessed", b"evil", b"te:"):
        assert absent not in head
    assert b"x-end: 2" in head
    assert f"ais-cluster-secret: {SECRET}\r\nais-hop: forwarder;7\r\n".encode() in head


def test_a_stopped_home_is_given_up_and_found_again(new_store: NewStore, pool: urllib3.PoolManager) -> None:
    store = new_store(arguments=("--workers", "1"), env={"AIS_CLUSTER_SECRET": SECRET})
    node = Forwarder(store.endpoint, ANSWER_SECONDS="0.5")
    try:
        assert pool.request("POST", f"{node.url}/v1/buckets/b", body=b'{"action":"create-bck"}').status == 200
        worker = next(pid for pid, command in store.children().items() if "http_worker" in command)
        os.kill(worker, signal.SIGSTOP)
        try:
            assert pool.request("GET", f"{node.url}/v1/buckets/b").status == 503
            told = pool.request("GET", f"{node.url}/v1/buckets/b")
            assert b"a moment ago" in told.data
        finally:
            os.kill(worker, signal.SIGCONT)
        wait_until(lambda: pool.request("HEAD", f"{node.url}/v1/buckets/b").status == 200)
        store.end()
        assert b"ErrPeerUnreachable" in pool.request("GET", f"{node.url}/v1/buckets/b").data
    finally:
        assert "Traceback" not in node.stop()


@pytest.mark.parametrize(
    ("path", "headers", "status", "told"),
    [
        ("/v1/internal/x", {}, 401, "the cluster's secret is missing"),
        ("/v1/%69nternal/x", {}, 401, "the cluster's secret is missing"),
        ("/v1/internal/x", {"authorization": f"Bearer {TOKEN}"}, 401, "the cluster's secret is missing"),
        ("/v1/internal/x", {"ais-cluster-secret": "wrong"}, 403, "is not this node's"),
        ("/v1/internal/x", {"ais-cluster-secret": f"{SECRET}x"}, 403, "is not this node's"),
        ("/v1/internal/x", {"ais-cluster-secret": "\xff"}, 403, "is not this node's"),
        ("/v1/internal/x", {"ais-cluster-secret": ""}, 403, "is not this node's"),
        ("/v1/internal/x", NODE, 404, "no such path"),
        ("/v1/buckets/b", {"ais-hop": "other;3"}, 401, "the cluster's secret is missing"),
        ("/v1/buckets/b", {"ais-hop": "other;3", "authorization": f"Bearer {TOKEN}"}, 401, "secret is missing"),
        ("/v1/buckets/b", {**NODE, "ais-cluster-secret": "wrong", "authorization": f"Bearer {TOKEN}"}, 403, "not this"),
        ("/v1/buckets/b", {}, 401, "token required"),
        ("/v1/objects/none/x", NODE, 404, "does not exist"),
    ],
)
def test_who_may_call_as_a_node(
    home: StoreProcess, pool: urllib3.PoolManager, path: str, headers: dict[str, str], status: int, told: str
) -> None:  # fmt: skip
    reply = pool.request("GET", home.endpoint + path, headers=headers)
    assert reply.status == status
    assert told in reply.json()["message"]
    assert SECRET not in str(reply.headers) + reply.data.decode()


def test_a_kept_reply_is_not_for_those_who_only_claim_to_be_a_node(
    home: StoreProcess, bucket: str, pool: urllib3.PoolManager
) -> None:
    assert pool.request("PUT", f"{bucket}/kept", body=b"data").status == 200
    url = f"{home.endpoint}/v1/objects/b/kept"
    for _ in range(3):
        assert pool.request("GET", url, headers=NODE).data == b"data"
    for headers in ({}, {**NODE, "ais-cluster-secret": "wrong"}, {"ais-hop": "other;3"}):
        assert pool.request("GET", url, headers=headers).status in (401, 403)


def test_a_store_without_a_cluster_takes_no_calls_of_nodes(store: StoreProcess, pool: urllib3.PoolManager) -> None:
    for path, headers in (("/v1/internal/x", {}), ("/v1/health", NODE), ("/v1/health", {"ais-cluster-secret": ""})):
        reply = pool.request("GET", store.endpoint + path, headers=headers)
        assert reply.status == 403
        assert "not a node of a cluster" in reply.json()["message"]

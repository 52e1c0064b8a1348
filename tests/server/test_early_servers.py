"""Objects that are sent to a transform's server before the event loop hears of them: every end that they can take.

Replies that are made early have no id of their request; the ordinary way gives one. What goes wrong on a connection is
tried both ways in ``tests/etl/test_server_trouble.py`` as well.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import pytest
from early import EarlyStore, is_early
from hosts import needs

from aistore.testing import StoreProcess

NewStore = Callable[..., StoreProcess]

#: Does what its arguments say, on connections that it keeps.
SERVER = r"""
import os, socket, sys, threading, time, urllib.parse

def reply(body, status="200 OK", *headers):
    return "\r\n".join(["HTTP/1.1 " + status, "Content-Length: %d" % len(body), *headers, "", ""]).encode() + body

def serve(connection):
    file = connection.makefile("rb")
    while True:
        line = file.readline()
        if not line:
            return
        method, target, _ = line.decode().split()
        size = 0
        while True:
            header = file.readline().strip().lower()
            if not header:
                break
            if header.startswith(b"content-length:"):
                size = int(header[15:])
            if header.startswith(b"ais-etl-seed:"):
                seed = header[13:].strip()
        body = file.read(size)
        args = dict(urllib.parse.parse_qsl(target.partition("?")[2])).get("etl_args", "")
        word, _, rest = args.partition(" ")
        good = reply(MARK + target.partition("?")[0].encode() + b" " + body[:20])
        if word == "sleep":
            time.sleep(float(rest))
        if word == "large":
            connection.sendall(reply(bytes(int(rest))))
        elif word == "seed":
            connection.sendall(reply(seed))
        elif word == "fail":
            connection.sendall(reply(b"not this one", "400 Bad"))
        elif word == "put":
            connection.sendall(b"HTTP/1.1 204 No Content\r\n\r\n")
        elif word == "chunks":
            connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nwords\r\n0\r\n\r\n")
        elif word == "pieces":
            for at in range(len(good)):
                connection.sendall(good[at : at + 1])
                time.sleep(0.0001)
        elif word == "garbage":
            connection.sendall(b"SSH-2.0-OpenSSH_9.2p1\r\n")
        elif word == "half":
            connection.sendall(reply(b"x" * 500)[:-20])
            return connection.shutdown(2)
        elif word == "nothing":
            return connection.shutdown(2)
        elif word == "more":
            connection.sendall(good + b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nother")
        elif word == "once" and os.path.exists("once"):
            os.unlink("once")
            return connection.shutdown(2)
        elif word == "make-once":
            open("once", "w").close()
            connection.sendall(good)
        elif word == "last":
            connection.sendall(good)
            return connection.shutdown(2)
        elif word == "close":
            connection.sendall(reply(b"closing", "200 OK", "Connection: close"))
            return connection.shutdown(2)
        elif word == "die":
            os._exit(3)
        else:
            connection.sendall(good)

listener = socket.create_server(("127.0.0.1", int(os.environ["PORT"])), backlog=128)
while True:
    threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()
"""

pytestmark = [needs("memfd"), needs("namespaces")]


class Transform(EarlyStore):
    """With a transform that is a server."""

    def init(self, mark: str) -> None:
        message = {
            "name": "does-it", "communication": "hpush://", "init_timeout": "60s", "obj_timeout": "2s",
            "support_direct_put": False,
            "runtime": {"image": "", "command": [sys.executable, "-c", f"MARK = {mark.encode()!r}\n{SERVER}"]},
        }  # fmt: skip
        reply = self.call("PUT", "/v1/etl", json.dumps(message).encode())
        assert reply.status == 200, reply.data


@pytest.fixture(scope="module")
def transform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Transform]:
    with StoreProcess(str(tmp_path_factory.mktemp("data")), arguments=("--workers", "1")) as store:
        yield Transform(store)


def test_a_quick_result_is_the_reply(transform: Transform) -> None:
    transform.warm()
    for args in ("", "with arguments & more", "large 0", "large 300000", "pieces", "close"):
        transform.get_early(args)
        transform.warm()
    reply = transform.get()
    assert reply.data == b"1 /b/o " + b"x" * 20
    assert reply.headers["content-length"] == str(len(reply.data))


def test_many_at_once_get_their_own(transform: Transform) -> None:
    for number in range(50):
        transform.put(b"%03d" % number * 5000, f"many-{number}")
    before = transform.numbers()["ais_etl_object_count"]
    with ThreadPoolExecutor(32) as threads:
        replies = list(threads.map(lambda number: transform.get(name=f"many-{number % 50}"), range(1500)))
    for number, reply in enumerate(replies):
        assert reply.data == b"1 /b/many-%d " % (number % 50) + (b"%03d" % (number % 50) * 7)[:20]
    assert any(is_early(reply) for reply in replies)
    after = transform.numbers()
    assert after["ais_etl_object_count"] - before == 1500
    assert (after["ais_etl_inflight_objects"], after["ais_etl_busy_workers"]) == (0, 0)


@pytest.mark.parametrize(
    ("args", "status", "part"),
    [
        ("sleep 0.3", 200, "1 /b/o xxx"),
        ("sleep 100", 422, "did not answer within 2 s"),
        ("fail", 422, "not this one"),
        ("put", 200, ""),
        ("chunks", 200, "words"),
        ("garbage", 422, "a reply that cannot be used"),
        ("half", 422, "in the middle of its reply"),
        ("nothing", 422, "before it answered"),
        ("more", 200, "1 /b/o xxx"),
        ("last", 200, "1 /b/o xxx"),
        ("large 3000000", 200, "\0\0"),
        ("large 600000", 200, "\0\0"),
    ],
)
def test_what_else_can_come(transform: Transform, args: str, status: int, part: str) -> None:
    for _ in range(3):
        transform.warm()
        reply = transform.get(args)
        assert (reply.status, part in reply.data.decode()) == (status, True), reply.data[:500]
        assert not part.startswith("1 ") or reply.data == b"1 /b/o " + b"x" * 20
    # Nothing of it is left on a connection that another object takes.
    for number in range(20):
        transform.put(b"%03d" % number, f"after-{number}")
        assert transform.get(name=f"after-{number}").data == b"1 /b/after-%d %03d" % (number, number)
    assert transform.numbers()["ais_etl_inflight_objects"] == 0


def test_a_seed_goes_along(transform: Transform) -> None:
    transform.warm()
    seeds = []
    for seed in ("1", "1", "2"):
        reply = transform.get_early("seed", seed=seed)
        assert len(reply.data) == 64
        seeds.append(reply.data)
    assert seeds[0] == seeds[1] != seeds[2]


def test_an_object_whose_connection_ended_is_sent_again(transform: Transform) -> None:
    assert transform.get("make-once").status == 200
    reply = transform.get("once")
    assert (reply.status, reply.data) == (200, b"1 /b/o " + b"x" * 20)


def test_a_connection_that_the_server_ended_meanwhile(transform: Transform) -> None:
    for _ in range(20):
        assert transform.get("last").status == 200
        reply = transform.get()
        assert (reply.status, reply.data) == (200, b"1 /b/o " + b"x" * 20)


def test_a_server_that_dies_is_there_again(transform: Transform) -> None:
    transform.warm()
    assert transform.get("die").status in (422, 503)
    deadline = time.monotonic() + 30
    while transform.get().status != 200 and time.monotonic() < deadline:
        time.sleep(0.05)
    transform.get_early()


@pytest.mark.parametrize("size", [0, 1, 16 << 10, 256 << 10, (256 << 10) + 1, 3 << 20])
def test_objects_of_all_sizes(transform: Transform, size: int) -> None:
    transform.put(b"y" * size, "sized")
    for _ in range(2):
        assert transform.get(name="sized").data == b"1 /b/sized " + b"y" * min(size, 20)


def test_clients_that_leave_hold_nothing(transform: Transform) -> None:
    parts = urlsplit(transform.store.endpoint)
    for _ in range(8):
        transform.warm()
        with socket.create_connection((parts.hostname, parts.port), timeout=60) as connection:
            path = "/v1/objects/b/o?etl_name=does-it&etl_args=sleep+1.5"
            connection.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    deadline = time.monotonic() + 30
    while transform.numbers()["ais_etl_inflight_objects"] and time.monotonic() < deadline:
        time.sleep(0.02)
    numbers = transform.numbers()
    assert (numbers["ais_etl_inflight_objects"], numbers["ais_etl_busy_workers"]) == (0, 0)
    transform.warm()
    transform.get_early()


def test_a_transform_that_is_made_anew_under_its_objects(transform: Transform) -> None:
    """Each result is of one of them, and after the change of the new one."""
    stop, replies = threading.Event(), []

    def read() -> None:
        while not stop.is_set():
            replies.append(transform.get("sleep 0.01"))

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        for number in range(2, 5):
            assert transform.call("DELETE", "/v1/etl/does-it").status == 200
            transform.init(f"{number} ")
            assert transform.get().data[:2] == b"%d " % number
    finally:
        stop.set()
        for thread in threads:
            thread.join()
        assert transform.call("DELETE", "/v1/etl/does-it").status == 200
        transform.init("1 ")
        transform.warm()
    assert {reply.status for reply in replies} <= {200, 404, 409, 422, 503}
    assert {reply.data[:2] for reply in replies if reply.status == 200} <= {b"1 ", b"2 ", b"3 ", b"4 "}


def test_no_descriptor_is_left(transform: Transform) -> None:
    def count() -> int:
        return sum(len(os.listdir(f"/proc/{pid}/fd")) for pid in http_workers(transform.store.pid))

    deadline = time.monotonic() + 30
    for _ in range(3):
        transform.get()
    before = count()
    for args in ("", "fail", "half", "nothing", "more", "sleep 0.1", "large 3000000") * 3:
        transform.get(args)
    transform.warm()
    while count() > before and time.monotonic() < deadline:
        time.sleep(0.05)
    assert count() <= before


def http_workers(pid: int) -> list[int]:
    found = []
    with open(f"/proc/{pid}/task/{pid}/children") as file:
        for child in file.read().split():
            with open(f"/proc/{child}/cmdline") as command:
                if "http_worker" in command.read():
                    found.append(int(child))
    return found

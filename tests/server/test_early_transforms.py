"""Objects that are sent to a transform before the event loop hears of them: every end that such a request can take."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import pytest
import urllib3
from early import EarlyStore, is_early
from hosts import needs

from aistore.testing import StoreProcess
from aistore.wire.messages import encode_base64

NewStore = Callable[..., StoreProcess]

#: Does what its arguments say.
CODE = """
import os, random, time

def transform(data, etl_args):
    word, _, number = etl_args.partition(" ")
    if word == "sleep":
        time.sleep(float(number))
    elif word == "large":
        return bytes(int(number))
    elif word == "fail":
        raise ValueError("not this one")
    elif word == "die":
        os._exit(3)
    elif word == "random":
        time.sleep(float(number))
        return random.randbytes(10)
    elif word == "write":
        with open(number, "w") as file:
            file.write(str(os.getpid()))
        time.sleep(600)
    return b"1 " + data[:20]
"""

pytestmark = needs("memfd")


class Transform(EarlyStore):
    """With a transform made of code, of two workers."""

    def init(self, mark: str) -> None:
        code = CODE.replace('b"1 "', f"{mark.encode()!r}")
        message = {"id": "does-it", "code": encode_base64(code), "communication_type": "hpush://", "workers": 2}
        body = json.dumps({**message, "obj_timeout": "2s", "sandbox": "off"}).encode()
        reply = self.call("POST", "/v1/etl/init_code", body)
        assert reply.status == 200, reply.data


@pytest.fixture(scope="module")
def transform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Transform]:
    with StoreProcess(str(tmp_path_factory.mktemp("data")), arguments=("--workers", "1")) as store:
        yield Transform(store)


def test_a_quick_result_is_the_reply(transform: Transform) -> None:
    reply = transform.get_early()
    assert reply.data == b"1 " + b"x" * 20
    assert reply.headers["content-length"] == "22"
    assert transform.get("with arguments").data == reply.data


def test_many_at_once_get_their_own(transform: Transform) -> None:
    for number in range(50):
        assert transform.call("PUT", f"/v1/objects/b/many-{number}", b"%03d" % number * 5000).status == 200
    before = transform.numbers()["ais_etl_object_count"]
    with ThreadPoolExecutor(16) as threads:
        replies = list(threads.map(lambda number: transform.get(name=f"many-{number % 50}"), range(1000)))
    for number, reply in enumerate(replies):
        assert reply.data == b"1 " + (b"%03d" % (number % 50) * 7)[:20]
    after = transform.numbers()
    assert after["ais_etl_object_count"] - before == 1000
    assert (after["ais_etl_inflight_objects"], after["ais_etl_busy_workers"]) == (0, 0)


def test_one_that_takes_its_time(transform: Transform) -> None:
    reply = transform.get("sleep 0.3")
    assert (reply.status, reply.data[:2], is_early(reply)) == (200, b"1 ", False)


def test_one_that_takes_too_long(transform: Transform) -> None:
    reply = transform.get("sleep 100")
    assert reply.status == 422
    assert "longer than 2 s" in reply.json()["message"]
    transform.get_early()


def test_one_that_fails(transform: Transform) -> None:
    reply = transform.get("fail")
    assert reply.status == 422
    assert "not this one" in reply.json()["message"]
    assert "does-it" in reply.json()["message"]


def test_one_that_dies(transform: Transform) -> None:
    reply = transform.get("die")
    assert reply.status == 422
    assert "exit" in reply.json()["message"]
    assert transform.get().status == 200


@pytest.mark.parametrize("size", [0, 1, 1 << 20, (1 << 20) + 1, 5 << 20])
def test_results_of_all_sizes(transform: Transform, size: int) -> None:
    assert transform.get(f"large {size}").data == bytes(size)


@pytest.mark.parametrize("size", [0, 1, 256 << 10, (256 << 10) + 1, 3 << 20])
def test_objects_of_all_sizes(transform: Transform, size: int) -> None:
    transform.put(b"y" * size)
    assert transform.get().data == b"1 " + b"y" * min(size, 20)


def test_more_than_can_be_under_way(transform: Transform) -> None:
    """Those beyond go the ordinary way, and so do those that wait for a worker for long."""
    transform.put(b"z" * 100)
    with ThreadPoolExecutor(300) as threads:
        replies = list(threads.map(lambda _: transform.get("sleep 0.01"), range(600)))
    assert {(reply.status, reply.data) for reply in replies} == {(200, b"1 " + b"z" * 20)}
    assert transform.numbers()["ais_etl_inflight_objects"] == 0


def test_a_client_that_leaves_gives_its_worker_back(transform: Transform, tmp_path: object) -> None:
    parts = urlsplit(transform.store.endpoint)
    mark = f"{tmp_path}/pid"
    with socket.create_connection((parts.hostname, parts.port), timeout=60) as connection:
        path = f"/v1/objects/b/o?etl_name=does-it&etl_args=write+{mark}"
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        pid = 0
        deadline = time.monotonic() + 30
        while not pid and time.monotonic() < deadline:
            with contextlib.suppress(OSError, ValueError), open(mark) as file:
                pid = int(file.read())
    while os.path.exists(f"/proc/{pid}") and time.monotonic() < deadline:
        time.sleep(0.01)
    assert pid
    assert not os.path.exists(f"/proc/{pid}")
    assert transform.get().status == 200


def test_a_transform_that_is_made_anew_under_its_objects(transform: Transform) -> None:
    """Each result is of one of them, and after the change of the new one."""
    stop, replies = threading.Event(), []

    def read() -> None:
        while not stop.is_set():
            replies.append(transform.get("sleep 0.02"))

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        for number in range(2, 5):
            assert transform.call("DELETE", "/v1/etl/does-it").status == 200
            transform.init(f"{number} ")
            reply = transform.get()
            assert reply.data[:2] == b"%d " % number
    finally:
        stop.set()
        for thread in threads:
            thread.join()
        assert transform.call("DELETE", "/v1/etl/does-it").status == 200
        transform.init("1 ")
        transform.get()
    assert {reply.status for reply in replies} <= {200, 404, 409, 503}
    assert {reply.data[:2] for reply in replies if reply.status == 200} <= {b"1 ", b"2 ", b"3 ", b"4 "}


def test_what_else_a_request_may_ask_for_goes_the_ordinary_way(transform: Transform) -> None:
    url = f"{transform.store.endpoint}/v1/objects/b/o"
    ask = transform.pool.request
    assert ask("GET", url, fields={"uuid": "does-it"}, headers={"range": "bytes=0-1"}).status == 400
    assert ask("GET", url, fields={"uuid": "does-it"}, headers={"if-match": "x"}).status in (400, 412, 501)
    assert ask("GET", url, fields={"uuid": "no-such-etl"}).status == 404
    assert ask("GET", f"{url}-missing", fields={"uuid": "does-it"}).status == 404
    assert ask("GET", url, fields={"uuid": "does-it", "archpath": "a"}).status == 501
    assert ask("GET", url, fields={"etl_name": "does-it", "etl_pipeline": "does-it"}).status == 400
    assert ask("HEAD", url, fields={"uuid": "does-it"}).status == 400
    marked = ask("GET", url, fields={"uuid": "does-it"}, headers={"x-request-id": "mine"})
    assert marked.headers["x-request-id"] == "mine"


def test_a_seed_is_the_same_either_way(transform: Transform) -> None:
    """What takes its time ends the ordinary way, and the first one of a store begins there."""
    transform.put(b"drawn for")

    drawn = transform.get_early("random 0", seed="1").data
    assert transform.get_early("random 0", seed="1").data == drawn
    assert transform.get_early("random 0", seed="2").data != drawn
    slow = transform.get("random 0.3", seed="1")
    assert not is_early(slow)
    assert transform.get("random 0.3", seed="1").data == slow.data
    with StoreProcess(arguments=("--workers", "1")) as store:
        other = Transform(store)
        other.put(b"drawn for")
        assert other.call("DELETE", "/v1/etl/does-it").status == 200
        other.init("1 ")
        assert other.get("random 0.3", seed="1").data == slow.data
        assert other.get_early("random 0", seed="1").data == drawn


def test_no_descriptor_is_left(transform: Transform) -> None:
    def count() -> int:
        return sum(len(os.listdir(f"/proc/{pid}/fd")) for pid in http_workers(transform.store.pid))

    for _ in range(3):
        transform.get()
    before = count()
    for args in ("", "fail", "die", "sleep 0.1", "large 3000000") * 5:
        transform.get(args)
    deadline = time.monotonic() + 20
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


def test_a_stranger_gets_nothing(new_store: NewStore) -> None:
    store = new_store(arguments=("--workers", "1"), env={"AIS_AUTHN_TOKEN": "not-a-secret"})
    token = {"authorization": "Bearer not-a-secret"}
    with urllib3.PoolManager(retries=False) as pool:
        base = store.endpoint
        pool.request("POST", f"{base}/v1/buckets/b", body=b'{"action":"create-bck"}', headers=token)
        pool.request("PUT", f"{base}/v1/objects/b/o", body=b"private", headers=token)
        message = {"id": "does-it", "code": encode_base64(CODE), "communication_type": "hpush://"}
        body = json.dumps(message).encode()
        assert pool.request("POST", f"{base}/v1/etl/init_code", body=body, headers=token).status == 200
        for headers, status in ((token, 200), ({}, 401), ({"authorization": "Bearer x"}, 401), (token, 200)):
            reply = pool.request("GET", f"{base}/v1/objects/b/o", fields={"uuid": "does-it"}, headers=headers)
            assert reply.status == status
            assert (b"private" in reply.data) == (status == 200)
        foreign = {**token, "host": "attacker.example"}
        assert pool.request("GET", f"{base}/v1/objects/b/o?uuid=does-it", headers=foreign).status == 403

"""Verbs on one ETL at the same time, and the death of its processes under load."""

from __future__ import annotations

import errno
import json
import os
import signal
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import pytest
import urllib3
from hosts import needs

from aistore.errors import RetryLaterError
from aistore.server.error_replies import as_ais_error
from aistore.testing import StoreProcess
from aistore.wire.messages import encode_base64

COPY = "def transform(data):\n    return data\n"
SLOW_TO_IMPORT = "import time\ntime.sleep(600)\n" + COPY


class Etl:
    """The ETL verbs over HTTP; each call on a connection of its own."""

    def __init__(self, store: StoreProcess) -> None:
        self.endpoint, self.url = store.endpoint, f"{store.endpoint}/v1/etl"
        bucket = f"b-{uuid.uuid4().hex[:12]}"
        self.object = f"{store.endpoint}/v1/objects/{bucket}/x"
        self.batch = f"{store.endpoint}/v1/batch/{bucket}"
        assert self.call("POST", f"{store.endpoint}/v1/buckets/{bucket}", b'{"action":"create-bck"}').status == 200
        assert self.call("PUT", self.object, b"x").status == 200

    def call(self, method: str, url: str, body: bytes = b"", **headers: str) -> urllib3.BaseHTTPResponse:
        with urllib3.PoolManager(retries=False, timeout=60) as pool:
            return pool.request(method, url, body=body, headers=headers)

    def init(self, name: str, code: str = COPY, **fields: object) -> urllib3.BaseHTTPResponse:
        message = {"id": name, "code": encode_base64(code), "communication_type": "hpush://", **fields}
        return self.call("POST", f"{self.url}/init_code", json.dumps(message).encode())

    def delete(self, name: str) -> urllib3.BaseHTTPResponse:
        return self.call("DELETE", f"{self.url}/{name}")

    def stage(self, name: str) -> str:
        reply = self.call("GET", self.url)
        if reply.status == 503:  # a controller that was killed is not back yet
            return ""
        return str({entry["id"]: entry["stage"] for entry in reply.json()}.get(name, ""))


@pytest.fixture
def etl(store: StoreProcess) -> Iterator[Etl]:
    made = Etl(store)
    yield made
    for entry in made.call("GET", made.url).json():
        made.delete(entry["id"])


def at_once(*calls: Callable[[], urllib3.BaseHTTPResponse]) -> list[int]:
    with ThreadPoolExecutor(len(calls)) as threads:
        return [future.result().status for future in [threads.submit(call) for call in calls]]


def test_one_init_of_a_name_wins_and_every_delete_is_answered(etl: Etl) -> None:
    for _ in range(3):
        assert sorted(at_once(*[lambda: etl.init("same-name")] * 4)) == [200, 409, 409, 409]
        assert etl.call("GET", f"{etl.object}?uuid=same-name").data == b"x"
        assert set(at_once(*[lambda: etl.delete("same-name")] * 4)) <= {200, 404}
        assert etl.stage("same-name") == ""


@pytest.mark.parametrize("verb", ["stop", "delete"])
def test_an_init_that_is_called_off_ends_at_once(etl: Etl, verb: str) -> None:
    """While its code is imported, which here would take minutes."""
    replies = []
    message = {"id": "called-off", "code": encode_base64(SLOW_TO_IMPORT), "communication_type": "hpush://"}
    importing = threading.Event()

    def init() -> None:
        with urllib3.PoolManager(retries=False, timeout=60) as pool:
            reply = pool.request(
                "POST", f"{etl.url}/init_code", body=json.dumps(message).encode(),
                headers={"Accept": "application/x-ndjson"}, preload_content=False,
            )  # fmt: skip
            for line in reply:
                replies.append(json.loads(line))
                if replies[-1].get("stage") == "importing":
                    importing.set()

    thread = threading.Thread(target=init)
    thread.start()
    assert importing.wait(60)
    if verb == "stop":
        assert etl.call("POST", f"{etl.url}/called-off/stop").status == 200
    else:
        assert etl.delete("called-off").status == 200
    thread.join(60)
    assert not thread.is_alive()
    assert "was stopped while it was being made ready" in replies[-1]["error"]["message"]
    assert etl.stage("called-off") == ""
    reply = etl.init("called-off")
    assert reply.status == 200, reply.data  # nothing of the first one is in the way
    assert etl.call("GET", f"{etl.object}?uuid=called-off").data == b"x"


def test_stops_and_starts_in_any_order(etl: Etl) -> None:
    assert etl.init("in-any-order").status == 200
    base = f"{etl.url}/in-any-order"

    def verbs() -> urllib3.BaseHTTPResponse:
        for _ in range(4):
            for verb in ("stop", "start"):
                reply = etl.call("POST", f"{base}/{verb}")
                assert reply.status in (200, 400, 409), reply.data  # 400: stopped by another while it started
            reply = etl.call("GET", f"{etl.object}?uuid=in-any-order")
            assert reply.status in (200, 409, 503), reply.data
        return reply

    at_once(*[verbs] * 4)
    etl.call("POST", f"{base}/start")
    assert etl.stage("in-any-order") == "Running"
    assert etl.call("GET", f"{etl.object}?uuid=in-any-order").data == b"x"


@needs("parent-death-signal")  # inside a pid namespace nobody sees that the guard outside of it has gone
def test_objects_under_way_when_the_transform_is_killed(etl: Etl, store: StoreProcess) -> None:
    """They are not at fault: a client is told to come again, and can."""
    never_ends = "def transform(data, etl_args):\n    while etl_args:\n        pass\n    return data\n"
    assert etl.init("killed-twice", never_ends, workers=2).status == 200
    for _ in range(2):
        with ThreadPoolExecutor(2) as threads:
            url = f"{etl.object}?uuid=killed-twice&etl_args=1"
            waiting = [threads.submit(etl.call, "GET", url) for _ in range(2)]
            guard = guard_of(store)
            until(lambda guard=guard: busy_workers(guard) == 2)
            os.kill(guard, signal.SIGKILL)
            replies = [future.result() for future in waiting]
        assert [reply.status for reply in replies] == [503, 503], [reply.data for reply in replies]
        assert replies[0].headers["retry-after"]
        while (reply := etl.call("GET", f"{etl.object}?uuid=killed-twice")).status == 503:
            time.sleep(0.01)  # as it was told
        assert reply.data == b"x"


def until(condition: Callable[[], bool], seconds: float = 30) -> None:
    """Wait for something that the store does by itself."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_transforms_come_back_with_a_killed_controller(new_store: Callable[..., StoreProcess]) -> None:
    store = new_store()
    etl = Etl(store)
    assert etl.init("comes-back").status == 200
    for _ in range(2):
        controller = next(pid for pid, command in store.children().items() if "controller" in command)
        os.kill(controller, signal.SIGKILL)
        until(lambda killed=controller: killed not in store.children())
        while (reply := etl.call("GET", f"{etl.object}?uuid=comes-back")).status == 503:
            time.sleep(0.01)
        assert reply.data == b"x"
        until(lambda: etl.stage("comes-back") == "Running")
    assert "Traceback" not in store.errors()


def guard_of(store: StoreProcess) -> int:
    """Return the pid of the only guard that the store has."""
    controller = next(pid for pid, command in store.children().items() if "controller" in command)
    (guard,) = children_of(controller)
    return guard


def children_of(pid: int) -> list[int]:
    found: list[int] = []
    for task in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{task}/children", encoding="ascii") as file:
            found += map(int, file.read().split())
    return found


def busy_workers(guard: int) -> int:
    """Return how many workers have used the processor for a while, which waiting in accept does not."""
    (parent,) = children_of(guard)
    count = 0
    for pid in children_of(parent):
        with open(f"/proc/{pid}/stat", encoding="ascii") as file:
            count += int(file.read().rpartition(")")[2].split()[11]) > 10  # user time in ticks
    return count


def test_arguments_that_a_worker_cannot_take(etl: Etl) -> None:
    assert etl.init("long-arguments", workers=1).status == 200
    for size, status in ((60_000, 200), (70_000, 413), (1_000_000, 413)):
        body = json.dumps({"entries": [["x", "long-arguments"]], "etl_args": "a" * size}).encode()
        reply = etl.call("POST", etl.batch, body)
        assert reply.status == status
        assert status != 200 or int.from_bytes(reply.data[:2], "little") == 200
    assert etl.call("GET", f"{etl.object}?uuid=long-arguments").data == b"x"


def test_an_abandoned_batch_gives_its_workers_back(etl: Etl, store: StoreProcess) -> None:
    never_ends = "def transform(data, etl_args):\n    while etl_args:\n        pass\n    return data\n"
    assert etl.init("abandoned", never_ends, workers=1, obj_timeout="10m").status == 200
    body = json.dumps({"entries": [["x", "abandoned"]] * 20, "etl_args": "for ever"}).encode()
    parts = urlsplit(etl.batch)
    with socket.create_connection((parts.hostname, parts.port), timeout=60) as connection:
        head = f"POST {parts.path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
        connection.sendall(head.encode() + body)
        guard = guard_of(store)
        until(lambda: busy_workers(guard) == 1)
    assert etl.call("GET", f"{etl.object}?uuid=abandoned").data == b"x"


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE])
def test_a_lack_of_descriptors_passes(number: int) -> None:
    error = as_ais_error(OSError(number, os.strerror(number)))
    assert isinstance(error, RetryLaterError)
    assert error.status == 503
    assert "ulimit" in error.hint

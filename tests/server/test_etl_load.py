"""Transforms of a store that crash, that idle, that are asked how they are."""

from __future__ import annotations

import base64
import json
import os
import signal
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import urllib3
from hosts import needs
from prometheus_client.parser import text_string_to_metric_families

from aistore.etl.endings import CRASHES_MAX, CrashesInARow, how_it_ended
from aistore.testing import StoreProcess
from aistore.wire.messages import encode_base64

NAMES = [f"o{number}" for number in range(CRASHES_MAX)]
#: Ends its process for every object whose argument says so.
CRASHES = """
import os, signal, sys
print("hello from", sys.argv[1:], file=sys.stderr, flush=True)
if "die" in sys.argv:
    os.kill(os.getpid(), signal.SIGABRT)
if "wait" in sys.argv:
    while True:
        pass
print("fine")
"""
_SECONDS = 60.0


class Etl:
    """One transform of a store of its own."""

    def __init__(self, store: StoreProcess, pool: urllib3.PoolManager) -> None:
        self.endpoint, self.url = store.endpoint, f"{store.endpoint}/v1/etl"
        self._pool = pool
        self.name = f"etl-{uuid.uuid4().hex[:8]}"
        self.bucket = f"b-{uuid.uuid4().hex[:8]}"
        self.call("POST", f"{store.endpoint}/v1/buckets/{self.bucket}", b'{"action":"create-bck"}')
        for name in NAMES:
            self.call("PUT", f"{store.endpoint}/v1/objects/{self.bucket}/{name}", b"x")

    def call(self, method: str, url: str, body: bytes = b"") -> Any:
        reply = self._pool.request(method, url, body=body)
        assert reply.status == 200, reply.data
        return reply.json() if reply.headers.get("content-type", "").startswith("application/json") else reply.data

    def init(self, code: str = CRASHES, comm_type: str = "io://", **fields: object) -> None:
        message = {"id": self.name, "code": encode_base64(code), "communication_type": comm_type, **fields}
        self.call("POST", f"{self.url}/init_code", json.dumps(message).encode())

    def get(self, args: str = "", name: str = "o0") -> urllib3.BaseHTTPResponse:
        url = f"{self.endpoint}/v1/objects/{self.bucket}/{name}?etl_name={self.name}&etl_args={args}"
        return self._pool.request("GET", url)

    def ask(self, what: str) -> dict[str, Any]:
        (answer,) = self.call("GET", f"{self.url}/{self.name}/{what}")
        return dict(answer)

    def details(self) -> dict[str, Any]:
        return dict(self.call("GET", f"{self.url}/{self.name}"))

    def sample(self, metric: str) -> float:
        text = self.call("GET", f"{self.endpoint}/metrics").decode()
        samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
        names = (metric, metric.removesuffix("_total"), f"{metric}_total")  # the parser speaks OpenMetrics
        return next(
            sample.value for sample in samples if sample.name in names and sample.labels.get("etl") == self.name
        )


@pytest.fixture
def pool() -> Iterator[urllib3.PoolManager]:
    with urllib3.PoolManager(maxsize=16, retries=False, timeout=_SECONDS) as found:
        yield found


@pytest.fixture
def etl(store: StoreProcess, pool: urllib3.PoolManager) -> Iterator[Etl]:
    made = Etl(store, pool)
    yield made
    pool.request("DELETE", f"{made.url}/{made.name}")


def until(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + _SECONDS
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


# ---------------------------------------------------------------------------------------------------------- crashes


def test_a_success_begins_the_count_again() -> None:
    crashes = CrashesInARow()
    assert [crashes.note(done) for done in (0, 0, 0, 1, 1, 5)] == [1, 2, 3, 1, 2, 1]
    assert how_it_ended(signal.SIGSEGV) == "was ended by SIGSEGV"
    assert how_it_ended(3 << 8) == "ended with exit status 3"
    assert how_it_ended(None) == "ended without an answer"


@pytest.mark.parametrize("isolation", ["warm", "fork"])
def test_one_that_keeps_crashing_is_given_up_and_can_be_started_again(etl: Etl, isolation: str) -> None:
    etl.init(isolation=isolation, workers=2)
    replies = [etl.get("die", name) for name in NAMES]
    assert {reply.status for reply in replies} == {422}
    assert {reply.json()["tcode"] for reply in replies} == {"ErrETLCrash"}
    until(lambda: etl.ask("health")["health_status"] == "Aborted", "it still runs")
    reason = f"{CRASHES_MAX} objects in a row ended their worker, the last was ended by SIGABRT"
    assert etl.ask("health")["message"] == reason
    refused = etl.get()
    assert refused.status == 409
    assert reason in refused.json()["message"]
    assert "ais etl start" in refused.json()["message"] + str(refused.json())
    assert etl.details()["processes"] == 0
    assert "hello from" in base64.b64decode(etl.ask("logs")["logs"]).decode()
    etl.call("POST", f"{etl.url}/{etl.name}/start")
    assert etl.ask("health")["health_status"] == "Running"
    assert etl.get().data == b"fine\n"
    for name in NAMES[1:]:  # counted anew
        assert etl.get("die", name).status == 422
    assert etl.get().data == b"fine\n"


def test_crashes_between_successes_are_the_objects_own(etl: Etl) -> None:
    etl.init(workers=1)
    for _ in range(3):
        for name in NAMES[1:]:
            assert etl.get("die", name).status == 422
        assert etl.get().data == b"fine\n"
    assert etl.ask("health")["health_status"] == "Running"


def test_workers_that_the_store_kills_are_no_crashes(etl: Etl) -> None:
    """One that takes too long, or whose client leaves, was ended by the store."""
    etl.init(workers=2, obj_timeout="100ms")
    with ThreadPoolExecutor(4) as threads:
        replies = list(threads.map(lambda _: etl.get("wait"), range(CRASHES_MAX + 4)))
    assert {reply.json()["tcode"] for reply in replies} == {"ErrETLTimeout"}
    assert etl.ask("health")["health_status"] == "Running"


@needs("proc")
def test_a_killed_worker_is_replaced_and_its_object_tried_again(etl: Etl, store: StoreProcess) -> None:
    code = (
        "import os\ndef transform(data, etl_args):\n    while etl_args:\n        pass\n    return b'%d' % os.getpid()\n"
    )
    etl.init(code, "hpush://", workers=1, sandbox="off")
    first = int(etl.get().data)
    os.kill(first, signal.SIGKILL)
    second = int(etl.get().data)
    assert second != first


# ------------------------------------------------------------------------------------------------- how it is, how many


@needs("proc")
def test_what_it_uses_is_told(etl: Etl) -> None:
    etl.init("def transform(data):\n    return data * sum(range(200_000)).bit_length()\n", "hpush://", workers=1)
    for _ in range(50):
        assert etl.get().status == 200
    metrics = etl.ask("metrics")
    assert metrics["obj_count"] == 50
    assert metrics["mem"] > 1 << 20
    assert metrics["processes"] == 3
    assert metrics["cpu_seconds"] > 0.05
    assert metrics["cpu"] > 0
    details = etl.details()
    assert details["mem"] > 1 << 20
    assert details["processes"] == 3
    assert etl.sample("ais_etl_memory_bytes") > 1 << 20
    assert etl.sample("ais_etl_cpu_seconds_total") >= metrics["cpu_seconds"]
    assert etl.sample("ais_etl_processes") == 3
    etl.call("POST", f"{etl.url}/{etl.name}/stop")
    assert {etl.ask("metrics")[name] for name in ("cpu", "mem", "processes")} == {0}
    assert etl.sample("ais_etl_memory_bytes") == 0


@needs("fork")
def test_workers_come_with_load_and_go_with_idleness(new_store: Callable[..., StoreProcess]) -> None:
    store = new_store(arguments=("--limit", "etl_idle_seconds=0.3"))
    code = "import time\ndef transform(data, etl_args):\n    time.sleep(float(etl_args or 0))\n    return data\n"
    with urllib3.PoolManager(maxsize=16, retries=False, timeout=_SECONDS) as pool:
        etl = Etl(store, pool)
        etl.init(code, "hpush://", workers=4)
        for _ in range(2):
            with ThreadPoolExecutor(4) as threads:
                waiting = [threads.submit(etl.get, "1") for _ in range(4)]
                until(lambda: etl.sample("ais_etl_workers") == 4, "there are fewer workers than objects")
                assert [each.result().data for each in waiting] == [b"x"] * 4
            until(lambda: etl.sample("ais_etl_workers") == 0, "idle workers stay")
            until(lambda: etl.details()["processes"] == 2, "idle workers stay")
            assert etl.ask("health")["health_status"] == "Running"
            assert etl.get().data == b"x"
        assert etl.sample("ais_etl_restart_count") == 0

"""`/metrics` and `what=node_status`: they say what was done, whoever did it and whoever was killed since."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import urllib3
from prometheus_client.parser import text_string_to_metric_families

from aistore.testing import StoreProcess
from aistore.wire.messages import encode_base64

NewStore = Callable[..., StoreProcess]
RETRIES = urllib3.Retry(total=60, backoff_factor=0.1, backoff_max=0.5, status_forcelist=(503,), allowed_methods=None)
HALF = "def transform(data):\n    return data[: 20 // len(data) * 10]\n"


@pytest.fixture
def pool() -> Iterator[urllib3.PoolManager]:
    with urllib3.PoolManager(retries=RETRIES) as found:
        yield found


def scrape(pool: urllib3.PoolManager, store: StoreProcess) -> dict[tuple[str, ...], float]:
    """Return all samples by name and labels; raises ValueError if the text is not Prometheus'."""
    reply = pool.request("GET", f"{store.endpoint}/metrics")
    assert (reply.status, reply.headers["content-type"]) == (200, "text/plain; version=0.0.4; charset=utf-8")
    text = reply.data.decode()
    found = {}
    for family in text_string_to_metric_families(text):
        assert family.documentation, family.name
        assert family.type in ("counter", "gauge", "histogram"), family.name
        for sample in family.samples:
            # The parser speaks OpenMetrics: it has put "_total" behind counters that have none.
            name = sample.name if f"\n{sample.name}" in text else sample.name.removesuffix("_total")
            key = (name, *(f"{name}={value}" for name, value in sorted(sample.labels.items())))
            assert key not in found
            found[key] = sample.value
    return found


def of(samples: dict[tuple[str, ...], float], name: str, *labels: str) -> float:
    return samples.get((name, *labels), 0.0)


def use(pool: urllib3.PoolManager, store: StoreProcess) -> None:
    """Do what the tests below expect to be counted."""
    objects = f"{store.endpoint}/v1/objects/b"
    pool.request("POST", f"{store.endpoint}/v1/buckets/b", body=b'{"action":"create-bck"}')
    for number in range(10):
        assert pool.request("PUT", f"{objects}/{number}", body=b"x" * 1000).status == 200
    for number in range(40):
        assert pool.request("GET", f"{objects}/{number % 10}").status == 200
    assert pool.request("PUT", f"{objects}/large", body=iter([b"y" * (1 << 20)] * 3)).status == 200
    assert len(pool.request("GET", f"{objects}/large").data) == 3 << 20
    assert pool.request("HEAD", f"{objects}/1").status == 200
    assert pool.request("GET", f"{objects}/missing").status == 404
    assert pool.request("DELETE", f"{objects}/9").status == 200
    body = b'{"action":"list","value":{}}'
    assert pool.request("GET", f"{store.endpoint}/v1/buckets/b", body=body).status == 200
    entries = {"entries": [["1", ""], ["missing", ""]]}
    assert pool.request("POST", f"{store.endpoint}/v1/batch/b", json=entries).status == 200


def test_what_was_done_is_counted(new_store: NewStore, pool: urllib3.PoolManager) -> None:
    store = new_store(arguments=("--workers", "2"))
    use(pool, store)
    samples = scrape(pool, store)
    expected = {
        "ais_target_get_count": 42, "ais_target_err_get_count": 1, "ais_target_put_count": 11,
        "ais_target_put_bytes": 10_000 + (3 << 20), "ais_target_head_count": 1, "ais_target_del_count": 1,
        "ais_target_lst_count": 1, "ais_target_batch_count": 1, "ais_target_inflight_requests": 1,
        "ais_target_commit_change_count": 13, "ais_target_commit_queue": 0, "ais_supervisor_restart_count": 0,
    }  # fmt: skip
    assert {name: of(samples, name) for name in expected} == expected
    assert of(samples, "ais_target_get_bytes") > 40_000 + (3 << 20)  # and the error's text
    assert of(samples, "ais_target_get_ns_total") > 0
    assert of(samples, "ais_target_errors_total", "tcode=ErrObjNotFound") == 2  # one in the batch
    assert of(samples, "ais_target_replies_total", "class=2xx", "code=200") == 57
    assert of(samples, "ais_target_replies_total", "class=4xx", "code=404") == 1
    assert of(samples, "ais_target_request_duration_seconds_count", "op=get") == 42
    assert of(samples, "ais_target_request_duration_seconds_bucket", "le=60.0", "op=get") == 42
    assert of(samples, "ais_target_commit_changes_count") == of(samples, "ais_target_commit_count")
    assert of(samples, "ais_target_commit_changes_sum") == 13
    assert of(samples, "ais_target_hot_hit_count") + of(samples, "ais_target_index_lookup_count") >= 42
    assert of(samples, "ais_target_mountpath_available", "mountpath=mp0") == 1
    assert of(samples, "ais_target_mountpath_avail_bytes", "mountpath=mp0") > 0
    assert of(samples, "ais_target_index_bytes", "mountpath=mp0") > 0
    assert of(samples, "ais_target_open_generations", "mountpath=mp0") > 0
    places = {"controller", "http-0", "http-1", "supervisor"}
    for name in ("ais_process_resident_memory_bytes", "ais_process_open_fds", "ais_process_uptime_seconds"):
        assert {place for place in places if of(samples, name, f"process={place}") > 0} == places


def test_counters_do_not_go_back_when_processes_are_killed(new_store: NewStore, pool: urllib3.PoolManager) -> None:
    store = new_store(arguments=("--workers", "2"))
    use(pool, store)
    before = scrape(pool, store)
    killed = store.children()
    for pid in killed:
        os.kill(pid, signal.SIGKILL)
    after = scrape(pool, store)
    deadline = time.monotonic() + 30
    while of(after, "ais_supervisor_restart_count") < len(killed) and time.monotonic() < deadline:
        after = scrape(pool, store)
    assert of(after, "ais_supervisor_restart_count") == len(killed) == 3
    assert of(after, "ais_target_inflight_requests") == 1
    went_back = {
        key: (value, after.get(key))
        for key, value in before.items()
        if after.get(key, 0) < value and key[0].endswith(("_count", "_total", "_sum", "_bucket", "_bytes"))
        and not key[0].startswith(("ais_process", "ais_target_mountpath", "ais_target_index"))
    }  # fmt: skip
    assert not went_back
    assert of(after, "ais_target_get_count") == 42


def test_transforms_are_counted_once_for_everyone(new_store: NewStore, pool: urllib3.PoolManager) -> None:
    store = new_store(arguments=("--workers", "2"))
    make_transform(pool, store)
    for name in ("five", "five", "empty"):
        pool.request("GET", f"{store.endpoint}/v1/objects/b/{name}?etl_name=half-it")
    entries = {"entries": [["five", "half-it"], ["empty", "half-it"]]}
    assert pool.request("POST", f"{store.endpoint}/v1/batch/b", json=entries).status == 200
    expected = {"object_count": 3, "error_count": 2, "in_bytes": 15, "out_bytes": 15, "busy_workers": 0}
    for _ in range(2):
        samples = scrape(pool, store)
        assert {name: of(samples, f"ais_etl_{name}", "etl=half-it") for name in expected} == expected
        assert of(samples, "ais_etl_workers", "etl=half-it") in (1, 2)  # as many as objects were there at a time
        assert of(samples, "ais_etl_ns_total", "etl=half-it") > 0
        (listed,) = pool.request("GET", f"{store.endpoint}/v1/etl").json()
        assert [listed[name] for name in ("obj_count", "errors", "in_bytes", "out_bytes")] == [3, 2, 15, 15]
        (pid,) = (pid for pid, command in store.children().items() if "controller" in command)
        os.kill(pid, signal.SIGKILL)  # and once more with another controller
        reply = pool.request("GET", f"{store.endpoint}/v1/etl")
        while pid in store.children() or [etl["stage"] for etl in reply.json()] != ["Running"]:
            reply = pool.request("GET", f"{store.endpoint}/v1/etl")
    # A new one of that name starts at 0, the metrics of the name go on.
    assert pool.request("DELETE", f"{store.endpoint}/v1/etl/half-it").status == 200
    make_transform(pool, store)
    assert pool.request("GET", f"{store.endpoint}/v1/etl").json()[0]["obj_count"] == 0
    assert of(scrape(pool, store), "ais_etl_object_count", "etl=half-it") == 3


def make_transform(pool: urllib3.PoolManager, store: StoreProcess) -> None:
    pool.request("POST", f"{store.endpoint}/v1/buckets/b", body=b'{"action":"create-bck"}')
    for name, data in (("five", b"x" * 5), ("empty", b"")):
        assert pool.request("PUT", f"{store.endpoint}/v1/objects/b/{name}", body=data).status == 200
    message = {"code": encode_base64(HALF), "id": "half-it", "workers": 2}
    assert pool.request("POST", f"{store.endpoint}/v1/etl/init_code", json=message).data == b"half-it"


def test_node_status_tells_the_same(new_store: NewStore, pool: urllib3.PoolManager) -> None:
    store = new_store(arguments=("--workers", "2"))
    use(pool, store)
    status: dict[str, Any] = pool.request("GET", f"{store.endpoint}/v1/daemon?what=node_status").json()
    tracked = {name: int(value["v"]) for name, value in status["tracker"].items()}
    expected = {"get.n": 42, "put.n": 11, "put.size": 10_000 + (3 << 20), "del.n": 1, "lst.n": 1, "err.get.n": 1}
    assert {name: tracked[name] for name in expected} == expected
    assert tracked["get.ns.total"] > 0
    assert tracked["up.ns.time"] > 0
    (mountpath,) = status["capacity"]["mountpaths"].values()
    assert int(mountpath["avail"]) == int(status["capacity"]["total_avail"]) > 0


def test_metrics_need_the_token(new_store: NewStore) -> None:
    store = new_store(arguments=("--workers", "1"), env={"AIS_AUTHN_TOKEN": "not-a-secret"})
    assert urllib3.request("GET", f"{store.endpoint}/metrics").status == 401
    bearer = {"authorization": "Bearer not-a-secret"}
    assert urllib3.request("GET", f"{store.endpoint}/metrics", headers=bearer).status == 200
    assert urllib3.request("POST", f"{store.endpoint}/metrics", headers=bearer).status == 405

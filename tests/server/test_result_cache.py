"""Results that are kept: given out again when they must come out equal, and never for anything else."""

from __future__ import annotations

import json
import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import urllib3

import aistore
from aistore.errors import BadRequestError
from aistore.testing import LocalCluster, StoreProcess
from aistore.wire.messages import encode_base64

_SECONDS = 60.0

#: Says which computation made the result, and what it drew.
COUNTED = """
import os, random

def transform(data, etl_args=""):
    return b"%s %d %s " % (os.urandom(8).hex().encode(), random.getrandbits(60), etl_args.encode()) + data
"""
#: Takes its time, when the object says so, and leaves a line in its log for each run.
SLOW = """
import sys, time

def transform(data):
    print("ran on", data.decode(), file=sys.stderr)
    time.sleep(float(data))
    return b"slept " + data
"""
LARGE = """
import os, random

def transform(data):
    return random.randbytes(3 << 20) + os.urandom(8)
"""


class Caching:
    """One store, asked over HTTP; ``run`` is the process, if it is of the test's own."""

    def __init__(self, endpoint: str, bucket: str = "data") -> None:
        self.endpoint = endpoint
        self.bucket = bucket
        self.pool = urllib3.PoolManager(retries=False, timeout=_SECONDS, maxsize=40)

    def call(self, method: str, path: str, body: Any = None, **headers: str) -> urllib3.BaseHTTPResponse:
        data = json.dumps(body).encode() if isinstance(body, dict) else body
        return self.pool.request(method, self.endpoint + path, body=data, headers=headers)

    def init(self, name: str, code: str, **fields: Any) -> None:
        message = {"id": name, "code": encode_base64(code), "cache": True, "workers": 2, **fields}
        reply = self.call("POST", "/v1/etl/init_code", message)
        assert reply.status == 200, reply.data

    def delete(self, name: str) -> None:
        assert self.call("DELETE", f"/v1/etl/{name}").status == 200

    def put(self, name: str, data: bytes) -> None:
        assert self.call("PUT", f"/v1/objects/{self.bucket}/{name}", data).status == 200

    def get(self, name: str, etl: str, seed: str | None = "1", **query: str) -> tuple[bytes, str]:
        """Return a result, and what its reply says of the cache."""
        wanted = {"etl_name": etl, **({"seed": seed} if seed is not None else {}), **query}
        reply = self.pool.request("GET", f"{self.endpoint}/v1/objects/{self.bucket}/{name}", fields=wanted)
        assert reply.status == 200, reply.data
        return reply.data, reply.headers.get("ais-etl-cache", "")

    def details(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = self.call("GET", f"/v1/etl/{name}").json()
        return found

    def metric(self, name: str, etl: str = "") -> float:
        wanted = name + (f'{{etl="{etl}"}}' if etl else "")
        text = self.call("GET", "/metrics").data.decode()
        return next((float(line.rpartition(" ")[2]) for line in text.splitlines() if line.startswith(wanted + " ")), 0)


@pytest.fixture
def caching(store: StoreProcess, request: pytest.FixtureRequest) -> Iterator[Caching]:
    """Return the session's store with a bucket of the test's own; transforms that it makes are removed."""
    made = Caching(store.endpoint, f"kept-{abs(hash(request.node.name)) % 10**9}")
    before = {entry["id"] for entry in made.call("GET", "/v1/etl").json()}
    assert made.call("POST", f"/v1/buckets/{made.bucket}", {"action": "create-bck"}).status == 200
    yield made
    for entry in made.call("GET", "/v1/etl").json():
        if entry["id"] not in before:
            made.delete(entry["id"])


def _own(store: StoreProcess) -> Caching:
    made = Caching(store.endpoint)
    assert made.call("POST", "/v1/buckets/data", {"action": "create-bck"}).status in (200, 409)
    return made


def wait_until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _SECONDS
    while not true():
        assert time.monotonic() < deadline, "it did not come to that"
        time.sleep(0.05)


def test_a_seeded_result_is_computed_once_and_found_by_all_ways_to_read(caching: Caching) -> None:
    caching.init("cache-ways", COUNTED)
    caching.put("o", b"data")
    first, said = caching.get("o", "cache-ways")
    assert said == "miss"
    assert caching.get("o", "cache-ways") == (first, "hit")
    with aistore.Client(caching.endpoint) as client:
        bucket = client.bucket(caching.bucket)
        assert bucket.object("o").get(etl="cache-ways", seed=1).read() == first
        assert list(bucket.batch(["o"] * 3, etl="cache-ways", seed=1)) == [first] * 3
        bucket.transform(f"{caching.bucket}-out", "cache-ways", seed=1).wait()
        assert client.bucket(f"{caching.bucket}-out").object("o").get().read() == first
        bucket.object("o").copy_to(bucket.object("copied"), etl="cache-ways", seed=1)
        assert bucket.object("copied").get().read() == first
        assert client.etl("cache-ways").details().cache_hits == 7
    details = caching.details("cache-ways")
    assert (details["cache_misses"], details["cache_objects"]) == (1, 1)
    assert details["cache_bytes"] == len(first)
    assert details["obj_count"] == 1, "a hit is no object that was transformed"
    assert caching.metric("ais_etl_cache_hit_count", "cache-ways") == 7
    assert caching.metric("ais_etl_cache_hit_bytes", "cache-ways") == 7 * len(first)
    assert caching.metric("ais_etl_cache_miss_count", "cache-ways") == 1
    assert caching.metric("ais_etl_cache_bytes", "cache-ways") == len(first)
    assert 0 < caching.metric("ais_etl_cache_capacity_bytes") < 1 << 50


def test_anything_else_is_another_result(caching: Caching) -> None:
    caching.init("cache-keys", COUNTED)
    caching.put("o", b"data")
    caching.put("p", b"data")
    seen = {caching.get("o", "cache-keys")[0]}
    others: list[tuple[str, dict[str, str]]] = [
        ("o", {"seed": "2"}), ("o", {"seed": "01"}), ("o", {"etl_args": "x"}), ("o", {"etl_args": "x", "seed": "2"}),
        ("p", {}),
    ]  # fmt: skip
    for name, query in others:
        data, said = caching.get(name, "cache-keys", **{"seed": "1", **query})
        assert said == "miss"
        seen.add(data)
    assert len(seen) == 6
    caching.put("o", b"DATA")
    changed, said = caching.get("o", "cache-keys")
    assert (changed.split()[-1], said) == (b"DATA", "miss")
    caching.put("o", b"data")  # what was there before: its result is right again
    again, said = caching.get("o", "cache-keys")
    assert (again in seen, said) == (True, "hit")


def test_what_need_not_come_out_equal_is_never_kept(caching: Caching) -> None:
    caching.init("cache-plain", COUNTED)
    caching.init("cache-never", COUNTED, cache=False, deterministic=True)
    caching.put("o", b"data")
    for etl, seed in (("cache-plain", None), ("cache-never", "1"), ("cache-never", None)):
        results = {caching.get("o", etl, seed) for _ in range(3)}
        assert len(results) == 3
        assert {said for _, said in results} == {""}
    assert caching.details("cache-plain")["cache_objects"] == 0


def test_a_deterministic_transform_needs_no_seed(caching: Caching) -> None:
    caching.init("cache-determined", COUNTED, deterministic=True)
    caching.put("o", b"data")
    first, said = caching.get("o", "cache-determined", None)
    assert said == "miss"
    assert caching.get("o", "cache-determined", None) == (first, "hit")
    assert caching.get("o", "cache-determined", "1")[1] == "miss"
    fresh = caching.call(
        "GET", f"/v1/objects/{caching.bucket}/o?etl_name=cache-determined", **{"Cache-Control": "no-cache"}
    )
    assert fresh.data != first
    assert "ais-etl-cache" not in fresh.headers
    assert caching.get("o", "cache-determined", None) == (first, "hit")


def test_new_code_under_an_old_name_finds_nothing_old(caching: Caching) -> None:
    """Many processes know the old one; none may give out its results, nor keep new ones as its own."""
    caching.put("o", b"data")
    olds = set()
    for round_ in range(3):
        code = COUNTED.replace('b"%s', f'b"round-{round_} %s')
        caching.init("cache-renewed", code, deterministic=True)
        for _ in range(6):
            with _fresh(caching) as other:
                for seed in (None, "1"):
                    data, _ = other.get("o", "cache-renewed", seed)
                    assert data.startswith(f"round-{round_} ".encode())
                    olds.add(data)
        caching.delete("cache-renewed")
        assert caching.call("GET", f"/v1/objects/{caching.bucket}/o?etl_name=cache-renewed&seed=1").status == 404
    assert len(olds) == 6, "one result of each kind in each round"
    caching.init("cache-renewed", COUNTED.replace('b"%s', 'b"round-2 %s'), deterministic=True)
    assert caching.get("o", "cache-renewed")[1] == "miss", "what was deleted is gone, also for the same code"


def test_a_transform_that_is_stopped_gives_out_nothing(caching: Caching) -> None:
    caching.init("cache-stopped", COUNTED)
    caching.put("o", b"data")
    kept, _ = caching.get("o", "cache-stopped")
    assert caching.call("POST", "/v1/etl/cache-stopped/stop").status == 200
    for _ in range(4):
        with _fresh(caching) as other:
            reply = other.call("GET", f"/v1/objects/{caching.bucket}/o?etl_name=cache-stopped&seed=1")
            assert reply.status == 409, reply.data
    assert caching.call("POST", "/v1/etl/cache-stopped/start").status == 200
    assert caching.get("o", "cache-stopped") == (kept, "hit")


class _fresh:
    """Another client of the same store, whose connections other processes accept."""

    def __init__(self, like: Caching) -> None:
        self._like = like

    def __enter__(self) -> Caching:
        self._made = Caching(self._like.endpoint, self._like.bucket)
        return self._made

    def __exit__(self, *_: object) -> None:
        self._made.pool.clear()


def test_equal_requests_at_once_are_computed_once(caching: Caching) -> None:
    caching.init("cache-at-once", SLOW, deterministic=True)
    caching.put("o", b"0.5")

    def get(_: int) -> tuple[bytes, str]:
        with _fresh(caching) as other:
            return other.get("o", "cache-at-once", None)

    with ThreadPoolExecutor(24) as threads:
        found = list(threads.map(get, range(24)))
    assert {data for data, _ in found} == {b"slept 0.5"}
    assert sorted(said for _, said in found) == ["hit"] * 23 + ["miss"]
    assert caching.details("cache-at-once")["obj_count"] == 1


def test_who_waits_computes_it_when_the_one_who_did_goes_away(caching: Caching) -> None:
    caching.init("cache-left", SLOW, deterministic=True, workers=1)
    caching.put("o", b"1.5")
    impatient = urllib3.PoolManager(retries=False, timeout=urllib3.Timeout(connect=10, read=0.4))
    path = f"{caching.endpoint}/v1/objects/{caching.bucket}/o?etl_name=cache-left"

    def leave() -> None:
        with pytest.raises(urllib3.exceptions.HTTPError):
            impatient.request("GET", path)

    leaving = threading.Thread(target=leave)
    leaving.start()
    wait_until(lambda: caching.metric("ais_etl_busy_workers", "cache-left") == 1)
    assert caching.get("o", "cache-left", None) == (b"slept 1.5", "miss")
    leaving.join()
    leave_while_waiting = [threading.Thread(target=leave) for _ in range(2)]
    caching.put("o", b"2.5")
    for thread in leave_while_waiting:
        thread.start()
    for thread in leave_while_waiting:
        thread.join()
    wait_until(lambda: caching.metric("ais_etl_busy_workers", "cache-left") == 0)
    caching.put("o", b"0.1")
    assert caching.get("o", "cache-left", None)[0] == b"slept 0.1"


def test_a_failure_is_not_kept(caching: Caching) -> None:
    caching.init(
        "cache-fails", "def transform(data):\n    raise ValueError('bad ' + data.decode())\n", deterministic=True
    )
    caching.put("o", b"data")
    for _ in range(2):
        reply = caching.call("GET", f"/v1/objects/{caching.bucket}/o?etl_name=cache-fails")
        assert (reply.status, b"bad data" in reply.data) == (422, True)
    assert caching.details("cache-fails")["cache_objects"] == 0
    assert caching.details("cache-fails")["errors"] == 2


def test_a_large_result(caching: Caching) -> None:
    caching.init("cache-large", LARGE)
    caching.put("o", b"data")
    first, said = caching.get("o", "cache-large")
    assert (len(first), said) == ((3 << 20) + 8, "miss")
    assert caching.get("o", "cache-large") == (first, "hit")


def test_what_is_kept_of_the_begin_of_a_pipeline_is_used(caching: Caching) -> None:
    caching.init("cache-first", COUNTED, deterministic=True)
    caching.init("cache-last", COUNTED.replace('b"%s', 'b"last %s'), cache=False)
    caching.init("cache-both", COUNTED.replace('b"%s', 'b"both %s'), deterministic=True)
    caching.put("o", b"data")
    first, _ = caching.get("o", "cache-first", None)
    unseeded = [caching.get("o", "cache-first", None, etl_pipeline="cache-last") for _ in range(2)]
    assert unseeded[0] != unseeded[1]
    assert all(data.endswith(first) and not said for data, said in unseeded)
    both, said = caching.get("o", "cache-first", None, etl_pipeline="cache-both")
    assert (both.endswith(first), said) == (True, "miss")
    assert caching.get("o", "cache-first", None, etl_pipeline="cache-both") == (both, "hit")
    assert caching.details("cache-first")["obj_count"] == 1
    # Behind a transform that draws at random nothing comes out equal again, whatever its own author says.
    results = {caching.get("o", "cache-last", None, etl_pipeline="cache-both") for _ in range(2)}
    assert len(results) == 2
    assert {said for _, said in results} == {""}


def test_bad_seeds(caching: Caching) -> None:
    caching.init("cache-bad", COUNTED)
    caching.put("o", b"data")
    path = f"/v1/objects/{caching.bucket}/o?etl_name=cache-bad"
    for bad in ("&seed=", "&seed=" + 257 * "x"):
        assert caching.call("GET", path + bad).status == 400
    assert caching.call("GET", path + "&seed=" + 256 * "x").status == 200
    body = {"entries": [["o", "cache-bad"]], "seed": ""}
    assert caching.call("POST", f"/v1/batch/{caching.bucket}", body).status == 400
    job = {"action": "etl-bck", "value": {"id": "cache-bad", "seed": ""}}
    assert caching.call("POST", f"/v1/buckets/{caching.bucket}?bck_to=ais%2F%40%23%2Fx-out%2F", job).status == 400
    with aistore.Client(caching.endpoint) as client:
        for seed in ("", "x" * 257):
            with pytest.raises(BadRequestError):
                client.bucket(caching.bucket).object("o").get(etl="cache-bad", seed=seed)
        with pytest.raises(BadRequestError, match="transform"):
            client.bucket(caching.bucket).object("o").get(seed=1)


def test_results_outlive_the_store_and_are_verified(new_store: Callable[..., StoreProcess], tmp_path: Any) -> None:
    process = new_store(str(tmp_path / "data"))
    caching = _own(process)
    caching.init("cache-kept", COUNTED)
    names = [f"o{number}" for number in range(20)]
    for name in names:
        caching.put(name, os.urandom(9000).hex().encode())
    first = {name: caching.get(name, "cache-kept")[0] for name in names}
    process.end()
    caching = _own(process.start())
    assert {name: caching.get(name, "cache-kept") for name in names} == {name: (first[name], "hit") for name in names}
    process.end()
    damaged = 0
    for folder, _, files in os.walk(tmp_path / "data" / "results" / "objects" / "mp0"):
        for file in files:
            path = os.path.join(folder, file)
            if 18_000 < os.path.getsize(path) < 30_000:
                with open(path, "r+b") as opened:
                    opened.seek(1000)
                    opened.write(b"flipped")
                damaged += 1
    assert damaged == len(names)
    caching = _own(process.start())
    for name in names:
        again, said = caching.get(name, "cache-kept")
        assert said == "miss"
        assert again.partition(b" ")[2] == first[name].partition(b" ")[2]
        assert caching.get(name, "cache-kept") == (again, "hit")
    process.kill()
    caching = _own(process.start())
    assert caching.get(names[0], "cache-kept")[1] == "hit"


def test_the_bound_holds_and_what_is_used_stays(new_store: Callable[..., StoreProcess]) -> None:
    caching = _own(new_store(arguments=("--transform-cache", "1MiB")))
    caching.init("cache-bound", COUNTED)
    data = os.urandom(20_000)
    for number in range(4):
        caching.put(f"o{number}", data)
    kept = caching.get("o0", "cache-bound")[0]
    for seed in range(150):
        caching.get(f"o{1 + seed % 3}", "cache-bound", str(seed))
        assert caching.details("cache-bound")["cache_bytes"] <= 1 << 20
    assert caching.metric("ais_etl_cache_bytes", "cache-bound") <= 1 << 20
    wait_until(lambda: caching.metric("ais_target_etl_result_evict_count") > 0)
    assert caching.metric("ais_target_etl_result_evict_bytes") > 20_000
    assert caching.metric("ais_target_lru_evict_count") == 0
    assert caching.get("o0", "cache-bound")[0].partition(b" ")[2] == kept.partition(b" ")[2]
    # One that is larger than all there may be is not kept, and nothing goes for it.
    before = caching.details("cache-bound")["cache_objects"]
    caching.put("huge", os.urandom(2 << 20))
    assert [caching.get("huge", "cache-bound")[1] for _ in range(2)] == ["miss", "miss"]
    assert caching.details("cache-bound")["cache_objects"] > before // 2


def test_results_of_a_removed_transform_are_reclaimed(new_store: Callable[..., StoreProcess], tmp_path: Any) -> None:
    process = new_store(str(tmp_path / "data"))
    caching = _own(process)
    caching.put("o", os.urandom(50_000))
    for name in ("cache-going", "cache-staying"):
        caching.init(name, COUNTED)
        caching.get("o", name)

    def files() -> int:
        found = [
            os.path.join(folder, name) for folder, _, names in os.walk(tmp_path / "data/results") for name in names
        ]
        return sum(50_000 < os.path.getsize(path) < 60_000 for path in found)

    assert files() == 2
    caching.delete("cache-going")
    assert caching.metric("ais_etl_cache_bytes", "cache-going") == 0
    wait_until(lambda: files() == 1)
    process.end()
    os.unlink(tmp_path / "data" / "etl" / "cache-staying.json")  # as if the store had been killed in between
    caching = _own(process.start())
    wait_until(lambda: files() == 0)


def test_a_store_that_keeps_nothing(new_store: Callable[..., StoreProcess]) -> None:
    caching = _own(new_store(arguments=("--transform-cache", "0")))
    message = {"id": "cache-none", "code": encode_base64(COUNTED), "cache": True}
    reply = caching.call("POST", "/v1/etl/init_code", message)
    assert (reply.status, b"--transform-cache" in reply.data) == (400, True)
    caching.init("cache-none", COUNTED, cache=False)
    caching.put("o", b"data")
    assert caching.get("o", "cache-none")[1] == ""
    assert caching.metric("ais_etl_cache_capacity_bytes") == 0


def test_a_size_that_is_none() -> None:
    with pytest.raises(RuntimeError, match="many"):
        StoreProcess(arguments=("--transform-cache", "many")).start()


def test_every_node_of_a_cluster_gives_the_same_bytes_as_a_store_alone(
    cluster: LocalCluster, store: StoreProcess, count: Callable[[str, int], None]
) -> None:
    """Seeded, through any node, in any order, by GET, batch and job; and each is computed once in the cluster."""
    order = random.Random(11)
    places = [Caching(node.endpoint, "seeded-nodes") for node in cluster.running]
    alone = Caching(store.endpoint, "seeded-alone")
    code = "import random\nfrom random import Random\n\n\ndef transform(data):\n"
    code += "    return b'%d %d ' % (random.getrandbits(60), Random().getrandbits(60)) + data\n"
    names = [f"{number}.bin" for number in range(12)]
    for place in (places[0], alone):
        assert place.call("POST", f"/v1/buckets/{place.bucket}", {"action": "create-bck"}).status == 200
        place.init("seeded-nodes", code)
        for name in names:
            place.put(name, name.encode())
    expected: dict[tuple[str, str], bytes] = {}
    reads = [(place, name, seed) for place in (*places, alone) for name in names for seed in ("1", "2")]
    order.shuffle(reads)
    said = []
    for place, name, seed in reads:
        data, cache = place.get(name, "seeded-nodes", seed)
        assert expected.setdefault((name, seed), data) == data
        said += [cache] if place is not alone else []
    assert len(set(expected.values())) == len(expected)
    assert sorted(said) == ["hit"] * 48 + ["miss"] * 24
    for place in (*places, alone):
        with aistore.Client(place.endpoint) as client:
            shuffled = order.sample(names, len(names))
            found = list(client.bucket(place.bucket).batch(shuffled, etl="seeded-nodes", seed=2))
            assert found == [expected[name, "2"] for name in shuffled]
            out = f"{place.bucket}-{places.index(place) if place in places else 'x'}"
            client.bucket(place.bucket).transform(out, "seeded-nodes", seed="1").wait()
            assert list(client.bucket(out).batch(names)) == [expected[name, "1"] for name in names]
    count("seeded reads of a cluster with the bytes of a store alone", len(reads) + 8 * len(names))
    details = places[1].details("seeded-nodes")
    assert (details["cache_hits"] > 48, details["cache_misses"] >= 24) == (True, True)
    places[0].put(names[0], b"another version")
    for place in places:
        assert place.get(names[0], "seeded-nodes", "1")[0] != expected[names[0], "1"]
    for place in (places[0], alone):
        place.delete("seeded-nodes")

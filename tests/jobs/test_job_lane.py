"""Jobs whose objects go the short way, many at once, and every reason for which one leaves it."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from hosts import needs
from job_requests import Http

from aistore.testing import StoreProcess

#: Does what its object says.
CODE = """
import os, time

def transform(data):
    word, _, number = data.partition(b" ")
    if word == b"sleep":
        time.sleep(float(number))
    elif word == b"fail":
        raise ValueError("not this one")
    elif word == b"die":
        os._exit(3)
    elif word == b"large":
        return bytes(int(number))
    return b"made of " + data
"""

pytestmark = needs("memfd")


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Http]:
    """Return a store of one HTTP worker."""
    with StoreProcess(str(tmp_path_factory.mktemp("data")), arguments=("--workers", "1")) as process:
        yield Http(process)
        assert "Traceback" not in process.errors(), process.errors()


@pytest.fixture(scope="module")
def etl(one: Http) -> str:
    return one.etl(CODE, id="does-it", workers=2, sandbox="off")


def numbers(http: Http) -> dict[str, float]:
    """Return what is counted, of all transforms together."""
    found: dict[str, float] = {}
    for line in http.pool.request("GET", f"{http.store.endpoint}/metrics").data.decode().splitlines():
        if not line.startswith("#") and "_bucket" not in line:
            name, _, value = line.rpartition(" ")
            found[name.partition("{")[0]] = found.get(name.partition("{")[0], 0.0) + float(value)
    return found


def test_many_are_written_together(one: Http, etl: str) -> None:
    objects = {f"{number:04}.in": b"%d" % number * (1 + number % 2000) for number in range(600)}
    source, destination = one.bucket(objects), one.new_name()
    before = numbers(one)
    snap = one.finished(one.job(source, destination, "etl-bck", id=etl, ext={"in": "out"}, prepend="p/"))
    after = numbers(one)
    assert snap["stats"]["loc-objs"] == "600"
    assert snap["stats"]["loc-bytes"] == str(sum(len(data) + 8 for data in objects.values()))
    entries = one.entries(destination)
    assert set(entries) == {f"p/{name[:-3]}.out" for name in objects}
    for name, data in objects.items():
        assert one.read(destination, f"p/{name[:-3]}.out") == b"made of " + data
    transactions = after["ais_target_commit_count"] - before["ais_target_commit_count"]
    assert transactions < 300, "each object had a transaction of its own"
    assert after["ais_etl_object_count"] - before["ais_etl_object_count"] == 600
    assert (after["ais_etl_inflight_objects"], after["ais_etl_busy_workers"]) == (0, 0)


def test_what_is_written_says_the_same_as_one_by_one(one: Http, etl: str) -> None:
    source = one.bucket({"a b&c": b"1", "ä/" + 200 * "long": b"2"})
    one.ok("PATCH", f"objects/{source}/a b&c", {"action": "", "name": "", "value": {"colour": "blue"}})
    told = []
    for value in ({}, {"num-workers": 1}):  # with a number of workers it is one by one
        destination = one.new_name()
        job = one.job(source, destination, "etl-bck", id=etl, **value)
        one.finished(job)
        heads = [one.ask("HEAD", f"objects/{destination}/{name}").headers for name in one.entries(destination)]
        told.append([(head["ais-custom-md"].replace(job, "JOB"), head["ais-checksum-value"]) for head in heads])
        assert len(told[-1]) == 2
    assert told[0] == told[1]
    assert "colour=blue" in told[0][0][0]
    assert "ais-recipe" in told[0][0][0]


def test_each_that_leaves_the_short_way(one: Http, etl: str) -> None:
    objects = {f"plain/{number:03}": b"plain %d" % number for number in range(100)}
    left = {"slow": b"sleep 0.6", "large": b"large 3000000", "larger": b"x" * 1_500_000, "empty": b""}
    failing = {"fail": b"fail", "die": b"die"}
    source = one.bucket({**objects, **left, **failing})
    destination = one.bucket({"plain/007": b"somebody's", "other": b"other"})
    job = one.job(source, destination, "etl-bck", id=etl, coer=True)
    assert one.ended(job)["err"].startswith("2 objects failed")
    errors = {e["obj_name"]: e["msg"] for e in one.ok("GET", f"etl/{etl}?uuid={job}").json()["obj_errors"]}
    assert set(errors) == {f"ais://{source}/{name}" for name in failing}
    assert "not this one" in errors[f"ais://{source}/fail"]
    assert "exit status 3" in errors[f"ais://{source}/die"]
    for name, data in {**objects, **left}.items():
        expected = bytes(3_000_000) if name == "large" else b"made of " + data
        assert one.read(destination, name) == expected, name
    entries = one.entries(destination)
    assert set(entries) == {*objects, *left, "other"}
    assert entries["plain/007"]["version"] == "2"
    assert one.snap(job)["stats"]["loc-objs"] == str(len(objects) + len(left))

    again = one.snap(one.job(source, destination, "etl-bck", id=etl, coer=True))
    one.ended(again["id"])
    assert one.snap(again["id"])["ext"]["skipped"] == len(objects) + len(left)
    counted = numbers(one)
    assert (counted["ais_etl_inflight_objects"], counted["ais_etl_busy_workers"]) == (0, 0)


def test_a_job_that_is_stopped_leaves_nothing(one: Http, etl: str) -> None:
    source = one.bucket({f"{number:03}": b"sleep 0.05" for number in range(400)})
    worker = one.child("aistore.server.http_worker")

    def descriptors() -> int:
        return len(os.listdir(f"/proc/{worker}/fd"))

    one.finished(one.job(one.bucket({"x": b"x"}), one.new_name(), "etl-bck", id=etl))
    before = descriptors()
    destination = one.new_name()
    job = one.job(source, destination, "etl-bck", id=etl)
    one.until(lambda: one.entries(destination))
    one.ok("PUT", "cluster", {"action": "stop", "name": "", "value": {"ID": job, "Kind": ""}})
    written = one.entries(destination)
    assert 0 < len(written) < 400
    one.until(lambda: descriptors() <= before + 4)  # of connections that were open or are
    assert numbers(one)["ais_etl_inflight_objects"] == 0
    one.finished(one.job(source, destination, "etl-bck", id=etl))
    after = one.entries(destination)
    assert len(after) == 400
    assert {name: after[name] for name in written} == written, "what was there was made again"


def test_a_transform_that_is_slow_for_all(one: Http) -> None:
    etl = one.etl("import time\ndef transform(data):\n    time.sleep(0.4)\n    return data\n", id="slow-for-all")
    source, destination = one.bucket({f"{number:02}": b"%d" % number for number in range(12)}), one.new_name()
    one.finished(one.job(source, destination, "etl-bck", id=etl))
    assert [one.read(destination, name) for name in one.entries(destination)] == [b"%d" % n for n in range(12)]

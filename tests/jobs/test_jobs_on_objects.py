"""Jobs on named objects and on templates of names, and jobs through several transforms, over HTTP."""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from job_requests import Http

NAMES = {f"train/{number:03}.txt": b"words %d" % number for number in range(30)}
SHOUT = "def transform(data, etl_args):\n    return data.upper() + etl_args.encode()\n"
PICKY = "def transform(data):\n    assert not data.endswith(b'7'), data\n    return data\n"
SLOW = "import time\ndef transform(data):\n    time.sleep(0.005)\n    return data\n"


@pytest.fixture(scope="module")
def source(http: Http) -> str:
    return http.bucket({**NAMES, "other": b"other"})


@pytest.fixture(scope="module")
def shout(http: Http) -> str:
    return http.etl(SHOUT, id="shout-etl")


def contents(http: Http, bucket: str) -> dict[str, bytes]:
    return {name: http.read(bucket, name) for name in http.entries(bucket)}


def begin(http: Http, source: str, destination: str, action: str, **value: Any) -> Any:
    """Start a job as NVIDIA's SDK does: the destination is in the value."""
    to = {"name": destination, "provider": "ais", "namespace": {"uuid": "", "name": ""}}
    plain = {"prefix": "", "prepend": "", "dry_run": False, "force": False, "latest-ver": False, "synchronize": False}
    body = {"action": action, "name": "", "value": {**plain, "tobck": to, "coer": False, **value}}
    return http.ask("POST", f"buckets/{source}?provider=ais", body)


def job(http: Http, source: str, destination: str, action: str, **value: Any) -> str:
    reply = begin(http, source, destination, action, **value)
    assert reply.status == 200, reply.data
    return str(reply.data.decode())


@pytest.mark.parametrize(
    ("chosen", "names"),
    [
        ({"objnames": ["train/001.txt", "other", "train/001.txt"]}, ["other", "train/001.txt"]),
        ({"template": "train/{000..008..2}.txt"}, [f"train/{number:03}.txt" for number in range(0, 9, 2)]),
        ({"template": "train/@002.txt"}, [f"train/{number:03}.txt" for number in range(3)]),
        ({"template": "train/02"}, [f"train/{number:03}.txt" for number in range(20, 30)]),
        ({"template": ""}, sorted([*NAMES, "other"])),
        ({"prefix": "oth"}, ["other"]),
    ],
)
@pytest.mark.parametrize("action", ["copy-listrange", "etl-listrange"])
def test_which_objects(
    http: Http, source: str, shout: str, action: str, chosen: Mapping[str, Any], names: list[str]
) -> None:
    destination, transforms = http.new_name(), action == "etl-listrange"
    value = {**chosen, "prepend": "p/", **({"id": shout, "ext": {"txt": "TXT"}} if transforms else {})}
    begun = job(http, source, destination, action, **value)
    snap = http.finished(begun)
    assert (snap["kind"], snap["is_idle"], snap["stats"]["loc-objs"]) == (action, True, str(len(names)))
    objects = {**NAMES, "other": b"other"}
    expected = {f"p/{name}": objects[name] for name in names}
    if transforms:
        expected = {name.replace(".txt", ".TXT"): data.upper() for name, data in expected.items()}
    assert contents(http, destination) == expected
    assert f"{action}[{begun}]" in http.ok("GET", "cluster?what=running_all").json()  # it idles, for AIStore's clients


def test_a_name_that_is_not_there(http: Http, source: str, shout: str) -> None:
    names = ["train/001.txt", "no-such", "other"]
    for action, value in (("copy-listrange", {}), ("etl-listrange", {"id": shout})):
        going_on = http.new_name()
        begun = job(http, source, going_on, action, objnames=names, coer=True, **value)
        status = http.ended(begun)
        assert (status["aborted"], "1 object failed" in status["err"]) == (False, True), status
        errors = http.ok("GET", "cluster?what=job_errors", {"ID": begun}).json()
        assert [(error["obj_name"], error["ecode"]) for error in errors] == [(f"ais://{source}/no-such", 404)]
        assert len(http.entries(going_on)) == 2
        status = http.ended(job(http, source, http.new_name(), action, template="train/{028..031}.txt", **value))
        assert (status["aborted"], "does not exist" in status["err"]) == (True, True), status


@pytest.mark.parametrize(
    ("value", "status", "words"),
    [
        ({"objnames": []}, 400, "names no objects"),
        ({"objnames": ["a", "../b"]}, 400, "path component"),
        ({"objnames": ["a"], "template": "b"}, 400, "choose one"),
        ({"objnames": ["a"], "prefix": "b"}, 400, "chosen in two ways"),
        ({"template": "{a..b}"}, 400, "not understood"),
        ({"template": "{9..1}"}, 400, "counts backwards"),
        ({"template": "{0..99999999}"}, 400, "the limit is 10,000,000"),
        ({"template": "x", "num-workers": -2}, 400, "num-workers"),
        ({"template": "x", "pipeline": ["shout-etl"]}, 400, "twice"),
        ({"template": "x", "pipeline": [""]}, 400, "stage 2 is empty"),
        ({"template": "x", "pipeline": "shout-etl"}, 400, "cannot be read"),
        ({"template": "x", "pipeline": ["reverse-etl", "no-such-etl"]}, 404, "etl job no-such-etl does not exist"),
        ({"template": "x", "id": ""}, 400, "names no transform"),
        ({"template": "x", "request_timeout": "soon"}, 400, "not a duration"),
        ({"template": "x", "etl_args": "a" * 70_000}, 413, "too large"),
        ({"template": "x", "tobck": None}, 400, "names no bucket to write to"),
        ({"template": "x", "tobck": {"name": "b", "namespace": {"uuid": "", "name": "ns"}}}, 501, "namespace"),
    ],
)
def test_what_is_refused(
    http: Http, source: str, shout: str, reverse: str, value: dict[str, Any], status: int, words: str
) -> None:
    destination = http.new_name()
    reply = begin(http, source, destination, "etl-listrange", **{"id": shout, **value})
    assert (reply.status, words in reply.data.decode()) == (status, True), reply.data
    assert http.ask("HEAD", f"buckets/{destination}").status == 404


def test_copies_are_not_given_what_is_for_transforms(http: Http, source: str) -> None:
    for value in ({"pipeline": ["some-etl"]}, {"etl_args": "x"}, {"id": "some-etl"}):
        assert begin(http, source, http.new_name(), "copy-listrange", template="", **value).status == 400
    reply = http.begin(source, http.new_name(), objnames=["other"])
    assert (reply.status, "copy-listrange takes names" in reply.data.decode()) == (400, True)


@pytest.mark.parametrize("action", ["etl-bck", "etl-listrange"])
def test_every_object_goes_through_all_transforms(
    http: Http, source: str, shout: str, reverse: str, action: str
) -> None:
    destination, chosen = http.new_name(), {} if action == "etl-bck" else {"template": ""}
    value = {"id": shout, "pipeline": [reverse], "etl_args": "!", **chosen}
    snap = http.finished(job(http, source, destination, action, **value))
    assert "etl:shout-etl >> reverse-etl" in snap["ctlmsg"]
    assert contents(http, destination) == {
        name: (data.upper() + b"!")[::-1] for name, data in {**NAMES, "other": b"other"}.items()
    }


def test_errors_of_a_stage_are_kept(http: Http, source: str, reverse: str) -> None:
    picky = http.etl(PICKY, id="picky-stage")
    bad = {f"ais://{source}/train/{number:03}.txt" for number in (7, 17, 27)}
    inspected = job(http, source, source, "etl-bck", id=picky, pipeline=[reverse], coer=True, dry_run=True)
    assert http.ended(inspected)["err"].startswith("3 objects failed")
    begun = job(http, source, http.new_name(), "etl-listrange", id=picky, pipeline=[reverse], coer=True, template="")
    http.ended(begun)
    assert http.snap(begun)["stats"]["loc-objs"] == "28"
    for etl in (picky, reverse):
        for question in (f"etl/{etl}?uuid={begun}", f"etl/{etl}?uuid={inspected}", f"etl/{etl}"):
            errors = http.ok("GET", question).json()["obj_errors"]
            assert {error["obj_name"] for error in errors} == bad
            assert all("picky-stage failed" in error["msg"] for error in errors)
    assert contents(http, source) == {**NAMES, "other": b"other"}


TOGETHER = """
import os, time
def transform(data):
    made = os.open({mark!r}, os.O_CREAT | os.O_EXCL)  # only while nobody else is at work
    time.sleep(0.01)
    os.close(made)
    os.unlink({mark!r})
    return data
"""


def test_one_object_at_a_time(http: Http, source: str, tmp_path: Path) -> None:
    code = TOGETHER.format(mark=str(tmp_path / "mark"))
    alone = http.etl(code, id="alone-etl", sandbox="off")
    snap = http.finished(job(http, source, http.new_name(), "etl-bck", id=alone, **{"num-workers": -1}))
    assert (int(snap["glob.id"]) >> 10, snap["stats"]["loc-objs"]) == (1, str(len(NAMES) + 1))


def test_the_prefix_of_2021_is_put_before_names(http: Http, source: str, shout: str) -> None:
    for action, value in (("etlbck", {"id": shout}), ("copybck", {})):
        destination = http.new_name()
        http.finished(http.job(source, destination, action, prefix="old/", **value))
        assert sorted(http.entries(destination)) == sorted(f"old/{name}" for name in [*NAMES, "other"])


def test_it_goes_on_when_processes_are_killed(http: Http, reverse: str) -> None:
    slow = http.etl(SLOW, id="slow-stage")
    source, destination = http.bucket({f"{number:04}": b"%d" % number for number in range(1200)}), http.new_name()
    value = {"id": slow, "pipeline": [reverse], "template": "{0000..1199}"}
    begun = job(http, source, destination, "etl-listrange", **value)
    for child, done in (("aistore.server.controller", 100), ("aistore.server.http_worker", 500)):
        http.until(lambda done=done: http.objects_done(begun) >= done)
        os.kill(http.child(child), signal.SIGKILL)
    snap = http.finished(begun)
    assert snap["stats"]["loc-objs"] == "1200"
    entries = http.entries(destination)
    assert {entry["version"] for entry in entries.values()} == {"1"}
    assert contents(http, destination) == {f"{number:04}": (b"%d" % number)[::-1] for number in range(1200)}

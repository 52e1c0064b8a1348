"""Jobs on a real store over HTTP: what they do, what they refuse, what is told of them, how they end."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest
from job_requests import Http

#: A full run has 10,000.
SMALL = int(os.environ.get("AIS_JOB_SMALL_OBJECTS", "3000"))
LARGE = bytes(range(256)) * 12_000  # three pieces
PICTURES = {"train/1.jpg": b"one", "train/2.jpg": b"two", "val/1.jpg": b"three", "readme": b"text", "empty.jpg": b""}


@pytest.fixture(scope="module")
def pictures(http: Http) -> str:
    return http.bucket(PICTURES)


def test_a_copy_is_the_same_in_a_bucket_that_is_made(http: Http) -> None:
    objects = {**PICTURES, "large": LARGE}
    source, destination = http.bucket(objects), http.new_name()
    http.ok("PATCH", f"objects/{source}/readme", {"action": "", "name": "", "value": {"colour": "blue"}})
    snap = http.finished(http.job(source, destination))
    assert {name: http.read(destination, name) for name in http.entries(destination)} == objects
    assert snap["stats"]["loc-objs"] == str(len(objects))
    assert snap["stats"]["loc-bytes"] == str(sum(map(len, objects.values())))
    assert (snap["src-bck"]["name"], snap["dst-bck"]["name"]) == (source, destination)
    assert snap["is_idle"]
    assert not snap["abort-err"]
    assert "colour=blue" in http.ask("HEAD", f"objects/{destination}/readme").headers["ais-custom-md"]


@pytest.mark.parametrize(
    ("value", "names"),
    [
        ({"prefix": "train/"}, ["train/1.jpg", "train/2.jpg"]),
        ({"prefix": "train/", "prepend": "a/"}, ["a/train/1.jpg", "a/train/2.jpg"]),
        ({"ext": {".jpg": ".jpeg"}}, ["empty.jpeg", "readme", "train/1.jpeg", "train/2.jpeg", "val/1.jpeg"]),
        ({"non-recurs": True}, ["empty.jpg", "readme"]),
        ({"prefix": "none"}, []),
        ({"num-workers": 1}, sorted(PICTURES)),
    ],
)
def test_which_names_go_where(http: Http, pictures: str, value: dict[str, object], names: list[str]) -> None:
    destination = http.new_name()
    snap = http.finished(http.job(pictures, destination, **value))
    assert list(http.entries(destination)) == names
    assert snap["stats"]["loc-objs"] == str(len(names))


def test_a_dry_run_writes_nothing(http: Http, pictures: str, reverse: str) -> None:
    destination = http.new_name()
    size = str(sum(map(len, PICTURES.values())))
    for action, value in (("copy-bck", {}), ("etl-bck", {"id": reverse})):
        for to in (destination, pictures):  # into the same bucket: this is how transforms are inspected
            stats = http.finished(http.job(pictures, to, action, dry_run=True, **value))["stats"]
            assert (stats["loc-objs"], stats["loc-bytes"]) == (str(len(PICTURES)), size)
    assert http.ask("HEAD", f"buckets/{destination}").status == 404
    assert {entry["version"] for entry in http.entries(pictures).values()} == {"1"}


def test_a_transform_of_every_object(http: Http, reverse: str) -> None:
    objects = {**PICTURES, "large": LARGE}
    source, destination = http.bucket(objects), http.new_name()
    http.finished(http.job(source, destination, "etl-bck", id=reverse, ext={"jpg": "gpj"}, prepend="r/"))
    expected = {f"r/{name.replace('.jpg', '.gpj')}": data[::-1] for name, data in objects.items()}
    assert {name: http.read(destination, name) for name in http.entries(destination)} == expected


def test_what_is_there_is_replaced_and_the_same_is_left(http: Http, pictures: str) -> None:
    destination = http.bucket({"train/1.jpg": b"other", "mine": b"mine"})
    http.finished(http.job(pictures, destination))
    http.finished(http.job(pictures, destination))
    entries = http.entries(destination)
    assert set(entries) == {*PICTURES, "mine"}
    assert (entries["train/1.jpg"]["version"], entries["val/1.jpg"]["version"]) == ("2", "1")
    http.finished(http.job(pictures, destination, force=True))
    assert http.entries(destination)["val/1.jpg"]["version"] == "2"
    assert http.read(destination, "mine") == b"mine"


FAILING = """
def transform(data):
    if data.startswith(b"bad"):
        raise ValueError(f"cannot read {data.decode()}")
    return data
"""


def test_errors_are_kept_or_end_the_job(http: Http) -> None:
    etl = http.etl(FAILING, id="failing-etl")
    source = http.bucket({f"{n:03}": b"bad %d" % n if n % 10 == 0 else b"good" for n in range(300)})
    bad = {f"ais://{source}/{n:03}" for n in range(0, 300, 10)}

    going_on = http.new_name()
    job = http.job(source, going_on, "etl-bck", id=etl, coer=True)
    status, snap = http.ended(job), http.snap(job)
    assert status["err"].startswith("30 objects failed")
    assert (status["aborted"], snap["aborted"], snap["abort-err"]) == (False, False, "")
    assert (snap["stats"]["loc-objs"], snap["ext"]["failed"]) == ("270", 30)
    assert len(http.entries(going_on)) == 270
    for path in (f"etl/{etl}?uuid={job}", f"etl/{etl}"):
        errors = http.ok("GET", path).json()["obj_errors"]
        assert {error["obj_name"] for error in errors} == bad
        assert len(errors) == 30
        assert all("cannot read bad" in error["msg"] and error["ecode"] == 422 for error in errors)

    ended = http.new_name()
    job = http.job(source, ended, "etl-bck", id=etl)
    status, snap = http.ended(job), http.snap(job)
    assert "cannot read bad" in status["err"]
    assert (status["aborted"], snap["aborted"]) == (True, True)
    assert "cannot read bad" in snap["abort-err"]
    left = http.entries(ended)  # batches that were cut short are not counted
    assert int(snap["stats"]["loc-objs"]) <= len(left) <= 270
    assert http.entries(ended) == left, "it went on after its end"


def test_two_names_for_one_are_refused_before_anything_is_written(http: Http) -> None:
    objects = {f"{n:05}.jpg": b"x" for n in range(3000)} | {"02999.txt": b"y", "02999.txt.jpg.x": b"z"}
    source, destination = http.bucket(objects), http.new_name()
    status = http.ended(http.job(source, destination, ext={"jpg": "txt"}))
    assert "'02999.jpg' and '02999.txt'" in status["err"]
    assert "nothing was written" in status["err"]
    assert status["aborted"]
    assert http.entries(destination) == {}
    http.finished(http.job(source, destination, ext={"jpg": "gif"}))
    assert len(http.entries(destination)) == len(objects)


@pytest.mark.parametrize(
    ("value", "status", "text"),
    [
        ({"ext": {"jpg": "a/b"}}, 400, "extension"),
        ({"num-workers": 1000}, 400, "num-workers"),
        ({"num-workers": "many"}, 400, "cannot be read"),
        ({"prepend": "../"}, 400, "path component"),
        ({"synchronize": True, "prepend": "a/"}, 400, "synchronize"),
        ({"id": "some-etl"}, 400, "names a transform"),
    ],
)
def test_what_is_refused(http: Http, pictures: str, value: dict[str, object], status: int, text: str) -> None:
    destination = http.new_name()
    reply = http.begin(pictures, destination, **value)
    assert (reply.status, text in reply.data.decode()) == (status, True), reply.data
    assert http.ask("HEAD", f"buckets/{destination}").status == 404


def test_what_is_not_there_is_refused(http: Http, pictures: str) -> None:
    other = http.new_name()
    assert http.begin(other, http.new_name()).json()["tcode"] == "ErrBckNotFound"
    assert http.begin(pictures, other, "etl-bck", id="no-such-etl").json()["tcode"] == "ErrETLNotFound"
    assert http.begin(pictures, other, "etl-bck").status == 400
    assert http.begin(pictures, pictures).status == 400
    assert http.ask("POST", f"buckets/{pictures}", {"action": "copy-bck"}).status == 400
    assert http.ask("POST", f"buckets/{pictures}?bck_to=nonsense", {"action": "copy-bck"}).status == 400
    assert http.ask("POST", f"buckets/{pictures}?bck_to=s3%2F%40%23%2Fx%2F", {"action": "copy-bck"}).status == 404
    assert http.ask("HEAD", f"buckets/{other}").status == 404
    old = http.ok("POST", f"buckets/{pictures}?bck_to=ais%2F%2F{other}%2F", {"action": "copybck"}).data.decode()
    http.finished(old)  # the spellings of 2021


def test_questions_about_jobs(http: Http, pictures: str) -> None:
    job = http.job(pictures, http.new_name())
    http.finished(job)
    for query in ({"ID": "nosuchjob1"}, {"ID": job, "Kind": "etl-bck"}, {"Kind": "no-such-kind"}):
        for what in ("status", "qryxstats"):
            assert http.ask("GET", f"cluster?what={what}", query).status == 404
    assert http.ask("GET", "cluster?what=status", {"ID": ""}).status == 400
    assert http.ask("GET", "cluster?what=status", b"no JSON").status == 400
    ((kind, *_),) = http.ok("GET", "cluster?what=qryxstats", {"Kind": "copy-bucket"}).json().values()
    assert kind["kind"] == "copy-bck"
    assert list(http.ok("GET", "cluster?what=qryxstats", {"Kind": "lru"}).json().values()) == [[]]
    everything = http.ok("GET", "cluster?what=status_all", {"kind": "", "node": "", "show_active": False}).json()
    assert job in {status["uuid"] for status in everything}
    assert http.ok("GET", "cluster?what=running_all").json() == []


SLOW = "import time\ndef transform(data):\n    time.sleep(0.01)\n    return data\n"


@pytest.fixture(scope="module")
def slow(http: Http) -> str:
    return http.etl(SLOW, id="slow-etl")


@pytest.fixture(scope="module")
def many(http: Http) -> str:
    return http.bucket({f"{n:05}": b"%d" % n for n in range(2500)})


def test_the_end_is_told_to_who_waits(http: Http) -> None:
    etl = http.etl("import time\ndef transform(data):\n    time.sleep(1)\n    return data\n", id="second-etl")
    job = http.job(http.bucket({"one": b"1"}), http.new_name(), "etl-bck", id=etl)
    ((snap,),) = http.ok("GET", "cluster?what=qryxstats", {"ID": job, "wait": 10}).json().values()
    assert (snap["stats"]["loc-objs"], snap["is_idle"]) == ("1", True)
    for wait in (-1, 1000, "soon"):
        assert http.ask("GET", "cluster?what=qryxstats", {"ID": job, "wait": wait}).status == 400


def test_a_job_is_stopped(http: Http, many: str, slow: str) -> None:
    destination = http.new_name()
    job = http.job(many, destination, "etl-bck", id=slow)
    http.until(lambda: http.objects_done(job) > 100)
    assert http.ok("GET", "cluster?what=running_all").json() == [f"etl-bck[{job}]"]
    http.ok("PUT", "cluster", {"action": "stop", "name": "", "value": {"ID": job, "Kind": ""}})
    status, snap = http.status(job), http.snap(job)
    assert (status["aborted"], status["err"]) == (True, "stopped by request")
    assert 100 < int(snap["stats"]["loc-objs"]) < 2500
    left = http.entries(destination)
    assert len(left) >= int(snap["stats"]["loc-objs"])
    assert http.entries(destination) == left, "it went on after its end"
    http.ok("PUT", "cluster", {"action": "stop", "value": {"ID": job}})  # it has ended: nothing to do
    http.finished(http.job(many, destination, "copy-bck"))
    assert len(http.entries(destination)) == 2500
    assert http.ask("PUT", "cluster", {"action": "stop", "value": {"ID": "nosuchjob1"}}).status == 404
    assert http.ask("PUT", "cluster", {"action": "stop", "value": {}}).status == 400


def test_a_job_ends_when_its_transform_or_bucket_goes(http: Http, many: str) -> None:
    etl = http.etl(SLOW, id="going-etl")
    job = http.job(many, http.new_name(), "etl-bck", id=etl, coer=True)
    http.until(lambda: http.objects_done(job) > 50)
    http.ok("POST", f"etl/{etl}/stop")
    status = http.ended(job)
    assert status["aborted"]
    assert etl in status["err"]
    http.ok("POST", f"etl/{etl}/start")
    destination = http.new_name()
    job = http.job(many, destination, "etl-bck", id=etl, coer=True)
    http.until(lambda: http.objects_done(job) > 50)
    http.ok("DELETE", f"buckets/{destination}", {"action": "destroy-bck"})
    assert destination in http.ended(job)["err"]


def test_a_transform_may_take_less_time_than_it_was_made_with(http: Http) -> None:
    etl = http.etl("import time\ndef transform(data):\n    time.sleep(float(data))\n    return data\n", id="sleep-etl")
    source = http.bucket({"short": b"0", "long": b"20"})
    job = http.job(source, http.new_name(), "etl-bck", id=etl, coer=True, request_timeout="1s")
    assert "timeout" in http.ended(job)["err"]
    assert http.snap(job)["stats"]["loc-objs"] == "1"


def test_jobs_run_side_by_side(http: Http, many: str, slow: str, reverse: str) -> None:
    destinations = [http.new_name() for _ in range(4)]
    values = [("copy-bck", {}), ("etl-bck", {"id": reverse}), ("copy-bck", {"prefix": "000"}), ("copy-bck", {})]
    jobs = [http.job(many, to, action, **value) for to, (action, value) in zip(destinations, values, strict=True)]
    for job in jobs:
        http.finished(job)
    assert [len(http.entries(to)) for to in destinations] == [2500, 2500, 100, 2500]


def test_an_object_that_goes_meanwhile_is_no_error(http: Http, many: str, slow: str) -> None:
    source, destination = http.bucket({f"{n:04}": b"x" for n in range(200)}), http.new_name()
    job = http.job(source, destination, "etl-bck", id=slow)
    http.until(lambda: http.objects_done(job) > 0)  # it has listed them
    http.ok("DELETE", f"objects/{source}/0199")
    snap = http.finished(job)
    assert int(snap["stats"]["loc-objs"]) + snap["ext"]["gone"] == 200
    assert len(http.entries(destination)) == int(snap["stats"]["loc-objs"])


def test_many_small_objects(http: Http, count: Callable[[str, int], None]) -> None:
    source, destination = http.bucket({f"{n % 100:02}/{n}": b"%d" % n for n in range(SMALL)}), http.new_name()
    snap = http.finished(http.job(source, destination))
    assert snap["stats"]["loc-objs"] == str(SMALL)
    before, after = http.entries(source), http.entries(destination)
    assert {name: entry["checksum"] for name, entry in after.items()} == {
        name: entry["checksum"] for name, entry in before.items()
    }
    count("objects compared after copies", SMALL)

"""Jobs that are run again: what is as it would be made is left, what has changed is made, what is gone is removed."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from urllib.parse import parse_qs

import pytest
from job_requests import Http

from aistore.testing import StoreProcess

#: A full run has 10,000.
OBJECTS = int(os.environ.get("AIS_INCREMENTAL_OBJECTS", "1000"))

REVERSE = "def transform(data):\n    return data[::-1]\n"
DOUBLE = "def transform(data):\n    return data + data\n"
SLOW = "import time\ndef transform(data):\n    time.sleep(0.004)\n    return data[::-1]\n"


def content(number: int) -> bytes:
    return b"%d " % number * (1 + number % 40)


def transformed(http: Http, etl: str) -> int:
    """Return how many objects a transform has had so far, as it counts itself."""
    (found,) = [one for one in http.ok("GET", "etl").json() if one["id"] == etl]
    count: int = found["obj_count"]
    return count


def derive(http: Http, source: str, destination: str, **value: object) -> dict[str, int]:
    """Run a job and return its counts."""
    snap = http.finished(http.job(source, destination, "etl-bck" if "id" in value else "copy-bck", **value))
    return counts(snap)


def counts(snap: dict[str, dict[str, int]]) -> dict[str, int]:
    extra = snap["ext"]
    return {"made": int(snap["stats"]["loc-objs"]), "skipped": extra["skipped"], "removed": extra["removed"]}


def only(**counts: int) -> dict[str, int]:
    return {"made": 0, "skipped": 0, "removed": 0, **counts}


def custom_of(http: Http, bucket: str, name: str) -> dict[str, str]:
    text = http.ask("HEAD", f"objects/{bucket}/{name}").headers.get("ais-custom-md", "")
    return dict(pair.split("=", 1) for pair in text.split(", ") if pair)


def test_exactly_what_has_changed_is_transformed(
    http: Http, count: Callable[[str, int], None], capsys: pytest.CaptureFixture[str]
) -> None:
    etl = http.etl(REVERSE, id="seven-changed")
    objects = {f"{number:05}": content(number) for number in range(OBJECTS)}
    source, destination = http.bucket(objects), http.new_name()
    begun = time.monotonic()
    assert derive(http, source, destination, id=etl) == only(made=OBJECTS)
    first = time.monotonic() - begun
    assert transformed(http, etl) == OBJECTS

    begun = time.monotonic()
    assert derive(http, source, destination, id=etl) == only(skipped=OBJECTS)
    second = time.monotonic() - begun
    assert transformed(http, etl) == OBJECTS

    changes = {name: b"edited " + name.encode() for name in random.Random(7).sample(sorted(objects), 4)}
    changes |= {"new/1": b"one", "new/2": b"two", "zzz": b""}
    for name, data in changes.items():
        http.ok("PUT", f"objects/{source}/{name}", data)
    assert derive(http, source, destination, id=etl) == only(made=7, skipped=OBJECTS - 4)
    assert transformed(http, etl) == OBJECTS + 7

    objects |= changes
    entries = http.entries(destination)
    assert set(entries) == set(objects)
    assert {name for name, entry in entries.items() if entry["version"] == "2"} == set(changes) & {
        f"{number:05}" for number in range(OBJECTS)
    }
    for name in [*changes, *list(objects)[::97]]:
        assert http.read(destination, name) == objects[name][::-1]
    count("sources compared in jobs that were run again", 2 * OBJECTS)
    with capsys.disabled():
        print(f"\n{OBJECTS:,} objects: {first:.2f} s, unchanged {second:.2f} s")


def test_what_an_object_says_of_its_making(http: Http, reverse: str) -> None:
    source = http.bucket({"train/a, b=ü&.jpg": b"picture"})
    http.ok("PATCH", f"objects/{source}/train/a, b=ü&.jpg", {"action": "", "name": "", "value": {"colour": "blue"}})
    destination = http.new_name()
    derive(http, source, destination, id=reverse, ext={"jpg": "png"}, etl_args="a=1,b c")
    custom = custom_of(http, destination, "train/a, b=ü&.png")
    assert custom["colour"] == "blue"
    recipe = parse_qs(custom["ais-recipe"])
    (entry,) = http.entries(source).values()
    digest = http.ok("GET", f"etl/{reverse}").json()["digest"]
    assert recipe == {
        "from": [f"ais://{source}"], "name": ["train/a, b=ü&.jpg"], "version": ["1"], "sum": [entry["checksum"]],
        "etl": [f"{reverse}:{digest}"], "args": ["a=1,b c"],
    }  # fmt: skip
    again = http.new_name()
    derive(http, destination, again)  # a copy says that it is one of the copied bucket
    assert parse_qs(custom_of(http, again, "train/a, b=ü&.png")["ais-recipe"])["from"] == [f"ais://{destination}"]


def test_everything_that_makes_another_result_is_a_change(http: Http) -> None:
    etl = http.etl(REVERSE, id="made-anew")
    second = http.etl(DOUBLE, id="second-stage")
    objects = {f"{number:02}": b"%d" % number for number in range(20)}
    source, destination = http.bucket(objects), http.new_name()
    assert derive(http, source, destination, id=etl) == only(made=20)
    assert derive(http, source, destination, id=etl, request_timeout="50s", **{"num-workers": 3}) == only(skipped=20)
    assert derive(http, source, destination, id=etl, force=True) == only(made=20)
    assert derive(http, source, destination, id=etl, etl_args="9") == only(made=20)
    assert derive(http, source, destination, id=etl, etl_args="9") == only(skipped=20)
    assert derive(http, source, destination, id=etl, etl_args="x" * 5000) == only(made=20)
    assert derive(http, source, destination, id=etl, etl_args="x" * 5000) == only(skipped=20)
    assert derive(http, source, destination, id=etl, etl_args="x" * 4999 + "y") == only(made=20)
    assert derive(http, source, destination, id=etl, pipeline=[second]) == only(made=20)
    assert derive(http, source, destination, id=etl, pipeline=[second]) == only(skipped=20)
    assert derive(http, source, destination, id=second, pipeline=[etl]) == only(made=20)

    assert derive(http, source, destination, id=etl) == only(made=20)
    http.ok("DELETE", f"etl/{etl}")
    assert http.etl(REVERSE, id="made-anew") == etl
    assert derive(http, source, destination, id=etl) == only(skipped=20), "the same code makes the same"
    http.ok("DELETE", f"etl/{etl}")
    http.etl(DOUBLE, id="made-anew")
    assert derive(http, source, destination, id=etl) == only(made=20)
    assert http.read(destination, "07") == b"77"

    for name in ("03", "04"):
        http.ok("PUT", f"objects/{source}/{name}", objects[name])  # written again with the same bytes
    assert derive(http, source, destination, id=etl) == only(skipped=20)
    http.ok("PUT", f"objects/{destination}/05", b"somebody else's")
    http.ok("DELETE", f"objects/{destination}/06")
    assert derive(http, source, destination, id=etl) == only(made=2, skipped=18)
    assert http.read(destination, "05") == b"55"


def test_a_dry_run_tells_what_would_be_done(http: Http, reverse: str) -> None:
    source, destination = http.bucket({"a": b"1", "b": b"2", "c": b"3"}), http.new_name()
    derive(http, source, destination, id=reverse)
    http.ok("PUT", f"objects/{source}/a", b"10")
    http.ok("DELETE", f"objects/{source}/b")
    before = http.entries(destination)
    assert derive(http, source, destination, id=reverse, dry_run=True, synchronize=True) == only(
        made=1, skipped=1, removed=1
    )
    assert http.entries(destination) == before
    assert derive(http, source, http.new_name(), id=reverse, dry_run=True, synchronize=True) == only(made=2)


@pytest.mark.parametrize("action", ["copy-bck", "etl-bck"])
def test_what_is_gone_is_removed_and_nothing_else(http: Http, reverse: str, action: str) -> None:
    how = {"id": reverse} if action == "etl-bck" else {}
    source = http.bucket({**{f"d/{number:04}.jpg": b"%d" % number for number in range(700)}, "e/1": b"1", "e.jpg": b""})
    other, destination = http.bucket({"d/0001.jpg": b"other", "d/x.txt": b"x"}), http.new_name()
    derive(http, source, destination, ext={"jpg": "txt"}, **how)
    derive(http, other, destination, prepend="other/", **how)
    foreign = {"d/0005.bak": b"mine", "d/9999.txt": b"mine too", "d/0007.txt": b"put over it"}
    for name, data in foreign.items():
        http.ok("PUT", f"objects/{destination}/{name}", data)
    gone = ["d/0000.jpg", "d/0007.jpg", "d/0300.jpg", "d/0699.jpg", "e/1"]
    for name in gone:
        http.ok("DELETE", f"objects/{source}/{name}")
    http.ok("DELETE", f"objects/{other}/d/0001.jpg")
    before = set(http.entries(destination))

    assert derive(http, source, destination, ext={"jpg": "txt"}, prefix="d/", **how) == only(skipped=696)
    assert set(http.entries(destination)) == before, "removed without being asked to"
    result = derive(http, source, destination, ext={"jpg": "txt"}, prefix="d/", synchronize=True, **how)
    assert result == only(skipped=696, removed=3)
    assert before - set(http.entries(destination)) == {"d/0000.txt", "d/0300.txt", "d/0699.txt"}
    result = derive(http, source, destination, synchronize=True, **how)  # all of it, without the extension
    assert result == only(made=697, removed=1)
    assert before - set(http.entries(destination)) == {"d/0000.txt", "d/0300.txt", "d/0699.txt", "e/1"}
    for name, data in foreign.items():
        assert http.read(destination, name) == data
    assert http.read(destination, "other/d/0001.jpg") == (b"other" if action == "copy-bck" else b"rehto")


def test_a_copy_does_not_remove_what_a_transform_has_made(http: Http, reverse: str) -> None:
    source, destination = http.bucket({"a": b"12", "b": b"34"}), http.new_name()
    derive(http, source, destination, id=reverse)
    http.ok("DELETE", f"objects/{source}/a")
    assert derive(http, source, destination, synchronize=True) == only(made=1)
    assert http.read(destination, "a") == b"21"
    assert derive(http, source, destination, id=reverse, synchronize=True) == only(made=1, removed=1)


def test_names_that_are_gone_are_removed_when_they_are_chosen(http: Http, reverse: str) -> None:
    source, destination = http.bucket({f"{number}": b"%d" % number for number in range(6)}), http.new_name()
    derive(http, source, destination, id=reverse)
    for name in "135":
        http.ok("DELETE", f"objects/{source}/{name}")
    names = ["0", "1", "2", "3", "9"]
    job = http.job(source, destination, "etl-listrange", id=reverse, objnames=names)
    assert "does not exist" in http.ended(job)["err"]
    job = http.job(source, destination, "etl-listrange", id=reverse, objnames=names, synchronize=True)
    snap = http.finished(job)
    assert counts(snap) == only(skipped=2, removed=2)
    assert snap["ext"]["gone"] == 1
    assert set(http.entries(destination)) == {"0", "2", "4", "5"}, "5 was not chosen"
    job = http.job(source, destination, "etl-listrange", id=reverse, template="{0..5}", synchronize=True)
    assert counts(http.finished(job)) == only(skipped=3, removed=1)


def test_long_names_are_recorded_by_their_digest(http: Http, reverse: str) -> None:
    long = "é" * 200 + ".jpg"
    source, destination = http.bucket({long: b"long", "short.jpg": b"short"}), http.new_name()
    derive(http, source, destination, id=reverse, ext={"jpg": "png"})
    custom = custom_of(http, destination, long.replace("jpg", "png"))
    assert "name-digest" in custom["ais-recipe"]
    assert len(custom["ais-recipe"]) < 300
    assert derive(http, source, destination, id=reverse, ext={"jpg": "png"}) == only(skipped=2)
    http.ok("DELETE", f"objects/{source}/{long}")
    assert derive(http, source, destination, id=reverse, ext={"jpg": "png"}, synchronize=True) == only(
        skipped=1, removed=1
    )
    assert set(http.entries(destination)) == {"short.png"}


def test_a_transform_that_is_made_anew_meanwhile_ends_the_job(http: Http) -> None:
    etl = http.etl(SLOW, id="changing-etl")
    source, destination = http.bucket({f"{number:04}": b"%d" % number for number in range(900)}), http.new_name()
    job = http.job(source, destination, "etl-bck", id=etl)
    http.until(lambda: http.objects_done(job) > 50)
    http.ok("DELETE", f"etl/{etl}")
    http.etl(DOUBLE, id="changing-etl")
    status = http.ended(job)
    assert status["aborted"], status
    assert etl in status["err"]
    done = derive(http, source, destination, id=etl)
    assert done == only(made=900), "what the first transform made is made again"
    for name in ("0000", "0100", "0899"):
        assert http.read(destination, name) == b"%d%d" % (int(name), int(name))


# --- kills


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Http]:
    """Return a store of which every process may be killed."""
    with StoreProcess(str(tmp_path_factory.mktemp("data"))) as process:
        yield Http(process)
        assert "Traceback" not in process.errors(), process.errors()


@pytest.mark.parametrize("victim", ["controller", "http_worker", "all"])
def test_a_second_run_goes_on_after_a_kill(killed: Http, victim: str, count: Callable[[str, int], None]) -> None:
    """Somebody dies three times: what is new is made once, what is there is left, what is gone is removed."""
    objects = {f"{number:05}": content(number) for number in range(800)}
    source, destination = killed.bucket(objects), killed.new_name()
    etl = killed.etl(SLOW, id=f"slow-{victim.replace('_', '-')}")
    assert derive(killed, source, destination, id=etl, prefix="000") == only(made=100)
    assert derive(killed, source, destination, id=etl, prefix="001") == only(made=100)
    for number in range(50, 100):
        killed.ok("DELETE", f"objects/{source}/{number:05}")
    job = killed.job(source, destination, "etl-bck", id=etl, synchronize=True)
    kills = 0
    for point in (0.1, 0.6):
        killed.until(lambda point=point: killed.objects_done(job) >= point * 600)
        if killed.status(job)["end_time"] == 0:
            kills += 1
            if victim == "all":
                killed.store.kill()
                killed.store.start()
            else:
                os.kill(killed.child(f"aistore.server.{victim}"), signal.SIGKILL)
    snap = killed.finished(job)
    assert kills
    assert counts(snap) == only(made=600, skipped=150, removed=50)
    entries = killed.entries(destination)
    assert set(entries) == set(killed.entries(source))
    assert {entry["version"] for entry in entries.values()} == {"1"}, "an object was made twice"
    for name in list(entries)[::53]:
        assert killed.read(destination, name) == objects[name][::-1]
    count("kills of processes in jobs that were run again", kills)

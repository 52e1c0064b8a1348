"""Derived objects that are made again and compared: what differs is found and told apart, and nothing else is."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import xxhash
from job_requests import Http

from aistore.client import Client
from aistore.testing import StoreProcess

#: Large enough that each object has a file of its own.
SIZE = 20_000

GROW = "def transform(data):\n    return data[::-1] * 2\n"
WITH_ARGS = "import sys\nsys.stdout.buffer.write(sys.stdin.buffer.read() + sys.argv[1].encode())\n"
RANDOM = "import os\ndef transform(data):\n    return data + os.urandom(16)\n"
SEEDED = "import random\ndef transform(data):\n    return data + random.randbytes(16)\n"
SLOW = "import time\ndef transform(data):\n    time.sleep(0.004)\n    return data[::-1]\n"


def content(number: int) -> bytes:
    return (b"%06d" % number) * (SIZE // 6)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="module")
def http(place: Path) -> Iterator[Http]:
    with StoreProcess(str(place)) as process:
        yield Http(process)
        assert "Traceback" not in process.errors(), process.errors()


@pytest.fixture(scope="module")
def grow(http: Http) -> str:
    return http.etl(GROW, id="grow-etl")


def derived(http: Http, etl: str, objects: int, first: int = 0, **value: object) -> tuple[str, str]:
    """Return a source and what a transform has made of it; the first object has the content ``first``."""
    source, destination = http.bucket({f"{n:04}": content(first + n) for n in range(objects)}), http.new_name()
    http.finished(http.job(source, destination, "etl-bck", id=etl, **value))
    return source, destination


def verify(http: Http, bucket: str, **value: object) -> str:
    return http.ok("POST", f"buckets/{bucket}", {"action": "etl-verify", "value": value}).data.decode()


def found(http: Http, job: str) -> tuple[dict[str, int], dict[str, str]]:
    """Return counts of a job that has ended, and what it says of objects."""
    status = http.ended(job)
    assert not status["aborted"], status
    snap, extra = http.snap(job), http.snap(job)["ext"]
    errors = http.ok("GET", "cluster?what=job_errors", {"ID": job}).json()
    counts = {"same": int(snap["stats"]["loc-objs"]), **{key: extra[key] for key in ("failed", "stale", "skipped")}}
    assert bool(status["err"]) == bool(counts["failed"]), status
    return counts, {error["obj_name"].rpartition("/")[2]: error["msg"] for error in errors}


def result(*, same: int = 0, failed: int = 0, stale: int = 0, skipped: int = 0) -> dict[str, int]:
    return {"same": same, "failed": failed, "stale": stale, "skipped": skipped}


def file_of(place: Path, data: bytes) -> Path:
    """Return the file of the store that begins with these bytes."""
    for path in place.rglob("*"):
        if path.is_file() and path.stat().st_size >= len(data):
            with path.open("rb") as file:
                if file.read(len(data)) == data:
                    return path
    raise AssertionError("there is no such file")


def flip(path: Path, position: int) -> bytes:
    """Flip a bit of a file, and return what the file has."""
    data = bytearray(path.read_bytes())
    data[position] ^= 1
    with path.open("r+b") as file:
        file.seek(position)
        file.write(data[position : position + 1])
    return bytes(data)


def test_what_is_as_it_was_made_verifies(http: Http, grow: str, count: Callable[[str, int], None]) -> None:
    with_args = http.etl(WITH_ARGS, "io://", id="with-args")
    for etl, value in (
        (grow, {}), (with_args, {"etl_args": "a b,c", "ext": {"jpg": "png"}}), (grow, {"pipeline": [with_args]}),
    ):  # fmt: skip
        if "pipeline" in value:
            value["etl_args"] = "last"
        _, destination = derived(http, etl, 120, **value)
        http.ok("PUT", f"objects/{destination}/foreign", b"somebody else's")
        assert found(http, verify(http, destination)) == (result(same=120, skipped=1), {})
        count("derived objects made again and compared", 120)


def test_one_flipped_bit_is_found(http: Http, place: Path, grow: str) -> None:
    _, destination = derived(http, grow, 100, first=5000)
    made = content(5042)[::-1] * 2
    flip(file_of(place, made), 2 * SIZE - 5000)
    counts, errors = found(http, verify(http, destination))
    assert counts == result(same=99, failed=1)
    assert list(errors) == ["0042"]
    assert "damaged" in errors["0042"]
    http.ok("DELETE", f"objects/{destination}/0042")  # or the store tells of its damage for ever


def test_bytes_that_were_replaced_with_their_checksum_are_found(http: Http, place: Path, grow: str) -> None:
    """Who can write the disk can make bytes and checksum agree; only making the object again finds that."""
    _, destination = derived(http, grow, 50, first=6000)
    made = content(6007)[::-1] * 2
    path = file_of(place, made)
    http.store.stop()
    data = flip(path, 123)[: len(made)]
    old, new = xxhash.xxh64_hexdigest(made), xxhash.xxh64_hexdigest(data)
    for index in place.rglob("index*.db"):
        with sqlite3.connect(index) as database:
            database.execute("UPDATE objects SET checksum = ? WHERE checksum = ?", (new, old))
        database.close()
    http.store.start()
    assert http.read(destination, "0007") == data, "the store takes it for what was stored"
    counts, errors = found(http, verify(http, destination))
    assert counts == result(same=49, failed=1)
    assert "it differs" in errors["0007"]
    assert new in errors["0007"]
    assert old in errors["0007"]


def test_a_transform_that_reads_urandom_is_found(http: Http) -> None:
    etl = http.etl(RANDOM, id="random-etl")
    _, destination = derived(http, etl, 30)
    counts, errors = found(http, verify(http, destination))
    assert counts == result(failed=30)
    assert all("not reproducible" in message and etl in message for message in errors.values())


def test_a_result_that_is_kept_is_made_again_all_the_same(http: Http) -> None:
    """Else a transform that only says that it is deterministic would be compared with itself."""
    etl = http.etl(RANDOM, id="kept-etl", deterministic=True, cache=True)
    _, destination = derived(http, etl, 10)
    counts, errors = found(http, verify(http, destination))
    assert counts == result(failed=10)
    assert all("not reproducible" in message for message in errors.values())


def test_what_was_made_with_a_seed_is_made_with_it_again(http: Http) -> None:
    etl = http.etl(SEEDED, id="seeded-etl")
    source, destination = derived(http, etl, 30, seed="7")
    assert found(http, verify(http, destination)) == (result(same=30), {})
    before = {name: entry["checksum"] for name, entry in http.entries(destination).items()}
    for seed, made in (("7", 0), ("8", 30)):
        snap = http.finished(http.job(source, destination, "etl-bck", id=etl, seed=seed))
        assert snap["stats"]["loc-objs"] == str(made)
    after = {name: entry["checksum"] for name, entry in http.entries(destination).items()}
    assert all(after[name] != before[name] for name in before)
    assert found(http, verify(http, destination)) == (result(same=30), {})
    http.finished(http.job(source, destination, "etl-bck", id=etl))
    assert found(http, verify(http, destination))[0] == result(failed=30)


def test_a_source_that_has_changed_is_no_difference(http: Http, grow: str) -> None:
    source, destination = derived(http, grow, 40)
    http.ok("PUT", f"objects/{source}/0003", b"edited")
    http.ok("PUT", f"objects/{source}/0004", content(4))  # the same bytes again
    http.ok("DELETE", f"objects/{source}/0005")
    counts, errors = found(http, verify(http, destination))
    assert counts == result(same=38, stale=2)
    assert "has changed since: it was version 1" in errors["0003"]
    assert "is gone" in errors["0005"]
    http.ok("DELETE", f"buckets/{source}", {"action": "destroy-bck"})
    assert found(http, verify(http, destination))[0] == result(stale=40)


def test_what_cannot_be_made_again_is_told(http: Http) -> None:
    etl = http.etl(GROW, id="leaving-etl")
    _, destination = derived(http, etl, 10)
    http.ok("POST", f"etl/{etl}/stop")
    counts, errors = found(http, verify(http, destination))
    assert counts == result(failed=10)
    assert "cannot be made again" in errors["0000"]
    http.ok("DELETE", f"etl/{etl}")
    assert found(http, verify(http, destination))[0] == result(failed=10)
    http.etl(GROW.replace("2", "3"), id=etl)
    counts, errors = found(http, verify(http, destination))
    assert counts == result(failed=10)
    assert "has changed since" in errors["0000"]
    http.ok("DELETE", f"etl/{etl}")
    http.etl(GROW, id=etl)
    assert found(http, verify(http, destination))[0] == result(same=10)
    http.ok("DELETE", f"etl/{etl}")
    http.etl("def transform(data):\n    raise ValueError('no')\n", id=etl)
    assert found(http, verify(http, destination))[0] == result(failed=10)


def test_copies_are_compared_with_their_source(http: Http, place: Path) -> None:
    objects = {f"{number:04}": content(1000 + number) for number in range(20)}
    source, destination = http.bucket(objects), http.new_name()
    http.finished(http.job(source, destination))
    http.ok("PUT", f"objects/{source}/0002", b"edited")
    assert found(http, verify(http, destination))[0] == result(same=19, stale=1)


def test_a_sample_is_of_the_size_that_was_asked_for(http: Http, grow: str) -> None:
    _, destination = derived(http, grow, 700)  # two pages
    done = {}
    for sample in (1, 25, 700, 1000):
        counts, _ = found(http, verify(http, destination, sample=sample))
        assert counts == result(same=min(sample, 700))
    for percent, least, most in ((100.0, 700, 700), (10.0, 30, 120), (0.0001, 0, 3)):
        counts, _ = found(http, verify(http, destination, percent=percent))
        assert least <= counts["same"] <= most
        done[percent] = counts
    assert found(http, verify(http, destination, prefix="00"))[0] == result(same=100)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"sample": -1}, "out of range"),
        ({"sample": 10**9}, "out of range"),
        ({"percent": 101}, "out of range"),
        ({"percent": "many"}, "cannot be read"),
        ({"sample": 1, "percent": 1}, "choose one"),
        ({"num-workers": 1000}, "num-workers"),
        ({"request_timeout": "soon"}, "duration"),
    ],
)
def test_what_is_refused(http: Http, grow: str, value: dict[str, object], text: str) -> None:
    reply = http.ask("POST", f"buckets/{http.bucket()}", {"action": "etl-verify", "value": value})
    assert (reply.status, text in reply.data.decode()) == (400, True), reply.data


def test_a_bucket_that_is_not_there(http: Http) -> None:
    assert http.ask("POST", f"buckets/{http.new_name()}", {"action": "etl-verify"}).status == 404


def test_from_python_and_the_command_line(http: Http, grow: str) -> None:
    source, destination = derived(http, grow, 30)
    client = Client(http.store.endpoint)
    info = client.bucket(destination).verify(sample=5).wait()
    assert (info.kind, info.objects, info.error) == ("etl-verify", 5, "")

    def ais(*arguments: str) -> tuple[int, str]:
        ended = subprocess.run(
            [sys.executable, "-m", "aistore", *arguments], capture_output=True, text=True,
            env={**os.environ, "AIS_ENDPOINT": http.store.endpoint},
        )  # fmt: skip
        return ended.returncode, ended.stdout + ended.stderr

    code, output = ais("etl", "verify", f"ais://{destination}", "--wait")
    assert (code, "Verified. 30 objects" in output) == (0, True), output
    http.ok("PUT", f"objects/{source}/0001", b"edited")
    code, output = ais("etl", "verify", f"ais://{destination}", "--all", "--wait")
    assert (code, "1 whose source has changed since" in output) == (0, True), output
    custom = http.ask("HEAD", f"objects/{destination}/0002").headers["ais-custom-md"]
    recipe = dict(pair.split("=", 1) for pair in custom.split(", "))["ais-recipe"]
    http.ok("PUT", f"objects/{destination}/0002", b"other bytes")
    value = {"action": "", "name": "", "value": {"ais-recipe": recipe}}
    http.ok("PATCH", f"objects/{destination}/0002", value)
    code, output = ais("etl", "verify", f"ais://{destination}", "--sample", "100%", "--wait")
    assert (code, f"ais://{destination}/0002: it differs" in output) == (1, True), output
    code, output = ais("etl", "verify", f"ais://{destination}", "--sample", "some", "--wait")
    assert (code, "neither a number" in output) == (2, True), output
    code, output = ais("show", "job", "verify-etl", "--all")
    assert (code, "etl-verify" in output) == (0, True), output
    job = ais("etl", "verify", f"ais://{destination}", "--nv", "--all")[1].strip()
    http.ended(job)
    code, output = ais("show", "job", job, "--errors")
    assert (code, "0002" in output) == (0, True), output


# --- ends, and kills


def test_it_is_stopped(http: Http) -> None:
    etl = http.etl(SLOW, id="stopped-etl")
    _, destination = derived(http, etl, 600)
    job = verify(http, destination)
    http.until(lambda: http.objects_done(job) > 20)
    http.ok("PUT", "cluster", {"action": "stop", "value": {"ID": job}})
    assert http.status(job)["aborted"]
    assert http.objects_done(job) < 600


@pytest.mark.parametrize("victim", ["controller", "http_worker", "all"])
def test_it_goes_on_after_a_kill(http: Http, place: Path, victim: str, count: Callable[[str, int], None]) -> None:
    etl = http.etl(SLOW, id=f"verify-{victim.replace('_', '-')}")
    source, destination = derived(http, etl, 600)
    http.ok("PUT", f"objects/{source}/0599", b"edited")
    job = verify(http, destination, sample=500)
    kills = 0
    for point in (0.1, 0.6):
        http.until(lambda point=point: http.objects_done(job) >= point * 400)
        if http.status(job)["end_time"] == 0:
            kills += 1
            if victim == "all":
                http.store.kill()
                http.store.start()
            else:
                os.kill(http.child(f"aistore.server.{victim}"), signal.SIGKILL)
    counts, _ = found(http, job)
    assert kills
    assert counts["same"] + counts["stale"] == 500
    assert (counts["failed"], counts["skipped"]) == (0, 0)
    count("kills of processes in jobs that verify", kills)

"""Jobs whose processes are killed in mid-job: every object is there once, whoever died, and the counts are right."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator

import pytest
from job_requests import Http

from aistore.testing import StoreProcess

OBJECTS = int(os.environ.get("AIS_JOB_OBJECTS", "3000"))
#: How much of a job is done when something is killed.
POINTS = (0.05, 0.4, 0.8)

REVERSE = "import time\ndef transform(data):\n    time.sleep(0.0002)\n    return data[::-1]\n"


def content(number: int) -> bytes:
    return b"%d " % number * (1 + number % 300)


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Http]:
    """Return a store with objects, of which every process may be killed."""
    with StoreProcess(str(tmp_path_factory.mktemp("data"))) as process:
        yield Http(process)
        assert "Traceback" not in process.errors(), process.errors()


@pytest.fixture(scope="module")
def source(killed: Http) -> str:
    return killed.bucket({f"{number:06}.txt": content(number) for number in range(OBJECTS)})


@pytest.fixture(scope="module")
def etl(killed: Http) -> str:
    return killed.etl(REVERSE, id="slow-reverse")


def kill_controller(http: Http) -> None:
    os.kill(http.child("aistore.server.controller"), signal.SIGKILL)


def kill_http_worker(http: Http) -> None:
    os.kill(http.child("aistore.server.http_worker"), signal.SIGKILL)


def kill_everything(http: Http) -> None:
    http.store.kill()
    http.store.start()


def check(http: Http, source: str, destination: str, ext: str, *, backwards: bool) -> None:
    """Nothing missing, nothing that does not belong there, nothing written twice, every byte right."""
    before, after = http.entries(source), http.entries(destination)
    assert set(after) == {name.replace("txt", ext) for name in before}
    assert {entry["version"] for entry in after.values()} == {"1"}, "an object was written twice"
    if not backwards:
        assert [one["checksum"] for one in after.values()] == [one["checksum"] for one in before.values()]
    for number in range(0, OBJECTS, 97):
        expected = content(number)[::-1] if backwards else content(number)
        assert http.read(destination, f"{number:06}.{ext}") == expected


@pytest.mark.parametrize("action", ["copy-bck", "etl-bck"])
@pytest.mark.parametrize("kill", [kill_controller, kill_http_worker, kill_everything])
def test_a_job_goes_on(
    killed: Http, source: str, etl: str, action: str, kill: Callable[[Http], None], count: Callable[[str, int], None]
) -> None:
    destination, backwards = killed.new_name(), action == "etl-bck"
    value = {"id": etl, "ext": {"txt": "rev"}} if backwards else {}
    job = killed.job(source, destination, action, **value)
    kills = 0
    for point in POINTS:
        killed.until(lambda point=point: killed.objects_done(job) >= point * OBJECTS)
        if killed.status(job)["end_time"] == 0:
            kill(killed)
            kills += 1
    snap = killed.finished(job)
    assert kills
    assert snap["stats"]["loc-objs"] == str(OBJECTS)
    assert snap["ext"]["failed"] == snap["ext"]["gone"] == 0
    check(killed, source, destination, "rev" if backwards else "txt", backwards=backwards)
    count("kills of processes in mid-job", kills)
    count("objects compared after jobs with kills", OBJECTS)

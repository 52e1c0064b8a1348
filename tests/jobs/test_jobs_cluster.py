"""Jobs on a cluster of real nodes over a real object store: shared among nodes, going on when any of them dies."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest

import aistore
from aistore.client import Client, JobInfo
from aistore.errors import AisError, NotSupportedError
from aistore.laptop.cluster import LocalCluster

LEASE = 6
OBJECTS = 600
PATIENCE = 120.0

REVERSE = "import time\ndef transform(data):\n    time.sleep(0.02)\n    return data[::-1]\n"


def content(number: int) -> bytes:
    return b"%d " % number * 20


@pytest.fixture
def cluster() -> Iterator[LocalCluster]:
    try:
        made = LocalCluster(3, arguments=("--lease", str(LEASE), "--workers", "2"))
        with made:
            made.wait_settled()
            yield made
    except NotSupportedError as error:
        pytest.skip(str(error))


def ended(clients: list[Client], job: str) -> JobInfo:
    """Return the job when it has ended, asking whichever node answers."""
    deadline = time.monotonic() + PATIENCE
    while True:
        for client in clients:
            try:
                info = client.job(job).info()
            except AisError:
                continue
            if not info.runs:
                return info
        assert time.monotonic() < deadline, "the job does not end"
        time.sleep(0.2)


def check(client: Client, name: str, *, backwards: bool = False) -> None:
    """Nothing missing, nothing twice, every byte right."""
    bucket = client.bucket(name)
    found = {entry.name: entry for entry in bucket.list(props="name,size,version")}
    assert sorted(found) == [f"{number:04}" for number in range(OBJECTS)]
    versions = {name: bucket.object(name).head().version for name in found}
    assert set(versions.values()) == {1}, "an object was written twice"
    for number, data in zip(range(OBJECTS), bucket.batch([f"{number:04}" for number in range(OBJECTS)]), strict=True):
        expected = content(number)[::-1] if backwards else content(number)
        assert data == expected


def test_a_job_goes_on_when_any_node_dies(cluster: LocalCluster, count: Callable[[str, int], None]) -> None:
    retry = aistore.client.RetryPolicy(attempts_max=3, pause_seconds=0.1, busy_seconds_max=30.0)
    clients = [Client(cluster.node(number).endpoint, retry=retry, read_timeout_seconds=30) for number in (1, 2, 3)]
    one, _, three = clients
    source = one.bucket("source").create()
    for number in range(OBJECTS):
        source.object(f"{number:04}").put(content(number))

    info = ended(clients, source.copy("copied").id)
    assert (info.objects, info.error) == (OBJECTS, "")
    check(three, "copied")

    one.etl("slow-reverse").init_code(REVERSE)
    job = source.transform("helper-died", "slow-reverse")
    begun(one, job.id)
    cluster.node(2).kill()
    info = ended([one, three], job.id)
    assert (info.objects, info.error) == (OBJECTS, "")
    check(three, "helper-died", backwards=True)
    cluster.node(2).start()
    cluster.wait_settled()

    one.etl("upper-etl").init_code("def transform(data):\n    return data.upper()\n")
    pipeline = one.etl("slow-reverse") >> "upper-etl"
    job = source.transform("owner-died", pipeline, template=f"{{0000..{OBJECTS - 1:04}}}")
    begun(one, job.id)
    cluster.node(1).kill()
    info = ended(clients[1:], job.id)
    assert (info.objects, info.error) == (OBJECTS, "")
    check(three, "owner-died", backwards=True)
    count("objects compared after jobs in a cluster", 3 * OBJECTS)
    count("nodes killed in mid-job", 2)


def begun(client: Client, job: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while client.job(job).info().objects < OBJECTS // 10:
        assert time.monotonic() < deadline
        time.sleep(0.02)

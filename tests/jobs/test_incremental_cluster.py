"""Jobs that are run again, and derived objects that are made again, on a cluster: also when nodes die meanwhile."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable

import pytest
import xxhash

from aistore.client import Bucket, Client, JobInfo, RetryPolicy
from aistore.errors import AisError
from aistore.laptop.weed import Weed
from aistore.storage.objectstore.contract import ABSENT, ObjectStore
from aistore.storage.objectstore.metadata import CHECKSUM
from aistore.storage.objectstore.urls import open_object_store
from aistore.testing import LocalCluster

PATIENCE = 120.0
RETRY = RetryPolicy(attempts_max=3, pause_seconds=0.1, busy_seconds_max=30.0)
REVERSE = "def transform(data):\n    return data[::-1]\n"
SLOW = "import time\ndef transform(data):\n    time.sleep(0.02)\n    return data[::-1]\n"
_NUMBERS = itertools.count(1)


def content(number: int) -> bytes:
    return b"%d " % number * 20


def opened(weed: Weed, url: str) -> ObjectStore:
    """Return a place in the object store, as another program would open it."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in weed.environment.items():
            patch.setenv(name, value)
        return open_object_store(url)


def clients_of(cluster: LocalCluster) -> list[Client]:
    return [Client(node.endpoint, retry=RETRY, read_timeout_seconds=30) for node in cluster.running]


def ended(clients: Iterable[Client], job: str) -> JobInfo:
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
        time.sleep(0.1)


def wait_for(client: Client, job: str, objects: int) -> None:
    deadline = time.monotonic() + PATIENCE
    while client.job(job).info().objects < objects:
        assert time.monotonic() < deadline
        time.sleep(0.02)


def counts(info: JobInfo) -> dict[str, int]:
    assert info.error == "", info
    found = {name: getattr(info, name) for name in ("objects", "skipped", "removed", "stale", "failed")}
    return {name: number for name, number in found.items() if number}


def check(source: Bucket, destination: Bucket) -> None:
    """Everything is there, nothing else, and every byte is right."""
    names = sorted(entry.name for entry in source.list())
    assert sorted(entry.name for entry in destination.list()) == names
    for before, after in zip(source.batch(names), destination.batch(names), strict=True):
        assert after == before[::-1]


def test_only_what_has_changed_is_made_again(cluster: LocalCluster) -> None:
    clients = clients_of(cluster)
    one, two, three = clients
    one.etl("incremental").init_code(REVERSE)
    source = one.bucket("incremental-source").create()
    for number in range(400):
        source.object(f"{number:04}").put(content(number), custom={"colour": "blue"})

    assert counts(ended(clients, source.transform("incremental", "incremental").id)) == {"objects": 400}
    second = two.bucket("incremental-source").transform("incremental", "incremental", sync=True)
    assert counts(ended(clients, second.id)) == {"skipped": 400}
    head = three.bucket("incremental").object("0007").head()
    assert head.custom["colour"] == "blue"
    assert head.custom["ais-recipe"].startswith("from=ais://incremental-source&name=0007&version=1&sum=")

    for number in (3, 5, 399):
        source.object(f"{number:04}").put(b"edited %d" % number)
    for name in ("a", "b/c", "zzz", "0400"):
        source.object(name).put(name.encode())
    source.object("0009").put(content(9))  # the same bytes again
    source.object("0200").delete()
    three.bucket("incremental").object("foreign").put(b"mine")
    third = three.bucket("incremental-source").transform("incremental", "incremental", sync=True)
    assert counts(ended(clients, third.id)) == {"objects": 7, "skipped": 396, "removed": 1}
    assert one.bucket("incremental").object("foreign").get().read() == b"mine"
    three.bucket("incremental").object("foreign").delete()
    check(source, one.bucket("incremental"))
    assert counts(ended(clients, three.bucket("incremental").verify().id)) == {"objects": 403}
    one.etl("incremental").delete()


def test_bytes_that_were_replaced_in_the_object_store_are_found(cluster: LocalCluster, weed: Weed) -> None:
    clients = clients_of(cluster)
    one, two, _ = clients
    one.etl("found-out").init_code(REVERSE)
    source = one.bucket("found-out-source").create()
    for number in range(30):
        source.object(f"{number:04}").put(content(number))
    assert counts(ended(clients, source.transform("found-out", "found-out").id)) == {"objects": 30}
    assert counts(ended(clients, two.bucket("found-out").verify(sample=10).id)) == {"objects": 10}

    store = opened(weed, cluster.store_url)
    for key, checksum in (("found-out/0011", "0123456789abcdef"), ("found-out/0012", "")):
        body = store.get(key)
        assert body is not None
        data = bytearray(body.read())
        data[10] ^= 1
        metadata = {**body.info.metadata, CHECKSUM: checksum or xxhash.xxh64_hexdigest(data)}
        store.put(key, bytes(data), metadata, body.info.etag)
    job = two.bucket("found-out").verify()
    info = ended(clients, job.id)
    assert (info.objects, info.failed, info.aborted) == (28, 2, False)
    found = {error.name.rpartition("/")[2]: error.message for error in job.errors()}
    assert set(found) == {"0011", "0012"}
    assert "it differs" in found["0012"]
    one.etl("found-out").delete()


def test_sources_that_other_programs_write(cluster: LocalCluster, weed: Weed) -> None:
    """They have no checksum of ours and no version: an ETag tells one from another."""
    clients = clients_of(cluster)
    one, two, _ = clients
    name = f"incremental-foreign-{next(_NUMBERS)}"
    weed.make_bucket(name)
    store = opened(weed, f"s3://{name}")
    for number in range(60):
        store.put(f"{number:04}.jpg", content(number), {}, ABSENT)
    one.etl("of-foreign").init_code(REVERSE)
    source = one.bucket(f"s3://{name}").create()
    job = source.transform("of-foreign", "of-foreign", ext={"jpg": "png"})
    assert counts(ended(clients, job.id)) == {"objects": 60}
    again = two.bucket(f"s3://{name}")
    job = again.transform("of-foreign", "of-foreign", ext={"jpg": "png"}, sync=True)
    assert counts(ended(clients, job.id)) == {"skipped": 60}

    store.put("0005.jpg", b"edited", {}, store.head("0005.jpg").etag)
    store.delete("0006.jpg")
    assert counts(ended(clients, one.bucket("of-foreign").verify().id)) == {"objects": 58, "stale": 2}
    job = again.transform("of-foreign", "of-foreign", ext={"jpg": "png"}, sync=True)
    assert counts(ended(clients, job.id)) == {"objects": 1, "skipped": 58, "removed": 1}
    assert two.bucket("of-foreign").object("0005.png").get().read() == b"detide"
    assert counts(ended(clients, one.bucket("of-foreign").verify().id)) == {"objects": 59}

    assert counts(ended(clients, source.copy("copy-of-foreign").id)) == {"objects": 59}
    assert counts(ended(clients, again.copy("copy-of-foreign", sync=True).id)) == {"skipped": 59}
    store.delete("0007.jpg")
    assert counts(ended(clients, again.copy("copy-of-foreign", sync=True).id)) == {"skipped": 58, "removed": 1}
    one.etl("of-foreign").delete()


def test_they_go_on_when_nodes_die(new_cluster: Callable[..., LocalCluster], count: Callable[[str, int], None]) -> None:
    cluster = new_cluster(3)
    clients = clients_of(cluster)
    one, _, three = clients
    one.etl("slow-reverse").init_code(SLOW)
    source = one.bucket("source").create()
    for number in range(300):
        source.object(f"{number:04}").put(content(number))
    assert counts(ended(clients, source.transform("derived", "slow-reverse", prefix="00").id)) == {"objects": 100}
    for number in range(20):
        source.object(f"{number:04}").delete()

    job = source.transform("derived", "slow-reverse", sync=True)
    wait_for(one, job.id, 30)
    cluster.node(2).kill()
    info = ended([one, three], job.id)
    assert counts(info) == {"objects": 200, "skipped": 80, "removed": 20}
    destination = three.bucket("derived")
    check(three.bucket("source"), destination)
    versions = {destination.object(entry.name).head().version for entry in destination.list()}
    assert versions == {1}, "an object was made twice"
    cluster.node(2).start()
    cluster.wait_settled()

    job = one.bucket("derived").verify()
    wait_for(one, job.id, 30)
    cluster.node(1).kill()
    assert counts(ended(clients[1:], job.id)) == {"objects": 280}
    count("nodes killed in jobs that were run again or verify", 2)

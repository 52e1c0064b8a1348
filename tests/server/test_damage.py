"""Bytes that the disk changed: found, named, never given out as a whole object."""

from __future__ import annotations

import http.client
import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from aistore.client import Client
from aistore.errors import BadRequestError, ObjectDamagedError
from aistore.testing import StoreProcess
from aistore.wire.batch import read_frames

TINY, SMALL, LARGE = 100, 20_000, 5_000_000


class Disk:
    """What lies under a store, and how it goes bad."""

    def __init__(self, data: str) -> None:
        self._data = data

    def file(self, name: str) -> Path:
        for index in Path(self._data).glob("mp*/index.db"):
            with sqlite3.connect(index) as connection:
                row = connection.execute("SELECT place FROM objects WHERE name = ?", (name.encode(),)).fetchone()
            connection.close()
            if row is not None:
                return index.parent / "data" / str(row[0])
        raise AssertionError(f"{name} is nowhere")

    def flip(self, name: str, position: int) -> None:
        with open(self.file(name), "r+b") as file:
            file.seek(position)
            byte = file.read(1)[0]
            file.seek(position)
            file.write(bytes([byte ^ 0x10]))

    def flip_inline(self, name: str) -> None:
        for index in Path(self._data).glob("mp*/index.db"):
            connection = sqlite3.connect(index)
            connection.execute("UPDATE objects SET data = ? WHERE name = ?", (b"not what was stored", name.encode()))
            connection.commit()
            connection.close()


@pytest.fixture
def damaged_store(new_store: Callable[..., StoreProcess]) -> Iterator[tuple[StoreProcess, Client, Disk]]:
    store = new_store(arguments=("--workers", "2"))
    with Client(store.endpoint) as client:
        yield store, client, Disk(store.data)


def raw_get(endpoint: str, path: str, range_: str = "") -> tuple[int, bytes, int]:
    """GET without a client's help: status, what came of the body, and how many bytes were announced."""
    with closing(http.client.HTTPConnection(endpoint.removeprefix("http://"), timeout=30)) as connection:
        connection.request("GET", path, headers={"Range": range_} if range_ else {})
        with connection.getresponse() as reply:  # it keeps the socket of a connection that the store ends
            announced = int(reply.headers["content-length"])
            try:
                return reply.status, reply.read(), announced
            except http.client.IncompleteRead as cut:
                return reply.status, cut.partial, announced


def test_a_flipped_bit_of_a_small_object_is_an_error(damaged_store):
    store, client, disk = damaged_store
    bucket = client.bucket("b").create()
    places = [(size, at) for size in (300, SMALL, 1 << 20) for at in (0, size // 2, size - 1)]
    names = [f"dir/{size}-{at}" for size, at in places]
    for name, (size, at) in zip(names, places, strict=True):
        bucket.object(name).put(os.urandom(size))
        disk.flip(name, at)
        for _ in range(4):  # more often than there are workers
            with pytest.raises(ObjectDamagedError) as caught:
                bucket.object(name).get().read()
            assert f"ais://b/{name} is damaged: its file {disk.file(name)} has xxhash2 " in caught.value.message
            assert bucket.object(name).head().checksum.value in caught.value.message
            assert "put it again" in caught.value.hint
            assert caught.value.status == 500
        assert store.errors().count(f"aistore.storage: ais://b/{name} is damaged") == 1  # said once, met often
    assert [entry.name for entry in bucket.list()] == sorted(names)


def test_a_damaged_object_can_be_put_again_and_deleted(damaged_store):
    _, client, disk = damaged_store
    bucket = client.bucket("b").create()
    for name in ("again", "gone"):
        bucket.object(name).put(b"x" * SMALL)
        disk.flip(name, 5)
        with pytest.raises(ObjectDamagedError):
            bucket.object(name).get().read()
    bucket.object("again").put(b"y" * SMALL)
    assert bucket.object("again").get().read() == b"y" * SMALL
    bucket.object("gone").delete()
    assert [entry.name for entry in bucket.list()] == ["again"]


@pytest.mark.parametrize("position", [0, 1 << 20, LARGE - 1])
def test_a_large_object_with_a_flipped_bit_never_comes_whole(damaged_store, position):
    store, client, disk = damaged_store
    bucket = client.bucket("b").create()
    bucket.object("large").put(os.urandom(LARGE))
    disk.flip("large", position)
    status, body, announced = raw_get(store.endpoint, "/v1/objects/b/large")
    assert (status, announced) == (200, LARGE)
    assert len(body) < LARGE
    # From then on it is known, and refused before the first byte; so is what is left of it to a client that goes on.
    for range_ in ("", f"bytes={len(body)}-", "bytes=0-9"):
        status, body, _ = raw_get(store.endpoint, "/v1/objects/b/large", range_)
        assert status == 500
        assert b"ErrObjDamaged" in body
    assert store.errors().count("aistore.storage: ais://b/large is damaged") == 1
    assert "Traceback" not in store.errors()


def test_the_client_gets_the_clear_error_of_a_large_object_too(damaged_store):
    _, client, disk = damaged_store
    bucket = client.bucket("b").create()
    bucket.object("large").put(os.urandom(LARGE))
    disk.flip("large", LARGE // 2)
    with pytest.raises(ObjectDamagedError, match="ais://b/large is damaged"):
        bucket.object("large").get().read()


def test_a_range_is_not_compared_until_damage_is_known(damaged_store):
    store, client, disk = damaged_store
    bucket = client.bucket("b").create()
    bucket.object("one").put(b"x" * SMALL)
    disk.flip("one", 0)
    assert raw_get(store.endpoint, "/v1/objects/b/one", "bytes=1-3")[:2] == (206, b"xxx")
    assert raw_get(store.endpoint, "/v1/objects/b/one")[0] == 500
    assert raw_get(store.endpoint, "/v1/objects/b/one", "bytes=1-3")[0] == 500


def test_an_object_in_the_index_is_compared_too(damaged_store):
    _, client, disk = damaged_store
    bucket = client.bucket("b").create()
    bucket.object("tiny").put(b"t" * TINY)
    disk.flip_inline("tiny")
    with pytest.raises(ObjectDamagedError, match="ais://b/tiny is damaged: its row in the index has xxhash2"):
        bucket.object("tiny").get().read()
    assert bucket.object("tiny").head().size == TINY


@pytest.mark.parametrize("size", [SMALL, LARGE])
@pytest.mark.parametrize("how", ["truncated", "deleted"])
def test_lost_bytes_are_an_error(damaged_store, size, how):
    _, client, disk = damaged_store
    bucket = client.bucket("b").create()
    bucket.object("one").put(os.urandom(size))
    if how == "deleted":
        disk.file("one").unlink()
    else:
        os.truncate(disk.file("one"), size - 10)
    problem = "is gone" if how == "deleted" else f"ends at byte {size - 10}, {size} were stored"
    with pytest.raises(ObjectDamagedError, match=problem):
        bucket.object("one").get().read()


@pytest.mark.parametrize("size", [SMALL, LARGE])
def test_an_entry_of_a_batch_fails_alone(damaged_store, size):
    store, client, disk = damaged_store
    bucket = client.bucket("b").create()
    for name in ("a", "bad", "c"):
        bucket.object(name).put(name.encode() * (size // len(name)))
    disk.flip("bad", 7)
    with closing(http.client.HTTPConnection(store.endpoint.removeprefix("http://"), timeout=30)) as connection:
        connection.request("POST", "/v1/batch/b", b'{"entries":[["a",""],["bad",""],["c",""]]}')
        with connection.getresponse() as reply:
            frames = list(read_frames(reply.read))
    assert [frame.status for frame in frames] == [200, 500, 200]
    assert b"ErrObjDamaged" in frames[1].data


def test_a_transform_never_sees_damaged_bytes(damaged_store):
    _, client, disk = damaged_store
    bucket = client.bucket("b").create()
    code = "import sys; sys.stdout.buffer.write(sys.stdin.buffer.read())"
    client.etl("identity").init_code(code, comm_type="io://")
    for name, size in (("small", SMALL), ("large", LARGE)):
        bucket.object(f"{name} and sound").put(b"s" * size)
        assert bucket.object(f"{name} and sound").get(etl="identity").read() == b"s" * size
        bucket.object(name).put(os.urandom(size))
        disk.flip(name, size // 2)
        with pytest.raises(ObjectDamagedError, match=f"ais://b/{name} is damaged"):
            bucket.object(name).get(etl="identity").read()


def finished(client: Client, began: float) -> object:
    """Ask until the pass that began then has ended."""
    deadline = time.monotonic() + 60
    while (report := client.scrub_report()).running and report.began == began:
        assert time.monotonic() < deadline, report
    return report


def test_the_scrubber_finds_damage_that_nobody_read(damaged_store):
    store, client, disk = damaged_store
    bucket = client.bucket("b").create()
    for name, size in (("large", LARGE), ("sound", SMALL), ("small", SMALL), ("tiny", TINY)):
        bucket.object(name).put(os.urandom(size))
    disk.flip("large", LARGE - 1)
    disk.flip("small", 3)
    report = finished(client, client.start_scrub().began)
    assert [(damaged.bucket, damaged.name) for damaged in report.damaged] == [("b", "large"), ("b", "small")]
    assert report.damaged[1].file == str(disk.file("small"))
    assert (report.objects, report.bytes) == (4, LARGE + 2 * SMALL + TINY)
    # Nobody is given a byte of it from now on, not even a part.
    assert raw_get(store.endpoint, "/v1/objects/b/large")[0] == 500
    bucket.object("large").put(b"good again")
    bucket.object("small").delete()
    assert client.scrub_report().damaged == []


def test_a_pass_can_be_stopped_and_is_bounded(damaged_store):
    _, client, _ = damaged_store
    bucket = client.bucket("b").create()
    bucket.object("large").put(b"x" * LARGE)
    assert client.start_scrub(bytes_per_second=1000).running
    assert not client.stop_scrub().running
    with pytest.raises(BadRequestError, match="bytes_per_second is -1"):
        client.start_scrub(-1)


def test_a_pass_goes_on_after_a_restart(new_store, tmp_path):
    first = new_store(str(tmp_path / "data"))
    with Client(first.endpoint) as client:
        bucket = client.bucket("b").create()
        for number in range(3):
            bucket.object(f"{number}").put(b"x" * LARGE)
        began = client.start_scrub(bytes_per_second=1).began  # it reads a piece, and then waits for a long time
        deadline = time.monotonic() + 60
        while client.scrub_report().bytes == 0:
            assert time.monotonic() < deadline
    first.end()
    second = new_store(str(tmp_path / "data"))
    with Client(second.endpoint) as client:
        assert client.scrub_report().began == began
        report = finished(client, began)
        assert (report.began, report.objects, report.damaged) == (began, 3, [])

"""The engine over object stores against the suite that ships with the project."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from aistore.errors import BackendUnavailableError, ObjectDamagedError
from aistore.model.objects import ListOptions, PutOptions
from aistore.storage.conformance import Check, checks
from aistore.storage.objectstore.engine import ObjectStoreEngine
from aistore.storage.objectstore.metadata import CHECKSUM
from aistore.storage.objectstore.store import ObstoreStore
from aistore.storage.verified import verify


@pytest.fixture
def engine(store: ObstoreStore) -> Iterator[ObjectStoreEngine]:
    made = ObjectStoreEngine(store)
    yield made
    made.close()


@pytest.mark.parametrize("check", checks(), ids=lambda check: check.__name__)
def test_conformance(engine: ObjectStoreEngine, check: Check) -> None:
    check(engine)


def test_a_large_object_that_changes_while_it_is_read_is_not_mixed(engine: ObjectStoreEngine) -> None:
    engine.create_bucket("b", {})
    engine.put("b", "o", b"1" * 5_000_000, PutOptions()).result(60)
    with engine.get("b", "o") as reading:
        assert reading.read(0, 10) == b"1" * 10
        engine.put("b", "o", b"2" * 4_000_000, PutOptions()).result(60)
        with pytest.raises(BackendUnavailableError, match="b/o was replaced"):
            reading.read(3_000_000, 10)
    engine.put("b", "o", b"1" * 5_000_000, PutOptions()).result(60)
    with engine.get("b", "o") as reading:
        pieces = [reading.read(start, 1 << 20) for start in range(0, 4 << 20, 1 << 20)]
        assert b"".join(pieces) == b"1" * (4 << 20)


def test_bytes_that_are_not_those_that_were_stored_are_found(engine: ObjectStoreEngine, store: ObstoreStore) -> None:
    if not store.capabilities.metadata:
        pytest.skip("without metadata there is no checksum to compare with")
    engine.create_bucket("b", {})
    for size in (100, 5_000_000):
        engine.put("b", "o", b"1" * size, PutOptions()).result(60)
        store.put("b/o", b"2" * size, {CHECKSUM: store.head("b/o").metadata[CHECKSUM]})
        with pytest.raises(ObjectDamagedError, match="b/o is damaged"), engine.get("b", "o") as reading:
            verify(reading)


def test_keys_of_other_programs_are_objects(engine: ObjectStoreEngine, store: ObstoreStore) -> None:
    engine.create_bucket("b", {})
    store.put("b/dir/foreign", b"abc")
    info = engine.head("b", "dir/foreign")
    assert (info.version, info.size, info.checksum.type) == (1, 3, "none")
    with engine.get("b", "dir/foreign") as reading:
        assert reading.read(0, 3) == b"abc"
    assert [entry.name for entry in engine.list("b", ListOptions()).entries] == ["dir/foreign"]
    version = 2 if store.capabilities.metadata else 1
    assert engine.put("b", "dir/foreign", b"new", PutOptions()).result(60).version == version


def test_a_bucket_half_removed_is_gone_and_can_be_made_again(engine: ObjectStoreEngine, store: ObstoreStore) -> None:
    engine.create_bucket("b", {})
    engine.put("b", "o", b"1", PutOptions()).result(60)
    engine._buckets.begin_delete("b")  # and then the process was killed
    assert engine.list_buckets() == []
    engine.create_bucket("b", {"new": 1})
    assert store.list("b/").entries == []
    assert engine.head_bucket("b").props == {"new": 1}

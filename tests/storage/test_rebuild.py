"""The index made again from nothing but the data files."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from aistore.errors import ConflictError
from aistore.model.objects import ListOptions, PutOptions
from aistore.storage.local.engine import LocalEngine
from aistore.storage.local.rebuild import rebuild

PLAIN = PutOptions()


def test_every_object_in_a_file_comes_back(tmp_path: Path) -> None:
    directory = str(tmp_path / "store")
    engine = LocalEngine(directory)
    for bucket in ("b", "recreated"):
        engine.create_bucket(bucket, {})
    engine.put("recreated", "old", b"x" * 1000, PLAIN).result()
    engine.delete_bucket("recreated")
    engine.create_bucket("recreated", {})
    engine.put("recreated", "new", b"x" * 1000, PLAIN).result()
    for number in range(3):
        engine.put("b", "overwritten", bytes([number]) * 1000, PutOptions(custom={"k": "v"})).result()
    engine.put("b", "noted", b"n" * 1000, PLAIN).result()
    engine.set_custom("b", "noted", {"note": "é"}, replace=False).result()
    engine.put("b", "dir/\0name", b"z" * 1000, PLAIN).result()
    # Deleted and written again: versions start again, and the later write counts.
    engine.put("b", "again", b"1" * 1000, PLAIN).result()
    engine.put("b", "again", b"2" * 1000, PLAIN).result()
    engine.delete("b", "again").result()
    engine.put("b", "again", b"3" * 1000, PLAIN).result()
    before = {bucket: engine.list(bucket, ListOptions()).entries for bucket in ("b", "recreated")}
    with pytest.raises(ConflictError, match="being written to"):
        rebuild(directory)
    engine.close()
    for part in ("", "-wal", "-shm"):
        if os.path.exists(f"{directory}/mp0/index.db{part}"):
            Path(f"{directory}/mp0/index.db{part}").write_bytes(b"garbage" * 1000)
    with pytest.raises(ConflictError, match=r"index\.db cannot be opened.*not a database") as caught:
        LocalEngine(directory)
    assert "rebuild" in caught.value.hint
    result = rebuild(directory)
    assert (result.buckets, result.objects, result.superseded, result.unreadable) == (2, 5, 5, 0)
    again = LocalEngine(directory)
    try:
        assert {bucket: again.list(bucket, ListOptions()).entries for bucket in ("b", "recreated")} == before
        with again.get("b", "again") as reading:
            assert reading.read(0, 1000) == b"3" * 1000
        assert again.create_bucket("next", {}).id > again.head_bucket("recreated").id
    finally:
        again.close()


def test_an_object_that_looks_like_a_trailer_stays_an_object(tmp_path: Path) -> None:
    directory = str(tmp_path / "store")
    engine = LocalEngine(directory)
    engine.create_bucket("b", {})
    engine.put("b", "real", b"r" * 1000, PLAIN).result()
    with engine.get("b", "real") as reading:
        stolen = Path(reading.path).read_bytes()
    engine.put("b", "fake", stolen, PLAIN).result()
    engine.close()
    assert rebuild(directory).objects == 2
    again = LocalEngine(directory)
    try:
        with again.get("b", "fake") as reading:
            assert reading.read(0, reading.info.size) == stolen
    finally:
        again.close()


def test_nothing_to_rebuild_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConflictError, match="no data"):
        rebuild(str(tmp_path))

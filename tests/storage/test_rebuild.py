"""The index made again from nothing but the data files."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from damaging import PROPS, checkpoint, database, execute, file_of, fill, flip, readable

from aistore.errors import ConflictError, NotFoundError
from aistore.model.objects import ListOptions, PutOptions
from aistore.storage.local.engine import LocalEngine
from aistore.storage.local.fsck import check, rebuild_all
from aistore.storage.local.rebuild import Rebuilt

PLAIN = PutOptions()


def rebuild(directory: str) -> Rebuilt:
    ((_, rebuilt),) = rebuild_all(directory)
    return rebuilt


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
    with pytest.raises(NotFoundError, match="not a data directory"):
        rebuild(str(tmp_path))


# What follows compares with a plain model of what was stored, see damaging.py.


def gone(rebuilt: Rebuilt) -> bool:
    return not rebuilt.salvaged.whole


def test_a_sound_index_made_again_is_the_same(tmp_path: Path) -> None:
    directory = str(tmp_path / "store")
    model = fill(directory)
    rebuilt = rebuild(directory)
    assert rebuilt.salvaged.whole
    assert (rebuilt.buckets, rebuilt.objects, rebuilt.inline, rebuilt.lost) == (3, 69, 39, 0)
    assert readable(directory) == (model, {})
    engine = LocalEngine(directory)
    try:
        assert [(bucket.name, bucket.props) for bucket in engine.list_buckets()] == [
            (name, PROPS) for name in ("data", "empty", "labels")
        ]
        # Numbers and versions go on where they were: nothing removed can pass for something new.
        assert engine.create_bucket("removed", {}).id == 5
        assert engine.put("data", "train/00001.jpg", b"3", PLAIN).result().version == 3
    finally:
        engine.close()
    assert check(directory).findings == []


def test_the_old_index_stays_aside(tmp_path: Path) -> None:
    directory = str(tmp_path / "store")
    fill(directory)
    checkpoint(directory)
    old = database(directory).read_bytes()
    for _ in range(2):
        rebuilt = rebuild(directory)
        assert Path(rebuilt.old_index).parent == database(directory).parent
    asides = sorted(database(directory).parent.glob("index.db.before-*[0-9]"))
    assert len(asides) == 2
    assert asides[0].read_bytes() == old


def test_a_deleted_index_comes_back_from_the_trailers(tmp_path: Path) -> None:
    directory = str(tmp_path / "store")
    model = fill(directory)
    checkpoint(directory)
    for path in database(directory).parent.glob("index.db*"):
        path.unlink()
    rebuilt = rebuild(directory)
    assert gone(rebuilt)
    good, bad = readable(directory)
    files = {key: value for key, value in model.items() if key[0] == "data"}
    back = {key: value for key, value in good.items() if key[0] == "data"}
    assert bad == {}
    # What was deleted a moment ago comes back, as documented: no trash tells of it.
    assert back.keys() - files.keys() == {("data", "train/00003.jpg")}
    assert {key: back[key] for key in files} == files
    assert {key for key in good if key[0] != "data"} == {("removed", str(number)) for number in range(30)}
    assert check(directory).findings == []


def test_around_a_lost_page_of_the_index_everything_comes_back(tmp_path: Path) -> None:
    source = tmp_path / "source"
    model = fill(str(source), labels=700)
    checkpoint(str(source))
    whole = database(str(source)).read_bytes()
    pages = len(whole) // 4096
    assert pages > 10
    kept = []
    for page in range(pages):
        directory = str(tmp_path / "store")
        shutil.copytree(source, directory)
        damaged = bytearray(whole)
        damaged[page * 4096 : page * 4096 + 4096] = random.Random(page).randbytes(4096)
        database(directory).write_bytes(damaged)
        rebuilt = rebuild(directory)
        good, bad = readable(directory)
        assert bad == {}
        # The name of a bucket without files is on one page alone; its objects come back all the same.
        good = {(bucket.replace("recovered-2", "labels"), name): value for (bucket, name), value in good.items()}
        files = {key for key in model if key[0] == "data"}
        assert files <= good.keys()
        assert all(good[key] == model[key] for key in model if key in good), page
        lost = model.keys() - good.keys()
        assert not lost or gone(rebuilt), page
        for bucket, name in lost:
            assert bucket == "labels"
            assert any(gap.bucket == 2 and gap.after < name.encode() < gap.before for gap in rebuilt.salvaged.gaps), (
                page,
                name,
            )
        kept.append(len(good))
        assert check(directory).findings == []
        shutil.rmtree(directory)
    # One page holds some tens of rows; only those above all others, of which there are two or three, hold more.
    assert sum(count >= len(model) - 150 for count in kept) >= pages - 3


def test_trailers_overrule_rows_that_changed(tmp_path: Path) -> None:
    directory = str(tmp_path / "store")
    model = fill(directory)
    execute(directory, "UPDATE objects SET checksum = 'aa', version = 9 WHERE name = ?", b"train/00010.jpg")
    execute(directory, "UPDATE objects SET name = ? WHERE name = ?", b"tra\x00n/00011.jpg", b"train/00011.jpg")
    execute(directory, "DELETE FROM objects WHERE name = ?", b"train/00012.jpg")
    rebuild(directory)
    assert readable(directory) == (model, {})


def test_an_object_whose_file_is_gone_is_said_to_be_lost(tmp_path: Path) -> None:
    directory = str(tmp_path / "store")
    model = fill(directory)
    file_of(directory, "train/00010.jpg").unlink()
    flip(file_of(directory, "train/00011.jpg"), -10)  # its trailer; the old index still knows it
    rebuilt = rebuild(directory)
    assert (rebuilt.lost, rebuilt.lost_names, rebuilt.unreadable) == (1, ["ais://data/train/00010.jpg"], 1)
    del model["data", "train/00010.jpg"]
    assert readable(directory) == (model, {})


@pytest.mark.parametrize("steps", range(10))  # it has nine
def test_killed_in_the_middle_it_can_be_run_again(tmp_path: Path, steps: int) -> None:
    directory = str(tmp_path / "store")
    model = fill(directory)
    command = [sys.executable, str(Path(__file__).parent / "rebuild_victim.py"), directory, str(steps)]
    victim = subprocess.run(command, capture_output=True, text=True)
    assert victim.returncode == -signal.SIGKILL, victim.stderr
    if os.path.exists(f"{database(directory)}.rebuilding"):
        with pytest.raises(ConflictError, match="interrupted") as caught:
            LocalEngine(directory)
        assert f"ais fsck --rebuild {directory}" in caught.value.hint
        assert [finding.kind for finding in check(directory).findings] == ["interrupted"]
        assert rebuild(directory).salvaged.whole
    assert readable(directory) == (model, {})
    assert check(directory).findings == []

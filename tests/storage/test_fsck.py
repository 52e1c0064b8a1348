"""Damage of every kind, made on purpose: each is found and named, and what is sound is never reported."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from damaging import SMALL_GENERATIONS, checkpoint, database, execute, file_of, fill, flip, place, readable

from aistore.errors import ConflictError, InternalError, NotFoundError
from aistore.model.objects import PutOptions
from aistore.storage.local.engine import LocalEngine
from aistore.storage.local.fsck import Finding, check
from aistore.storage.local.locks import acquire_ownership
from aistore.storage.local.reclaim import Reclaimer
from aistore.storage.local.recovery import recover

KILLS = int(os.environ.get("AISTORE_KILL_ROUNDS", "60")) // 15


def settle(directory: str, seconds: float = 4.0) -> None:
    """Let the reclaimer seal and remove what it can, as it would while a store runs."""
    reclaimer = Reclaimer(directory, grace_seconds=0.0)
    now = 0.0
    try:
        while now < seconds:
            now += 0.25
            while reclaimer.step(now):
                pass
    finally:
        reclaimer.close()


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> str:
    directory = str(tmp_path_factory.mktemp("filled") / "store")
    fill(directory)
    settle(directory)
    checkpoint(directory)
    return directory


@pytest.fixture
def directory(filled: str, tmp_path: Path) -> str:
    return str(shutil.copytree(filled, tmp_path / "store"))


def findings(directory: str, *, fast: bool = False) -> list[Finding]:
    before = snapshot(directory)
    report = check(directory, fast=fast)
    assert snapshot(directory) == before
    return report.findings


def snapshot(directory: str) -> dict[str, bytes]:
    """Everything in a directory that a check must leave alone: all but locks and SQLite's shared memory."""
    return {
        str(path.relative_to(directory)): path.read_bytes()
        for path in Path(directory).rglob("*")
        if path.is_file() and not path.name.endswith((".lock", "-shm")) and path.stat().st_size
    }


def test_a_sound_store_is_clean(directory: str) -> None:
    report = check(directory)
    assert report.findings == []
    assert (report.objects, report.unfinished) == (69, 0)
    assert report.bytes > 3_000_000
    assert check(directory, fast=True).findings == []


def test_progress_is_told_in_bytes_that_add_up(directory: str) -> None:
    from aistore.storage.local.fsck import Progress

    total: list[int] = []
    seen: list[int] = []
    report = check(directory, progress=Progress(total.append, seen.append))
    inline = sum(len(str(number)) for number in range(40) if number != 3)
    assert sum(total) == report.bytes == sum(seen) + inline


@pytest.mark.parametrize("position", [0, 1500, -1])
def test_a_flipped_bit_in_the_bytes(directory: str, position: int) -> None:
    path = file_of(directory, "train/00010.jpg")
    size = 2000
    flip(path, position if position >= 0 else size - 1)
    (finding,) = findings(directory)
    assert finding.kind == "checksum"
    assert (finding.object, finding.file) == ("ais://data/train/00010.jpg", str(path))
    assert "has xxhash2" in finding.problem
    assert findings(directory, fast=True) == []


def test_a_flipped_bit_anywhere_in_a_trailer(directory: str) -> None:
    path = file_of(directory, "train/00010.jpg")
    whole = path.read_bytes()
    for position in range(2000, len(whole)):
        flip(path, position, bit=position % 8)
        (finding,) = findings(directory, fast=True)
        assert (finding.kind, finding.object, finding.file) == ("trailer", "ais://data/train/00010.jpg", str(path))
        path.write_bytes(whole)


def test_a_flipped_bit_in_the_last_of_two_trailers(directory: str) -> None:
    flip(file_of(directory, "train/00002.jpg"), -20)
    (finding,) = findings(directory)
    assert (finding.kind, finding.object) == ("trailer", "ais://data/train/00002.jpg")
    assert "ends with a trailer that cannot be read" in finding.problem


@pytest.mark.parametrize("size", [0, 100, 1999])
def test_a_truncated_file(directory: str, size: int) -> None:
    os.truncate(file_of(directory, "train/00010.jpg"), size)
    (finding,) = findings(directory, fast=True)
    assert (finding.kind, finding.object) == ("short", "ais://data/train/00010.jpg")
    assert f"ends at byte {size}, 2000 were stored" in finding.problem


def test_a_deleted_file_and_a_deleted_generation(directory: str) -> None:
    path = file_of(directory, "train/00010.jpg")
    path.unlink()
    (finding,) = findings(directory)
    assert (finding.kind, finding.object, finding.problem) == ("missing", "ais://data/train/00010.jpg", "is gone")
    others = len(os.listdir(path.parent))
    shutil.rmtree(path.parent)
    assert {finding.kind for finding in findings(directory)} == {"missing"}
    assert len(findings(directory)) == others + 1


def test_a_file_of_another_object(directory: str) -> None:
    shutil.copy(file_of(directory, "train/00010.jpg"), file_of(directory, "train/00011.jpg"))
    (finding,) = findings(directory, fast=True)
    assert finding.object == "ais://data/train/00011.jpg"
    assert finding.kind in ("trailer", "short")


def test_a_file_that_the_index_does_not_know(directory: str) -> None:
    path = file_of(directory, "train/00010.jpg")
    execute(directory, "DELETE FROM objects WHERE name = ?", b"train/00010.jpg")
    (finding,) = findings(directory)
    assert (finding.kind, finding.object, finding.file) == ("unknown-file", "ais://data/train/00010.jpg", str(path))


def test_rows_that_contradict_one_another(directory: str) -> None:
    execute(directory, "INSERT INTO trash (place) VALUES (?)", place(directory, "train/00010.jpg"))
    execute(directory, "UPDATE objects SET bucket = 77 WHERE name = ?", b"train/00011.cls")
    execute(directory, "UPDATE objects SET data = x'00' WHERE name = ?", b"train/00012.cls")
    execute(directory, "UPDATE objects SET checksum = 'aa' WHERE name = ?", b"train/00013.jpg")
    found = {(finding.kind, finding.object) for finding in findings(directory)}
    assert found == {
        ("trash", "ais://data/train/00010.jpg"), ("bucket", "ais://77/train/00011.cls"),
        ("checksum", "ais://labels/train/00012.cls"), ("checksum", "ais://data/train/00013.jpg"),
    }  # fmt: skip
    assert "so the index is wrong" in next(f.problem for f in findings(directory) if f.object.endswith("13.jpg"))


def test_damage_of_every_page_of_the_index_is_found(directory: str) -> None:
    whole = database(directory).read_bytes()
    source = random.Random(3)
    for page in range(len(whole) // 4096):
        damaged = bytearray(whole)
        damaged[page * 4096 : page * 4096 + 4096] = source.randbytes(4096)
        database(directory).write_bytes(damaged)
        found = findings(directory)
        assert any(finding.kind == "index" for finding in found), page


def test_a_bit_flipped_in_the_index_is_found_or_changes_no_bytes(directory: str, tmp_path: Path) -> None:
    sound = {key: data for key, (data, _, _) in readable(directory)[0].items()}
    checkpoint(directory)
    whole = database(directory).read_bytes()
    source = random.Random(4)
    copy = str(tmp_path / "copy")
    for _ in range(60):
        database(directory).write_bytes(whole)
        flip(database(directory), source.randrange(len(whole)), source.randrange(8))
        if check(directory).findings:
            continue
        shutil.copytree(directory, copy)
        given = {key: data for key, (data, _, _) in readable(copy)[0].items()}
        shutil.rmtree(copy)
        # A name in the index has no checksum: a small object may be found under another, with its own bytes.
        assert sorted(given.values()) == sorted(sound.values())


def test_a_lost_index_is_found_and_no_store_starts_without_it(directory: str) -> None:
    database(directory).unlink()
    (finding,) = findings(directory)
    assert (finding.kind, finding.file) == ("index", str(database(directory)))
    with pytest.raises(ConflictError, match=r"index\.db is gone, but there are files of objects") as caught:
        LocalEngine(directory)
    assert f"ais fsck --rebuild {directory}" in caught.value.hint


def test_a_start_on_a_damaged_index_says_what_to_do(directory: str) -> None:
    with open(database(directory), "r+b") as file:
        file.seek(4096 * 2)
        file.write(b"\xff" * (os.path.getsize(database(directory)) - 4096 * 2))
    with pytest.raises(InternalError, match="the index failed: database disk image is malformed") as caught:
        recover(directory)
    assert "ais fsck" in caught.value.hint


def test_a_directory_in_use_is_refused(directory: str) -> None:
    with closing(acquire_ownership(directory)) as ownership:
        ownership.announce("http://127.0.0.1:1")
        with pytest.raises(ConflictError, match=rf"is in use by process {os.getpid()} at http://127\.0\.0\.1:1"):
            check(directory)


def test_what_is_no_data_directory_is_refused_and_stays_as_it_is(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="not a data directory"):
        check(str(tmp_path))
    with pytest.raises(NotFoundError, match="not a data directory"):
        check(str(tmp_path / "nothing"))
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("seed", range(max(1, KILLS)))
def test_a_killed_store_is_clean(tmp_path: Path, seed: int) -> None:
    directory = str(tmp_path / "store")
    engine = LocalEngine(directory, SMALL_GENERATIONS)
    engine.create_bucket("b", {})
    engine.put("b", "first", b"1" * 1000, PutOptions()).result()
    engine.close()
    victim = subprocess.Popen(
        [sys.executable, str(Path(__file__).parent / "fsck_victim.py"), directory, str(seed)], stdout=subprocess.PIPE
    )
    assert victim.stdout is not None
    with victim.stdout:
        for _ in range(200 + 57 * seed):
            assert victim.stdout.readline()
        victim.send_signal(signal.SIGKILL)
        victim.wait()
    assert findings(directory) == []  # before the recovery
    recover(directory)
    assert findings(directory) == []

"""What stays and what goes after crashes, and what the reclaimer does in between."""

from __future__ import annotations

import os
import shutil
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hosts import needs

from aistore.errors import ObjectNotFoundError
from aistore.model.objects import ListOptions, PutOptions
from aistore.storage.local import generations, recovery
from aistore.storage.local.engine import LocalEngine
from aistore.storage.local.layout import open_directory
from aistore.storage.local.reclaim import Reclaimer
from aistore.storage.local.settings import LocalSettings

PLAIN = PutOptions()


@pytest.fixture
def directory(tmp_path: Path) -> str:
    return str(tmp_path / "store")


@pytest.fixture
def engine(directory: str) -> Iterator[LocalEngine]:
    engine = LocalEngine(directory, LocalSettings(generation_files_max=4))
    engine.create_bucket("b", {})
    yield engine
    engine.close()


@pytest.fixture
def reclaimer(directory: str) -> Iterator[Reclaimer]:
    reclaimer = Reclaimer(directory)
    yield reclaimer
    reclaimer.close()


def files(directory: str) -> set[str]:
    return {os.path.join(root, file) for root, _, names in os.walk(f"{directory}/mp0/data") for file in names}


def work(reclaimer: Reclaimer, now: float) -> int:
    """Step until there is nothing to do, in a world where the clock stands still."""
    steps = 0
    while reclaimer.step(now):
        steps += 1
        assert steps < 1000, "the reclaimer never comes to an end"
    return steps


def test_replaced_files_go_after_the_grace(engine: LocalEngine, reclaimer: Reclaimer, directory: str) -> None:
    engine.put("b", "overwritten", b"1" * 1000, PLAIN).result()
    engine.put("b", "deleted", b"2" * 1000, PLAIN).result()
    old = files(directory)
    engine.put("b", "overwritten", b"3" * 1000, PLAIN).result()
    engine.delete("b", "deleted").result()
    work(reclaimer, 1000.0)
    assert old < files(directory)
    work(reclaimer, 1119.0)
    assert old < files(directory)
    work(reclaimer, 1121.0)
    assert old.isdisjoint(files(directory))
    with engine.get("b", "overwritten") as reading:
        assert reading.read(0, 1000) == b"3" * 1000


def test_a_removed_bucket_is_purged_in_pieces(engine: LocalEngine, reclaimer: Reclaimer, directory: str) -> None:
    for number in range(1200):
        engine.put("b", f"small{number}", b"x", PLAIN)
    for number in range(10):
        engine.put("b", f"large{number}", b"x" * 1000, PLAIN).result()
    engine.delete_bucket("b")
    engine.create_bucket("b", {})
    engine.put("b", "large1", b"new" * 1000, PLAIN).result()
    assert work(reclaimer, 1000.0) >= 3
    work(reclaimer, 1002.0)
    work(reclaimer, 1200.0)
    assert len(files(directory)) == 1
    with sqlite3.connect(open_directory(directory).database) as connection:
        assert connection.execute("SELECT count(*) FROM objects").fetchone() == (1,)
        assert connection.execute("SELECT count(*) FROM doomed").fetchone() == (0,)
    connection.close()


def test_full_generations_are_sealed_and_empty_ones_removed(
    engine: LocalEngine, reclaimer: Reclaimer, directory: str
) -> None:
    mountpath = open_directory(directory)
    for number in range(10):
        engine.put("b", f"o{number}", b"x" * 1000, PLAIN).result()
    assert len(recovery.unsealed(mountpath)) == 3
    work(reclaimer, 1000.0)  # compares
    work(reclaimer, 1002.0)  # seals what was compared and synced
    assert len(recovery.unsealed(mountpath)) == 1
    for number in range(10):
        engine.delete("b", f"o{number}").result()
    work(reclaimer, 1010.0)
    work(reclaimer, 1200.0)
    assert files(directory) == set()
    assert os.listdir(mountpath.data) == recovery.unsealed(mountpath)


def test_recovery_leaves_live_writers_alone(engine: LocalEngine, directory: str) -> None:
    staging = engine.stage("b", "o", PLAIN)
    staging.write(b"x" * 1000)
    assert recovery.recover(directory) == (0, 0, 0)
    staging.commit().result()
    assert engine.head("b", "o").size == 1000


def test_unknown_files_go_at_recovery(engine: LocalEngine, directory: str) -> None:
    engine.put("b", "o", b"x" * 1000, PLAIN).result()
    engine.put("b", "replaced", b"x" * 1000, PLAIN).result()
    engine.put("b", "replaced", b"y" * 1000, PLAIN).result()
    known = files(directory)
    engine.close()
    (generation,) = {os.path.dirname(path) for path in known}
    for name, content in (("empty", b""), ("torn", b"x" * 5000)):
        Path(generation, name).write_bytes(content)
    # A write that got as far as its trailer, and whose commit never was: its trailer names an object that exists.
    Path(generation, "7").write_bytes(next(iter(known)) and Path(min(known)).read_bytes())
    Path(directory, "mp0/open/beginning").touch()  # killed before it made its directory
    assert recovery.recover(directory) == (2, 3, 0)
    assert files(directory) == known
    assert recovery.recover(directory).files_removed == 0


def test_a_power_cut_takes_back_what_it_tore(engine: LocalEngine, directory: str) -> None:
    """Simulated: files lose their ends, their content or their existence, and the boot id is another one."""
    for name in ("whole", "short", "gone", "zeros", "first"):
        engine.put("b", name, name.encode() * 500, PLAIN).result()
        if name != "first":
            engine.put("b", name, name.upper().encode() * 500, PutOptions(custom={"k": "v"})).result()
    paths = {}
    for name in ("whole", "short", "gone", "zeros", "first"):
        with engine.get("b", name) as reading:
            paths[name] = reading.path
    engine.close()
    os.truncate(paths["short"], 700)
    os.unlink(paths["gone"])
    os.truncate(paths["first"], 0)
    with open(paths["zeros"], "r+b") as file:
        file.write(bytes(64))
    Path(directory, "mp0/boot").write_text("another boot")
    assert recovery.recover(directory).objects_torn == 4
    again = LocalEngine(directory)
    try:
        for name in ("short", "gone", "zeros"):
            with again.get("b", name) as reading:
                assert reading.info.version == 1
                assert reading.read(0, reading.info.size) == name.encode() * 500
        assert again.head("b", "whole").version == 2
        with pytest.raises(ObjectNotFoundError):
            again.head("b", "first")
        assert recovery.recover(directory).objects_torn == 0
    finally:
        again.close()


@pytest.mark.parametrize(("first_life", "second_life"), [(1, 1), (1, 2), (2, 3), (3, 2)])
def test_a_power_cut_does_not_bring_deleted_objects_back(
    engine: LocalEngine, directory: str, first_life: int, second_life: int
) -> None:
    for number in range(first_life):
        engine.put("b", "o", f"first {number}".encode() * 100, PLAIN).result()
    engine.delete("b", "o").result()
    for number in range(second_life):
        engine.put("b", "o", f"second {number}".encode() * 100, PLAIN).result()
    engine.close()
    for path in files(directory):
        if Path(path).read_bytes().startswith(b"second"):
            os.truncate(path, 10)
    Path(directory, "mp0/boot").write_text("another boot")
    assert recovery.recover(directory).objects_torn == 1
    after = LocalEngine(directory)
    try:
        with pytest.raises(ObjectNotFoundError):
            after.head("b", "o")
    finally:
        after.close()


def test_a_file_is_on_the_disk_before_it_replaces_bytes_in_the_index(
    engine: LocalEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing could be taken back if a power cut tore it: the old bytes go with the transaction."""
    synced: list[int] = []
    monkeypatch.setattr(generations, "sync_data", lambda descriptor: synced.append(os.fstat(descriptor).st_size))
    engine.put("b", "grows", b"x", PLAIN).result()
    engine.put("b", "new", b"x" * 5000, PLAIN).result()
    assert synced == []
    engine.put("b", "grows", b"x" * 1000, PLAIN).result()
    assert len(synced) == 1
    assert synced[0] > 1000
    engine.put("b", "grows", b"x" * 2000, PLAIN).result()
    assert len(synced) == 1


def test_no_write_waits_for_its_sync_for_long(engine: LocalEngine, reclaimer: Reclaimer, directory: str) -> None:
    """The log's size and time tell of a write, but not of one more within the same tick of the kernel's clock."""
    log = f"{directory}/mp0/index.db-wal"
    engine.put("b", "o", b"x", PLAIN).result()
    assert reclaimer._sync()
    assert reclaimer._sync(), "the write after the last sync may have been within the same tick"
    long_ago = time.time_ns() - 10**9
    os.utime(log, ns=(long_ago, long_ago))
    assert reclaimer._sync()
    assert not reclaimer._sync()
    engine.put("b", "o", b"y", PLAIN).result()
    assert reclaimer._sync()


def test_a_generation_that_a_power_cut_took_altogether(engine: LocalEngine, directory: str) -> None:
    """Its rows may be there although neither its directory nor its marker is: no file tells of them."""
    for number in range(8):
        engine.put("b", f"{number}", b"x" * 500, PLAIN).result()
    engine.close()
    lost = sorted(os.listdir(f"{directory}/mp0/data"))[0]
    shutil.rmtree(f"{directory}/mp0/data/{lost}")
    Path(directory, "mp0/open", lost).unlink()
    Path(directory, "mp0/boot").unlink(missing_ok=True)
    assert recovery.recover(directory).objects_torn == 4
    again = LocalEngine(directory)
    try:
        assert len(again.list("b", ListOptions()).entries) == 4
    finally:
        again.close()


def test_sealed_generations_are_not_read_again(engine: LocalEngine, reclaimer: Reclaimer, directory: str) -> None:
    for number in range(4):
        engine.put("b", f"o{number}", b"x" * 1000, PLAIN).result()
    work(reclaimer, 1000.0)
    work(reclaimer, 1002.0)
    assert recovery.recover(directory).generations == 0


def test_only_what_a_killed_owner_left_is_compared(engine: LocalEngine, reclaimer: Reclaimer, directory: str) -> None:
    mountpath = open_directory(directory)
    for number in range(8):
        engine.put("b", f"o{number}", b"x" * 1000, PLAIN).result()
    let_go, killed = sorted(recovery.unsealed(mountpath))
    for name in (let_go, killed):
        Path(mountpath.data, name, "stranger").write_bytes(b"x")
    os.truncate(f"{mountpath.markers}/{killed}", 0)  # a killed owner says nothing in its marker
    work(reclaimer, 1000.0)
    work(reclaimer, 1002.0)
    assert recovery.unsealed(mountpath) == []
    assert Path(mountpath.data, let_go, "stranger").exists()  # nobody looked
    assert not Path(mountpath.data, killed, "stranger").exists()


@needs("proc")  # without a boot id every start is one after a power cut
def test_a_damaged_trailer_is_no_reason_to_lose_the_bytes(tmp_path: Path) -> None:
    """A file that the index knows stays, whatever its trailer looks like: damage must not become loss."""
    directory = str(tmp_path / "store")
    open_directory(directory)
    recovery.recover(directory)  # notes this boot: what follows is no power cut
    engine = LocalEngine(directory)
    engine.create_bucket("b", {})
    engine.put("b", "x", b"d" * 10_000, PLAIN).result()
    path = engine.get("b", "x").path
    assert path is not None
    marker_of_a_killed_owner = os.path.join(directory, "mp0", "open", os.path.basename(os.path.dirname(path)))
    engine.close()
    with open(path, "r+b") as file:
        file.truncate(10_000)
    open(marker_of_a_killed_owner, "w").close()
    recovery.recover(directory)
    engine = LocalEngine(directory)
    with engine.get("b", "x") as reading:
        assert reading.read(0, 10_000) == b"d" * 10_000
    engine.close()

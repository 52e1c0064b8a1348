"""The scrubber: reads everything once in a while, at its pace, goes on after a restart, and keeps what it found."""

from __future__ import annotations

import mmap
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from damaging import execute, file_of, fill, flip

from aistore.errors import ObjectDamagedError
from aistore.model.objects import PutOptions
from aistore.storage.local.engine import LocalEngine
from aistore.storage.local.fsck import mountpaths
from aistore.storage.local.page_cache import absent
from aistore.storage.local.scrub import Scrubber

MIB = 1 << 20


@pytest.fixture
def directory(tmp_path: Path) -> str:
    directory = str(tmp_path / "store")
    fill(directory)
    return directory


@pytest.fixture
def scrubber_of(directory: str) -> Iterator[Callable[..., Scrubber]]:
    opened: list[Scrubber] = []

    def make(*, pace: int = 1 << 40, period: float = 3600.0) -> Scrubber:
        (mountpath,) = mountpaths(directory)
        opened.append(Scrubber(mountpath, bytes_per_second=pace, period_seconds=period))
        return opened[-1]

    yield make
    for scrubber in opened:
        scrubber.close()


def run(scrubber: Scrubber, steps: int = 100_000) -> float:
    """Step as the thread would, on a clock of our own, until the pass has ended; return what the clock says then."""
    now = 0.0
    for _ in range(steps):
        now += scrubber.step(now)
        if not scrubber.state().running:
            return now
    raise AssertionError("the pass does not end")


def test_a_pass_reads_everything_and_finds_nothing_in_a_sound_store(scrubber_of):
    scrubber = scrubber_of()
    run(scrubber)
    state = scrubber.state()
    assert (state.objects, state.bytes_done) == (state.objects_total, state.bytes_total) == (69, state.bytes_total)
    assert state.bytes_total > 3_000_000
    assert state.damaged == 0
    assert scrubber.damaged() == []


def test_damage_is_found_by_name_and_stays_known(directory, scrubber_of):
    flip(file_of(directory, "train/00010.jpg"), 17)
    os.truncate(file_of(directory, "train/00011.jpg"), 5)
    file_of(directory, "train/00012.jpg").unlink()
    flip(file_of(directory, "train/00013.jpg"), -20)
    flip(file_of(directory, "large"), 2_999_999)
    execute(directory, "UPDATE objects SET data = x'00' WHERE name = ?", b"train/00014.cls")
    scrubber = scrubber_of()
    run(scrubber)
    assert scrubber.state().damaged == 6
    found = {(record.bucket, record.name): record for record in scrubber.damaged()}
    assert {name: record.problem.split(" ")[0] for (_, name), record in found.items()} == {
        "large": "has", "train/00010.jpg": "has", "train/00011.jpg": "ends", "train/00012.jpg": "is",
        "train/00013.jpg": "has", "train/00014.cls": "has",
    }  # fmt: skip
    assert [name for (_, name), record in found.items() if record.harmless] == ["train/00013.jpg"]
    scrubber.close()
    assert {(record.bucket, record.name) for record in scrubber_of().damaged()} == set(found)
    engine = LocalEngine(directory)
    try:
        with engine.get("data", "large") as reading:
            assert reading.suspected()
        with engine.get("data", "train/00013.jpg") as reading:
            assert not reading.suspected()
            assert len(reading.read(0, 2300)) == 2300
        with engine.get("data", "train/00010.jpg") as reading, pytest.raises(ObjectDamagedError):
            reading.read(0, 2000)
    finally:
        engine.close()


def test_what_is_put_again_deleted_or_well_again_is_not_shown_any_more(directory, scrubber_of):
    for name in ("train/00010.jpg", "train/00011.jpg", "train/00012.jpg"):
        flip(file_of(directory, name), 17)
    scrubber = scrubber_of()
    run(scrubber)
    assert len(scrubber.damaged()) == 3
    engine = LocalEngine(directory)
    try:
        engine.put("data", "train/00010.jpg", b"again" * 100, PutOptions()).result()
        engine.delete("data", "train/00011.jpg").result()
        assert [record.name for record in scrubber.damaged()] == ["train/00012.jpg"]
        flip(file_of(directory, "train/00012.jpg"), 17)  # as if the fault had been in memory
        scrubber.start()
        run(scrubber)
        assert scrubber.damaged() == []
        assert os.listdir(mountpaths(directory)[0].damaged) == []
    finally:
        engine.close()


def test_a_read_that_finds_damage_tells_the_scrubber(directory, scrubber_of):
    flip(file_of(directory, "train/00010.jpg"), 17)
    engine = LocalEngine(directory)
    try:
        with engine.get("data", "train/00010.jpg") as reading, pytest.raises(ObjectDamagedError):
            reading.read(0, 2000)
    finally:
        engine.close()
    assert [record.name for record in scrubber_of().damaged()] == ["train/00010.jpg"]


def test_the_pace_is_kept(scrubber_of):
    scrubber = scrubber_of(pace=MIB)
    seconds = run(scrubber)
    state = scrubber.state()
    assert state.bytes_total / MIB - 2 < seconds < (state.bytes_total + 69 * 16384) / MIB + 2
    scrubber.start(10 * MIB)
    assert run(scrubber) < seconds / 2


def test_a_pass_goes_on_where_it_was(scrubber_of):
    first = scrubber_of(pace=MIB)
    now = 0.0
    while first.state().objects < 20:
        now += first.step(now)
    first.close()
    began = first.state().began
    second = scrubber_of(pace=MIB)
    assert second.state().objects == first.state().objects
    run(second)
    assert (second.state().began, second.state().objects) == (began, 69)


def test_a_killed_pass_goes_on_from_where_it_was_written_down(directory, scrubber_of):
    first = scrubber_of(pace=MIB)
    now = 0.0
    while first.state().objects < 60:
        now += first.step(now) + 6.0  # every step writes it down
    second = scrubber_of(pace=MIB)  # the first one never closes
    assert 0 < second.state().objects <= 69
    run(second)
    assert second.state().objects == 69
    Path(directory, "mp0", "scrub.json").write_bytes(b"\0not json")
    assert not scrubber_of().state().running


def test_the_next_pass_begins_in_its_turn(scrubber_of):
    scrubber = scrubber_of(period=3600.0)
    run(scrubber)
    began = scrubber.state().began
    for _ in range(3):
        assert scrubber.step(1e6) > 0
    assert scrubber.state().began == began
    scrubber.close()
    impatient = scrubber_of(period=0.0)
    impatient.step(0.0)
    assert impatient.state().began > began


def test_writing_meanwhile_is_no_damage(directory, scrubber_of):
    scrubber = scrubber_of(pace=MIB)
    engine = LocalEngine(directory)
    try:
        now, number = 0.0, 0
        scrubber.start()
        while scrubber.state().running:
            now += scrubber.step(now)
            number += 1
            name = f"train/{number % 30:05d}.jpg"
            info = engine.put("data", name, os.urandom(5000), PutOptions()).result()
            with engine.get("data", name) as reading:
                path = reading.path
            if number % 2:
                engine.set_custom("data", name, {"n": str(info.version)}, replace=True).result()
            else:
                engine.delete("data", name).result()
                os.unlink(path)  # as the reclaimer would, in two minutes
        assert scrubber.state().damaged == 0
        assert scrubber.damaged() == []
    finally:
        engine.close()


def test_an_index_that_cannot_be_read_is_said(directory, scrubber_of):
    import sqlite3

    scrubber = scrubber_of()
    run(scrubber)
    execute(directory, "DROP TABLE trash")
    execute(directory, "ALTER TABLE objects RENAME TO lost")
    with pytest.raises(sqlite3.Error):
        scrubber.start()
    assert time.time() - scrubber.state().began < 3600


@pytest.mark.skipif(not hasattr(os, "posix_fadvise"), reason="needs a system that lets pages go")
def test_pages_that_nobody_else_uses_do_not_stay_in_memory(directory, scrubber_of):
    paths = [file_of(directory, "large"), file_of(directory, "train/00010.jpg")]

    def absent_bytes(path: Path) -> int:
        with open(path, "rb") as file:
            return sum(length for _, length in absent(file.fileno(), 0, path.stat().st_size))

    def all_bytes(path: Path) -> int:
        return -(-path.stat().st_size // mmap.PAGESIZE) * mmap.PAGESIZE

    for path in paths:
        with open(path, "rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    if any(absent_bytes(path) != all_bytes(path) for path in paths):
        pytest.skip("this file system keeps its pages")
    scrubber = scrubber_of()
    run(scrubber)
    assert [absent_bytes(path) for path in paths] == [all_bytes(path) for path in paths]
    for path in paths:
        path.read_bytes()
    scrubber.start()
    run(scrubber)
    assert [absent_bytes(path) for path in paths] == [0, 0]

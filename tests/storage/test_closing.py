"""An engine that is closed, or lets a disk go, while writes are under way: they are finished, and nothing is held."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from aistore.errors import MountpathUnavailableError
from aistore.model.objects import ListOptions, PutOptions
from aistore.observe.counters import COUNTERS
from aistore.observe.layout import COMMITS
from aistore.storage.local.engine import LocalEngine
from aistore.storage.local.members import attach, switch
from aistore.storage.local.reclaim import Reclaimer
from aistore.storage.local.settings import LocalSettings

PLAIN = PutOptions()

pytestmark = pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="needs /proc to see descriptors")


def open_below(directory: str) -> list[str]:
    """Return the files of a directory that this process has open."""
    paths = []
    for number in os.listdir("/proc/self/fd"):
        try:
            paths.append(os.readlink(f"/proc/self/fd/{number}"))
        except FileNotFoundError:  # that of the directory itself
            pass
    return [path for path in paths if path.startswith(directory)]


@pytest.mark.parametrize("durable", [False, True])
def test_closing_finishes_what_was_accepted(tmp_path: Path, durable: bool) -> None:
    directory = str(tmp_path / "store")
    engine = LocalEngine(directory, LocalSettings(durable=durable))
    engine.create_bucket("b", {})
    before = COUNTERS.words[COMMITS]
    futures = [engine.put("b", f"{number}", b"x" * 2000, PLAIN) for number in range(600)]
    engine.close()
    assert {future.result().version for future in futures} == {1}
    # Whole batches: a sync that fails would have each write tried again in a transaction of its own.
    assert COUNTERS.words[COMMITS] - before < 100
    assert open_below(directory) == []


@pytest.fixture
def unplugged(tmp_path: Path) -> Iterator[tuple[LocalEngine, str, str]]:
    """Return an engine, its data directory, and a further mountpath."""
    directory, disk = str(tmp_path / "store"), str(tmp_path / "disk")
    engine = LocalEngine(directory)
    engine.create_bucket("b", {})
    attach(directory, disk)
    yield engine, directory, disk
    engine.close()


def test_an_upload_that_outlives_its_disk(unplugged: tuple[LocalEngine, str, str]) -> None:
    """It began before the disk was let go and goes on after: it fails at once, and holds nothing of the disk."""
    engine, directory, disk = unplugged
    for number in range(40):
        engine.put("b", f"{number}", b"x" * 2000, PLAIN).result()
    names = [f"late{number}" for number in range(20)]
    stagings = [engine.stage("b", name, PLAIN) for name in names]
    for staging in stagings[::2]:
        staging.write(b"y" * 5000)
    switch(directory, disk, enabled=False)
    failed = 0
    for staging in stagings:
        try:
            staging.write(b"y" * 5000)
            staging.commit().result()
        except MountpathUnavailableError:
            failed += 1
    assert 0 < failed < len(names)
    del staging, stagings
    deadline = time.monotonic() + 30
    while open_below(disk):
        assert time.monotonic() < deadline, open_below(disk)
        time.sleep(0.01)
    switch(directory, disk, enabled=True)
    assert len(engine.list("b", ListOptions()).entries) == 40 + len(names) - failed


def test_a_write_given_up_on_a_disk_that_is_gone(tmp_path: Path) -> None:
    """Its file cannot be removed: nothing is raised or held, and the file is removed when its disk is back."""
    directory = str(tmp_path / "store")
    engine = LocalEngine(directory)
    engine.create_bucket("b", {})
    staging = engine.stage("b", "o", PLAIN)
    staging.write(b"x" * 5000)
    data = Path(directory, "mp0", "data")
    data.rename(f"{data}.away")
    staging.abort()
    Path(f"{data}.away").rename(data)
    engine.close()
    assert open_below(directory) == []
    assert len(list(data.glob("*/*"))) == 1
    reclaimer = Reclaimer(directory)
    try:
        while reclaimer.step(0.0):
            pass
    finally:
        reclaimer.close()
    assert list(data.glob("*/*")) == []

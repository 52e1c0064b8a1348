"""A disk that fills up: writes fail with OutOfSpaceError and leave nothing, reads and deletes go on."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from aistore.errors import OutOfSpaceError
from aistore.model.objects import ListOptions, PutOptions
from aistore.storage.local.engine import LocalEngine
from aistore.storage.local.reclaim import Reclaimer
from aistore.storage.local.settings import LocalSettings

PLAIN = PutOptions()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    if os.geteuid() != 0:
        pytest.skip("mounting a small file system needs root")
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=8m", "aistore-test", str(disk)], capture_output=True, text=True
    )
    if mounted.returncode:
        pytest.skip(f"no tmpfs can be mounted here: {mounted.stderr.strip()}")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def data_files(directory: Path) -> list[Path]:
    return [path for path in directory.glob("store/mp0/data/*/*") if path.is_file()]


def fill(engine: LocalEngine, stored: list[str]) -> None:
    for number in range(100):
        engine.put("b", f"o{number}", bytes([number]) * 200_000, PLAIN).result()
        stored.append(f"o{number}")


@pytest.mark.parametrize("reserve_bytes", [0, 1 << 20])
def test_a_full_disk(small_disk: Path, reserve_bytes: int) -> None:
    """With a reserve writes are refused in time; without, the disk itself says no in the middle of a write."""
    engine = LocalEngine(str(small_disk / "store"), LocalSettings(reserve_bytes=reserve_bytes))
    reclaimer = Reclaimer(str(small_disk / "store"), grace_seconds=0.0)
    try:
        engine.create_bucket("b", {})
        stored: list[str] = []
        with pytest.raises(OutOfSpaceError):
            fill(engine, stored)
        assert len(stored) > 20
        staging = engine.stage("b", "large", PLAIN)
        with pytest.raises(OutOfSpaceError):
            staging.write(b"x" * 8_000_000)
        staging.abort()
        assert [entry.name for entry in engine.list("b", ListOptions()).entries] == sorted(stored)
        assert len(data_files(small_disk)) == len(stored)
        for number, name in enumerate(stored):
            with engine.get("b", name) as reading:
                assert reading.read(0, 200_000) == bytes([number]) * 200_000
        if reserve_bytes:
            for name in stored[:10]:
                engine.delete("b", name).result()
            for now in range(10):
                reclaimer.step(float(now))
            assert len(data_files(small_disk)) == len(stored) - 10
            assert engine.put("b", "again", b"x" * 200_000, PLAIN).result().version == 1
    finally:
        reclaimer.close()
        engine.close()

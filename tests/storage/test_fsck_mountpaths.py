"""Checking, scrubbing and rebuilding a store of several disks."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import pytest
from damaging import Model, contents

from aistore.errors import ConflictError
from aistore.model.objects import ListOptions, PutOptions
from aistore.storage.local.engine import LocalEngine
from aistore.storage.local.fsck import check, mountpaths, rebuild_all
from aistore.storage.local.housekeeping import Housekeeper
from aistore.storage.local.members import attach
from aistore.storage.local.placement import Placement
from aistore.storage.local.presence import mountpaths as known_mountpaths
from aistore.storage.local.scrub import Scrubber


@pytest.fixture
def store(tmp_path: Path) -> tuple[str, list[Path], Model]:
    """Return a store over three mountpaths, their directories, and what is in it."""
    directory, further = str(tmp_path / "store"), [tmp_path / "disk1", tmp_path / "disk2"]
    engine = LocalEngine(directory)
    keeper = Housekeeper(directory)
    try:
        for path in further:
            attach(directory, str(path))
        engine.create_bucket("b", {"kept": "in the catalog"})
        engine.create_bucket("removed", {})
        engine.create_bucket("labels", {})
        source = random.Random(5)
        for number in range(60):
            engine.put("b", f"{number}", source.randbytes(1000), PutOptions()).result()
            engine.put("b", f"{number}.cls", str(number).encode(), PutOptions()).result()
            engine.put("removed", f"{number}", source.randbytes(500), PutOptions()).result()
            engine.put("labels", f"{number}.cls", str(number).encode(), PutOptions()).result()
        engine.delete_bucket("removed")
        keeper.step(0.0)  # copies the catalog
        model = contents(engine)
    finally:
        keeper.close()
        engine.close()
    assert len(model) == 180
    return directory, [Path(directory, "mp0"), *further], model


def damage_one_per_disk(disks: list[Path]) -> set[str]:
    files = [max(disk.glob("data/*/*"), key=lambda path: path.stat().st_size) for disk in disks]
    for file in files:
        content = bytearray(file.read_bytes())
        content[5] ^= 1
        file.write_bytes(content)
    return {str(file) for file in files}


def read(directory: str) -> Model:
    engine = LocalEngine(directory)
    try:
        return contents(engine)
    finally:
        engine.close()


def test_every_disk_is_checked(store: tuple[str, list[Path], Model]) -> None:
    directory, disks, _ = store
    report = check(directory)
    assert report.findings == []
    assert report.objects == 180
    damaged = damage_one_per_disk(disks)
    assert {finding.file for finding in check(directory).findings} == damaged
    shutil.move(disks[2], f"{disks[2]}.away")
    assert {finding.kind for finding in check(directory).findings} == {"checksum", "mountpath"}
    with pytest.raises(ConflictError, match="disk2 is not there"):
        rebuild_all(directory)


@pytest.mark.parametrize("half_made", [False, True])
def test_the_others_are_checked_without_the_catalog(store: tuple[str, list[Path], Model], half_made: bool) -> None:
    """A lost index of the first disk is one finding, not one more for each object on the others."""
    directory, disks, _ = store
    for path in disks[0].glob("index.db*"):
        path.unlink()
    if half_made:
        Path(disks[0], "index.db.rebuilding").write_text("index.db.before-1")
    damaged = damage_one_per_disk(disks)
    found = check(directory).findings
    assert [finding.kind for finding in found] == ["interrupted" if half_made else "index", "checksum", "checksum"]
    assert {finding.file for finding in found[1:]} < damaged
    assert all(finding.object.startswith("ais://b/") for finding in found[1:])


def test_a_damaged_index_of_a_further_disk(store: tuple[str, list[Path], Model]) -> None:
    """Its objects are checked as far as it can be read: it has no buckets of its own to tell of them."""
    directory, disks, _ = store
    engine = LocalEngine(directory)
    try:
        for future in [engine.put("labels", f"more{number}", b"x" * 100, PutOptions()) for number in range(600)]:
            future.result()
    finally:
        engine.close()
    objects = check(directory).objects
    with open(disks[1] / "index.db", "r+b") as file:
        content = file.read()
        file.seek(max(range(0, len(content), 4096), key=lambda start: content[start : start + 4096].count(b"more")))
        file.write(b"\xff" * 100)
    report = check(directory)
    assert {finding.kind for finding in report.findings} <= {"index", "unknown-file"}, report.findings
    assert "index" in {finding.kind for finding in report.findings}
    assert 0 < objects - report.objects < 100, "a page of them cannot be read"


def test_a_disk_that_goes_while_it_is_scrubbed(store: tuple[str, list[Path], Model]) -> None:
    """Its files are gone with it, which is no damage of theirs, and nothing is written to where it was."""
    directory, disks, _ = store
    places = mountpaths(directory)
    scrubber = Scrubber(places[1], bytes_per_second=1 << 40, period_seconds=1e9, catalog=places[0])
    try:
        scrubber.start()
        shutil.move(disks[1], f"{disks[1]}.away")
        disks[1].mkdir()
        now = 0.0
        while scrubber.state().running:
            now += scrubber.step(now)
        assert scrubber.state().damaged == 0
        assert scrubber.damaged() == []
    finally:
        scrubber.close()
    assert list(disks[1].iterdir()) == []


def test_every_disk_is_scrubbed(store: tuple[str, list[Path], Model]) -> None:
    directory, disks, _ = store
    damaged = damage_one_per_disk(disks)
    found = set()
    places = mountpaths(directory)
    for place in places:
        scrubber = Scrubber(place, bytes_per_second=1 << 40, period_seconds=1e9, catalog=places[0])
        try:
            scrubber.start()
            now = 0.0
            while scrubber.state().running:
                now += scrubber.step(now)
            assert scrubber.state().objects == scrubber.state().objects_total
            found |= {record.file for record in scrubber.damaged()}
        finally:
            scrubber.close()
    assert found == damaged


def test_a_bucket_that_only_other_disks_tell_of(store: tuple[str, list[Path], Model]) -> None:
    """It is younger than the copies of the catalog, and the first disk has no object of it."""
    directory, disks, _ = store
    engine = LocalEngine(directory)
    try:
        homes = Placement(known_mountpaths(directory))
        for bucket, size in (("young", 1000), ("small", 10)):
            engine.create_bucket(bucket, {})
            for number in range(40):
                if homes.candidates(bucket, b"%d" % number)[0] != "mp0":
                    engine.put(bucket, f"{number}", b"x" * size, PutOptions()).result()
        model = contents(engine)
    finally:
        engine.close()
    for path in disks[0].glob("index.db*"):
        path.unlink()
    rebuild_all(directory)
    good = read(directory)
    young = {key: value for key, value in model.items() if key[0] == "young"}
    assert len(young) > 10
    assert {key: good.get(key) for key in young} == young
    # Nothing has the name of a bucket of small objects alone, and with another they would be looked for elsewhere.
    assert {bucket for bucket, _ in good} == {"b", "labels", "young"}
    engine = LocalEngine(directory)
    try:
        engine.create_bucket("next", {})
        assert engine.list("next", ListOptions()).entries == [], "its number is a new one"
    finally:
        engine.close()


@pytest.mark.parametrize("lost", [(), (0,), (1,), (0, 1, 2)])
def test_indexes_are_made_again(store: tuple[str, list[Path], Model], lost: tuple[int, ...]) -> None:
    directory, disks, model = store
    gone = set()
    for number in lost:
        for path in disks[number].glob("index.db*"):
            path.unlink()
    for (_, rebuilt), number in zip(rebuild_all(directory), range(3), strict=True):
        assert rebuilt.salvaged.whole == (number not in lost)
    good = read(directory)
    gone = {key for key in model if key not in good}
    # Small objects of a lost index, and nothing else; names, bytes and the bucket's properties are as they were.
    assert all(name.endswith(".cls") for _, name in gone)
    assert bool(gone) == bool(lost)
    assert good == {key: value for key, value in model.items() if key not in gone}
    assert check(directory).findings == []
    engine = LocalEngine(directory)
    try:
        assert engine.head_bucket("b").props == {"kept": "in the catalog"}
    finally:
        engine.close()

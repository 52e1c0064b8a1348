"""Several mountpaths: names spread and stay unique, whatever happens to the set while others write."""

from __future__ import annotations

import itertools
import os
import shutil
import sqlite3
import threading
from contextlib import closing
from pathlib import Path

import pytest
from several_disks import PLAIN, check, names_on, put

from aistore.errors import (
    BadRequestError,
    BucketNotFoundError,
    ConflictError,
    InternalError,
    MountpathUnavailableError,
    NotFoundError,
    ObjectNotFoundError,
)
from aistore.model.objects import ListOptions, PutOptions
from aistore.storage.checksums import Hasher
from aistore.storage.local import index, stamps
from aistore.storage.local.catalog_copy import read_copy
from aistore.storage.local.engine import LocalEngine
from aistore.storage.local.fsck import rebuild_all
from aistore.storage.local.housekeeping import Housekeeper, recover_store
from aistore.storage.local.layout import Mountpath, further, open_directory
from aistore.storage.local.members import attach, detach, switch
from aistore.storage.local.placement import MountpathSet, Placement
from aistore.storage.local.presence import mountpaths, statuses, writing
from aistore.storage.local.stamps import Stamps


def test_new_names_spread_and_old_ones_stay(engine: LocalEngine, directory: str, disks: list[str]) -> None:
    old = [f"old{number}" for number in range(100)]
    put(engine, old)
    other = LocalEngine(directory)  # as in another process: it learns of the change from shared memory
    for disk in disks:
        attach(directory, disk)
    new = [f"new{number}" for number in range(300)]
    put(other, new)
    put(engine, old)  # again: overwritten where they are
    root = f"{directory}/mp0"
    assert set(old) <= set(names_on(root))
    shares = [len(set(names_on(path)) & set(new)) for path in (root, *disks)]
    assert sum(shares) == 300
    assert min(shares) > 50, "a third each, more or less"
    for one in (engine, other):
        check(one, old + new)
    assert engine.head("b", "old7").version == 2
    for name in old:  # deleted and written again, a name is new
        engine.delete("b", name).result()
    put(other, old)
    assert not set(old) <= set(names_on(root))
    check(engine, old + new)
    assert other.put("b", "old7", b"", PutOptions(if_version=1)).result().version == 2
    with pytest.raises(ObjectNotFoundError):
        engine.delete("b", "nothing").result()
    with pytest.raises(BucketNotFoundError):
        engine.put("c", "nothing", b"", PLAIN).result()
    other.close()


def test_a_name_has_few_places(tmp_path: Path) -> None:
    mountpaths, sets = MountpathSet(), [MountpathSet()]
    for number in range(4):
        mountpaths, _ = mountpaths.joined(f"/disk{number}")
        sets.append(mountpaths)
    keys = [str(number).encode() for number in range(3000)]
    homes = [[Placement(one).candidates("b", key)[0] for key in keys] for one in sets]
    for before, after in itertools.pairwise(homes):
        new = max(set(after), key=lambda id_: int(id_[2:]))
        moved = [(a, b) for a, b in zip(before, after, strict=True) if a != b]
        assert all(b == new for _, b in moved), "a new mountpath takes names, nobody else does"
        assert 0.5 < len(moved) / len(keys) * len(set(after)) < 1.5
    candidates = [Placement(mountpaths).candidates("b", key) for key in keys]
    for one in homes:
        assert all(home in places for home, places in zip(one, candidates, strict=True)), "looked for later"
    assert {len(Placement(sets[1]).candidates("b", key)) for key in keys} == {1, 2}
    # One that leaves takes its names along, and every other candidate stays one.
    left = mountpaths.left("mp2")
    for key in keys:
        there = [id_ for id_ in Placement(mountpaths).candidates("b", key) if id_ != "mp2"]
        assert set(there) <= set(Placement(left).candidates("b", key))


def test_listings_merge_in_byte_order(engine: LocalEngine, directory: str, disks: list[str]) -> None:
    for disk in disks:
        attach(directory, disk)
    names = sorted((f"{prefix}/{number}" for prefix in ("a", "é", "a b") for number in range(40)), key=str.encode)
    put(engine, names)
    for prefix in ("", "a", "a/", "é/1"):
        wanted, after, listed = [name for name in names if name.startswith(prefix)], "", []
        while True:
            page = engine.list("b", ListOptions(prefix=prefix, start_after=after, limit=7))
            listed += [entry.name for entry in page.entries]
            after = page.continuation
            if not after:
                break
        assert listed == wanted


def test_buckets_are_one_over_all_mountpaths(engine: LocalEngine, directory: str, disks: list[str]) -> None:
    for disk in disks:
        attach(directory, disk)
    names = [str(number) for number in range(60)]
    put(engine, names)
    engine.delete_bucket("b")
    with pytest.raises(BucketNotFoundError):
        engine.get("b", "1")
    engine.create_bucket("b", {})
    assert engine.list("b", ListOptions()).entries == []
    put(engine, ["1", "2"])
    keeper = Housekeeper(directory, grace_seconds=0.0)
    for now in range(0, 30, 3):
        keeper.step(float(now))
    keeper.close()
    paths = (f"{directory}/mp0", *disks)
    assert sorted(name for path in paths for name in names_on(path)) == ["1", "2"], "purged everywhere"
    check(engine, ["1", "2"])
    copies = [read_copy(Mountpath(path)) for path in paths]
    assert copies[0] is not None
    assert [bucket.name for bucket in copies[0].buckets] == ["b"]
    assert copies == [copies[0]] * 3


def test_what_can_be_attached(engine: LocalEngine, directory: str, disks: list[str], tmp_path: Path) -> None:
    first = attach(directory, disks[0])
    assert attach(directory, disks[0]) == first, "once is enough"
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "file").write_text("somebody's")
    with pytest.raises(ConflictError, match="not empty: it has file"):
        attach(directory, str(foreign))
    with pytest.raises(ConflictError, match="overlap"):
        attach(directory, f"{disks[0]}/inside")
    with pytest.raises(ConflictError, match="overlap"):
        attach(directory, str(tmp_path))
    with pytest.raises(BadRequestError, match="not a full path"):
        attach(directory, "relative")
    with pytest.raises(BadRequestError, match="Not a directory"):
        attach(directory, str(foreign / "file" / "below"))
    other = str(tmp_path / "other")
    LocalEngine(other).close()
    with pytest.raises(ConflictError, match="mountpath of another store"):
        attach(other, disks[0])
    with pytest.raises(NotFoundError, match="not a mountpath of this store"):
        detach(directory, disks[1])
    with pytest.raises(ConflictError, match="cannot leave"):
        detach(directory, "mp0", force=True)


def test_detaching(engine: LocalEngine, directory: str, disks: list[str]) -> None:
    attach(directory, disks[0])
    names = [str(number) for number in range(40)]
    put(engine, names)
    there = names_on(disks[0])
    assert there
    with pytest.raises(ConflictError, match="has objects on it"):
        detach(directory, disks[0])
    check(engine, names)
    detach(directory, disks[0], force=True)
    check(engine, [name for name in names if name not in there])
    with pytest.raises(ObjectNotFoundError):
        engine.get("b", there[0])
    put(engine, there)
    check(engine, names)
    with pytest.raises(ConflictError, match="was detached from this store"):
        attach(directory, disks[0])
    # Without objects it is as if it had never been.
    attach(directory, disks[1])
    detach(directory, disks[1])
    assert os.listdir(disks[1]) == []
    attach(directory, disks[1])
    put(engine, ["a", "b", "c", "d", "e", "f"])
    check(engine, [*names, "a", "b", "c", "d", "e", "f"])


def test_a_disabled_mountpath(engine: LocalEngine, directory: str, disks: list[str]) -> None:
    for disk in disks:
        attach(directory, disk)
    names = [str(number) for number in range(60)]
    put(engine, names)
    there = names_on(disks[0])
    switch(directory, disks[0], enabled=False)
    for name in names:
        if name in there:
            with pytest.raises(
                MountpathUnavailableError, match=f"mountpath {disks[0]} .mp1. is unavailable: .*by hand"
            ):
                engine.get("b", name)
            with pytest.raises(MountpathUnavailableError):
                engine.put("b", name, b"", PLAIN).result()
        else:
            assert engine.head("b", name).version == 1
            put(engine, [name])
    with pytest.raises(MountpathUnavailableError, match="ais://b: mountpath"):
        engine.list("b", ListOptions())
    assert [status.state for status in statuses(directory)] == ["available", "disabled", "available"]
    recover_store(directory)
    assert [status.state for status in statuses(directory)] == ["available", "disabled", "available"]
    switch(directory, disks[0], enabled=True)
    check(engine, names)
    assert sum(status.objects or 0 for status in statuses(directory)) == 60


def test_a_bucket_that_goes_while_a_disk_is_away(engine: LocalEngine, directory: str, disks: list[str]) -> None:
    attach(directory, disks[0])
    names = [str(number) for number in range(30)]
    put(engine, names)
    switch(directory, disks[0], enabled=False)
    engine.delete_bucket("b")
    engine.create_bucket("b", {})
    assert names_on(disks[0])
    switch(directory, disks[0], enabled=True)
    check(engine, [])
    put(engine, ["1"])
    keeper = Housekeeper(directory, grace_seconds=0.0)
    for now in range(0, 20, 3):
        keeper.step(float(now))
    keeper.close()
    check(engine, ["1"])
    assert len(names_on(disks[0])) + len(names_on(f"{directory}/mp0")) == 1


def test_one_unreadable_file_is_an_error_of_its_own(engine: LocalEngine, directory: str, disks: list[str]) -> None:
    attach(directory, disks[0])
    names = [f"name{number}" for number in range(20)]
    put(engine, names)
    for path in (f"{directory}/mp0", disks[0]):
        name = names_on(path)[0]
        with engine.get("b", name) as reading:
            file = reading.path
        os.unlink(file)
        os.symlink("/proc/self/mem", file)  # reads of its beginning fail with EIO, by the kernel
        words = r"its file .* cannot be read: Input/output error"
        with engine.get("b", name) as reading, pytest.raises(InternalError, match=words) as said:
            reading.read(0, reading.info.size)
        assert path in str(said.value)
        assert f"ais://b/{name}" in str(said.value)
        names.remove(name)
        engine.delete("b", name).result()
    check(engine, names)
    assert [status.state for status in statuses(directory)] == ["available"] * 2


def test_the_catalog_comes_back_from_its_copies(engine: LocalEngine, directory: str, disks: list[str]) -> None:
    for disk in disks:
        attach(directory, disk)
    engine.create_bucket("empty", {"p": 2})
    engine.create_bucket("gone", {})
    engine.delete_bucket("gone")
    put(engine, [str(number) for number in range(30)])
    there = {name for disk in disks for name in names_on(disk)}
    keeper = Housekeeper(directory)
    keeper.step(0.0)
    keeper.close()
    before, known = engine.list_buckets(), mountpaths(directory)
    engine.close()
    for part in ("", "-wal", "-shm"):
        Path(f"{directory}/mp0/index.db{part}").unlink(missing_ok=True)
    rebuild_all(directory)
    again = LocalEngine(directory)
    assert (again.list_buckets(), mountpaths(directory)) == (before, known)
    assert there <= {entry.name for entry in again.list("b", ListOptions()).entries}
    assert again.create_bucket("new", {}).id == 4, "ids of removed buckets are not used again"
    again.close()


def test_a_staged_write_goes_where_its_name_belongs_by_then(
    engine: LocalEngine, directory: str, disks: list[str]
) -> None:
    stagings = [engine.stage("b", str(number), PLAIN) for number in range(30)]
    for number, staging in enumerate(stagings):
        staging.write(str(number).encode() * 200)
    attach(directory, disks[0])
    late = [engine.stage("b", str(number), PLAIN) for number in range(30, 60)]
    for number, staging in enumerate(late, 30):
        staging.write(str(number).encode() * 200)
    for staging in stagings:
        staging.commit().result()
    there = names_on(disks[0])
    assert there, "begun on the first disk, committed on the second"
    assert os.listdir(f"{disks[0]}/open"), "with files"
    for staging in late:
        staging.commit().result()
    check(engine, [str(number) for number in range(60)])
    detach(directory, disks[0], force=True)
    check(engine, sorted(set(map(str, range(60))) - set(names_on(disks[0]))))


def test_the_first_format_opens(directory: str, disks: list[str]) -> None:
    LocalEngine(directory).close()
    connection = sqlite3.connect(f"{directory}/mp0/index.db")
    connection.executescript("DROP TABLE facts; DROP TABLE removed; PRAGMA user_version=1;")
    for column in ("bucket", "name", "version"):
        connection.execute(f"ALTER TABLE trash DROP COLUMN {column}")
    connection.close()
    engine = LocalEngine(directory)
    engine.create_bucket("b", {})
    attach(directory, disks[0])
    put(engine, ["a", "b"])
    check(engine, ["a", "b"])
    engine.close()
    assert index.SCHEMA_VERSION > 1


def test_a_write_proves_in_its_turn_that_it_is_in_the_right_place(
    engine: LocalEngine, directory: str, disks: list[str]
) -> None:
    put(engine, ["1", "2", "3", "4"])
    for disk in disks:
        attach(directory, disk)
    names = [str(number) for number in range(1, 40)]
    for id_ in ("mp0", "mp1", "mp2"):  # whoever sent it to whatever mountpath
        for name in names:
            write, _ = engine._new_write("b", name, PLAIN, Hasher(()))
            committer = engine._mountpaths.get(id_, "").committer
            committer.submit(write.with_data(name.encode() * 200, hashed=False)).result()
    check(engine, names)
    placement = Placement(mountpaths(directory))
    for id_, path in zip(placement.ids, (f"{directory}/mp0", *disks), strict=True):
        there = names_on(path)
        assert {"1", "2", "3", "4"} <= set(there) if id_ == "mp0" else not {"1", "2", "3", "4"} & set(there)
        for name in set(there) - {"1", "2", "3", "4"}:
            assert placement.candidates("b", name.encode())[0] == id_
    assert {engine.head("b", name).version for name in names} == {3, 4}
    assert engine.head("b", "1").version == 4


def test_the_set_changes_between_turns_only(engine: LocalEngine, directory: str, disks: list[str]) -> None:
    """A writer that has proved that its name is new commits before anybody can have another proof."""
    attach(directory, disks[0])
    before, after = mountpaths(directory), mountpaths(directory).joined(disks[1])[0]
    homes = ((str(n), [Placement(one).candidates("b", b"%d" % n)[0] for one in (before, after)]) for n in range(1000))
    name = next(name for name, home in homes if home == ["mp1", "mp2"])
    entered, leave = threading.Event(), threading.Event()

    def stop_at_commit(statement: str) -> None:
        if statement == "COMMIT":
            entered.set()
            leave.wait(30)

    engine._mountpaths.get("mp1", "").committer._writer.connection.set_trace_callback(stop_at_commit)
    first = engine.put("b", name, b"1", PLAIN)
    assert entered.wait(30)
    other = LocalEngine(directory)
    second: list[int] = []

    def attach_and_write() -> None:
        attach(directory, disks[1])
        second.append(other.put("b", name, b"2", PLAIN).result().version)

    thread = threading.Thread(target=attach_and_write)
    thread.start()
    thread.join(0.5)  # long enough for an attachment that does not wait for the turn
    assert thread.is_alive(), "it did not wait"
    leave.set()
    thread.join()
    assert (first.result().version, second) == (1, [2])
    assert [name in names_on(path) for path in disks] == [True, False]
    assert [entry.version for entry in engine.list("b", ListOptions()).entries] == [2]
    other.close()


def test_a_killed_writer_leaves_no_further_disk_slow(engine: LocalEngine, directory: str, disks: list[str]) -> None:
    """It leaves words of its disk's table dirty, under which nothing is kept in memory: housekeeping cleans them."""
    member = attach(directory, disks[0])
    with closing(Stamps(further(directory, member).stamps)) as table, closing(Housekeeper(directory)) as keeper:
        table.words[stamps._TURN] += 1  # as `changing` does, which a killed process never leaves
        table.words[7] = table.words[stamps._TURN]
        assert table.interrupted
        keeper.step(0.0)
        assert not table.interrupted
        assert table.words[7] % 2 == 0


def test_what_the_set_of_mountpaths_is_does_not_go_with_a_power_cut(directory: str) -> None:
    """An object that was stored durably on a new disk would go with it."""
    open_directory(directory)
    with writing(directory) as writer:
        assert writer.connection.execute("PRAGMA synchronous").fetchone() == (2,), "FULL"


def test_a_directory_without_its_disk_is_no_mountpath(engine: LocalEngine, directory: str, disks: list[str]) -> None:
    attach(directory, disks[0])
    names = [str(number) for number in range(30)]
    put(engine, names)
    there = names_on(disks[0])
    other = LocalEngine(directory)
    os.rename(disks[0], f"{disks[0]}.away")
    os.mkdir(disks[0])  # what is left of a mount point
    with pytest.raises(MountpathUnavailableError, match=r"has no mountpath\.json: is its disk mounted"):
        other.get("b", there[0])
    for _ in range(2):
        with pytest.raises(MountpathUnavailableError):
            engine.put("b", there[0], b"x", PLAIN).result()
        with pytest.raises(MountpathUnavailableError):
            engine.put("b", there[0], b"x" * 1000, PLAIN).result()
    recover_store(directory)
    assert os.listdir(disks[0]) == [], "never begun anew"
    keeper = Housekeeper(directory)
    keeper.step(0.0)
    status = statuses(directory)[1]
    assert (status.state, status.objects) == ("unavailable", None)
    assert "is its disk mounted" in status.reason
    check_names = [name for name in names if name not in there]
    for name in check_names:
        put(engine, [name])
    os.rmdir(disks[0])
    os.rename(f"{disks[0]}.away", disks[0])
    keeper.step(100.0)
    check(engine, names)
    check(other, names)
    keeper.close()
    other.close()


def test_a_disk_that_is_mounted_elsewhere(engine: LocalEngine, directory: str, disks: list[str]) -> None:
    first = attach(directory, disks[0])
    names = [str(number) for number in range(30)]
    put(engine, names)
    shutil.copytree(disks[0], disks[1])
    with pytest.raises(ConflictError, match="looks like mp1"):
        attach(directory, disks[1])
    shutil.rmtree(disks[1])
    os.rename(disks[0], disks[1])
    assert attach(directory, disks[1]).id == first.id
    check(engine, names)
    assert [status.path for status in statuses(directory)] == [directory, disks[1]]


def test_a_mountpath_leaves_while_all_of_them_are_read(engine: LocalEngine, directory: str, disks: list[str]) -> None:
    kept = [f"kept{number}" for number in range(30)]
    put(engine, kept)
    reader, stop, seen = LocalEngine(directory), threading.Event(), []

    def read() -> None:
        while not stop.is_set():
            try:
                listed = {entry.name for entry in reader.list("b", ListOptions()).entries}
                seen.append(listed == set(kept) and all(reader.head("b", name) for name in kept))
                reader.put("b", kept[0], b"", PLAIN).result()
            except Exception as error:
                seen.append(error)

    thread = threading.Thread(target=read)
    thread.start()
    for _ in range(10):
        attach(directory, disks[0])
        detach(directory, disks[0])
    stop.set()
    thread.join()
    reader.close()
    assert set(seen) == {True}


def test_every_descriptor_is_given_back(directory: str, disks: list[str]) -> None:
    open_directory(directory)
    for disk in disks:
        attach(directory, disk)
    counts = []
    for _ in range(3):
        engine = LocalEngine(directory)
        if not engine.list_buckets():
            engine.create_bucket("b", {})
        put(engine, [str(number) for number in range(30)])
        keeper = Housekeeper(directory)
        keeper.step(0.0)
        keeper.close()
        engine.close()
        counts.append(len(os.listdir("/proc/self/fd")))
    assert counts[1] == counts[2]

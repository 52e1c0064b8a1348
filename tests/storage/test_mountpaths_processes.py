"""Several mountpaths and several processes: a set that changes while others write, and writers that are killed."""

from __future__ import annotations

import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from several_disks import check, names_on, put
from side_by_side import side_by_side

from aistore.model.objects import ListOptions
from aistore.storage.local.engine import LocalEngine
from aistore.storage.local.housekeeping import Housekeeper, recover_store
from aistore.storage.local.members import attach
from aistore.storage.local.presence import mountpaths

WRITER = """
import sys
from aistore.model.objects import PutOptions
from aistore.storage.local.engine import LocalEngine
from aistore.storage.local.fsck import rebuild_all

directory, me = sys.argv[1], int(sys.argv[2])
engine = LocalEngine(directory)
print("ready", flush=True)
sys.stdin.readline()
for turn in range(60):
    # Names of its own, and names that all writers fight for; one in four is deleted again.
    data = [b"x" * (300 * (number % 2)) for number in range(4)]
    futures = [engine.put("b", f"{me}/{turn}/{number}", data[number], PutOptions()) for number in range(4)]
    shared = [engine.put("b", f"shared/{(turn * 7 + number) % 50}", b"%d" % me, PutOptions()) for number in range(4)]
    for future in futures + shared:
        future.result()
    engine.delete("b", f"{me}/{turn}/0").result()
    print(turn, flush=True)
engine.close()
"""


def test_attaching_while_processes_write(tmp_path: Path, directory: str, disks: list[str]) -> None:
    engine = LocalEngine(directory)
    engine.create_bucket("b", {})
    more = [*disks, str(tmp_path / "disk3")]
    with side_by_side([["-c", WRITER, directory, number] for number in range(3)]) as children:
        for path in more:
            for _ in range(12):
                assert children[0].stdout.readline()
            attach(directory, path)
        for child in children:
            child.stdout.read()
        assert [child.wait(60) for child in children] == [0] * 3
    wanted = {f"{me}/{turn}/{number}" for me in range(3) for turn in range(60) for number in range(1, 4)}
    wanted |= {f"shared/{number}" for number in range(50)}
    rows = [name for path in (f"{directory}/mp0", *more) for name in names_on(path)]
    assert sorted(rows) == sorted(wanted), "nothing twice, nothing lost"
    assert all(names_on(path) for path in more)
    listed = engine.list("b", ListOptions()).entries
    assert [entry.name for entry in listed] == sorted(wanted)
    # Each of the 4 x 60 writes of three processes counted, whichever mountpath it came to.
    versions = sum(entry.version for entry in listed if entry.name.startswith("shared/"))
    assert versions == 3 * 60 * 4
    engine.close()


def test_killed_writers(tmp_path: Path, directory: str, disks: list[str]) -> None:
    """What was acknowledged is there, once and whole; what was not leaves no file behind."""
    engine = LocalEngine(directory)
    engine.create_bucket("b", {})
    attach(directory, disks[0])
    done = []
    with side_by_side([["-c", WRITER, directory, number] for number in range(2)]) as children:
        for turn in range(15):
            assert children[0].stdout.readline() == f"{turn}\n"
            if turn == 5:
                attach(directory, disks[1])
        for child in children:
            child.kill()
            done.append(15 * (child is children[0]) + child.stdout.read().count("\n"))
    engine.close()
    recover_store(directory)
    engine = LocalEngine(directory)
    paths = (f"{directory}/mp0", *disks)
    rows = [name for path in paths for name in names_on(path)]
    assert len(rows) == len(set(rows)), "a name has one place"
    acknowledged = {f"{me}/{turn}/{n}" for me in range(2) for turn in range(done[me]) for n in range(1, 4)}
    assert acknowledged <= set(rows)
    for entry in engine.list("b", ListOptions()).entries:
        with engine.get("b", entry.name) as reading:
            assert set(reading.read(0, entry.size)) <= set(b"x01")
    for path in paths:
        with closing(sqlite3.connect(f"{path}/index.db")) as connection:
            known = {row[0] for row in connection.execute("SELECT place FROM objects UNION SELECT place FROM trash")}
        files = {f"{file.parent.name}/{file.name}" for file in Path(path, "data").glob("*/*")}
        assert files == known - {None}
    engine.close()


VICTIM = """
import os, signal, sys
from aistore.storage.local import members
from aistore.storage.local.members import attach

directory, path, moment = sys.argv[1:]
def die(*arguments, **named): os.kill(os.getpid(), signal.SIGKILL)
whole = members.write_mountpaths
def dying(connection, mountpaths):
    if len(mountpaths.members) < 2:
        return whole(connection, mountpaths)
    if moment == "before": die()
    whole(connection, mountpaths)
    if moment == "within": die()
    connection.execute("COMMIT")
    die()
if moment == "marked": members.begin = die
else: members.write_mountpaths = dying
attach(directory, path)
"""


@pytest.mark.parametrize("moment", ["marked", "before", "within", "after"])
def test_killed_while_attaching(engine: LocalEngine, directory: str, disks: list[str], moment: str) -> None:
    put(engine, ["a", "b"])
    victim = subprocess.run([sys.executable, "-c", VICTIM, directory, disks[0], moment], timeout=60)
    assert victim.returncode == -signal.SIGKILL
    check(engine, ["a", "b"])
    assert len(mountpaths(directory).members) == (2 if moment == "after" else 1)
    attach(directory, disks[0])
    names = [str(number) for number in range(30)]
    put(engine, names)
    check(engine, ["a", "b", *names])
    assert names_on(disks[0])
    keeper = Housekeeper(directory)
    keeper.step(0.0)
    keeper.close()
    check(engine, ["a", "b", *names])

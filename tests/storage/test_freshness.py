"""Objects kept in memory: never out of date, whoever writes and whoever is killed, and never too many."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from freshness_actor import BOARD_BYTES, WRITERS
from side_by_side import side_by_side

from aistore.errors import ObjectNotFoundError
from aistore.model.objects import Checksum, ObjectInfo, PutOptions
from aistore.storage.local.engine import LocalEngine
from aistore.storage.local.hot import HotObjects
from aistore.storage.local.layout import open_directory
from aistore.storage.local.stamps import EVERYTHING, Stamps, slot_of

ACTOR = str(Path(__file__).with_name("freshness_actor.py"))


@pytest.fixture
def directory(tmp_path: Path) -> str:
    return str(tmp_path / "store")


@pytest.fixture
def engines(directory: str) -> Iterator[tuple[LocalEngine, LocalEngine]]:
    """A writer and a reader that know nothing of one another, as in two processes."""
    writer, reader = LocalEngine(directory), LocalEngine(directory)
    writer.create_bucket("b", {})
    yield writer, reader
    writer.close()
    reader.close()


def put(engine: LocalEngine, data: bytes) -> ObjectInfo:
    return engine.put("b", "x", data, PutOptions()).result()


def read(engine: LocalEngine, name: str = "x") -> tuple[bytes, bool]:
    """Return the bytes, and whether they came from memory: a file's Reading has a path."""
    with engine.get("b", name) as reading:
        data = reading.read_cached(0, reading.info.size)
        return data if data is not None else reading.read(0, reading.info.size), reading.path is None


def test_a_second_read_is_from_memory(engines: tuple[LocalEngine, LocalEngine]) -> None:
    writer, reader = engines
    info = put(writer, b"1" * 1000)
    assert read(reader) == (b"1" * 1000, False)
    assert read(reader) == (b"1" * 1000, True)
    assert reader.head("b", "x") == info


def test_a_read_that_had_to_wait_is_kept_too(engines: tuple[LocalEngine, LocalEngine]) -> None:
    """Else nothing ever is where the system cannot say what is in its memory: tmpfs, and systems that are not Linux."""
    writer, reader = engines
    info = put(writer, b"1" * 20_000)
    with reader.get("b", "x") as reading:
        reading.read(0, 100)
        assert reader.kept("b", "x") is None
        reading.read(0, info.size)
    assert reader.kept("b", "x") is not None


def test_every_change_is_seen_at_once(engines: tuple[LocalEngine, LocalEngine]) -> None:
    writer, reader = engines
    for size in (1000, 3, 2000, 4, 0, 1000):
        data = bytes([size % 251]) * size
        put(writer, data)
        assert [read(reader)[0] for _ in range(3)] == [data] * 3
        writer.set_custom("b", "x", {"size": str(size)}, replace=True).result()
        assert [reader.head("b", "x").custom for _ in range(2)] == [{"size": str(size)}] * 2
        assert read(reader)[0] == data
    writer.delete("b", "x").result()
    with pytest.raises(ObjectNotFoundError):
        reader.get("b", "x")


def test_a_bucket_of_the_same_name_is_another_bucket(engines: tuple[LocalEngine, LocalEngine]) -> None:
    writer, reader = engines
    put(writer, b"old" * 500)
    assert [read(reader)[1] for _ in range(2)] == [False, True]
    writer.delete_bucket("b")
    writer.create_bucket("b", {})
    with pytest.raises(ObjectNotFoundError):
        reader.get("b", "x")
    assert put(writer, b"new" * 500).version == 1
    assert read(reader)[0] == b"new" * 500


def test_nothing_is_kept_while_it_is_being_changed(engines: tuple[LocalEngine, LocalEngine], directory: str) -> None:
    writer, reader = engines
    put(writer, b"1" * 1000)
    stamps = Stamps(open_directory(directory).stamps)
    with stamps.changing([slot_of("b", b"x")]):
        assert [read(reader)[1] for _ in range(3)] == [False] * 3
    assert [read(reader)[1] for _ in range(2)] == [False, True]
    stamps.close()


def test_a_write_that_fails_leaves_no_word_dirty(engines: tuple[LocalEngine, LocalEngine]) -> None:
    writer, reader = engines
    put(writer, b"1" * 1000)
    with pytest.raises(ObjectNotFoundError):
        writer.delete("b", "y").result()
    assert [read(reader)[1] for _ in range(2)] == [False, True]


# The trace callback runs just before a statement; the generator's end is just before the words become clean again.
_VICTIM = """
import os, signal, sys
from contextlib import contextmanager
from aistore.model.objects import PutOptions
from aistore.storage.local.engine import LocalEngine
from aistore.storage.local.index import Writer

whole = Writer._transaction

def killed(self, undone):
    yield from whole(self, undone)
    os.kill(os.getpid(), signal.SIGKILL)

engine = LocalEngine(sys.argv[1])
if sys.argv[2] == "after commit":
    Writer._transaction = killed
else:
    engine._root.committer._writer.connection.set_trace_callback(
        lambda text: text.startswith("COMMIT") and os.kill(os.getpid(), signal.SIGKILL))
engine.put("b", "x", b"2" * 1000, PutOptions()).result()
"""


@pytest.mark.parametrize("moment", ["before commit", "after commit"])
def test_a_writer_killed_in_between(engines: tuple[LocalEngine, LocalEngine], directory: str, moment: str) -> None:
    writer, reader = engines
    put(writer, b"1" * 1000)
    assert [read(reader)[1] for _ in range(2)] == [False, True]
    victim = subprocess.run([sys.executable, "-c", _VICTIM, directory, moment], timeout=60)
    assert victim.returncode == -signal.SIGKILL
    now = b"1" * 1000 if moment == "before commit" else b"2" * 1000
    assert [read(reader) for _ in range(3)] == [(now, False)] * 3, "right, and not kept"
    writer.put("b", "something else", b"", PutOptions()).result()
    assert [read(reader) for _ in range(2)] == [(now, False), (now, True)], "the next commit makes it clean again"
    put(writer, b"3" * 1000)
    assert read(reader)[0] == b"3" * 1000


def test_stamps_never_repeat(directory: str) -> None:
    stamps = Stamps(open_directory(directory).stamps)
    given: set[int] = set()
    for round_ in range(20):
        with stamps.changing([3]):
            assert stamps.words[3] % 2 == 1
            given.add(stamps.words[3])
        assert stamps.words[3] % 2 == 0
        given.add(stamps.words[3])
        with stamps.changing([EVERYTHING]):
            given.add(stamps.words[EVERYTHING])
        assert len(given) == 3 * round_ + 3
    stamps.close()


def test_the_cache_is_bounded(directory: str) -> None:
    stamps = Stamps(open_directory(directory).stamps)
    hot = HotObjects(stamps, 2 << 20)
    infos = [ObjectInfo("b", str(number), 3000, 1, Checksum("xxhash2", ""), 0) for number in range(1000)]
    for _ in range(3):
        for info in infos:
            ticket = hot.ticket(stamps.words, 0, "b", info.name.encode())
            assert ticket is not None
            hot.keep(info, bytes(3000), ticket)
    kept = sum(hot.find("b", info.name) is not None for info in infos)
    assert 200 < kept <= (2 << 20) // 3000
    assert not hot.fits(2 << 20)
    stamps.close()


def run_actors(directory: str, board: str, broken: str) -> tuple[list[int], list[str]]:
    """Run writers and readers at once; return the readers' counts of reads from memory, and all complaints."""
    with open(board, "wb") as file:
        file.write(bytes(BOARD_BYTES))
    commands = [["writer", directory, board, str(number), broken] for number in range(WRITERS)]
    commands += [
        ["reader", directory, board, str(number), "uncached" if number == 10 else ""] for number in (10, 11, 12)
    ]
    with side_by_side([[ACTOR, *command] for command in commands], stderr=subprocess.PIPE) as children:
        said = [child.communicate(timeout=120) for child in children]
    return [int(out) for out, _ in said[WRITERS:] if out], [error for _, error in said if error]


@pytest.mark.parametrize("broken", ["", "never", "late"])
def test_readers_of_other_processes_are_never_behind(directory: str, tmp_path: Path, broken: str) -> None:
    engine = LocalEngine(directory)
    for number in range(WRITERS):
        engine.create_bucket(f"bucket{number}", {})
    engine.close()
    from_memory, complaints = run_actors(directory, os.fspath(tmp_path / "board"), broken)
    if broken:
        assert any("STALE" in complaint for complaint in complaints), "the readers do not notice a broken rule"
    else:
        assert complaints == []
        assert from_memory[0] == 0
        assert min(from_memory[1:]) > 0

"""What the local engine promises beyond the contract."""

from __future__ import annotations

import errno
import os
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from aistore.errors import ConflictError, InternalError, MountpathUnavailableError, ObjectNotFoundError, OverloadedError
from aistore.model.objects import ListOptions, PutOptions
from aistore.storage.engine import Engine
from aistore.storage.local import generations, recovery, trailer
from aistore.storage.local.engine import LocalEngine
from aistore.storage.local.layout import open_directory
from aistore.storage.local.settings import LocalSettings

PLAIN = PutOptions()


@pytest.fixture
def directory(tmp_path: Path) -> str:
    return str(tmp_path / "store")


@pytest.fixture
def engine(directory: str) -> Iterator[LocalEngine]:
    engine = LocalEngine(directory)
    engine.create_bucket("b", {})
    yield engine
    engine.close()


def data_files(directory: str) -> list[str]:
    return [os.path.join(root, file) for root, _, files in os.walk(f"{directory}/mp0/data") for file in files]


def test_fits_the_contract(engine: LocalEngine) -> None:
    contract: Engine = engine
    assert contract.list_buckets()


def test_small_objects_make_no_file(engine: LocalEngine, directory: str) -> None:
    engine.put("b", "label", b"7" * 256, PLAIN).result()
    assert data_files(directory) == []
    engine.put("b", "image", b"7" * 257, PLAIN).result()
    assert len(data_files(directory)) == 1


def test_everything_is_there_after_reopening(engine: LocalEngine, directory: str) -> None:
    infos = [
        engine.put("b", f"o{size}", b"x" * size, PutOptions(custom={"size": str(size)})).result()
        for size in (0, 1, 300, 70_000)
    ]
    engine.close()
    again = LocalEngine(directory)
    try:
        assert [again.head("b", info.name) for info in infos] == infos
        with again.get("b", "o70000") as reading:
            assert reading.read(0, 70_000) == b"x" * 70_000
    finally:
        again.close()


def test_two_engines_see_each_other(engine: LocalEngine, directory: str) -> None:
    other = LocalEngine(directory)
    try:
        engine.put("b", "o", b"x" * 1000, PLAIN).result()
        assert other.head("b", "o").version == 1
        assert other.put("b", "o", b"y", PLAIN).result().version == 2
        assert engine.head("b", "o").size == 1
        other.delete_bucket("b")
        assert engine.list_buckets() == []
    finally:
        other.close()


def test_no_file_is_left_of_writes_that_failed(engine: LocalEngine, directory: str) -> None:
    engine.put("b", "o", b"x", PLAIN).result()
    must_not_exist = PutOptions(if_version=0)
    with pytest.raises(ConflictError):
        engine.put("b", "o", b"x" * 1000, must_not_exist).result()
    staging = engine.stage("b", "o", must_not_exist)
    staging.write(b"x" * 1000)
    with pytest.raises(ConflictError):
        staging.commit().result()
    assert data_files(directory) == []
    staging = engine.stage("b", "p", PLAIN)
    staging.write(b"x" * 1000)
    assert len(data_files(directory)) == 1
    del staging
    assert data_files(directory) == []


def test_closing_drops_writes_never_committed(engine: LocalEngine, directory: str) -> None:
    staging = engine.stage("b", "p", PLAIN)
    staging.write(b"x" * 1000)
    engine.close()
    assert data_files(directory) == []
    with pytest.raises(InternalError, match="ended already"):
        staging.write(b"x")
    with pytest.raises(InternalError, match="closed"):
        engine.put("b", "p", b"", PLAIN)


def test_a_cancelled_write_leaves_nothing(engine: LocalEngine, directory: str) -> None:
    entered, leave = threading.Event(), threading.Event()
    # The committing thread is kept busy by a future's callback, so that the next write still waits when cancelled.
    first = engine.put("b", "first", b"1", PLAIN)
    first.add_done_callback(lambda _: (entered.set(), leave.wait(30)))
    if not entered.wait(30):
        pytest.fail("the first write never finished")
    staging = engine.stage("b", "second", PLAIN)
    staging.write(b"x" * 1000)
    second = staging.commit()
    assert second.cancel()
    leave.set()
    engine.put("b", "third", b"3", PLAIN).result()
    assert data_files(directory) == []
    assert [entry.name for entry in engine.list("b", ListOptions()).entries] == ["first", "third"]


def test_a_full_queue_answers_at_once(directory: str) -> None:
    engine = LocalEngine(directory, LocalSettings(queue_max=2))
    try:
        engine.create_bucket("b", {})
        entered, leave = threading.Event(), threading.Event()
        engine.put("b", "o", b"", PLAIN).add_done_callback(lambda _: (entered.set(), leave.wait(30)))
        assert entered.wait(30)
        waiting = [engine.put("b", f"o{number}", b"", PLAIN) for number in range(2)]
        with pytest.raises(OverloadedError, match="b/one-too-many"):
            engine.put("b", "one-too-many", b"", PLAIN)
        staging = engine.stage("b", "one-too-many", PLAIN)
        staging.write(b"x" * 1000)
        with pytest.raises(OverloadedError):
            staging.commit()
        assert data_files(directory) == []
        leave.set()
        assert [future.result().version for future in waiting] == [1, 1]
    finally:
        engine.close()


def test_durable_writes_pass_the_same_way(directory: str) -> None:
    engine = LocalEngine(directory, LocalSettings(durable=True))
    try:
        engine.create_bucket("b", {})
        engine.put("b", "o", b"x" * 1000, PLAIN).result()
        assert engine.set_custom("b", "o", {"k": "v"}, replace=True).result().custom == {"k": "v"}
        with engine.get("b", "o") as reading:
            assert reading.read(0, 1000) == b"x" * 1000
    finally:
        engine.close()


def test_a_lost_file_is_named(engine: LocalEngine, directory: str) -> None:
    engine.put("b", "o", b"x" * 1000, PLAIN).result()
    (file,) = data_files(directory)
    with engine.get("b", "o") as reading:
        os.truncate(file, 500)
        with pytest.raises(InternalError, match="ends at byte 500, 1000 were stored"):
            reading.read(0, 1000)
    os.unlink(file)
    with pytest.raises(InternalError, match="b/o"):
        engine.get("b", "o")


def test_descriptors_come_back(engine: LocalEngine, directory: str) -> None:
    def work(one: LocalEngine) -> None:
        for number in range(30):
            one.put("b", f"o{number}", b"x" * 1000, PLAIN).result()
            with one.get("b", f"o{number}") as reading:
                reading.read(0, 10)
            one.get("b", f"o{number}")  # dropped without close
            one.stage("b", "never", PLAIN).write(b"x" * 1000)
            one.set_custom("b", f"o{number}", {"k": "v"}, replace=False).result()
            thread = threading.Thread(target=one.head, args=("b", f"o{number}"))
            thread.start()
            thread.join()

    counts = []
    for _ in range(3):
        work(engine)
        other = LocalEngine(directory)
        work(other)
        other.close()
        counts.append(len(os.listdir("/dev/fd")))
    # The first round opens what is kept: SQLite reuses a closed connection's descriptor while others hold locks.
    assert counts[1] == counts[2]


def test_a_reading_closed_while_read_elsewhere_never_gets_other_bytes(engine: LocalEngine) -> None:
    engine.put("b", "o", b"o" * 300_000, PLAIN).result()
    engine.put("b", "other", b"x" * 300_000, PLAIN).result()
    for _ in range(200):
        reading = engine.get("b", "o")
        seen: list[bytes] = []

        def read(reading=reading, seen=seen) -> None:
            try:
                seen.append(reading.read(0, 300_000))
            except InternalError:
                seen.append(b"o" * 300_000)  # closed before it began: an error is right

        thread = threading.Thread(target=read)
        thread.start()
        reading.close()
        with engine.get("b", "other"):
            thread.join()
        assert seen == [b"o" * 300_000]


def test_an_operation_at_fault_does_not_take_others_with_it(engine: LocalEngine, directory: str) -> None:
    """A transaction that fails as a whole is repeated operation by operation."""
    engine.put("b", "kept", b"k" * 1000, PLAIN).result()
    database = f"{directory}/mp0/index.db"
    connection = sqlite3.connect(database)
    connection.execute(
        "CREATE TRIGGER fault BEFORE INSERT ON objects WHEN NEW.name = X'626164' BEGIN SELECT RAISE(FAIL, 'fault'); END"
    )
    connection.close()
    entered, leave = threading.Event(), threading.Event()
    engine.put("b", "first", b"", PLAIN).add_done_callback(lambda _: (entered.set(), leave.wait(30)))
    assert entered.wait(30)
    # All of these wait together, so they are one batch.
    good = engine.put("b", "good", b"g" * 1000, PLAIN)
    bad = engine.put("b", "bad", b"b" * 1000, PLAIN)
    custom = engine.set_custom("b", "kept", {"k": "v"}, replace=True)
    gone = engine.delete("b", "first")
    leave.set()
    with pytest.raises(InternalError, match=r"b/bad: the index failed: fault"):
        bad.result()
    assert good.result().version == 1
    assert custom.result().custom == {"k": "v"}
    assert gone.result().name == "first"
    assert len(data_files(directory)) == 2
    for path in data_files(directory):
        descriptor = os.open(path, os.O_RDONLY)
        record = trailer.read_last(descriptor, os.path.relpath(path, f"{directory}/mp0/data"))
        size = os.fstat(descriptor).st_size
        os.close(descriptor)
        assert record is not None
        expected = engine.head("b", record.name.decode())
        assert (record.custom, record.version, record.size) == (expected.custom, expected.version, expected.size)
        # The trailer of the transaction that failed was cut off or overwritten.
        trailers = 1 if record.name == b"good" else 2
        assert Path(path).read_bytes()[record.size : size].count(trailer.MARKER) == trailers


def test_durable_writes_in_any_number(directory: str) -> None:
    """Few files are synced one by one, many with their file system."""
    engine = LocalEngine(directory, LocalSettings(durable=True, generation_files_max=5))
    try:
        engine.create_bucket("b", {})
        for count in (1, 3, 40):
            futures = [engine.put("b", f"{count}/{number}", b"x" * 1000, PLAIN) for number in range(count)]
            assert [future.result().version for future in futures] == [1] * count
        staging = engine.stage("b", "large", PLAIN)
        staging.write(b"x" * (3 << 20))
        assert staging.commit().result().size == 3 << 20
    finally:
        engine.close()


def test_a_failed_sync_is_never_taken_for_done(directory: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel says once that bytes were lost, and a second sync succeeds: such a write must not be repeated."""
    engine = LocalEngine(directory, LocalSettings(durable=True))
    failures = [OSError(errno.EIO, "the disk has gone")]

    def sync_once_failing(descriptor: int) -> None:
        if failures:
            raise failures.pop()

    try:
        engine.create_bucket("b", {})
        monkeypatch.setattr(generations, "sync_data", sync_once_failing)
        entered, leave = threading.Event(), threading.Event()
        engine.put("b", "first", b"", PLAIN).add_done_callback(lambda _: (entered.set(), leave.wait(30)))
        assert entered.wait(30)
        # These two share a transaction; when that fails they are tried again one by one.
        lost, kept = (engine.put("b", name, b"x" * 1000, PLAIN) for name in ("lost", "kept"))
        leave.set()
        with pytest.raises(MountpathUnavailableError, match="b/lost"):
            lost.result()
        assert kept.result().version == 1
        with pytest.raises(ObjectNotFoundError):
            engine.head("b", "lost")
        assert len(data_files(directory)) == 1
    finally:
        engine.close()


def test_an_index_of_the_first_schema_is_read(engine: LocalEngine, directory: str) -> None:
    engine.put("b", "o", b"x" * 1000, PLAIN).result()
    engine.close()
    with sqlite3.connect(open_directory(directory).database) as connection:
        for column in ("bucket", "name", "version"):
            connection.execute(f"ALTER TABLE trash DROP COLUMN {column}")
        connection.executescript("DROP TABLE facts; DROP TABLE removed; PRAGMA user_version=1;")
    connection.close()
    again = LocalEngine(directory)
    try:
        assert again.delete("b", "o").result().size == 1000
    finally:
        again.close()


@pytest.mark.parametrize("value", ["1", "x" * 8000])
def test_changes_of_metadata_do_not_make_a_file_grow_for_ever(engine: LocalEngine, directory: str, value: str) -> None:
    engine.put("b", "o", b"d" * 1000, PLAIN).result()
    (path,) = data_files(directory)
    place = os.path.relpath(path, open_directory(directory).data)
    sizes = []
    for number in range(600 if value == "1" else 40):
        custom = {"value": value, "number": str(number)}
        engine.set_custom("b", "o", custom, replace=True).result()
        sizes.append(os.path.getsize(path))
        record = recovery.read_trailer(open_directory(directory), place)
        assert record is not None
        assert record.custom == custom == engine.head("b", "o").custom
    assert max(sizes) < 1000 + trailer.FOLD_BYTES + 20_000
    assert sizes != sorted(sizes)
    with engine.get("b", "o") as reading:
        assert reading.read(0, 1000) == b"d" * 1000


def test_changes_that_fail_together_leave_the_trailer_there_was(engine: LocalEngine, directory: str) -> None:
    engine.put("b", "o", b"d" * 1000, PLAIN).result()
    (path,) = data_files(directory)
    before = Path(path).read_bytes()
    other = sqlite3.connect(open_directory(directory).database, isolation_level=None)
    entered, leave = threading.Event(), threading.Event()
    engine.put("b", "first", b"", PLAIN).add_done_callback(lambda _: (entered.set(), leave.wait(30)))
    assert entered.wait(30)
    other.execute("CREATE TRIGGER full BEFORE UPDATE ON objects WHEN instr(NEW.custom, CAST('third' AS BLOB)) "
                  "BEGIN SELECT RAISE(ROLLBACK, 'no'); END")  # fmt: skip
    changes = [engine.set_custom("b", "o", {"k": text}, replace=True) for text in ("first", "second", "third")]
    leave.set()
    assert [type(change.exception()) for change in changes] == [type(None), type(None), InternalError]
    other.close()
    record = recovery.read_trailer(open_directory(directory), os.path.relpath(path, open_directory(directory).data))
    assert record is not None
    assert record.custom == {"k": "second"}
    first = msgspec.structs.replace(record, custom={"k": "first"})
    assert Path(path).read_bytes() == before + trailer.encode(first) + trailer.encode(record)

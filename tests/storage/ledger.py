"""What victims do to a store, written down in shared memory, and what may be found after their death.

Each lane is one thread with a bucket of its own, so that the order of its operations is known. A line of the ledger is
made before an operation begins and marked when it was acknowledged; both are stores to memory and no system calls.
"""

from __future__ import annotations

import mmap
import os
import random
import sqlite3

from aistore.errors import BucketExistsError, BucketNotFoundError, ObjectNotFoundError
from aistore.model.objects import ListOptions, PutOptions
from aistore.storage.local.engine import LocalEngine
from aistore.storage.local.fsck import check, mountpaths
from aistore.storage.local.housekeeping import Housekeeper
from aistore.storage.local.layout import Mountpath
from aistore.storage.local.recovery import read_trailer, unsealed

SIZES = (0, 3, 256, 257, 4096, 20_000, 70_000)
NAMES = [f"{number}/\0é𝄞" for number in range(8)]
PUT, STAGE, ABORT, DELETE, CUSTOM, DESTROY, CREATE = range(7)
MIXED = (PUT, PUT, PUT, STAGE, STAGE, ABORT, DELETE, DELETE, CUSTOM, CUSTOM)

#: An object: version, seed of its bytes, seed of its note (0 for none). A lane: its objects, or None for no bucket.
Object = tuple[int, int, int]
Lane = dict[int, Object] | None
Line = tuple[int, int, int, bool]

_LINES = 4096
_WORDS = 2 + 4 * _LINES


def content(seed: int) -> bytes:
    """The bytes of a write are a function of its seed."""
    source = random.Random(seed)
    return source.randbytes(source.choice(SIZES))


class Ledger:
    """Lines per lane, and how many of a lane's lines are known to be on the disk."""

    def __init__(self, lanes: int) -> None:
        self.lanes = lanes
        self._words = memoryview(mmap.mmap(-1, 8 * _WORDS * lanes)).cast("Q")

    def clear(self) -> None:
        for lane in range(self.lanes):
            self._words[lane * _WORDS] = self._words[lane * _WORDS + 1] = 0

    def begin(self, lane: int, kind: int, name: int, seed: int) -> None:
        count = self._words[lane * _WORDS]
        at = lane * _WORDS + 2 + 4 * count
        self._words[at : at + 4] = memoryview(bytes(32)).cast("Q")
        self._words[at], self._words[at + 1], self._words[at + 2] = kind, name, seed
        self._words[lane * _WORDS] = count + 1

    def done(self, lane: int) -> None:
        self._words[lane * _WORDS + 2 + 4 * self._words[lane * _WORDS] - 1] = 1

    def full(self, lane: int) -> bool:
        return self._words[lane * _WORDS] == _LINES

    def lines(self, lane: int) -> list[Line]:
        base = lane * _WORDS + 2
        words = self._words[base : base + 4 * self._words[lane * _WORDS]].tolist()
        return [(words[at], words[at + 1], words[at + 2], bool(words[at + 3])) for at in range(0, len(words), 4)]

    def acknowledged(self) -> list[int]:
        """Return for each lane how many of its lines are acknowledged; only the last one can be open."""
        return [sum(line[3] for line in self.lines(lane)) for lane in range(self.lanes)]

    def set_floor(self, counts: list[int]) -> None:
        for lane, count in enumerate(counts):
            self._words[lane * _WORDS + 1] = count

    def floors(self) -> list[int]:
        return [self._words[lane * _WORDS + 1] for lane in range(self.lanes)]


def work(engine: LocalEngine, ledger: Ledger, lane: int, source: random.Random, kinds: tuple[int, ...]) -> None:
    """Perform operations, one for each of ``kinds``, on names drawn from ``source``."""
    for kind in kinds:
        if ledger.full(lane):
            return
        name, seed = source.randrange(len(NAMES)), source.getrandbits(48) + 1
        ledger.begin(lane, kind, name, seed)
        try:
            perform(engine, f"lane{lane}", kind, NAMES[name], seed)
        except (ObjectNotFoundError, BucketNotFoundError, BucketExistsError):
            pass
        ledger.done(lane)


def perform(engine: LocalEngine, bucket: str, kind: int, name: str, seed: int) -> None:
    options = PutOptions(custom={"seed": str(seed)})
    if kind == PUT:
        engine.put(bucket, name, content(seed), options).result()
    elif kind in (STAGE, ABORT):
        data = content(seed)
        staging = engine.stage(bucket, name, options)
        for start in range(0, len(data), 7_000):
            staging.write(data[start : start + 7_000])
        if kind == STAGE:
            staging.commit().result()
        else:
            staging.abort()
    elif kind == DELETE:
        engine.delete(bucket, name).result()
    elif kind == CUSTOM:
        engine.set_custom(bucket, name, {"note": str(seed)}, replace=False).result()
    elif kind == DESTROY:
        engine.delete_bucket(bucket)
    else:
        engine.create_bucket(bucket, {})


def after(lane: Lane, line: Line) -> Lane:
    """Return what a lane is after the operation of ``line``, which was refused if it cannot be."""
    kind, name, seed, _ = line
    if kind == CREATE:
        return {} if lane is None else lane
    if lane is None or kind == DESTROY:
        return None
    found = lane.get(name)
    if kind in (PUT, STAGE):
        return {**lane, name: (found[0] + 1 if found else 1, seed, 0)}
    if kind == DELETE:
        return {other: value for other, value in lane.items() if other != name}
    if kind == CUSTOM and found:
        return {**lane, name: (*found[:2], seed)}
    return lane


def observe(engine: LocalEngine, bucket: str) -> Lane:
    """Return what is in a lane's bucket; fails when anything is torn, mixed or missing."""
    try:
        entries = engine.list(bucket, ListOptions()).entries
    except BucketNotFoundError:
        return None
    lane = {}
    for entry in entries:
        seed = int(entry.custom["seed"])
        with engine.get(bucket, entry.name) as reading:
            assert reading.info == entry
            assert reading.read(0, entry.size) == content(seed), f"{bucket}/{entry.name} is torn"
        lane[NAMES.index(entry.name)] = (entry.version, seed, int(entry.custom.get("note", "0")))
    return lane


def check_after_kill(ledger: Ledger, before: list[Lane], found: list[Lane]) -> None:
    """All that was acknowledged is there, exactly; the one operation that was not, is there whole or not at all."""
    for number, lane in enumerate(before):
        allowed = [lane]
        for line in ledger.lines(number):
            allowed = [after(allowed[-1], line)] if line[3] else [allowed[-1], after(allowed[-1], line)]
        assert found[number] in allowed, f"lane {number}: {found[number]}, allowed {allowed}"


def check_after_power_cut(ledger: Ledger, before: list[Lane], found: list[Lane]) -> None:
    """Each name is as it was after the last finished sync or at any moment since."""
    for number, lane in enumerate(before):
        floor, states = ledger.floors()[number], [lane]
        for position, line in enumerate(ledger.lines(number)):
            states = [*states, after(states[-1], line)] if position >= floor else [after(states[-1], line)]
        actual = found[number]
        if actual is None or any(state is None for state in states):
            assert (actual is None) in {state is None for state in states}, f"lane {number}: the bucket"
        for name in range(len(NAMES)):
            allowed = {(state or {}).get(name) for state in states}
            assert (actual or {}).get(name) in allowed, (
                f"lane {number}, name {name} is {(actual or {}).get(name)}, allowed {allowed}, floor {floor}, "
                f"before {(lane or {}).get(name)}, done since {_concerning(ledger.lines(number), name)}"
            )


def _concerning(lines: list[Line], name: int) -> list[tuple[int, Line]]:
    return [(at, line) for at, line in enumerate(lines) if line[1] == name or line[0] in (DESTROY, CREATE)][-12:]


def check_files(directory: str) -> None:
    """Every file is known to its index, every object's file is there, and an index could be made from them again."""
    for mountpath in mountpaths(directory):
        objects, trash = _places(mountpath)
        on_disk = _files(mountpath)
        assert objects <= on_disk, f"lost: {objects - on_disk}"
        assert on_disk <= objects | trash, f"leaked: {on_disk - objects - trash}"
        for place in objects:
            assert read_trailer(mountpath, place) is not None, f"{place} has no trailer"


def check_nothing_left(directory: str, accepted: tuple[str, ...] = ()) -> None:
    """After housekeeping there are the objects' files and nothing else, and fsck finds nothing wrong."""
    keeper = Housekeeper(directory, grace_seconds=0.0)
    try:
        for now in range(10):
            while keeper.step(2.0 * now):
                pass
    finally:
        keeper.close()
    for mountpath in mountpaths(directory):
        objects, trash = _places(mountpath)
        assert (_files(mountpath), trash) == (objects, set())
        assert unsealed(mountpath) == []
        assert set(os.listdir(mountpath.data)) == {place.partition("/")[0] for place in objects}
    report = check(directory)
    findings = [finding for finding in report.findings if finding.kind not in accepted]
    assert (findings, report.unfinished) == ([], 0), findings


def _files(mountpath: Mountpath) -> set[str]:
    data = mountpath.data
    return {f"{generation}/{file}" for generation in os.listdir(data) for file in os.listdir(f"{data}/{generation}")}


def _places(mountpath: Mountpath) -> tuple[set[str], set[str]]:
    connection = sqlite3.connect(mountpath.database)
    try:
        statements = ("SELECT place FROM objects WHERE place IS NOT NULL", "SELECT place FROM trash")
        objects, trash = ({row[0] for row in connection.execute(statement)} for statement in statements)
        return objects, trash
    finally:
        connection.close()

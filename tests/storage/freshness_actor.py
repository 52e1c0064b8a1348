"""A process that writes or reads a few objects over and over, and checks that what it reads is never out of date.

``freshness_actor.py writer|reader DIRECTORY BOARD SEED [never|late|uncached]``. The board is memory shared by all
actors: per object the newest value acknowledged, the newest value seen by any reader, and a count that is odd while the
object may be absent. Every write has a larger value than the one before. ``never`` and ``late`` break the rules of
stamps.py, to show that the readers notice.
"""

from __future__ import annotations

import mmap
import os
import random
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from aistore.errors import BucketNotFoundError, ObjectNotFoundError
from aistore.model.objects import PutOptions
from aistore.storage.local.engine import LocalEngine
from aistore.storage.local.settings import LocalSettings
from aistore.storage.local.stamps import Stamps

WRITERS = 2
NAMES_EACH = 3
WRITES = 150
OBJECTS = [(f"bucket{writer}", f"{name}") for writer in range(WRITERS) for name in range(NAMES_EACH)]
BOARD_BYTES = 8 * (3 * len(OBJECTS) + WRITERS)


class Board:
    """Columns of numbers that all actors see."""

    def __init__(self, path: str) -> None:
        descriptor = os.open(path, os.O_RDWR)
        words = memoryview(mmap.mmap(descriptor, BOARD_BYTES)).cast("Q")
        os.close(descriptor)
        count = len(OBJECTS)
        self.acknowledged, self.seen, self.absent = (words[at * count : (at + 1) * count] for at in range(3))
        self.ended = words[3 * count :]


def write(engine: LocalEngine, board: Board, writer: int, source: random.Random) -> None:
    mine = range(writer * NAMES_EACH, (writer + 1) * NAMES_EACH)
    for value in range(1, WRITES + 1):
        at = source.choice(mine)
        bucket, name = OBJECTS[at]
        kind = source.choice(("inline", "file", "file", "custom", "delete", "bucket")) if board.acknowledged[at] else ""
        if kind == "custom":
            engine.set_custom(bucket, name, {"value": str(value)}, replace=False).result()
        else:
            gone = [at] if kind == "delete" else list(mine) if kind == "bucket" else []
            for one in gone:
                board.absent[one] += 1
            if kind == "delete":
                engine.delete(bucket, name).result()
            elif kind == "bucket":
                engine.delete_bucket(bucket)
                engine.create_bucket(bucket, {})
            for one in gone or [at]:
                data = value.to_bytes(8, "big") * (4 if kind == "inline" else 500)
                engine.put(bucket, OBJECTS[one][1], data, PutOptions(custom={"value": str(value)})).result()
            for one in gone:
                board.acknowledged[one] = value
                board.absent[one] += 1
        board.acknowledged[at] = value
    board.ended[writer] = 1


def read(engine: LocalEngine, board: Board, source: random.Random) -> None:
    from_memory = 0
    while not all(board.ended):
        at = source.randrange(len(OBJECTS))
        bucket, name = OBJECTS[at]
        absent, least = board.absent[at], max(board.acknowledged[at], board.seen[at])
        try:
            with engine.get(bucket, name) as reading:
                data = reading.read_cached(0, reading.info.size) or reading.read(0, reading.info.size)
                from_memory += reading.path is None and len(data) > 256
        except (ObjectNotFoundError, BucketNotFoundError):
            if absent % 2 == 0 and board.absent[at] == absent and least:
                sys.exit(f"STALE: {bucket}/{name} is absent, its value was {least} before")
            continue
        if data != data[:8] * (len(data) // 8):
            sys.exit(f"TORN: {bucket}/{name}")
        value = int(reading.info.custom["value"])
        if value < least or int.from_bytes(data[:8], "big") > value:
            sys.exit(f"STALE: {bucket}/{name} has the value {value}, it was {least} before")
        board.seen[at] = max(board.seen[at], value)  # two readers may race here: then a little is left unchecked
    print(from_memory)


@contextmanager
def never(stamps: Stamps, slots: list[int]) -> Iterator[None]:
    """Tell nobody."""
    yield


@contextmanager
def late(stamps: Stamps, slots: list[int]) -> Iterator[None]:
    """Do not make the words dirty before the commit, and take some time after it."""
    yield
    time.sleep(0.002)
    words = stamps.words
    words[-1] += 2  # any word that is not used otherwise
    for slot in slots:
        words[slot] = words[-1]


def main() -> None:
    role, directory, board, seed, how = *sys.argv[1:5], "".join(sys.argv[5:])
    if how in ("never", "late"):
        Stamps.changing = {"never": never, "late": late}[how]
    engine = LocalEngine(directory, LocalSettings(hot_bytes_max=0 if how == "uncached" else 64 << 20))
    source = random.Random(int(seed))
    print("ready", flush=True)
    sys.stdin.readline()
    if role == "writer":
        write(engine, Board(board), int(seed), source)
    else:
        read(engine, Board(board), source)
    engine.close()


if __name__ == "__main__":
    main()

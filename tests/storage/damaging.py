"""A store with some of everything, the plain model of what is in it, and ways in which a disk damages it."""

from __future__ import annotations

import os
import random
import sqlite3
from contextlib import closing
from pathlib import Path

from aistore.errors import AisError
from aistore.model.objects import ListOptions, PutOptions
from aistore.storage.local.engine import LocalEngine
from aistore.storage.local.settings import LocalSettings

SMALL_GENERATIONS = LocalSettings(generation_files_max=20)
PROPS = {"note": "kept in the index alone"}

#: (bucket, name) to (bytes, custom metadata, version).
Model = dict[tuple[str, str], tuple[bytes, dict[str, str], int]]


def fill(directory: str, *, labels: int = 40, seed: int = 1) -> Model:
    """Make a store: small and inline objects, overwritten, deleted and noted ones, a removed and an empty bucket."""
    source = random.Random(seed)
    model: Model = {}
    engine = LocalEngine(directory, SMALL_GENERATIONS)
    try:
        for bucket in ("data", "labels", "empty", "removed"):
            engine.create_bucket(bucket, PROPS if bucket != "removed" else {})
        writes = []
        for number in range(labels):
            writes.append(("labels", f"train/{number:05d}.cls", str(number).encode(), {}))
        for number in range(30):
            custom = {"seed": str(number)} if number % 3 == 0 else {}
            writes.append(("data", f"train/{number:05d}.jpg", source.randbytes(1000 + 100 * number), custom))
            writes.append(("removed", f"{number}", source.randbytes(500), {}))
        writes.append(("data", "large", source.randbytes(3_000_000), {}))
        futures = [engine.put(bucket, name, data, PutOptions(custom=custom)) for bucket, name, data, custom in writes]
        for future in futures:
            future.result()
        engine.put("data", "train/00001.jpg", b"second" * 100, PutOptions()).result()
        engine.set_custom("data", "train/00002.jpg", {"note": "é"}, replace=False).result()
        engine.delete("data", "train/00003.jpg").result()
        engine.delete("labels", "train/00003.cls").result()
        engine.delete_bucket("removed")
        model = contents(engine)
        assert len(model) == labels - 1 + 30
    finally:
        engine.close()
    return model


def contents(engine: LocalEngine) -> Model:
    """Return all that the engine gives out."""
    model: Model = {}
    for bucket in engine.list_buckets():
        for info in engine.list(bucket.name, ListOptions(limit=100_000)).entries:
            with engine.get(bucket.name, info.name) as reading:
                data = reading.read(0, info.size)
            model[bucket.name, info.name] = (data, dict(info.custom), info.version)
    return model


def readable(directory: str) -> tuple[Model, dict[tuple[str, str], AisError]]:
    """Return what a store gives out now, and the errors of what it does not."""
    good: Model = {}
    bad: dict[tuple[str, str], AisError] = {}
    engine = LocalEngine(directory)
    try:
        for bucket in engine.list_buckets():
            for info in engine.list(bucket.name, ListOptions(limit=100_000)).entries:
                try:
                    with engine.get(bucket.name, info.name) as reading:
                        good[bucket.name, info.name] = (reading.read(0, info.size), dict(info.custom), info.version)
                except AisError as error:
                    bad[bucket.name, info.name] = error
    finally:
        engine.close()
    return good, bad


def database(directory: str) -> Path:
    return Path(directory, "mp0", "index.db")


def place(directory: str, name: str) -> str:
    with closing(sqlite3.connect(database(directory))) as connection:
        return str(connection.execute("SELECT place FROM objects WHERE name = ?", (name.encode(),)).fetchone()[0])


def file_of(directory: str, name: str) -> Path:
    return Path(directory, "mp0", "data", place(directory, name))


def flip(path: Path, position: int, bit: int = 3) -> None:
    """Flip one bit; a negative position counts from the end."""
    with open(path, "r+b") as file:
        start = position if position >= 0 else os.path.getsize(path) + position
        file.seek(start)
        byte = file.read(1)[0]
        file.seek(start)
        file.write(bytes([byte ^ 1 << bit]))


def checkpoint(directory: str) -> None:
    """Bring all of the index into its database file."""
    with closing(sqlite3.connect(database(directory))) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()


def execute(directory: str, statement: str, *parameters: object) -> None:
    """Change the index behind the store's back."""
    with closing(sqlite3.connect(database(directory))) as connection:
        connection.execute(statement, parameters)
        connection.commit()

"""What tests of several mountpaths share: objects that are put, where they are, and whether all of them are there."""

from __future__ import annotations

import sqlite3

from aistore.model.objects import ListOptions, PutOptions
from aistore.storage.local.engine import LocalEngine

PLAIN = PutOptions()


def put(engine: LocalEngine, names: list[str]) -> None:
    for future in [engine.put("b", name, name.encode() * 200, PLAIN) for name in names]:
        future.result()


def names_on(path: str) -> list[str]:
    connection = sqlite3.connect(f"{path}/index.db")
    try:
        return [name.decode() for (name,) in connection.execute("SELECT name FROM objects ORDER BY name")]
    finally:
        connection.close()


def check(engine: LocalEngine, names: list[str]) -> None:
    assert [entry.name for entry in engine.list("b", ListOptions()).entries] == sorted(names)
    for name in names:
        with engine.get("b", name) as reading:
            assert reading.read(0, reading.info.size) == name.encode() * 200

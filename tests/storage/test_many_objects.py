"""Many objects opened at once, in every engine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from aistore.errors import BucketNotFoundError
from aistore.model.objects import PutOptions
from aistore.storage.engine import Engine
from aistore.storage.local.engine import LocalEngine
from aistore.storage.local.members import attach
from aistore.storage.memory import MemoryEngine
from aistore.storage.objectstore.engine import ObjectStoreEngine
from aistore.storage.objectstore.urls import open_object_store


@pytest.fixture(params=["memory", "local", "three mountpaths", "object store"])
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Engine]:
    made: Engine
    if request.param == "memory":
        made = MemoryEngine()
    elif request.param == "object store":
        made = ObjectStoreEngine(open_object_store("memory://many"))
    else:
        made = LocalEngine(str(tmp_path / "store"))
    if request.param == "three mountpaths":
        for name in ("disk1", "disk2"):
            attach(str(tmp_path / "store"), str(tmp_path / name))
    yield made
    made.close()


def test_those_that_are_there_are_opened(engine: Engine) -> None:
    engine.create_bucket("b", {})
    contents = {f"\u00e4/{number}": b"%d" % number * number for number in (*range(100), 9_000, 1_000_000)}
    for name, data in contents.items():
        engine.put("b", name, data, PutOptions()).result(60)
    asked = ["missing", *reversed(contents), "\u00e4"]
    assert engine.absent("b", asked) == ["missing", "\u00e4"]
    readings = engine.get_many("b", asked)
    assert set(readings) == set(contents)
    for name, reading in readings.items():
        with reading:
            assert (reading.info.name, reading.info.size) == (name, len(contents[name]))
            assert reading.peek() in (contents[name], None)
            assert reading.read(0, reading.info.size) == contents[name]


def test_a_bucket_that_is_not_there(engine: Engine) -> None:
    for verb in (engine.get_many, engine.absent):
        with pytest.raises(BucketNotFoundError, match="none"):
            verb("none", ["o"])


def test_many_are_opened_as_they_are_stored_or_not_at_all(tmp_path: Path) -> None:
    engine = LocalEngine(str(tmp_path / "store"))
    engine.create_bucket("b", {})
    for name in ("gone", "damaged", "good"):
        engine.put("b", name, name.encode() * 1000, PutOptions()).result(60)
    paths = {}
    for name, reading in engine.get_many("b", ["gone", "damaged", "good"]).items():
        with reading:
            assert reading.path is not None
            paths[name] = Path(reading.path)
    paths["gone"].unlink()
    with paths["damaged"].open("r+b") as file:
        file.write(b"?")
    readings = engine.get_many("b", ["gone", "damaged", "good"])
    assert set(readings) == {"damaged", "good"}
    with readings["damaged"] as damaged, readings["good"] as good:
        assert damaged.peek() is None
        assert bytes(good.peek() or b"") == b"good" * 1000
    engine.close()

"""Every engine of the project against the suite that ships with it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from aistore.storage.conformance import Check, checks
from aistore.storage.engine import Engine
from aistore.storage.local.engine import LocalEngine
from aistore.storage.local.members import attach
from aistore.storage.memory import MemoryEngine


@pytest.fixture(params=["memory", "local", "local with three mountpaths"])
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Engine]:
    made: Engine = MemoryEngine() if request.param == "memory" else LocalEngine(str(tmp_path / "store"))
    if "three" in request.param:
        for name in ("disk1", "disk2"):
            attach(str(tmp_path / "store"), str(tmp_path / name))
    yield made
    made.close()


@pytest.mark.parametrize("check", checks(), ids=lambda check: check.__name__)
def test_conformance(engine: Engine, check: Check) -> None:
    check(engine)

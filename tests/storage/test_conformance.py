"""Every engine of the project against the suite that ships with it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from aistore.storage.conformance import Check, checks
from aistore.storage.engine import Engine
from aistore.storage.memory import MemoryEngine


@pytest.fixture(params=["memory"])
def engine(request: pytest.FixtureRequest) -> Iterator[Engine]:
    made: Engine = MemoryEngine()
    yield made
    made.close()


@pytest.mark.parametrize("check", checks(), ids=lambda check: check.__name__)
def test_conformance(engine: Engine, check: Check) -> None:
    check(engine)

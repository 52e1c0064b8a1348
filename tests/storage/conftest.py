"""Fixtures of several test files of the local engine; many files have a ``directory`` of their own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from aistore.storage.local.engine import LocalEngine


@pytest.fixture
def directory(tmp_path: Path) -> str:
    return str(tmp_path / "store")


@pytest.fixture
def disks(tmp_path: Path) -> list[str]:
    return [str(tmp_path / name) for name in ("disk1", "disk2")]


@pytest.fixture
def engine(directory: str) -> Iterator[LocalEngine]:
    made = LocalEngine(directory)
    made.create_bucket("b", {"p": 1})
    yield made
    made.close()

"""Fixtures of the cache's tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from aistore.storage.cache.cache import Cache
from aistore.storage.cache.settings import CacheSettings


@pytest.fixture
def directory(tmp_path: Path) -> str:
    return str(tmp_path / "cache")


@pytest.fixture
def cache(directory: str) -> Iterator[Cache]:
    with Cache(directory, CacheSettings(capacity_bytes=1 << 30)) as made:
        yield made

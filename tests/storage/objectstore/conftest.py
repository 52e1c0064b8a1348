from __future__ import annotations

import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

from aistore.errors import NotSupportedError
from aistore.laptop.weed import BUCKET, Weed, find_weed
from aistore.storage.objectstore.contract import Capabilities
from aistore.storage.objectstore.probe import probe
from aistore.storage.objectstore.store import ObstoreStore
from aistore.storage.objectstore.urls import open_object_store

#: Probing once for each kind is enough, and racing conditional writes wait for one another in steps of 1 s in `weed`.
_PROBED: dict[str, Capabilities] = {}


@pytest.fixture(scope="session")
def running_weed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Weed]:
    try:
        find_weed()
    except NotSupportedError as error:
        pytest.skip(str(error))
    with Weed(str(tmp_path_factory.mktemp("weed"))) as running:
        yield running


@pytest.fixture
def weed(running_weed: Weed, monkeypatch: pytest.MonkeyPatch) -> Weed:
    """A `weed`, with the way to it and its credentials in the environment."""
    for name, value in running_weed.environment.items():
        monkeypatch.setenv(name, value)
    return running_weed


@pytest.fixture
def weed_store(weed: Weed) -> Iterator[ObstoreStore]:
    """A prefix of its own in `weed`'s bucket, with what it was found to be able to do."""
    opened = open_object_store(f"s3://{BUCKET}/{secrets.token_hex(8)}")
    opened.capabilities = probed("weed", opened)
    yield opened
    opened.close()


@pytest.fixture(params=["memory", "file", "weed"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ObstoreStore]:
    """A fresh store of each kind that can be had here, with the capabilities that it was found to have."""
    if request.param == "weed":
        yield request.getfixturevalue("weed_store")
        return
    opened = open_object_store("memory://" if request.param == "memory" else f"file://{tmp_path}")
    opened.capabilities = probed(request.param, opened)
    yield opened
    opened.close()


def probed(kind: str, store: ObstoreStore) -> Capabilities:
    if kind not in _PROBED:
        _PROBED[kind] = probe(store)
    return _PROBED[kind]

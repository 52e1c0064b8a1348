"""A shell beside a store, and pictures of ImageNet."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from person import CHECKOUT, Shell

from aistore.testing import StoreProcess


@pytest.fixture(scope="session")
def imagenet_sample() -> Path:
    """Return a folder with pictures and labels of ImageNet under train/ and val/."""
    folder = Path(os.environ.get("AIS_IMAGENET_SAMPLE") or CHECKOUT.parent / "shared/data/imagenet-sample")
    if not (folder / "train").is_dir():
        pytest.skip(f"no pictures of ImageNet at {folder}; AIS_IMAGENET_SAMPLE names a folder with train/ and val/")
    return folder


@pytest.fixture(scope="module")
def module_store() -> Iterator[StoreProcess]:
    """Return a store of one test module."""
    with StoreProcess() as process:
        yield process
        assert "Traceback" not in process.errors(), process.errors()


@pytest.fixture(scope="session")
def classes_store() -> Iterator[StoreProcess]:
    """Return a store for all transforms that are made of classes: what these are installed with is there once."""
    with StoreProcess() as process:
        yield process
        assert "Traceback" not in process.errors(), process.errors()


@pytest.fixture(scope="module")
def module_shell(module_store: StoreProcess, tmp_path_factory: pytest.TempPathFactory) -> Shell:
    """Return a shell beside the module's store."""
    return Shell(tmp_path_factory.mktemp("shell"), module_store.endpoint)

"""A shell beside a store, pictures of ImageNet, and the package index."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from person import CHECKOUT, PATIENCE, Index, Shell

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
def index(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Index:
    """Return the package index; skips where it cannot be reached."""
    probe = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--retries", "1", "--timeout", "10"]
    done = subprocess.run(
        [*probe, "--dest", tmp_path_factory.mktemp("index"), "cowsay==6.1"],
        capture_output=True, text=True, timeout=PATIENCE,
    )  # fmt: skip
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines()
        pytest.skip(f"no package index can be reached: {lines[-1] if lines else 'pip said nothing'}")
    cache = request.config.cache
    assert cache is not None
    return Index(cache.mkdir("acceptance"))


@pytest.fixture(scope="module")
def module_shell(module_store: StoreProcess, tmp_path_factory: pytest.TempPathFactory) -> Shell:
    """Return a shell beside the module's store."""
    return Shell(tmp_path_factory.mktemp("shell"), module_store.endpoint)

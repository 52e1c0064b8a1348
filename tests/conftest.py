"""What every test can have: a store of its own process tree, and a check that nothing is left behind."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from package_index import Index, reached

from aistore.errors import NotSupportedError
from aistore.laptop.weed import BUCKET, Weed
from aistore.testing import LocalCluster, Network, StoreProcess


@pytest.fixture(scope="session")
def store() -> Iterator[StoreProcess]:
    """Return one running store, shared by the tests of a session: each makes buckets of its own (see ``bucket``)."""
    with StoreProcess() as process:
        yield process
        assert "Traceback" not in process.errors(), process.errors()


@pytest.fixture
def new_store() -> Iterator[Callable[..., StoreProcess]]:
    """Return a function that starts a store of the test's own; stopped when the test ends."""
    stores: list[StoreProcess] = []

    def start(*args: object, **kwargs: object) -> StoreProcess:
        process = StoreProcess(*args, **kwargs)  # type: ignore[arg-type]
        stores.append(process)
        return process.start()

    yield start
    for process in stores:
        process.stop()


@pytest.fixture(scope="session")
def weed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Weed]:
    """Return a running S3 store, shared by the tests of a session: see ``lake`` for a place of a test's own."""
    try:
        with Weed(str(tmp_path_factory.mktemp("weed"))) as running:
            yield running
    except NotSupportedError as error:
        pytest.skip(str(error))


_LAKES = itertools.count(1)


@pytest.fixture
def lake(weed: Weed) -> str:
    """Return a URL in the running S3 store (``s3://lake/3``) below which nobody else writes."""
    return _new_lake()


def _new_lake() -> str:
    return f"s3://{BUCKET}/{next(_LAKES)}"


@pytest.fixture(scope="session")
def cluster(weed: Weed) -> Iterator[LocalCluster]:
    """Return a settled cluster of three nodes, shared by the tests of a session: its nodes are left alone.

    Each test makes buckets of its own. See ``new_cluster`` for one to be cruel to.
    """
    with LocalCluster(lease_seconds=6, store=(weed, _new_lake())) as shared:
        shared.wait_settled()
        yield shared
        for node in shared.running:
            assert "Traceback" not in node.log(), node.log()


@pytest.fixture
def new_cluster(weed: Weed) -> Iterator[Callable[..., LocalCluster]]:
    """Return a function that starts a cluster of the test's own, which takes what `LocalCluster` does.

    Without a ``place`` it keeps its objects in the session's store. Stopped when the test ends.
    """
    clusters: list[LocalCluster] = []

    def start(nodes: int = 3, **options: Any) -> LocalCluster:
        if "place" not in options:
            options.setdefault("store", (weed, _new_lake()))
        made = LocalCluster(nodes, **{"lease_seconds": 4.0, **options})
        clusters.append(made)
        made.start().wait_settled()
        return made

    yield start
    for made in clusters:
        made.stop()


@pytest.fixture
def network() -> Iterator[Network]:
    """Return a network of machines whose paths can be cut, slow or lossy; skips the test where there can be none."""
    try:
        made = Network()
    except NotSupportedError as error:
        pytest.skip(str(error))
    with made:
        yield made


@pytest.fixture(scope="session")
def index(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Index:
    """Return the package index; skips where it cannot be reached."""
    cache = request.config.cache
    assert cache is not None
    return reached(cache, tmp_path_factory.mktemp("index"))


_COUNTS: dict[str, int] = {}
_TOLD: list[str] = []


@pytest.fixture(scope="session")
def count() -> Callable[[str, int], None]:
    """Return a function that adds to a number which the run prints at its end."""

    def add(what: str, number: int) -> None:
        _COUNTS[what] = _COUNTS.get(what, 0) + number

    return add


@pytest.fixture(scope="session")
def tell() -> Callable[[str], None]:
    """Return a function that takes a line which the run prints at its end, before its counts."""
    return _TOLD.append


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if _COUNTS or _TOLD:
        terminalreporter.section("counted")
        for line in _TOLD:
            terminalreporter.line(line)
        for what, number in _COUNTS.items():
            terminalreporter.line(f"{number:8,} {what}")


@pytest.fixture(scope="session", autouse=True)
def _nothing_left_behind() -> Iterator[None]:
    """Fail the session when it leaves a child process running."""
    yield
    left = []
    for entry in os.listdir("/proc") if os.path.isdir("/proc") else []:
        if entry.isdecimal():
            try:
                with open(f"/proc/{entry}/stat", encoding="ascii", errors="replace") as stat:
                    state, parent = stat.read().rpartition(")")[2].split()[:2]
            except OSError:
                continue
            if int(parent) == os.getpid() and state != "Z":
                left.append(int(entry))
    assert not left, f"processes left running: {left}"

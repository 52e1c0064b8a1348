"""kill -9 of whoever works on a store: what was acknowledged is whole, what was not is gone or whole, nothing leaks.

``AIS_KILLS=20000`` kills at that many random moments (and twice as many recoveries); the default is what ``make test``
can afford.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from kill_run import FURTHER, SCENARIOS, SPREAD
from tracing import why_not

KILLS = int(os.environ.get("AIS_KILLS", "500"))
SEED = int(os.environ.get("AIS_KILLS_SEED", "1"))
RUN = str(Path(__file__).with_name("kill_run.py"))

#: What a run with the defaults does at least; docs/storage.md says so too.
AT_LEAST = {"test_kill_before_every_change": 700, "test_kill_at_any_moment": 500, "test_kill_the_recovery": 1000}

Count = Callable[[str, int], None]
POINTS: dict[tuple[str, int], int] = {}
CASES = [(name, 0) for name in SCENARIOS] + [(name, FURTHER) for name in SPREAD]


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[str]:
    """Return a directory in memory if there is one: a killed process takes nothing from a disk that it had given it."""
    if not os.access("/dev/shm", os.W_OK):
        yield str(tmp_path / "one")
        return
    made = tempfile.mkdtemp(dir="/dev/shm", prefix="aistore-kill-")
    yield f"{made}/one"
    shutil.rmtree(made)


def run(*arguments: object) -> dict[str, int]:
    result = subprocess.run([sys.executable, RUN, *map(str, arguments)], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    counts: dict[str, int] = json.loads(result.stdout)
    print(arguments, counts)
    return counts


needs_tracing = pytest.mark.skipif(bool(why_not()), reason=why_not() or "traced")


@needs_tracing
@pytest.mark.parametrize(("scenario", "disks"), CASES)
def test_kill_before_every_change(scenario: str, disks: int, directory: str, count: Count) -> None:
    """Before each system call that changes a file or a directory, SQLite's included."""
    counts = run("points", scenario, disks, directory)
    assert counts["kills"] >= counts["calls"] > 0  # the last victim made so many calls, and was not killed
    POINTS[scenario, disks] = counts["kills"]
    count("kills before a system call", counts["kills"])
    if len(POINTS) == len(CASES):
        assert sum(POINTS.values()) >= AT_LEAST["test_kill_before_every_change"]


def test_kill_at_any_moment(directory: str, count: Count) -> None:
    """In the middle of four writing threads and housekeeping."""
    counts = run("moments", KILLS, SEED, directory)
    assert counts["kills"] == KILLS
    assert counts["operations"] > KILLS
    assert counts["of three mountpaths"] > KILLS / 6
    count("kills at random moments", counts["kills"])


@needs_tracing
def test_kill_the_recovery(directory: str, count: Count) -> None:
    """Of what killed writers left, before each of its changes, twice in a row."""
    counts = run("recovery", 2 * KILLS, SEED, directory)
    assert counts["kills"] >= 2 * KILLS
    count("kills of a recovery", counts["kills"])

"""Warm workers share what their parent imported; what a transform uses is told with shared memory counted once."""

from __future__ import annotations

import os
from collections.abc import Sequence

import pytest
from hosts import needs
from running import Held, RunningEtl

from aistore.etl.usage import NOTHING, Meter, usage_of

pytestmark = [needs("proc"), needs("fork")]

#: A model of 64 MiB, read by every object, from a library that takes far more than the interpreter itself.
MODEL = """
import sys
import numpy
weights = numpy.ones((64 << 20) // 8)
def transform(data):
    return b"%d" % int(weights.sum())
"""
LATER = "\nimport numpy\nimport os\nwhile os.read(0, 4096):\n    pass\nprint(numpy.ones(10).sum())\n"


def memory(pid: int, field: str) -> int:
    """Return a field of /proc/PID/smaps_rollup in bytes."""
    with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as file:
        return next(int(line.split()[1]) << 10 for line in file if line.startswith(f"{field}:"))


def together(pids: Sequence[int], field: str) -> int:
    return sum(memory(pid, field) for pid in pids)


def test_memory_of_a_model_is_there_once() -> None:
    pytest.importorskip("numpy")
    with RunningEtl(MODEL, kind="function", workers=4) as etl:
        waiting = [etl.begin() for _ in range(40)]
        pids = sorted({pending.started() for pending in waiting})
        assert all(pending.finish().output == b"8388608" for pending in waiting)
        usage = usage_of(etl.launched.guard_pid)
        assert usage is not None
        assert len(pids) > 1
        assert usage.memory_bytes < (64 << 20) * 2  # one model and two times nothing like it
        assert together(pids, "Rss") > (64 << 20) * len(pids)


@pytest.mark.torch
@pytest.mark.parametrize("library", ["numpy", "torch"])
def test_workers_share_the_libraries_that_their_parent_imported(library: str) -> None:
    pytest.importorskip(library)
    with RunningEtl(f"import {library}{LATER}", workers=4) as etl:
        for _ in range(3):
            held = Held(etl, 4)
            pids = [pending.started() for pending in held.pending]
            assert all(held.let_go(number).finish().output == b"10.0\n" for number in range(4))
        usage = usage_of(etl.launched.guard_pid)
        assert usage is not None
        assert usage.processes == 6  # guard, parent, workers
        resident, proportional = together(pids, "Rss"), together(pids, "Pss")
        assert proportional < resident / 2, f"{proportional >> 20} of {resident >> 20} MiB"
        assert usage.memory_bytes < resident


def test_what_a_tree_uses_is_what_its_processes_use() -> None:
    code = "def transform(data):\n    return b'x' * sum(range(300_000)).bit_length()\n"
    with RunningEtl(code, kind="function", objects_per_worker=1) as etl:
        meter = Meter(etl.launched.guard_pid)
        before = usage_of(etl.launched.guard_pid)
        assert before is not None
        for _ in range(20):
            assert etl.run().ok  # each in a process of its own, which has ended since
        after = usage_of(etl.launched.guard_pid)
        assert after is not None
        assert after.cpu_seconds > before.cpu_seconds + 0.05
        assert meter.read()[1].cpu_seconds >= after.cpu_seconds
    assert usage_of(etl.launched.guard_pid) is None
    assert meter.read() == NOTHING


def test_a_process_without_children() -> None:
    own = usage_of(os.getpid())
    assert own is not None
    assert 0 < memory(os.getpid(), "Pss") < 2 * own.memory_bytes

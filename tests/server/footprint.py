"""What a store's processes hold: descriptors, threads, memory, files. For tests that nothing of it stays."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass

import pytest

from aistore.testing import StoreProcess

#: What one abuse may add to the memory of all processes and keep: allocators give back late.
MEMORY_GROWTH_MAX = 96 << 20
#: Threads that wait for disks, in each HTTP worker of a store that is measured: few, so that a leak shows.
IO_THREADS = 2


@dataclass(frozen=True)
class Footprint:
    """``processes`` are pids; ``threads`` and ``descriptors`` counts of each; ``memory`` the PSS of all, in bytes."""

    processes: frozenset[int]
    threads: dict[int, int]
    descriptors: dict[int, int]
    memory: int
    staged: int


def footprint(store: StoreProcess) -> Footprint:
    """Measure a store that is running."""
    pids = frozenset(_tree(store.pid))
    descriptors = {pid: len(os.listdir(f"/proc/{pid}/fd")) for pid in pids}
    threads = {pid: len(os.listdir(f"/proc/{pid}/task")) for pid in pids}
    return Footprint(pids, threads, descriptors, sum(map(memory_of, pids)), _files(store))


def _tree(pid: int) -> list[int]:
    found = [pid]
    for task in os.listdir(f"/proc/{pid}/task"):
        try:
            with open(f"/proc/{pid}/task/{task}/children", encoding="ascii") as children:
                for child in children.read().split():
                    found += _tree(int(child))
        except FileNotFoundError:
            pass
    return found


def memory_of(pid: int) -> int:
    """Return a process's share of memory, in bytes."""
    with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as lines:
        return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) * 1024


def _files(store: StoreProcess) -> int:
    """Count the files of objects, those of writes under way among them."""
    count = 0
    for directory, _, names in os.walk(store.data):
        if f"{os.sep}data{os.sep}" in directory:
            count += len(names)
    return count


def returns_to(before: Footprint, store: StoreProcess, *, files: int = 0, seconds: float = 60.0) -> None:
    """Wait until a store holds what it held ``before``, and ``files`` files more; fail with what stays."""
    deadline = time.monotonic() + seconds
    while True:
        left = _left(before, footprint(store), files)
        if not left:
            return
        if time.monotonic() > deadline:
            pytest.fail(f"left behind after {seconds:.0f} s: {'; '.join(left)}")
        time.sleep(0.1)  # between two looks


def _left(before: Footprint, now: Footprint, files: int) -> list[str]:
    left = []
    if now.processes != before.processes:
        left.append(f"processes {sorted(before.processes)} became {sorted(now.processes)}")
        return left
    for pid in sorted(now.processes):
        # Threads of the pool that were not needed before, and the descriptors of each one's view of the index.
        if now.descriptors[pid] > before.descriptors[pid] + 4 * IO_THREADS:
            left.append(f"{pid}: {before.descriptors[pid]} descriptors became {now.descriptors[pid]}")
        if now.threads[pid] > before.threads[pid] + IO_THREADS + 2:  # and two of the allocator
            left.append(f"{pid}: {before.threads[pid]} threads became {now.threads[pid]}")
    if now.staged != before.staged + files:
        left.append(f"{before.staged} files became {now.staged}")
    if now.memory > before.memory + MEMORY_GROWTH_MAX:
        left.append(f"{before.memory >> 20} MiB of memory became {now.memory >> 20}")
    return left

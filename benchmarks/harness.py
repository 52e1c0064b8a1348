"""What the benchmarks share: interleaved rounds, medians, CPU seconds of process trees, a table."""

from __future__ import annotations

import os
import statistics
from collections.abc import Callable, Iterable

_TICKS = os.sysconf("SC_CLK_TCK")


def tree(pids: Iterable[int]) -> dict[int, float]:
    """Return processes and all their descendants that live, each with its user and system seconds so far.

    Those of its children that have ended count as its own: a pool replaces its workers.
    """
    parents: dict[int, list[int]] = {}
    used: dict[int, float] = {}
    for entry in os.listdir("/proc"):
        if entry.isdecimal():
            try:
                with open(f"/proc/{entry}/stat", encoding="ascii", errors="replace") as stat:
                    fields = stat.read().rpartition(")")[2].split()
            except OSError:
                continue
            parents.setdefault(int(fields[1]), []).append(int(entry))
            used[int(entry)] = sum(map(int, fields[11:15])) / _TICKS
    found: dict[int, float] = {}
    waiting = list(pids)
    while waiting:
        pid = waiting.pop()
        if pid in used:
            found[pid] = used[pid]
        waiting += parents.get(pid, [])
    return found


def cpu_seconds(pids: Iterable[int]) -> float:
    """Return user and system seconds used so far by processes and all their descendants that live."""
    return sum(tree(pids).values())


def memory_mib(pids: Iterable[int]) -> float:
    """Return the memory of processes and all their descendants, in MiB; what several share is counted once (PSS)."""
    kib = 0
    for pid in tree(pids):
        try:
            with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as file:
                kib += sum(int(line.split()[1]) for line in file if line.startswith("Pss:"))
        except OSError:
            continue
    return kib / 1024


def interleave(rounds: int, sides: dict[str, Callable[[], dict[str, float]]]) -> dict[str, dict[str, float]]:
    """Run every side once per round, in turn, and return the median of each of its figures."""
    results: dict[str, list[dict[str, float]]] = {name: [] for name in sides}
    for number in range(rounds):
        names = list(sides)
        for name in names if number % 2 == 0 else reversed(names):
            results[name].append(sides[name]())
    return {
        name: {key: statistics.median(run[key] for run in runs) for key in runs[0]} for name, runs in results.items()
    }


def print_table(title: str, rows: dict[str, dict[str, float]], note: str = "") -> None:
    """Print one line per side and a column per figure."""
    columns = list(next(iter(rows.values())))
    width = max(len(name) for name in rows)
    print(f"\n{title}")
    print("  ".join([" " * width, *(f"{column:>18}" for column in columns)]))
    for name, figures in rows.items():
        print("  ".join([f"{name:<{width}}", *(f"{figures[column]:>18,.4g}" for column in columns)]))
    if note:
        print(note)

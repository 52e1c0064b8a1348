"""What the benchmarks share: interleaved rounds, medians, CPU seconds of process trees, a table."""

from __future__ import annotations

import os
import statistics
from collections.abc import Callable, Iterable

_TICKS = os.sysconf("SC_CLK_TCK")


def cpu_seconds(pids: Iterable[int]) -> float:
    """Return user and system seconds used so far by processes and all their descendants that live."""
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
            used[int(entry)] = (int(fields[11]) + int(fields[12])) / _TICKS
    total, waiting = 0.0, list(pids)
    while waiting:
        pid = waiting.pop()
        total += used.get(pid, 0.0)
        waiting += parents.get(pid, [])
    return total


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

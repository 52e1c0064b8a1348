"""The production's membership and coherence, in a simulated cluster, under random schedules of trouble.

``AIS_SIM_RUNS`` says how many schedules, ``AIS_SIM_FIRST`` the first one's seed; ``AIS_SIM_SEED`` runs one of them and
prints what happened in it.
"""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sim.broken import BROKEN
from sim.run import simulate

RUNS = int(os.environ.get("AIS_SIM_RUNS", "200"))
FIRST = int(os.environ.get("AIS_SIM_FIRST", "0"))
#: Schedules in which a broken rule has to be found.
HUNT_MAX = int(os.environ.get("AIS_SIM_HUNT", "400"))
PROCESSES = 2


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """Keep the warnings of hundreds of nodes in trouble out of the report."""
    logging.disable(logging.ERROR)
    yield
    logging.disable(logging.NOTSET)


def _start(*arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "sim", *map(str, arguments)]
    return subprocess.Popen(command, cwd=Path(__file__).parent, stdout=subprocess.PIPE, text=True)


def _result(process: subprocess.Popen[str]) -> Any:
    output, _ = process.communicate()
    assert process.returncode == 0
    return json.loads(output)


@pytest.mark.skipif("AIS_SIM_SEED" not in os.environ, reason="AIS_SIM_SEED=N runs one schedule and tells its story")
def test_one_schedule() -> None:
    outcome = simulate(int(os.environ.get("AIS_SIM_SEED", "0")), tell=True)
    sys.stdout.write(outcome.report() + "\n")
    assert outcome.is_good


def test_nothing_is_stale_or_lost_in_random_schedules() -> None:
    parts = [_start("run", FIRST + number, FIRST + RUNS, PROCESSES) for number in range(PROCESSES)]
    results = [_result(part) for part in parts]
    total: Counter[str] = Counter()
    for result in results:
        total.update(result["total"])
    hours = sum(result["hours"] for result in results)
    sys.stdout.write(f"\n{RUNS} schedules, {hours:.1f} simulated hours: {dict(total)}\n")
    bad = [report for result in results for report in result["bad"]]
    assert not bad, "\n\n".join(report[:6000] for report in bad)
    assert total["acknowledged"] > 20 * RUNS
    assert total["maps"] > 3 * RUNS


def test_broken_rules_are_found() -> None:
    left, running, took = list(BROKEN), dict[str, subprocess.Popen[str]](), dict[str, int]()
    while left or running:
        while left and len(running) < PROCESSES:
            name = left.pop(0)
            running[name] = _start("hunt", name, HUNT_MAX)
        name = next(iter(running))
        result = _result(running.pop(name))
        took[name] = result["took"]
        sys.stdout.write(f"\n{name}: schedule {result['took']}: {result['found']}\n")
    missed = [name for name, schedules in took.items() if not schedules]
    assert not missed, f"{HUNT_MAX} schedules did not show: {missed}"


def test_a_seed_is_a_schedule() -> None:
    first, again = simulate(7, tell=True), simulate(7, tell=True)
    assert first.story
    assert first.story == again.story
    assert first.story != simulate(8, tell=True).story

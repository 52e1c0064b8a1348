"""The production's membership and coherence, in a simulated cluster, under random schedules of trouble.

``AIS_SIM_RUNS`` says how many schedules, ``AIS_SIM_FIRST`` the first one's seed; ``AIS_SIM_SEED`` runs one of them and
prints what happened in it. ``AIS_SIM_HUNT`` says in how many schedules a broken rule has to be found.
"""

from __future__ import annotations

import ast
import inspect
import json
import logging
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from sim.broken import BROKEN, RARE
from sim.run import simulate

from aistore.cluster import coherence, membership, view, world

RUNS = int(os.environ.get("AIS_SIM_RUNS", "250"))
FIRST = int(os.environ.get("AIS_SIM_FIRST", "0"))
#: Schedules in which a broken rule has to be found; with AIS_SIM_HUNT, also those that take hundreds.
HUNT_MAX = int(os.environ.get("AIS_SIM_HUNT", "200"))
HUNTED = [*BROKEN, *(RARE if "AIS_SIM_HUNT" in os.environ else ())]
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
    left, running, took = list(HUNTED), dict[str, subprocess.Popen[str]](), dict[str, int]()
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


def test_a_seed_is_a_schedule(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same seed tells the same story in any process, whatever the order of its sets of strings."""
    stories = []
    for seed, order in ((7, "1"), (7, "2"), (8, "1")):
        monkeypatch.setenv("PYTHONHASHSEED", order)
        stories.append(_start("tell", seed).communicate()[0])
    assert "ALL TROUBLE ENDS" in stories[0]
    assert stories[0] == stories[1]
    assert stories[0] != stories[2]


@pytest.mark.parametrize("module", [membership, coherence, view, world])
def test_no_rule_reads_the_wall_clock(module: ModuleType) -> None:
    """Time comes from ``world.Clock`` alone, so a jump of the wall clock changes nothing."""
    tree = ast.parse(inspect.getsource(module))
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and not node.level}
    assert not names & {"time", "datetime"}

"""The production's membership and coherence, in a simulated cluster, under thousands of random schedules.

``AIS_SIM_RUNS`` says how many schedules, ``AIS_SIM_FIRST`` the first one's seed; ``AIS_SIM_SEED`` runs one of them and
prints what happened in it.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace

import pytest
from sim.broken import BROKEN
from sim.run import Outcome, simulate
from sim.schedule import MIXTURES, plan_of

RUNS = int(os.environ.get("AIS_SIM_RUNS", "200"))
FIRST = int(os.environ.get("AIS_SIM_FIRST", "0"))
#: Schedules in which a broken rule has to be found.
HUNT_MAX = int(os.environ.get("AIS_SIM_HUNT", "300"))


@pytest.fixture(scope="module")
def pool() -> Iterator[ProcessPoolExecutor]:
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(2, mp_context=context, initializer=logging.disable, initargs=(logging.ERROR,)) as pool:
        yield pool


def _one(seed: int) -> Outcome:
    return simulate(seed)


def _hunt(name: str) -> tuple[int, str]:
    """Return how many schedules it took to find a broken rule, 0 if it was not found, and the first thing found."""
    rules, mixture = BROKEN[name]
    for seed in range(HUNT_MAX):
        outcome = simulate(seed, rules, replace(plan_of(seed), faults=MIXTURES[mixture]))
        if outcome.stale or outcome.lost:
            return seed + 1, str([*outcome.lost, *outcome.stale][0])
    return 0, ""


@pytest.mark.skipif("AIS_SIM_SEED" not in os.environ, reason="AIS_SIM_SEED=N runs one schedule and tells its story")
def test_one_schedule() -> None:
    outcome = simulate(int(os.environ.get("AIS_SIM_SEED", "0")), tell=True)
    sys.stdout.write(outcome.report() + "\n")
    assert outcome.is_good


def test_nothing_is_stale_or_lost_in_random_schedules(pool: ProcessPoolExecutor) -> None:
    outcomes = list(pool.map(_one, range(FIRST, FIRST + RUNS), chunksize=5))
    total = {
        what: sum(getattr(outcome, what) for outcome in outcomes)
        for what in ("reads", "writes", "acknowledged", "maps", "faults", "failed_attempts", "failed_operations")
    }
    hours = sum(outcome.seconds for outcome in outcomes) / 3600
    sys.stdout.write(f"\n{len(outcomes)} schedules, {hours:.1f} simulated hours: {total}\n")
    bad = [outcome for outcome in outcomes if not outcome.is_good]
    assert not bad, f"seeds {[outcome.plan.seed for outcome in bad]}\n{bad[0].report()}"
    assert total["acknowledged"] > 20 * RUNS
    assert total["maps"] > 3 * RUNS


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_rule_is_found(name: str, pool: ProcessPoolExecutor) -> None:
    took, found = pool.submit(_hunt, name).result()
    sys.stdout.write(f"\n{name}: schedule {took}: {found}\n")
    assert took, f"{HUNT_MAX} schedules did not show that {name}"


def test_a_seed_is_a_schedule() -> None:
    first, again = simulate(7, tell=True), simulate(7, tell=True)
    assert first.story
    assert first.story == again.story
    assert first.story != simulate(8, tell=True).story

"""Run schedules and print what they came to, as JSON: ``python -m sim run 0 200 2``, ``hunt NAME MAX``, ``tell SEED``.

A process of its own, so that tests use both cores, and so that hours of runs need no tests around them.
"""

from __future__ import annotations

import json
import logging
import sys
from collections import Counter
from dataclasses import replace

from .broken import BROKEN, RARE
from .run import simulate
from .schedule import plan_of

COUNTED = ("reads", "writes", "acknowledged", "maps", "faults", "requests", "failed_attempts", "failed_operations")


def run(first: int, end: int, step: int) -> dict[str, object]:
    """Run schedules; return the sums of their counts, and reports of those that went wrong, five at most."""
    total: Counter[str] = Counter()
    bad: list[str] = []
    seconds = slowest = 0.0
    for seed in range(first, end, step):
        outcome = simulate(seed)
        total.update({what: getattr(outcome, what) for what in COUNTED})
        seconds += outcome.seconds
        slowest = max(slowest, outcome.settled_seconds)
        if not outcome.is_good:
            bad.append(f"seed {seed}: {outcome.report()}")
            if len(bad) == 5:
                break
    return {"total": dict(total), "hours": seconds / 3600, "settled_seconds": slowest, "bad": bad}


def hunt(name: str, most: int) -> dict[str, object]:
    """Return how many schedules it took to find a broken rule, 0 if it was not found, and the first thing found."""
    rules, common = (BROKEN | RARE)[name]
    for seed in range(most):
        outcome = simulate(seed, rules, replace(plan_of(seed), **common))
        if outcome.stale or outcome.lost:
            return {"took": seed + 1, "found": str([*outcome.lost, *outcome.stale][0])}
    return {"took": 0, "found": ""}


if __name__ == "__main__":
    logging.disable(logging.ERROR)
    what, *arguments = sys.argv[1:]
    if what == "run":
        found = run(int(arguments[0]), int(arguments[1]), int(arguments[2]) if len(arguments) > 2 else 1)
    elif what == "tell":
        sys.stdout.write(simulate(int(arguments[0]), tell=True).report() + "\n")
        sys.exit()
    else:
        found = hunt(arguments[0], int(arguments[1]))
    sys.stdout.write(json.dumps(found) + "\n")

"""Nodes join, leave and die in a random order, under load and under jobs."""

from __future__ import annotations

import random
import time
from collections.abc import Callable

from faults.jobs import OBJECTS, CopyingJobs
from faults.limits import LEASE_SECONDS, ROUNDS, SEED, UnderLoad

from aistore.client import Client, RetryPolicy
from aistore.testing import LocalCluster

_NODES_MAX = 5
_CHANGES = ["join", "leave", "die", "stand still", "drain"]


def change(cluster: LocalCluster, chance: random.Random, what: str) -> str:
    """Let one node come, go, die or stand still, whatever the others are just doing; return what it was."""
    running = cluster.running
    away = [node for node in cluster.nodes.values() if not node.running]
    if what != "join" and len(running) <= 2:
        what = "join"
    elif what == "join" and len(running) >= _NODES_MAX:
        what = "die"
    if what == "join":
        if away and (len(cluster.nodes) >= _NODES_MAX or chance.random() < 0.7):
            chance.choice(away).start()
        else:
            cluster.add()
        return what
    node = chance.choice(running)
    if what == "leave":
        assert node.stop() == 0
    elif what == "die":
        node.kill()
    elif what == "stand still":
        node.pause()
        time.sleep(chance.uniform(0.5, 2.0) * LEASE_SECONDS)
        node.resume()
    else:
        other = next(one for one in running if one is not node)
        with Client(other.endpoint, retry=RetryPolicy(budget_seconds=60)) as client:
            client.nodes().drain(node.id)
            client.nodes().undrain(node.id)
    return what


def test_nodes_come_and_go(
    three: LocalCluster, under_load: UnderLoad, count: Callable[[str, int], None], tell: Callable[[str], None]
) -> None:
    chance = random.Random(SEED)
    done: list[str] = []
    deck: list[str] = []
    jobs = CopyingJobs(three)
    with under_load(three, f"{ROUNDS} changes of the members in random order (AIS_FAULT_SEED={SEED})"):
        jobs.start()
        try:
            for _ in range(ROUNDS):
                deck = deck or chance.sample(_CHANGES, len(_CHANGES))
                done.append(change(three, chance, deck.pop()))
                time.sleep(chance.uniform(0.0, 0.5) * LEASE_SECONDS)
        finally:
            print(f"seed {SEED}: {done}")
            three.wait_settled(120)
            jobs.stop()
    tell(f"  {', '.join(f'{done.count(what)} x {what}' for what in sorted(set(done)))}; {jobs.finished} jobs meanwhile")
    count("changes of the members of a cluster under load", len(done))
    count("objects compared after jobs under these changes", jobs.finished * OBJECTS)
    count("objects missing or doubled in the destinations of jobs", len(jobs.problems))
    assert jobs.finished
    assert not jobs.problems, jobs.problems

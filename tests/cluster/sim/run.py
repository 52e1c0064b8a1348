"""One run: a cluster starts, clients work, things go wrong, everything is put right, and the history is judged."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

from aistore.cluster.patience import Patience

from .cluster import Plan, SimulatedCluster, seeded_secrets
from .history import Read, Violation
from .loop import StuckError
from .network import FAIR
from .node import Rules
from .schedule import Trouble, plan_of
from .workload import Client

#: Within so many seconds after trouble ended all nodes are on one settled map. A lapse takes a lease to see, a late
#: request arrives, then an epoch has to be settled.
SETTLE_SECONDS = 120.0
#: So long a write may wait for an earlier one of its object that had no answer from the store.
UNANSWERED_SECONDS = Patience().write + Patience().late + 10.0
#: Within so many seconds each read and each write succeeds then.
ANSWER_SECONDS = 5.0


@dataclass
class Outcome:
    """What one run came to; ``wrong`` is empty if everything was right."""

    plan: Plan
    stale: list[Violation] = field(default_factory=list)
    lost: list[Violation] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    reads: int = 0
    writes: int = 0
    acknowledged: int = 0
    failed_operations: int = 0
    failed_attempts: int = 0
    maps: int = 0
    faults: int = 0
    requests: int = 0
    seconds: float = 0.0
    settled_seconds: float = 0.0
    story: list[str] = field(default_factory=list)

    @property
    def is_good(self) -> bool:
        """Whether nothing was wrong."""
        return not (self.stale or self.lost or self.wrong)

    def report(self) -> str:
        """Return what was wrong, how to see it again, and what happened."""
        found = [*map(str, self.lost), *map(str, self.stale), *self.wrong]
        again = f"AIS_SIM_SEED={self.plan.seed} runs this again; {self.plan}"
        return "\n".join([*found, again, *self.story])


def simulate(seed: int, rules: Rules | None = None, plan: Plan | None = None, tell: bool = False) -> Outcome:
    """Run what a seed chooses and judge it."""
    plan = plan or plan_of(seed)
    cluster = SimulatedCluster(plan, rules)
    outcome = Outcome(plan)
    with seeded_secrets(cluster.chance):
        try:
            cluster.loop.run_until_complete(_Run(cluster, outcome).whole())
        except StuckError as error:
            outcome.wrong.append(f"stuck: {error}")
        finally:
            _judge(cluster, outcome, tell)
            cluster.loop.end()
    return outcome


class _Run:
    def __init__(self, cluster: SimulatedCluster, outcome: Outcome) -> None:
        self.cluster = cluster
        self.outcome = outcome
        self.clients = [Client(cluster, f"c{number}") for number in range(cluster.plan.clients)]

    async def whole(self) -> None:
        cluster, plan = self.cluster, self.cluster.plan
        cluster.make_root()
        for node in list(cluster.nodes.values())[: plan.first]:
            node.start()
            await asyncio.sleep(cluster.chance.random())
        if not await self._until(lambda: cluster.nodes["n0"].joined, 30.0):
            self.outcome.wrong.append("the first node does not start")
            return
        trouble = Trouble(cluster)
        until = cluster.loop.now + plan.seconds
        await asyncio.gather(trouble.make(until), *(client.work(until) for client in self.clients))
        await trouble.end()
        self.outcome.failed_operations = sum(len(client.failures) for client in self.clients)
        self.outcome.wrong += [text for client in self.clients for text in client.unexpected]
        assert cluster.network.weather is FAIR
        ended = cluster.loop.now
        if not await self._until(self._is_settled, SETTLE_SECONDS):
            self.outcome.wrong.append(f"not settled {SETTLE_SECONDS:g} s after trouble ended: {self._states()}")
            return
        self.outcome.settled_seconds = cluster.loop.now - ended
        await asyncio.sleep(max(0.0, UNANSWERED_SECONDS - self.outcome.settled_seconds))
        await self._everything_works()

    async def _until(self, condition: Callable[[], bool], seconds: float) -> bool:
        begin = self.cluster.loop.now
        while self.cluster.loop.now - begin < seconds:
            if condition():
                return True
            await asyncio.sleep(0.25)
        return condition()

    def _is_settled(self) -> bool:
        """Say whether all nodes that run, and no other, are in the map, and all act on it, settled."""
        cluster = self.cluster
        root = cluster.root()
        up = {node.id for node in cluster.nodes.values() if node.up}
        if root is None or set(root.nodes) != up:
            return False
        return all(
            worker.coherence._view is not None
            and worker.coherence.view.version == root.version
            and worker.coherence.view.settled == root.epoch
            and worker.coherence.is_leased()
            for node in cluster.nodes.values()
            for worker in node.workers
        )

    def _states(self) -> str:
        cluster = self.cluster
        root = cluster.root()
        found = [f"root version {root.version} epoch {root.epoch} nodes {sorted(root.nodes)}" if root else "no root"]
        for node in cluster.nodes.values():
            if node.up:
                views = [worker.coherence._view for worker in node.workers]
                found.append(f"{node.id} {[(view.version, view.epoch, view.settled) for view in views if view]}")
        return "; ".join(found)

    async def _everything_works(self) -> None:
        """Read what trouble left, write and read every key through every node, in bounded time and at first."""
        cluster = self.cluster
        client = self.clients[0]
        keys = [f"k{number}" for number in range(cluster.plan.keys)]
        nodes = [node.id for node in cluster.nodes.values() if node.up]
        for key in keys:
            self._look_into_the_store(key)
            for node in nodes:
                await self._works(client.read, key, node)
        for node in nodes:
            for key in keys:
                await self._works(client.write, key, node)
                await self._works(client.read, key, cluster.chance.choice(nodes))
        for key in keys:
            for node in nodes:
                await self._works(client.read, key, node)
            self._look_into_the_store(key)

    async def _works(self, what: Callable[[str, str], Coroutine[Any, Any, bool]], key: str, node: str) -> None:
        begin, failed = self.cluster.loop.now, self.cluster.failed_attempts
        done = await what(key, node)
        took = self.cluster.loop.now - begin
        if not done or took > ANSWER_SECONDS or self.cluster.failed_attempts > failed:
            why = [*self.clients[0].unexpected, *self.clients[0].failures][-1:]
            self.outcome.wrong.append(f"{what.__name__} of {key} through {node} at {begin:.3f} took {took:.1f} s {why}")

    def _look_into_the_store(self, key: str) -> None:
        """Read the truth: what is lost here is lost for all."""
        cluster = self.cluster
        found = cluster.store.objects.get(f"ais/{cluster.bucket}/{key}")
        value = None
        if found is not None:
            info, data = found
            tag = info.metadata["ais-custom"].split('"')[3]
            value = f"{data.decode()}#{tag}"
        cluster.history.reads.append(Read(key, value, cluster.loop.now, cluster.loop.now, STORE_ITSELF))


STORE_ITSELF = "the store itself"


def _judge(cluster: SimulatedCluster, outcome: Outcome, tell: bool) -> None:
    history = cluster.history
    for violation in history.check():
        (outcome.lost if violation.read.by == STORE_ITSELF else outcome.stale).append(violation)
    outcome.wrong += [f"unhandled: {text}" for text in cluster.loop.unhandled]
    outcome.reads = len(history.reads)
    outcome.writes = len(history.writes)
    outcome.acknowledged = sum(write.end < float("inf") for write in history.writes)
    outcome.failed_attempts = cluster.failed_attempts
    root = cluster.root()
    outcome.maps = root.epoch if root else 0
    outcome.requests = cluster.store.requests
    outcome.seconds = cluster.loop.now
    outcome.faults = cluster.faults
    if tell or not outcome.is_good:
        bad = [*outcome.lost, *outcome.stale]
        outcome.story = list(cluster.story(bad[0].read.key if bad else "k0"))

"""A simulated cluster: the loop, the wires, the store, the nodes, and a record of what happened."""

from __future__ import annotations

import contextvars
import random
import secrets
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from unittest import mock

from msgspec import structs

from aistore.cluster.documents import ROOT_KEY, BucketRecord, RootDocument, decode_root, encode_root, new_root
from aistore.cluster.membership import Times
from aistore.storage.objectstore.contract import ABSENT

from .history import History
from .loop import Clock, VirtualLoop
from .network import Network
from .node import Node, Rules, Worker
from .store import ObjectStore


@dataclass(frozen=True)
class Plan:
    """What a run is made of, as its seed chose it."""

    seed: int
    nodes: int
    first: int
    workers: int
    keys: int
    clients: int
    deletes: bool
    same: bool
    seconds: float
    faults: tuple[str, ...]
    pause: float
    times: Times = field(default_factory=Times)


class SimulatedCluster:
    """Everything of one run."""

    bucket = "b"

    def __init__(self, plan: Plan, rules: Rules | None = None) -> None:
        self.plan = plan
        self.rules = rules or Rules()
        self.chance = random.Random(plan.seed)
        self.loop = VirtualLoop()
        self.network = Network(self.loop, self.chance)
        self.store = ObjectStore(self.network)
        # A condition protects from what is late or comes twice unless it comes true again: a delete makes "nothing is
        # there" true, the same bytes written again make their ETag match.
        self.store.twice = {str, ABSENT} - self._recurring()
        self.store.careless = "" if self.rules.conditions else f"ais/{self.bucket}/"
        self.store.bounded = {None} | self._recurring()
        self.history = History()
        self.trace: list[tuple[float, str]] = []
        self.nodes = {name: Node(self, name, self._clock()) for name in (f"n{i}" for i in range(plan.nodes))}
        self.failed_attempts = 0
        self.busy_until = 0.0
        self.faults = 0

    def _clock(self) -> Clock:
        return Clock(offset=self.chance.uniform(0, 1e6), rate=self.chance.uniform(0.99, 1.01))

    def _recurring(self) -> set[Any]:
        return {str, ABSENT} if self.plan.same else {ABSENT} if self.plan.deletes else set()

    def note(self, text: str) -> None:
        """Record what happened."""
        self.trace.append((self.loop.now, text))

    def later(self, seconds: float, function: Callable[..., None], *arguments: Any) -> None:
        """Let the world do something later."""
        contextvars.Context().run(self.loop.call_later, seconds, function, *arguments)

    async def request(
        self,
        source: str,
        target: str,
        what: Callable[[Worker], Coroutine[Any, Any, Any]],
        seconds: float,
        lost: Callable[[str], Exception],
    ) -> Any:
        """Have a worker of node ``target`` do something; the worker is whichever accepts the connection."""
        node = self.nodes[target]
        chosen: list[Worker] = []

        def accept() -> Any:
            worker = node.accepting()
            if worker is None:
                return None
            chosen.append(worker)
            return worker.process

        return await self.network.call(source, target, accept, lambda: what(chosen[0]), seconds, lost)

    def root(self) -> RootDocument | None:
        """Return the root document as it is in the store now."""
        found = self.store.objects.get("ais/" + ROOT_KEY)
        return decode_root(found[1], ROOT_KEY) if found else None

    def make_root(self) -> None:
        """Put a root document into the store that has the bucket which the clients use."""
        root, record = new_root(), BucketRecord("ais", self.bucket, "1", 0)
        root = structs.replace(root, buckets={f"ais/{self.bucket}": record})
        self.store.put("ais/" + ROOT_KEY, encode_root(root), {}, ABSENT)

    def story(self, key: str = "") -> Iterator[str]:
        """Tell what happened, to one key and to the cluster."""
        lines = list(self.trace)
        for time, stored, value, metadata in self.store.log:
            if key and stored == f"ais/{self.bucket}/{key}":
                tag = metadata.get("ais-custom", "")
                lines.append((time, f"    STORE {key} = {value.decode() if value is not None else None} {tag}"))
        for write in self.history.writes:
            if write.key == key:
                lines.append((write.begin, f"  write {write.value} begins, {write.by}"))
                lines.append((write.end, f"  write {write.value} acknowledged, {write.by}"))
        for read in self.history.reads:
            if read.key == key:
                lines.append((read.end, f"  read from {read.begin:.4f} returns {read.value}, {read.by}"))
        for time, text in sorted(lines, key=lambda line: line[0]):
            yield f"{time:11.4f} {text}"


@contextmanager
def seeded_secrets(chance: random.Random) -> Iterator[None]:
    """Let what production code makes unique be the same in every run of a seed."""
    with mock.patch.object(secrets, "token_hex", lambda size=32: f"{chance.getrandbits(8 * size):0{2 * size}x}"):
        yield

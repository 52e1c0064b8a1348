"""Clients: they read, write, create and delete a few objects through any node, and try again as real clients do."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from aistore.errors import AisError, ConflictError, ObjectNotFoundError, PeerUnreachableError, RetryLaterError
from aistore.model.objects import PutOptions

from .cluster import SimulatedCluster
from .history import FOREVER, Read, Write
from .node import Worker

#: How long a client waits for one answer, and tries altogether.
ATTEMPT_SECONDS = 80.0
OPERATION_SECONDS = 60.0


#: Who was told sooner that there is nothing to delete did not wait for a first delete that had no answer.
UNANSWERED_SECONDS = 5.0


class Client:
    """One client, which does one thing at a time. Every attempt of a write is a write of a value of its own."""

    def __init__(self, cluster: SimulatedCluster, name: str) -> None:
        self.cluster = cluster
        self.name = name
        self.failures: list[str] = []
        self.unexpected: list[str] = []
        self._number = 0

    async def work(self, until: float) -> None:
        """Do one thing after the other until it is late, quickly while something happens to the cluster."""
        chance, cluster = self.cluster.chance, self.cluster
        keys = [f"k{number}" for number in range(cluster.plan.keys)]
        while cluster.loop.now < until:
            await asyncio.sleep(chance.expovariate(1 / (0.3 if cluster.loop.now < cluster.busy_until else 4.0)))
            key, dice = chance.choice(keys), chance.random()
            if dice < 0.6:
                await self.read(key)
                continue
            if dice < 0.92 or not cluster.plan.deletes:
                same = cluster.plan.same and chance.random() < 0.4
                await self.write(key, create=chance.random() < 0.1, same=same)
            else:
                await self.delete(key)
            if chance.random() < 0.5:
                await self.read(key)  # what one has just written is what one misses

    def _value(self, same: bool) -> tuple[bytes, str]:
        """Return the next value: its bytes, and a tag in its custom metadata. Some differ in nothing but the tag."""
        self._number += 1
        tag = f"{self.name}.{self._number}"
        return (b"same", tag) if same else (tag.encode(), tag)

    async def read(self, key: str, node: str = "") -> bool:
        """Read a key, from a given node or from any."""

        async def attempt(target: str) -> bool:
            begin = self.cluster.loop.now
            value: str | None
            try:
                value = await self._ask(target, lambda worker: worker.read(key))
            except ObjectNotFoundError:
                value = None
            read = Read(key, value, begin, self.cluster.loop.now, f"{self.name} at {target}")
            self.cluster.history.reads.append(read)
            return True

        return await self._try(f"read of {key}", attempt, node)

    async def write(self, key: str, node: str = "", create: bool = False, same: bool = False) -> bool:
        """Write a new value, or with ``create`` only if there is none."""

        async def attempt(target: str) -> bool:
            data, tag = self._value(same)
            options = PutOptions(custom={"tag": tag}, if_version=0 if create else None)
            begin, end = self.cluster.loop.now, FOREVER
            try:
                await self._ask(target, lambda worker: worker.write(key, data, options))
                end = self.cluster.loop.now
            except ConflictError:
                if not create:
                    raise
            finally:
                value = f"{data.decode()}#{tag}"
                self.cluster.history.writes.append(Write(key, value, begin, end, f"{self.name} at {target}"))
            return True

        return await self._try(f"write of {key}", attempt, node)

    async def delete(self, key: str, node: str = "") -> bool:
        """Delete a key."""

        async def attempt(target: str) -> bool:
            by, begin, end = f"{self.name} at {target}", self.cluster.loop.now, FOREVER
            try:
                await self._ask(target, lambda worker: worker.delete(key))
                end = self.cluster.loop.now
            except ObjectNotFoundError:
                self.cluster.history.reads.append(Read(key, None, begin, self.cluster.loop.now, by))
                if self.cluster.loop.now - begin < UNANSWERED_SECONDS:
                    return True  # nothing was deleted, now or earlier
            except AisError:
                self.cluster.history.writes.append(Write(key, None, begin, end, by))
                raise
            self.cluster.history.writes.append(Write(key, None, begin, end, by))
            return True

        return await self._try(f"delete of {key}", attempt, node)

    def _choose(self) -> str:
        """Return a node: mostly one that runs, as one learns from the map."""
        chance, nodes = self.cluster.chance, self.cluster.nodes
        running = [name for name in nodes if nodes[name].up]
        return chance.choice(running if running and chance.random() < 0.9 else list(nodes))

    async def _ask(self, target: str, what: Callable[[Worker], Coroutine[Any, Any, Any]]) -> Any:
        return await self.cluster.request(self.name, target, what, ATTEMPT_SECONDS, PeerUnreachableError)

    async def _try(self, what: str, attempt: Callable[[str], Coroutine[Any, Any, bool]], node: str) -> bool:
        """Try until it works, each time another node."""
        cluster = self.cluster
        begin, pause, why = cluster.loop.now, 0.1, ""
        while cluster.loop.now - begin < OPERATION_SECONDS:
            target = node or self._choose()
            try:
                return await attempt(target)
            except RetryLaterError as error:
                why = f"{target}: {error.message}"
            except AisError as error:
                self.unexpected.append(f"{what} at {cluster.loop.now:.3f} through {target}: {error!r}")
                return False
            cluster.failed_attempts += 1
            await asyncio.sleep(pause * (0.5 + cluster.chance.random()))
            pause = min(2.0, 2 * pause)
        self.failures.append(f"{what} from {begin:.3f} to {cluster.loop.now:.3f}, last {why}")
        return False

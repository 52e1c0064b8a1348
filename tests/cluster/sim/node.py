"""One node: a controller and HTTP workers, each a process, on the production's own membership and coherence.

What is written here and not the production's is what ``server/`` does there: processes and what passes between them,
and that a request for an object that lives elsewhere is sent there.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from aistore.cluster.coherence import Coherence, Elsewhere, Remote
from aistore.cluster.documents import BucketRecord, NodeRecord
from aistore.cluster.membership import Membership, Self
from aistore.cluster.patience import Patience
from aistore.cluster.view import View
from aistore.errors import AisError, NotHomeError, PeerUnreachableError
from aistore.model.objects import ObjectInfo, PutOptions

from .cache import Disk, NodeCache
from .loop import Clock, Process
from .store import StoreClient

if TYPE_CHECKING:
    from .cluster import SimulatedCluster

#: How long one node waits for another's answer.
PEER_SECONDS = 75.0


class ProcessClock:
    """``world.Clock`` of one process."""

    def __init__(self, process: Process) -> None:
        self._process = process

    def now(self) -> float:
        """Return seconds on the node's clock."""
        return self._process.clock.local(self._process.loop.now)

    async def sleep(self, seconds: float) -> None:
        """Return after ``seconds`` of the node's clock."""
        await asyncio.sleep(seconds)

    def spawn(self, work: Coroutine[Any, Any, None], name: str) -> None:
        """Run ``work`` as long as the process lives."""
        self._process.start(work, name)


@dataclass(frozen=True)
class Bytes:
    """``world.Staged``, in memory."""

    data: bytes

    @property
    def size(self) -> int:
        """The number of bytes."""
        return len(self.data)

    @property
    def checksum(self) -> str:
        """Something that stands for their checksum."""
        return self.data.decode()

    def buffer(self) -> bytes:
        """Return the bytes."""
        return self.data


class Worker:
    """An HTTP worker: what it answers to clients and to other nodes."""

    def __init__(self, node: Node, number: int) -> None:
        cluster = node.cluster
        self.node = node
        self.process = Process(cluster.loop, f"{node.id}/{number}", node.clock)
        clock = ProcessClock(self.process)
        self.cache = NodeCache(node.disk, clock)
        self.store = StoreClient(cluster.store, node.id, "ais/")
        self.coherence = cluster.rules.coherence(clock, self, self.cache, node, Patience())
        self.ended: list[Callable[[], None]] = []

    def of(self, bucket: BucketRecord, name: str) -> tuple[StoreClient, str]:
        """Return where an object is: ``world.Places``."""
        return self.store, f"{bucket.name}/{name}"

    def bucket(self) -> BucketRecord:
        """Return the record of the one bucket."""
        return self.coherence.view.bucket("ais", self.node.cluster.bucket)

    async def read(self, name: str, forwarded: bool = False) -> bytes:
        """Answer GET."""
        bucket = self.bucket()
        found = await self.coherence.read(bucket, name, forwarded=forwarded)
        if isinstance(found, Elsewhere):
            try:
                return await self._ask(found.home, lambda worker: worker.read(name, True))
            except (PeerUnreachableError, NotHomeError):
                found = await self.coherence.read_stored(bucket, name)
        while isinstance(found, Remote) and found.body is None:  # the cache had no room, and the bytes are spent
            found = await self.coherence.read_stored(bucket, name)
        return _value(found)

    async def write(self, name: str, data: bytes, options: PutOptions, forwarded: bool = False) -> ObjectInfo:
        """Answer PUT."""
        return await self._change(
            lambda: self.coherence.write(self.bucket(), name, Bytes(data), options, forwarded=forwarded),
            lambda worker: worker.write(name, data, options, True),
        )

    async def delete(self, name: str, forwarded: bool = False) -> ObjectInfo:
        """Answer DELETE."""
        return await self._change(
            lambda: self.coherence.delete(self.bucket(), name, forwarded=forwarded),
            lambda worker: worker.delete(name, True),
        )

    async def _change(
        self, here: Callable[[], Coroutine[Any, Any, Any]], there: Callable[[Worker], Coroutine[Any, Any, Any]]
    ) -> ObjectInfo:
        """Change an object here or at its home; a home that is none any more is looked for again."""
        for attempt in range(4):
            found = await here()
            if not isinstance(found, Elsewhere):
                return found
            try:
                return await self._ask(found.home, there)
            except NotHomeError:
                await asyncio.sleep(0.25 * 2**attempt)
        raise NotHomeError("the home moves about", hint="try again")

    async def _ask(self, home: str, what: Callable[[Worker], Coroutine[Any, Any, Any]]) -> Any:
        cluster = self.node.cluster
        return await cluster.request(self.node.id, home, what, PEER_SECONDS, PeerUnreachableError)


class Node:
    """A machine with a clock, a disk, and the processes of a server. ``world.Fence``, ``Workers`` and ``Others``."""

    def __init__(self, cluster: SimulatedCluster, node_id: str, clock: Clock) -> None:
        self.cluster = cluster
        self.id = node_id
        self.clock = clock
        self.disk = Disk(cluster.chance)
        self.controller: Process | None = None
        self.membership: Membership | None = None
        self.workers: list[Worker] = []
        self.view: View | None = None
        self.joined = False
        self.up = False
        self.leaving = False
        self.starts = 0
        self._deadline = float("-inf")

    # The fence, in shared memory.

    def deadline(self) -> float:
        """Return until when this node may act."""
        return self._deadline

    def publish(self, deadline: float) -> None:
        """Let the workers act until ``deadline``."""
        if (deadline < 0) != (self._deadline < 0):
            self.cluster.note(f"{self.id} {'is fenced' if deadline < 0 else 'acts'}")
        self._deadline = deadline

    # Processes.

    def start(self) -> None:
        """Start the server."""
        self.up, self.joined, self.leaving = True, False, False
        self._deadline, self.view = float("-inf"), None
        self.workers = []
        for number in range(self.cluster.plan.workers):
            self.start_worker(number)
        self.start_controller()

    def start_controller(self) -> None:
        """Start a controller, which makes this a new incarnation of the node."""
        cluster = self.cluster
        self.starts += 1
        process = self.controller = Process(cluster.loop, f"{self.id}/c", self.clock)
        me = Self(self.id, f"{self.starts:04d}", f"http://{self.id}")
        self.membership = cluster.rules.membership(
            me, ProcessClock(process), StoreClient(cluster.store, self.id, "ais/"), self, self, cluster.plan.times
        )
        process.start(self._control(self.membership))

    async def _control(self, membership: Membership) -> None:
        try:
            await membership.start()
        except AisError as error:
            self.cluster.note(f"{self.id} could not start: {error.message}")
            self.cluster.later(2.0, self._again, membership)
            return
        self.joined = True
        self.cluster.note(f"{self.id} joined")
        while membership.lost is None:
            await asyncio.sleep(1.0)
        self.cluster.note(f"{self.id} gave up: {membership.lost.message}")
        self.cluster.later(2.0, self._again, membership)

    def _again(self, membership: Membership) -> None:
        """Start the whole server again, as whoever runs it does when it ended."""
        if self.up and self.membership is membership:
            self.stop()
            self.start()

    def start_worker(self, number: int) -> None:
        """Start an HTTP worker, which runs on the view that was last handed out."""
        worker = Worker(self, number)
        if self.view is not None:
            worker.process.start(worker.coherence.adopt(self.view))
        self.workers.append(worker)

    def stop(self) -> None:
        """End all processes at once."""
        self.up = self.joined = self.leaving = False
        for worker in list(self.workers):
            self.end_worker(worker)
        if self.controller is not None:
            self.controller.kill()

    def end_worker(self, worker: Worker) -> None:
        """End one HTTP worker at once."""
        worker.process.kill()
        self.disk.free(worker.process)
        self.workers.remove(worker)
        for ended in worker.ended:
            ended()

    def processes(self) -> list[Process]:
        """Return the processes of this node that live."""
        return [worker.process for worker in self.workers] + ([self.controller] if self.controller else [])

    def accepting(self) -> Worker | None:
        """Return whichever HTTP worker accepts the next connection."""
        running = [worker for worker in self.workers if not worker.process.paused] or self.workers
        return self.cluster.chance.choice(running) if running else None

    # What the controller asks of the workers, and of other nodes.

    async def adopt(self, view: View) -> None:
        """Return when all HTTP workers run on ``view`` and have ended their writes of what left."""
        self.view = view
        await asyncio.gather(*(self._adopt(worker, view) for worker in self.workers))
        self.cluster.note(f"{self.id} adopted version {view.version} epoch {view.epoch} settled {view.settled}")

    async def _adopt(self, worker: Worker, view: View) -> None:
        done = asyncio.get_running_loop().create_future()

        def end() -> None:
            if not done.done():
                done.set_result(None)

        def tell() -> None:
            if not worker.process.dead:
                task = worker.process.start(worker.coherence.adopt(view))
                task.add_done_callback(lambda _: self.cluster.later(0.0005, end))

        worker.ended.append(end)
        self.cluster.later(random_delay(self.cluster.chance), tell)
        await done
        worker.ended.remove(end)

    async def adopted(self, node: str, record: NodeRecord, version: int) -> tuple[str, int]:
        """Ask another node's controller to adopt a version."""
        other = self.cluster.nodes[node]
        return await self.cluster.network.call(
            self.id,
            node,
            lambda: other.controller if other.up else None,
            lambda: _asked(other, version),
            10.0,
            PeerUnreachableError,
        )


async def _asked(node: Node, version: int) -> tuple[str, int]:
    assert node.membership is not None
    return await node.membership.asked(version)


def random_delay(chance: random.Random) -> float:
    """Return how long a message between two processes of a node takes."""
    return chance.expovariate(1 / 0.0005)


def _value(found: Any) -> str:
    """Return what a client gets: the bytes with the custom metadata."""
    data = found.body.read() if isinstance(found, Remote) else found.read()
    custom: Mapping[str, str] = found.info.custom
    return data.decode() + ("#" + custom["tag"] if "tag" in custom else "")


@dataclass(frozen=True)
class Rules:
    """The production's classes; tests break a rule by putting another class in.

    Without ``conditions`` the store takes conditional writes of objects and does not look at the condition, as some do.
    """

    coherence: type[Coherence] = Coherence
    membership: type[Membership] = Membership
    conditions: bool = True

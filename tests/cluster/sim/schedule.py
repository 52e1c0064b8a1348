"""What goes wrong, when, for how long: chosen by the seed."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import replace

from aistore.cluster.membership import Times
from aistore.errors import AisError

from .cluster import Plan, SimulatedCluster
from .network import FAIR, STORE, Weather
from .node import Node

#: Name of a fault to how often it is chosen.
FAULTS = {
    "join": 4, "leave": 3, "kill": 3, "kill_worker": 1, "kill_controller": 1, "pause": 3, "pause_controller": 2,
    "pause_worker": 1, "cut_store": 2, "cut_store_one_way": 2, "cut_peers": 2, "cut_peers_one_way": 1, "outage": 1,
    "weather": 3, "evict": 1, "full": 1,
}  # fmt: skip

#: The times of a cluster whose leases are short: a slow upload outlasts them.
SHORT = Times(lease=12.0, renew=4.0, poll=2.0, call=3.0)

#: What goes together: around a change of the map, a lapse of a lease, requests on their way meanwhile.
MIXTURES = {
    "deaths": ("join", "leave", "kill"),
    "handovers": ("join", "leave", "cut_peers"),
    "slow handovers": ("join", "leave", "weather", "weather"),
    "stops": ("join", "leave", "pause", "weather"),
    "lapses": ("cut_store", "pause_controller", "cut_store_one_way"),
    "slow lapses": ("pause_controller", "pause_controller", "weather", "weather"),
    "returns": ("cut_store", "pause"),
    "controllers": ("kill_controller", "kill_controller", "join", "leave", "weather"),
    "bad weather": ("weather", "weather", "join", "kill_worker", "cut_store_one_way"),
}


def plan_of(seed: int) -> Plan:
    """Return what a seed chooses."""
    chance = random.Random(f"plan {seed}")
    nodes = chance.randint(2, 5)
    names = sorted(FAULTS)
    # Few kinds at a time get further into each other than all kinds together.
    chosen = chance.choice((tuple(names), tuple(chance.sample(names, 4)), *MIXTURES.values()))
    return Plan(
        seed,
        nodes=nodes,
        first=chance.randint(1, nodes),
        workers=chance.choice((1, 1, 2)),
        keys=chance.randint(1, 3),
        clients=chance.randint(2, 4),
        deletes=chance.random() < 0.5,
        same=chance.random() < 0.3,
        seconds=chance.choice((120.0, 180.0, 240.0)),
        faults=chosen,
        pause=chance.choice((4.0, 8.0, 16.0)),
        times=chance.choice((Times(), Times(), SHORT)),
    )


class Trouble:
    """Makes things go wrong, then stops and puts everything right."""

    def __init__(self, cluster: SimulatedCluster) -> None:
        self.cluster = cluster
        self.chance = cluster.chance
        self._under_way: set[asyncio.Task[None]] = set()

    async def make(self, until: float) -> None:
        """Start one thing after the other until it is late."""
        loop, plan = self.cluster.loop, self.cluster.plan
        weights = [FAULTS[name] for name in plan.faults]
        while True:
            await asyncio.sleep(self.chance.expovariate(1 / plan.pause))
            if loop.now >= until:
                break
            name = self.chance.choices(plan.faults, weights)[0]
            self._stir()
            self.cluster.faults += 1
            fault: Callable[[], Awaitable[None]] = getattr(self, "_" + name)
            task = asyncio.ensure_future(fault())  # type: ignore[arg-type]
            self._under_way.add(task)
            task.add_done_callback(self._under_way.discard)

    async def end(self) -> None:
        """Put everything right: mend, resume, restart."""
        for task in list(self._under_way):
            task.cancel()
        await asyncio.gather(*self._under_way, return_exceptions=True)
        cluster = self.cluster
        cluster.network.weather, cluster.network.cut, cluster.store.down = FAIR, set(), False
        for node in cluster.nodes.values():
            node.disk.full = 0.0
            for process in node.processes():
                process.resume()
            if node.leaving:
                node.stop()
            if node.up and len(node.workers) < cluster.plan.workers:
                node.start_worker(9)
            if node.up and node.controller is not None and node.controller.dead:
                node.start_controller()
        if not any(node.up for node in cluster.nodes.values()):
            cluster.nodes["n0"].start()
        cluster.note("ALL TROUBLE ENDS")

    # Who, and for how long.

    def _some(self, up: bool = True) -> Node | None:
        nodes = [node for node in self.cluster.nodes.values() if node.up == up]
        return self.chance.choice(nodes) if nodes else None

    async def _for_a_while(self, most: float = 80.0) -> None:
        await asyncio.sleep(self.chance.choice((1.0, 10.0, most, most)) * self.chance.random())
        self._stir()

    def _stir(self) -> None:
        """Let clients be busy for some time, as the cluster is."""
        self.cluster.busy_until = self.cluster.loop.now + self.chance.choice((2.0, 4.0, 12.0))

    # What.

    async def _join(self) -> None:
        node = self._some(up=False)
        if node is not None:
            if self.chance.random() < 0.3:
                node.disk.lose()
            self.cluster.note(f"{node.id} starts")
            node.start()

    async def _leave(self) -> None:
        node = self._some()
        if node is None or not node.joined or node.membership is None or node.controller is None:
            return
        if sum(one.joined for one in self.cluster.nodes.values()) < 2:
            return
        self.cluster.note(f"{node.id} leaves")
        node.leaving = True
        membership, done = node.membership, asyncio.get_running_loop().create_future()

        async def leave() -> None:
            try:
                await membership.leave()
            except AisError as error:
                self.cluster.note(f"{node.id} could not leave in order: {error.message}")
            self.cluster.later(0.0, _finish, done)

        node.controller.start(leave())
        await asyncio.wait((done,), timeout=60.0)  # who stops it waits no longer
        if node.membership is membership:
            self.cluster.note(f"{node.id} stops")
            node.stop()

    async def _kill(self) -> None:
        node = self._some()
        if node is not None:
            self.cluster.note(f"{node.id} is killed")
            node.stop()
            if self.chance.random() < 0.6:
                await self._for_a_while()
                if not node.up:
                    if self.chance.random() < 0.3:
                        node.disk.lose()
                    self.cluster.note(f"{node.id} starts again")
                    node.start()

    async def _kill_worker(self) -> None:
        node = self._some()
        if node is not None and node.workers:
            worker = self.chance.choice(node.workers)
            self.cluster.note(f"{worker.process.name} is killed")
            starts = node.starts
            node.end_worker(worker)
            await asyncio.sleep(self.chance.uniform(0.2, 2.0))
            if node.up and node.starts == starts and len(node.workers) < self.cluster.plan.workers:
                node.start_worker(7)

    async def _kill_controller(self) -> None:
        node = self._some()
        if node is not None and node.controller is not None and not node.controller.dead:
            self.cluster.note(f"{node.controller.name} is killed")
            starts = node.starts
            node.controller.kill()
            await asyncio.sleep(self.chance.uniform(0.2, 5.0))
            if node.up and node.starts == starts:
                node.start_controller()

    async def _pause(self) -> None:
        node = self._some()
        if node is not None:
            processes = node.processes()
            self.cluster.note(f"{node.id} is stopped (SIGSTOP)")
            for process in processes:
                process.pause()
            await self._for_a_while()
            self.cluster.note(f"{node.id} goes on (SIGCONT)")
            self.chance.shuffle(processes)
            for process in processes:
                process.resume()

    async def _pause_controller(self) -> None:
        node = self._some()
        if node is not None and node.controller is not None:
            process = node.controller
            self.cluster.note(f"{process.name} is stopped (SIGSTOP)")
            process.pause()
            await self._for_a_while()
            self.cluster.note(f"{process.name} goes on (SIGCONT)")
            process.resume()

    async def _pause_worker(self) -> None:
        node = self._some()
        if node is not None and node.workers:
            process = self.chance.choice(node.workers).process
            self.cluster.note(f"{process.name} is stopped (SIGSTOP)")
            process.pause()
            await self._for_a_while(30.0)
            self.cluster.note(f"{process.name} goes on (SIGCONT)")
            process.resume()

    async def _cut_store(self) -> None:
        node = self.chance.choice(list(self.cluster.nodes))
        await self._cut({(node, STORE), (STORE, node)})

    async def _cut_store_one_way(self) -> None:
        node = self.chance.choice(list(self.cluster.nodes))
        await self._cut({self.chance.choice(((node, STORE), (STORE, node)))})

    async def _cut_peers(self) -> None:
        node = self.chance.choice(list(self.cluster.nodes))
        others = [other for other in self.cluster.nodes if other != node]
        some = self.chance.sample(others, self.chance.randint(1, len(others)))
        await self._cut({pair for other in some for pair in ((node, other), (other, node))})

    async def _cut_peers_one_way(self) -> None:
        one, other = self.chance.sample(list(self.cluster.nodes), 2)
        await self._cut({(one, other)})

    async def _cut(self, pairs: set[tuple[str, str]]) -> None:
        network = self.cluster.network
        wires = " ".join(f"{one}>{other}" for one, other in sorted(pairs))
        self.cluster.note(f"cut {wires}")
        network.cut = network.cut | pairs
        await self._for_a_while()
        self.cluster.note(f"mended {wires}")
        network.cut = network.cut - pairs

    async def _outage(self) -> None:
        self.cluster.note("the store is down")
        self.cluster.store.down = True
        await self._for_a_while(50.0)
        self.cluster.note("the store is up")
        self.cluster.store.down = False

    async def _weather(self) -> None:
        chance, network = self.chance, self.cluster.network
        weather = Weather(delay=chance.choice((0.004, 0.05)))
        kinds = {
            "slow": 0.2,
            "slow_seconds": 15.0,
            "heavy": 0.5,
            "lost": chance.choice((0.02, 0.1)),
            "late": chance.choice((0.05, 0.2)),
            "twice": 0.2,
        }
        weather = replace(weather, **{name: value for name, value in kinds.items() if chance.random() < 0.5})
        self.cluster.note(f"weather {weather}")
        network.weather = weather
        await self._for_a_while()
        self.cluster.note("fair weather")
        network.weather = FAIR

    async def _evict(self) -> None:
        node = self._some()
        if node is not None:
            node.disk.evict()

    async def _full(self) -> None:
        node = self._some()
        if node is not None:
            node.disk.full = 0.5
            await self._for_a_while()
            node.disk.full = 0.0


def _finish(done: asyncio.Future[None]) -> None:
    if not done.done():
        done.set_result(None)

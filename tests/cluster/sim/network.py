"""The wires between clients, nodes and the object store: they delay, lose, cut off, and deliver late or twice."""

from __future__ import annotations

import asyncio
import contextvars
import random
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from .loop import CURRENT, Process, VirtualLoop

#: The object store's name on the network.
STORE = "store"


@dataclass
class Weather:
    """How bad the wires are; chances are per message."""

    delay: float = 0.004
    slow: float = 0.0  # chance of a message that takes up to slow_seconds
    slow_seconds: float = 0.5
    heavy: float = 0.0  # chance that an object is large: its upload takes up to heavy_seconds
    heavy_seconds: float = 18.0
    lost: float = 0.0  # chance that a request or a reply never arrives
    late: float = 0.0  # chance that a request arrives long after its sender gave up
    late_seconds: float = 90.0
    twice: float = 0.0  # chance that a conditional write arrives again


FAIR = Weather()


class Network:
    """All wires. ``cut`` holds (from, to) pairs through which nothing passes, so a cut may be one-way."""

    def __init__(self, loop: VirtualLoop, chance: random.Random) -> None:
        self.loop = loop
        self.chance = chance
        self.weather = FAIR
        self.cut: set[tuple[str, str]] = set()

    def later(self, seconds: float, function: Callable[..., None], *arguments: Any) -> None:
        """Let the world, no process, do something after some time."""
        contextvars.Context().run(self.loop.call_later, seconds, function, *arguments)

    def split(self, one: str, other: str) -> None:
        """Cut both directions between two places."""
        self.cut |= {(one, other), (other, one)}

    def join(self, one: str, other: str) -> None:
        """Mend both directions between two places."""
        self.cut -= {(one, other), (other, one)}

    def delay(self) -> float:
        """Return how long a message travels."""
        if self.chance.random() < self.weather.slow:
            return self.chance.random() * self.weather.slow_seconds
        return self.chance.expovariate(1 / self.weather.delay)

    async def ask(
        self,
        source: str,
        target: str,
        answer: Callable[[], Any],
        seconds: float,
        lost: Callable[[str], Exception],
        repeatable: bool = False,
        late_max: float = float("inf"),
        heavy: bool = False,
    ) -> Any:
        """Have ``answer()`` called at the target, and return what it returned, or raise what it raised.

        Raises ``lost(why)`` when no reply came within ``seconds`` of the asking process's clock; ``answer`` may have
        been called nevertheless, or be called later, but not after ``late_max``. ``repeatable`` requests may be
        answered twice.
        """
        reply = _Reply(self, source, target, asyncio.get_running_loop().create_future())
        again = (lambda: _quiet(answer)) if repeatable else None
        self._send(source, target, lambda: reply.give(answer), again, late_max, heavy)
        return await self._within(seconds, reply.future, lost, target)

    async def call(
        self,
        source: str,
        target: str,
        process: Callable[[], Process | None],
        serve: Callable[[], Coroutine[Any, Any, Any]],
        seconds: float,
        lost: Callable[[str], Exception],
    ) -> Any:
        """Have ``serve()`` run by a process of another node, whichever ``process()`` names when the request arrives."""
        reply = _Reply(self, source, target, asyncio.get_running_loop().create_future())

        def arrive() -> None:
            there = process()
            if there is None or there.dead:
                reply.fail(lost(f"{target} refuses connections"))
                return
            task = there.start(serve())
            task.add_done_callback(reply.copy, context=contextvars.Context())

        self._send(source, target, arrive)
        return await self._within(seconds, reply.future, lost, target)

    def _send(
        self,
        source: str,
        target: str,
        arrive: Callable[[], None],
        again: Callable[[], None] | None = None,
        late_max: float = float("inf"),
        heavy: bool = False,
    ) -> None:
        chance, weather = self.chance, self.weather
        delay = self.delay()
        if heavy and chance.random() < weather.heavy:
            delay += chance.random() * weather.heavy_seconds
        if chance.random() < weather.late:
            delay = min(delay + chance.random() * weather.late_seconds, late_max)
        if chance.random() >= weather.lost and (source, target) not in self.cut:
            self.later(delay, self._arrive, source, target, arrive)
            if again is not None and chance.random() < weather.twice:
                self.later(delay + chance.expovariate(1 / 15), again)

    def _arrive(self, source: str, target: str, arrive: Callable[[], None]) -> None:
        if (source, target) not in self.cut:
            arrive()

    async def _within(
        self, seconds: float, future: asyncio.Future[Any], lost: Callable[[str], Exception], target: str
    ) -> Any:
        def give_up() -> None:
            if not future.done():
                future.set_exception(lost(f"no answer from {target} within {seconds:g} s"))

        timer = self.loop.call_later(seconds, give_up)
        try:
            return await future
        finally:
            timer.cancel()


class _Reply:
    """The way back of one request."""

    def __init__(self, network: Network, source: str, target: str, future: asyncio.Future[Any]) -> None:
        self._network = network
        self._source = source
        self._target = target
        self.future = future

    def give(self, answer: Callable[[], Any]) -> None:
        try:
            self._back(answer(), None)
        except Exception as error:
            self._back(None, error)

    def fail(self, error: Exception) -> None:
        self._back(None, error)

    def copy(self, task: asyncio.Task[Any]) -> None:
        if not task.cancelled():
            error = task.exception()
            self._back(None if error else task.result(), error)

    def _back(self, result: Any, error: BaseException | None) -> None:
        network = self._network
        if network.chance.random() >= network.weather.lost:
            network.later(network.delay(), self._deliver, result, error)

    def _deliver(self, result: Any, error: BaseException | None) -> None:
        if not self.future.done() and (self._target, self._source) not in self._network.cut:
            if error is None:
                self.future.set_result(result)
            else:
                self.future.set_exception(error)


def _quiet(answer: Callable[[], Any]) -> None:
    try:
        answer()
    except Exception:
        pass


def whoever() -> str:
    """Return the name of the process that takes the present step."""
    process = CURRENT.get()
    return process.name if process else "world"

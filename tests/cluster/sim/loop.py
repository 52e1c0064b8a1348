"""An asyncio event loop with virtual time, in which processes can be paused and killed at any await.

Nothing here waits: when no callback is ready the clock jumps to the next timer, and everything that looks random comes
from one seeded generator, so a run is a function of its seed.

A process is a context variable. Every callback that asyncio schedules carries the context it was made in, a task one
for all of its steps, so the loop sees whose step it is about to take: of a paused process it keeps the step for later,
of a dead one it drops it. So code under test needs no gates of ours, and stops at *every* await, those on its own locks
and timers included.
"""

from __future__ import annotations

import asyncio
import contextvars
import heapq
from asyncio import events
from collections.abc import Coroutine
from typing import Any

#: The process on whose behalf the present step is taken; None is the world itself: store, network, schedule.
CURRENT: contextvars.ContextVar[Process | None] = contextvars.ContextVar("CURRENT", default=None)


class StuckError(Exception):
    """Nothing is ready and no timer is left, but the run has not ended."""


class Clock:
    """A node's own clock: offset and rate are its own, the wall clock jumps besides."""

    def __init__(self, offset: float = 0.0, rate: float = 1.0) -> None:
        self.offset = offset
        self.rate = rate
        self.wall_offset = 1_700_000_000.0

    def local(self, world_seconds: float) -> float:
        """Return what this clock shows at a time of the world."""
        return self.offset + world_seconds * self.rate

    def world(self, local_seconds: float) -> float:
        """Return the time of the world at which this clock shows ``local_seconds``."""
        return (local_seconds - self.offset) / self.rate


class Process:
    """One process of a node: its tasks, whether it runs, and its node's clock."""

    def __init__(self, loop: VirtualLoop, name: str, clock: Clock | None = None) -> None:
        self.loop = loop
        self.name = name
        self.clock = clock or Clock()
        self.paused = False
        self.dead = False
        self._parked: list[asyncio.Handle] = []
        self._tasks: set[asyncio.Task[Any]] = set()
        self._context = contextvars.copy_context()
        self._context.run(CURRENT.set, self)
        loop.processes.append(self)

    def __repr__(self) -> str:
        return f"<process {self.name}>"

    def start(self, coroutine: Coroutine[Any, Any, Any], name: str = "") -> asyncio.Task[Any]:
        """Run a coroutine as a task of this process; it never ends when the process dies first."""
        return self._context.copy().run(lambda: self.loop.create_task(coroutine, name=name or None))

    def run(self, function: Any, *arguments: Any) -> Any:
        """Call a plain function as if this process did."""
        return self._context.copy().run(function, *arguments)

    def keep(self, task: asyncio.Task[Any]) -> None:
        """Hold a task, so that what a dead process left is not collected, which would run its ``finally`` blocks."""
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def park(self, handle: asyncio.Handle) -> None:
        """Keep a step for when the process runs again."""
        self._parked.append(handle)

    def pause(self) -> None:
        """SIGSTOP: no step is taken until `resume`."""
        self.paused = True

    def resume(self) -> None:
        """SIGCONT: all that became due meanwhile happens now, in the order in which it became due."""
        if self.paused:
            self.paused = False
            self.loop.again(self._parked)
            self._parked = []

    def kill(self) -> None:
        """SIGKILL: no step is ever taken again."""
        self.dead = True
        self._parked = []

    def bury(self) -> None:
        """Close what is left of the tasks, after the run; nothing that they do then has an effect."""
        self.dead = True
        for task in list(self._tasks):
            task._log_destroy_pending = False  # type: ignore[attr-defined]
            try:
                task.get_coro().close()  # type: ignore[union-attr]
            except (RuntimeError, ValueError):  # it awaits in a finally block, or is the one that runs
                pass
        self._tasks.clear()


class VirtualLoop(asyncio.BaseEventLoop):
    """The loop: time is virtual, each process sees its own clock in `time`, and steps of one time run in order."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.steps = 0
        self._timers = 0
        self.steps_max = 3_000_000
        self.processes: list[Process] = []
        self.unhandled: list[str] = []
        self._ready: Any
        self._scheduled: Any
        self.set_exception_handler(self._note)
        self.set_task_factory(_make_task)

    def time(self) -> float:
        """Return seconds on the clock of whoever asks."""
        process = CURRENT.get()
        return self.now if process is None else process.clock.local(self.now)

    def call_at(self, when: float, callback: Any, *args: Any, context: Any = None) -> asyncio.TimerHandle:
        """Schedule a callback at a time of the caller's clock."""
        process = CURRENT.get()
        world = when if process is None else process.clock.world(when)
        timer = events.TimerHandle(max(world, self.now), callback, args, self, context)
        self._timers += 1
        heapq.heappush(self._scheduled, (timer._when, self._timers, timer))
        return timer

    def run_in_executor(self, executor: Any, func: Any, *args: Any) -> Any:
        """Refuse: a thread would run in real time."""
        raise RuntimeError(f"{func} was sent to a thread, which a simulated process does not have")

    def again(self, handles: list[asyncio.Handle]) -> None:
        """Make parked steps ready."""
        self._ready.extend(handles)

    def _note(self, loop: Any, context: dict[str, Any]) -> None:
        process = CURRENT.get()
        where = process.name if process else "world"
        self.unhandled.append(f"{where} at {self.now:.3f}: {context.get('message')}: {context.get('exception')!r}")

    def _timer_handle_cancelled(self, handle: Any) -> None:
        """Do nothing: a cancelled timer is dropped when its time comes."""

    def _process_events(self, event_list: Any) -> None:
        """Do nothing: there is no input or output."""

    def _write_to_self(self) -> None:
        """Do nothing: there is no selector to wake."""

    def _run_once(self) -> None:
        scheduled, ready = self._scheduled, self._ready
        while scheduled and scheduled[0][2]._cancelled:
            heapq.heappop(scheduled)
        if not ready:
            if not scheduled:
                raise StuckError(f"at {self.now:.3f} nothing is left that could happen")
            self.now = max(self.now, scheduled[0][0])
        while scheduled and scheduled[0][0] <= self.now:
            timer = heapq.heappop(scheduled)[2]
            if not timer._cancelled:
                ready.append(timer)
        for _ in range(len(ready)):
            handle = ready.popleft()
            if handle._cancelled:
                continue
            process = handle._context.get(CURRENT)
            if process is not None:
                if process.dead:
                    continue
                if process.paused:
                    process.park(handle)
                    continue
            self.steps += 1
            handle._run()
        if self.steps > self.steps_max:
            raise StuckError(f"{self.steps} steps and still at {self.now:.3f}: something spins")

    def end(self) -> None:
        """Close what is left of all processes, and the loop."""
        for process in self.processes:
            process.bury()
        for task in asyncio.all_tasks(self):
            task._log_destroy_pending = False  # type: ignore[attr-defined]
            try:
                task.get_coro().close()  # type: ignore[union-attr]
            except (RuntimeError, ValueError):
                pass
        self._ready.clear()
        self._scheduled.clear()
        self.close()


def _make_task(loop: Any, coroutine: Any, **options: Any) -> asyncio.Task[Any]:
    task: asyncio.Task[Any] = asyncio.Task(coroutine, loop=loop, **options)
    context = options.get("context")
    process = context.get(CURRENT) if context is not None else CURRENT.get()
    if process is not None:
        process.keep(task)
    return task

"""What a transform does when its processes are killed, above all while it is on its way up."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from aistore.etl.machine import RESTART_WINDOW_SECONDS, RESTARTS_MAX, Life, Todo
from aistore.etl.managed import ManagedEtl
from aistore.etl.manager import Manager
from aistore.etl.places import Places
from aistore.etl.warm_runner import WarmRunner
from aistore.model.etl import Stage

#: Waits in its import while the gate is shut.
GATED = """
import os, time
while os.path.exists({gate!r}):
    time.sleep(0.01)
def transform(data):
    return data
"""
_SECONDS = 60.0

pytestmark = pytest.mark.skipif(not os.path.isdir("/proc/self/task"), reason="needs /proc to find the processes")


async def no_report(stage: str, message: str) -> None:
    pass


@asynccontextmanager
async def managing(directory: Path) -> AsyncIterator[Manager]:
    runtime = directory / "runtime"
    runtime.mkdir(exist_ok=True)
    manager = Manager(Places(str(directory / "data"), str(runtime), 64))
    try:
        yield manager
    finally:
        await manager.close()


async def until(etl: ManagedEtl, condition: Callable[[], bool]) -> None:
    async def changed() -> None:
        async with etl.changed:
            await etl.changed.wait_for(condition)

    await asyncio.wait_for(changed(), _SECONDS)


async def new(manager: Manager, gate: Path) -> ManagedEtl:
    spec = {"name": "gated-etl", "code": GATED.format(gate=str(gate)), "sandbox": "off", "workers": 1}
    await manager.verbs()["etl_init"]({"spec": spec}, no_report)
    return manager.get("gated-etl")


async def importing(etl: ManagedEtl, after: int) -> int:
    """Wait for a process tree other than that of guard ``after``, in its import; return its guard."""

    def found() -> bool:
        return guard(etl) not in (0, after) and etl.life.message.startswith("importing")

    await until(etl, found)
    return guard(etl)


def guard(etl: ManagedEtl) -> int:
    assert isinstance(etl.runner, WarmRunner)
    return etl.runner.launched.guard_pid if etl.runner.launched is not None else 0


def parent_of(guard_pid: int) -> int:
    with open(f"/proc/{guard_pid}/task/{guard_pid}/children", encoding="ascii") as file:
        return int(file.read())


def itself(pid: int) -> int:
    return pid


@pytest.mark.parametrize("victim", [itself, parent_of], ids=["guard", "parent"])
def test_killed_while_it_comes_up_again(tmp_path: Path, victim: Callable[[int], int]) -> None:
    """The guard is the store's own process: the transform never pays for its death."""
    gate = tmp_path / "gate"

    async def run() -> None:
        async with managing(tmp_path) as manager:
            etl = await new(manager, gate)
            gate.touch()
            before = guard(etl)
            for _ in range(3 if victim is parent_of else RESTARTS_MAX + 1):
                os.kill(victim(before), signal.SIGKILL)
                before = await importing(etl, before)
            gate.unlink()
            await until(etl, lambda: etl.life.stage is not Stage.INITIALIZING)
            assert etl.life.stage is Stage.RUNNING, etl.life.message

    asyncio.run(run())


def test_killed_while_it_comes_up_with_the_store(tmp_path: Path) -> None:
    gate = tmp_path / "gate"

    async def run() -> None:
        async with managing(tmp_path) as manager:
            await new(manager, gate)
        gate.touch()
        async with managing(tmp_path) as manager:
            manager.load()
            etl = manager.get("gated-etl")
            first = await importing(etl, 0)
            os.kill(parent_of(first), signal.SIGKILL)
            await importing(etl, first)
            gate.unlink()
            await until(etl, lambda: etl.life.stage is not Stage.INITIALIZING)
            assert etl.life.stage is Stage.RUNNING, etl.life.message

    asyncio.run(run())


def test_one_that_never_comes_up_again_is_given_up(tmp_path: Path) -> None:
    gate = tmp_path / "gate"

    async def run() -> None:
        async with managing(tmp_path) as manager:
            etl = await new(manager, gate)
            gate.touch()
            before = guard(etl)
            for _ in range(RESTARTS_MAX):
                os.kill(parent_of(before), signal.SIGKILL)
                before = await importing(etl, before)
            os.kill(parent_of(before), signal.SIGKILL)
            await until(etl, lambda: etl.life.stage is Stage.ABORTED)
            assert etl.life.message.startswith(f"crashed {RESTARTS_MAX + 1} times in ")
            assert "parent process ended" in etl.life.message
            gate.unlink()
            await manager.verbs()["etl_start"]({"name": "gated-etl"}, no_report)
            assert etl.life.stage is Stage.RUNNING

    asyncio.run(run())


@pytest.mark.parametrize("verb", ["etl_stop", "etl_delete"])
def test_ended_between_two_tries(tmp_path: Path, verb: str) -> None:
    gate = tmp_path / "gate"

    async def run() -> None:
        async with managing(tmp_path) as manager:
            etl = await new(manager, gate)
            gate.touch()
            before = guard(etl)
            os.kill(before, signal.SIGKILL)
            before = await importing(etl, before)
            os.kill(before, signal.SIGKILL)
            await until(etl, lambda: guard(etl) != before)
            end: Callable[[dict[str, Any], Any], Awaitable[Any]] = manager.verbs()[verb]
            await asyncio.wait_for(end({"name": "gated-etl"}, no_report), _SECONDS)
            assert etl.life.stage is Stage.ABORTED
            assert etl.life.message == "stopped"
            assert guard(etl) == 0

    asyncio.run(run())


def test_crashes_long_ago_are_forgotten_only_by_one_that_came_up() -> None:
    life, when = Life().begin()[0].ready(), 100.0
    for _ in range(10 * RESTARTS_MAX):
        life, todo = life.crashed("killed", when)
        assert todo is Todo.LAUNCH_LATER
        life, when = life.ready(), when + RESTART_WINDOW_SECONDS / RESTARTS_MAX + 1
    for number in range(RESTARTS_MAX + 1):
        when += 10 * RESTART_WINDOW_SECONDS
        life, todo = life.crashed("killed", when)
        assert todo is (Todo.LAUNCH_LATER if number < RESTARTS_MAX else Todo.CLOSE)
    assert life.stage is Stage.ABORTED

"""The number of workers follows the load: none too many, none missing, nothing lost in between."""

from __future__ import annotations

import contextlib
import os
import random
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hosts import needs
from running import Held, RunningEtl

from aistore.etl.usage import usage_of
from aistore.etl.worker.demand import Demand

WAITS = "import sys\nsys.stdin.read()\nprint('fine')"
FUNCTION = "import os\ndef transform(data):\n    return b'%d ' % os.getppid() + data\n"


# ---------------------------------------------------------------------------------------------------- the decision


def test_demand_grows_by_doubling_to_the_limit() -> None:
    demand, found = Demand(7, 0, 60, 0.0), []
    for _ in range(4):
        demand.grow(0.0, demand.wanted)
        found.append(demand.wanted)
    assert found == [2, 4, 7, 7]


def test_demand_keeps_what_was_busy_at_one_moment_and_lets_the_rest_go() -> None:
    demand = Demand(8, 0, 60, 0.0)
    for running in (1, 2, 4):
        demand.grow(1.0, running)
    demand.look(60.0, 3)  # the first period saw all of them come
    assert demand.wanted == 5
    demand.look(100.0, 2)
    demand.look(119.0, 0)
    demand.look(120.0, 0)
    assert demand.wanted == 3  # so many were busy when the period began
    demand.look(180.0, 0)
    assert demand.wanted == 0


@pytest.mark.parametrize("least", [0, 1])
def test_demand_ends_at_the_least_and_comes_back(least: int) -> None:
    demand = Demand(4, least, 60, 0.0)
    demand.look(60.0, 0)
    demand.look(120.0, 0)
    assert demand.wanted == least
    demand.grow(1000.0, least)
    demand.look(1001.0, 1)
    assert demand.wanted == least + 1  # it stays for a period


# ----------------------------------------------------------------------------------------------------- real workers


def test_begins_with_one_worker_and_has_as_many_as_objects_wait_for() -> None:
    with RunningEtl(WAITS, workers=6) as etl:
        assert etl.launched.workers <= 1  # its first message may still be on the way
        held = Held(etl, 6)
        assert len({pending.started() for pending in held.pending}) == 6
        assert all(held.let_go(number).finish().output == b"fine\n" for number in range(6))


def test_never_more_workers_than_the_limit() -> None:
    with RunningEtl(WAITS, workers=2) as etl:
        held = Held(etl, 3)
        first, second = held.pending[0].started(), held.pending[1].started()
        assert held.let_go(0).finish().ok
        assert held.pending[2].started() in (first, second)
        assert held.let_go(1).finish().ok
        assert held.let_go(2).finish().ok


def test_one_object_after_the_other_needs_no_more_than_two_workers() -> None:
    with RunningEtl(FUNCTION, kind="function", workers=16) as etl:
        assert len({etl.run().pid for _ in range(500)}) <= 2  # one tidies up while the next takes an object


@needs("fork")
@pytest.mark.parametrize("sandbox", [False, pytest.param(True, marks=needs("credentials"))])
def test_idle_workers_retire_the_last_too_and_come_back(sandbox: bool) -> None:
    with RunningEtl(WAITS, workers=4, idle_seconds=0.1, sandbox=sandbox) as etl:
        for _ in range(2):
            held = Held(etl, 4)
            pids = {pending.started() for pending in held.pending}
            assert len(pids) == 4
            assert all(held.let_go(number).finish().ok for number in range(4))
            while pids:
                event = etl.wait_for("exited")
                assert (event["reason"], event["status"]) == ("retired", 0)
                pids.discard(event["pid"])
            assert etl.launched.workers == 0


@needs("fork")
def test_comes_back_from_the_same_parent() -> None:
    with RunningEtl(FUNCTION, kind="function", idle_seconds=0.05) as etl:
        parents = set()
        for _ in range(3):
            parents.add(etl.run(b"x").output)
            etl.wait_for("exited")
    assert len(parents) == 1


def test_a_worker_with_an_object_is_never_idle() -> None:
    with RunningEtl(WAITS, idle_seconds=0.02, workers=2) as etl:
        held = Held(etl, 1)
        pid = held.pending[0].started()
        ended = [event["pid"] for event in events_for(etl, 0.5) if event["event"] == "exited"]  # in 25 periods
        assert pid not in ended
        assert held.let_go(0).finish().ok


def test_nothing_is_lost_while_workers_come_and_go() -> None:
    """Objects arrive at any moment of a worker's retirement: each is answered, by nobody twice."""
    objects = int(os.environ.get("AIS_TEST_OBJECTS", "60"))
    with RunningEtl(FUNCTION, kind="function", workers=3, idle_seconds=0.01) as etl:
        retired = threading.Event()

        def client(number: int) -> None:
            chance = random.Random(number)
            for turn in range(objects):
                data = b"%d of %d" % (turn, number)
                outcome = etl.run(data)
                assert outcome.ok, outcome
                assert outcome.output.endswith(b" " + data)
                retired.wait(chance.random() * 0.04)  # never set: pauses as long as a worker stays, more or less

        with ThreadPoolExecutor(3) as threads:
            for done in [threads.submit(client, number) for number in range(3)]:
                done.result()
        assert etl.run(b"last").ok


@needs("fork")
def test_a_burst_after_silence_is_served() -> None:
    with RunningEtl(FUNCTION, kind="function", workers=4, idle_seconds=0.05) as etl:
        etl.wait_for("exited")
        pending = [etl.begin(b"%d" % number) for number in range(40)]
        outputs = [each.finish().output.split()[1] for each in pending]
    assert outputs == [b"%d" % number for number in range(40)]


def test_isolation_fork_has_a_process_ready() -> None:
    with RunningEtl(WAITS, objects_per_worker=1, workers=3, idle_seconds=0.2) as etl:
        held = Held(etl, 3)
        assert len({pending.started() for pending in held.pending}) == 3
        assert all(held.let_go(number).finish().ok for number in range(3))
        assert etl.run().ok


def test_a_crashed_worker_is_replaced_and_no_other_is_touched() -> None:
    code = "import os, sys\nif sys.stdin.read() == 'die':\n    os._exit(5)\nprint('fine')"
    with RunningEtl(code, workers=2) as etl:
        held = Held(etl, 1)
        busy = held.pending[0].started()
        for _ in range(5):
            crashed = etl.run(b"die")
            assert crashed.reply is None
            assert crashed.pid != busy
        assert etl.run().output == b"fine\n"
        assert held.let_go(0).finish().output == b"fine\n"


@needs("fork")  # there is no fork to hook
def test_workers_that_never_take_an_object_end_the_parent() -> None:
    code = "import os\nos.register_at_fork(after_in_child=lambda: os._exit(3))\ndef transform(data):\n    return data"
    with RunningEtl(code, kind="function") as etl:
        event = etl.wait_for("failed")
        assert event["reason"] == "workers"
        assert event["message"].endswith("ended before they took an object, the last with exit status 3")
        etl.wait_for_end()


@needs("proc")
@needs("fork")
def test_an_idle_parent_does_nothing() -> None:
    with RunningEtl(FUNCTION, kind="function", idle_seconds=0.05) as etl:
        assert etl.run(b"x").ok
        while not (usage := usage_of(etl.launched.guard_pid)) or usage.processes != 2:
            events_for(etl, 0.05)
        events_for(etl, 1.0)
        after = usage_of(etl.launched.guard_pid)
        assert after is not None
        assert after.processes == 2  # guard and parent
        assert after.cpu_seconds - usage.cpu_seconds < 0.3  # one that never slept would use all of it


def events_for(etl: RunningEtl, seconds: float) -> list[dict[str, Any]]:
    """Return the events of the next moments."""
    events = []
    with contextlib.suppress(TimeoutError):
        while (event := etl.launched.receive(seconds)) is not None:
            events.append(event)
    return events

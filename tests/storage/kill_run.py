"""Kills small processes that work on a store, checks what they leave, and prints what it did, as JSON.

``kill_run.py points SCENARIO DISKS DIRECTORY`` kills before every system call that changes a file, one after the other.
``kill_run.py moments KILLS SEED DIRECTORY`` kills at random moments, in the middle of several threads' work.
``kill_run.py recovery KILLS SEED DIRECTORY`` kills writers, and then the recovery, again and again.

Victims are forked from this process, which has everything imported and no threads: a kill costs some milliseconds.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import ledger as ledgers
from ledger import ABORT, CREATE, CUSTOM, DELETE, DESTROY, MIXED, PUT, STAGE, Lane, Ledger, work
from tracing import Killed, run_until

from aistore.storage.local import trailer
from aistore.storage.local.engine import LocalEngine
from aistore.storage.local.fsck import mountpaths
from aistore.storage.local.housekeeping import Housekeeper, recover_store
from aistore.storage.local.layout import open_directory
from aistore.storage.local.members import attach
from aistore.storage.local.settings import LocalSettings

SETTINGS = LocalSettings(generation_files_max=7, reserve_bytes=0)
DURABLE = LocalSettings(generation_files_max=7, reserve_bytes=0, durable=True)


class Run:
    """One store, the lanes that work on it, and what they are known to hold."""

    def __init__(self, directory: str, lanes: int, disks: int = 0) -> None:
        self.directory = os.path.join(directory, f"over{disks}") if disks else directory
        self.spread = disks > 0
        for disk in range(disks):
            open_directory(self.directory)
            attach(self.directory, os.path.join(directory, f"disk{disk}"))
        self.ledger = Ledger(lanes)
        self.known: list[Lane] = [None] * lanes
        self.kills = 0

    def check(self) -> None:
        """Recover, compare the store with the ledger, and go on from what is there."""
        recover_store(self.directory)
        self.compare()
        if self.kills % 20 == 0:
            ledgers.check_nothing_left(self.directory)

    def compare(self) -> None:
        engine = LocalEngine(self.directory)
        try:
            found = [ledgers.observe(engine, f"lane{lane}") for lane in range(len(self.known))]
        finally:
            engine.close()
        ledgers.check_after_kill(self.ledger, self.known, found)
        ledgers.check_files(self.directory)
        self.ledger.clear()
        self.known = found


def operations(kinds: tuple[int, ...], settings: LocalSettings = SETTINGS) -> Callable[[Run, int], None]:
    def victim(run: Run, seed: int) -> None:
        engine = LocalEngine(run.directory, settings)
        work(engine, run.ledger, 0, random.Random(seed), kinds)
        engine.close()

    return victim


def housekeeping(run: Run, seed: int) -> None:
    """Every step is a round of its own: compare, seal, unlink, purge, checkpoint."""
    keeper = Housekeeper(run.directory, grace_seconds=0.0)
    for round_ in range(12):
        keeper.step(2.0 * round_)
    keeper.close()


def recovery(run: Run, seed: int) -> None:
    recover_store(run.directory)


def recovery_after_a_boot(run: Run, seed: int) -> None:
    for mountpath in mountpaths(run.directory):
        Path(mountpath.directory, "boot").unlink(missing_ok=True)
    recover_store(run.directory)


#: Each victim, and what is done unharmed before it, so that there is something to kill it over.
SCENARIOS: dict[str, tuple[Callable[[Run, int], None], tuple[int, ...]]] = {
    "begin": (operations((CREATE,)), ()),
    "put": (operations((CREATE, *(PUT, STAGE, ABORT) * 5)), ()),
    "overwrite": (operations((*(PUT, STAGE, PUT, CUSTOM, CUSTOM) * 4,)), (CREATE, *(PUT,) * 12)),
    "durable": (operations((*(PUT, STAGE, CUSTOM, DELETE) * 4,), DURABLE), (CREATE, *(PUT,) * 6)),
    "metadata": (operations((CUSTOM,) * 40), (CREATE, *(PUT,) * 12)),
    "delete": (operations((*(DELETE, PUT, DELETE) * 6,)), (CREATE, *(STAGE,) * 12)),
    "destroy": (operations((DESTROY, CREATE, PUT, PUT, DESTROY, CREATE, STAGE)), (CREATE, *(PUT,) * 12)),
    "housekeeping": (housekeeping, (CREATE, *(PUT,) * 20, DESTROY, CREATE, *(PUT,) * 20, *(DELETE,) * 5)),
}
#: Those that happen to a store of three mountpaths too.
SPREAD = ("destroy", "housekeeping")
FURTHER = 2
#: Every one of so many calls there: opening three mountpaths takes three times as long.
STRIDE = 3


def points(name: str, disks: str, directory: str) -> dict[str, int]:
    """Kill a scenario's victim before its first call, its second, its third … until it comes to its end."""
    victim, before = SCENARIOS[name]
    run, point = Run(directory, 1, int(disks)), 0
    while True:
        point += STRIDE if run.spread else 1
        if name == "begin":
            run.directory, run.known = os.path.join(directory, str(point)), [None]
        else:
            fork(lambda seed=point: operations(before)(run, seed))
            run.compare()
        try:
            calls = run_until(lambda seed=point: victim(run, seed), point)
        except Killed:
            run.kills += 1
            run.check()
            continue
        run.check()
        ledgers.check_nothing_left(run.directory)
        return {"kills": run.kills, "calls": calls // STRIDE if run.spread else calls}


def moments(kills: int, seed: int, directory: str) -> dict[str, int]:
    """Kill four writing threads and housekeeping, at random moments."""
    runs, source, lines = (Run(directory, 4), Run(directory + "-spread", 4, FURTHER)), random.Random(seed), 0
    while sum(run.kills for run in runs) < kills:
        run = runs[source.random() < 0.25]
        pid = fork_away(lambda run=run: busy(run, source.getrandbits(48)))
        time.sleep(source.uniform(0.0, 0.04))
        lines += bury(run, pid)
        run.check()
    for run in runs:
        ledgers.check_nothing_left(run.directory)
    return {"kills": kills, "of three mountpaths": runs[1].kills, "operations": lines}


def recoveries(kills: int, seed: int, directory: str) -> dict[str, int]:
    """Kill writers, then the recovery of what they left: before its n-th call, from the first to the last, twice each.

    Every other recovery takes place after a boot, when all that was not sealed is read.
    """
    runs = (Run(directory, 4), Run(directory + "-spread", 4, FURTHER))
    source, point, writers = random.Random(seed), 0, 0
    while sum(run.kills for run in runs) < kills:
        run = runs[writers % 4 == 1]
        pid = fork_away(lambda run=run: busy(run, source.getrandbits(48)))
        time.sleep(source.uniform(0.01, 0.04))
        bury(run, pid)
        writers += 1
        run.kills -= 1
        ended = 0
        while not ended:
            point += 1
            for victim in (recovery, recovery_after_a_boot) if writers % 2 else (recovery, recovery):
                try:
                    run_until(lambda one=victim, run=run: one(run, 0), point)
                    ended, point = point, 0
                    break
                except Killed:
                    run.kills += 1
            if point % 10 == 0:  # new remains: this recovery has removed most of what it found
                break
        run.check()
    for run in runs:
        ledgers.check_nothing_left(run.directory)
    return {"kills": sum(run.kills for run in runs), "writers_killed_before": writers}


def busy(run: Run, seed: int) -> None:
    # Two engines in one process are as good as two processes here, and die at the same instant.
    engines = [LocalEngine(run.directory, SETTINGS) for _ in range(2)]
    for lane in range(4):
        source = random.Random(seed + lane)
        kinds = (CREATE, *source.choices((*MIXED * 8, DESTROY, CREATE, CREATE), k=4000))
        threading.Thread(target=work, args=(engines[lane % 2], run.ledger, lane, source, kinds), daemon=True).start()
    keeper, now = Housekeeper(run.directory, grace_seconds=0.0), 0.0
    while True:
        now += 0.25
        keeper.step(now)


def fork_away(function: Callable[[], None]) -> int:
    pid = os.fork()
    if pid == 0:
        try:
            function()
            os._exit(0)
        finally:
            os._exit(1)
    return pid


def fork(function: Callable[[], None]) -> None:
    _, status = os.waitpid(fork_away(function), 0)
    assert status == 0, status


def bury(run: Run, pid: int) -> int:
    os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    assert os.WTERMSIG(status) == signal.SIGKILL, status
    run.kills += 1
    return sum(len(run.ledger.lines(lane)) for lane in range(run.ledger.lanes))


def main() -> None:
    trailer.FOLD_BYTES = 600  # every few changes of an object's metadata
    what, *arguments = sys.argv[1:]
    if what == "points":
        result = points(*arguments)
    else:
        function = {"moments": moments, "recovery": recoveries}[what]
        result = function(int(arguments[0]), int(arguments[1]), arguments[2])
    print(json.dumps(result))


if __name__ == "__main__":
    main()

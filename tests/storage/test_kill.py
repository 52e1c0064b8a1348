"""kill -9 at random moments: what was acknowledged is whole, what was not is gone or whole, no file is leaked."""

from __future__ import annotations

import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

from kill_victim import content

from aistore.model.objects import ListOptions, ObjectInfo
from aistore.storage.local.engine import LocalEngine
from aistore.storage.local.layout import open_directory
from aistore.storage.local.recovery import recover

ROUNDS = int(os.environ.get("AISTORE_KILL_ROUNDS", "60"))
SEED = int(os.environ.get("AISTORE_KILL_SEED", "1"))
VICTIM = str(Path(__file__).with_name("kill_victim.py"))

#: What an object can be: None for absent, else the seed of its bytes and the note in its metadata.
State = tuple[int, str | None] | None


class Expectation:
    """For each name, the states that are allowed given what was begun and what was acknowledged."""

    def __init__(self) -> None:
        self.allowed: dict[str, set[State]] = {}
        self._after: dict[str, State] = {}

    def begin(self, name: str, kind: str, seed: int) -> None:
        (state,) = self.allowed.get(name, {None})
        after = state
        if kind in ("put", "stage"):
            after = (seed, None)
        elif kind == "delete":
            after = None
        elif kind == "custom" and state is not None:
            after = (state[0], str(seed))
        self.allowed[name] = {state, after}
        self._after[name] = after

    def done(self, name: str) -> None:
        self.allowed[name] = {self._after[name]}

    def settle(self, name: str, found: State) -> None:
        assert found in self.allowed.get(name, {None}), f"{name} is {found}, allowed {self.allowed.get(name)}"
        self.allowed[name] = {found}


def kill_after(directory: str, seed: int, lines_until: int, expectation: Expectation) -> int:
    """Run a victim, kill it after it has said some lines, take note of all it said; return how many."""
    victim = subprocess.Popen([sys.executable, VICTIM, directory, str(seed)], stdout=subprocess.PIPE)
    with victim:
        said = 0
        for line in victim.stdout:
            if not line.endswith(b"\n"):
                break
            word, name, *rest = json.loads(line)
            if word == "begin":
                expectation.begin(name, *rest)
            else:
                expectation.done(name)
            said += 1
            if said == lines_until:
                victim.send_signal(signal.SIGKILL)
    assert victim.returncode == -signal.SIGKILL
    return said


def check(directory: str, expectation: Expectation) -> None:
    recover(directory)
    engine = LocalEngine(directory)
    try:
        entries = {entry.name: entry for entry in engine.list("b", ListOptions()).entries}
        for name in {*expectation.allowed, *entries}:
            expectation.settle(name, state_of(engine, entries.get(name)))
    finally:
        engine.close()
    known = places(directory)
    on_disk = {
        os.path.relpath(os.path.join(root, file), f"{directory}/mp0/data")
        for root, _, files in os.walk(f"{directory}/mp0/data")
        for file in files
    }
    assert on_disk <= known, f"leaked: {on_disk - known}"


def places(directory: str) -> set[str]:
    connection = sqlite3.connect(open_directory(directory).database)
    try:
        return {
            place
            for (place,) in connection.execute(
                "SELECT place FROM objects WHERE place IS NOT NULL UNION SELECT place FROM trash"
            )
        }
    finally:
        connection.close()


def state_of(engine: LocalEngine, info: ObjectInfo | None) -> State:
    if info is None:
        return None
    seed = int(info.custom["seed"])
    with engine.get("b", info.name) as reading:
        assert reading.read(0, reading.info.size) == content(seed), f"{info.name} is torn"
    return seed, info.custom.get("note")


def test_kill_at_any_moment(tmp_path: Path) -> None:
    print(f"AISTORE_KILL_SEED={SEED} AISTORE_KILL_ROUNDS={ROUNDS}")
    directory = str(tmp_path / "store")
    engine = LocalEngine(directory)
    engine.create_bucket("b", {})
    engine.close()
    source, expectation = random.Random(SEED), Expectation()
    said = 0
    for number in range(ROUNDS):
        said += kill_after(directory, SEED * 10_000 + number, source.randrange(1, 400), expectation)
        check(directory, expectation)
    assert said > ROUNDS

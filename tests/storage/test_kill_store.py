"""kill -9 of every kind of process of a real `ais serve`, under a load of writes, reads and transforms.

``AIS_KILLS=5000`` kills a tenth of that here; the default is what ``make test`` can afford.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import urllib3
from ledger import check_files, check_nothing_left, content

from aistore.storage.local.recovery import recover
from aistore.testing import StoreProcess
from aistore.wire.messages import encode_base64

KILLS = max(56, int(os.environ.get("AIS_KILLS", "0")) // 10)
SEED = int(os.environ.get("AIS_KILLS_SEED", "1"))
#: What a run with the defaults does at least; docs/storage.md says so too.
AT_LEAST = {"test_kill_any_process": 56}

#: One round: the supervisor comes last, as it starts everything anew. Two of one kind meet the back-off.
ROUND = ("http_worker", "etl worker", "controller", "http_worker", "guard", "parent", "supervisor")
REVERSE = "def transform(data):\n    return data[::-1]\n"
_WAIT_SECONDS = 60.0

pytestmark = pytest.mark.skipif(not os.path.isdir("/proc/self/task"), reason="needs /proc to find the processes")


class Load:
    """Threads that write, read and transform until told to stop; the first that finds something wrong ends all."""

    def __init__(self) -> None:
        self.endpoint = ""
        self.wrong: list[str] = []
        self.stop = threading.Event()
        self.turns = {"write": 0, "read": 0, "transform": 0}
        #: What a name may be: (version, seed), or None for absent. More than one after an answer that never came.
        self.allowed: dict[str, set[tuple[int, int] | None]] = {}
        self.acknowledged = 0
        targets = {"write": self.write, "read": self.read, "transform": self.transform}
        self._threads = [threading.Thread(target=self.repeat, args=item) for item in targets.items()]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def end(self) -> None:
        self.stop.set()
        for thread in self._threads:
            thread.join()

    def repeat(self, what: str, turn: Callable[[urllib3.PoolManager, random.Random], bool]) -> None:
        source = random.Random(f"{SEED} {what}")
        with urllib3.PoolManager(retries=False, timeout=30) as pool:
            while not self.stop.is_set() and not self.wrong:
                try:
                    self.turns[what] += turn(pool, source)
                except Exception as error:
                    self.wrong.append(f"{what}: {error!r}")

    def ask(self, pool: urllib3.PoolManager, method: str, path: str, **arguments: object) -> urllib3.BaseHTTPResponse:
        """Return a final answer, or one of status 0 when there is none: nobody there, cut off, come again."""
        try:
            reply = pool.request(method, self.endpoint + path, **arguments)
        except urllib3.exceptions.HTTPError:
            reply = urllib3.HTTPResponse(status=0)
        if reply.status not in (200, 404, 0, 503):
            self.wrong.append(f"{method} {path}: {reply.status} {reply.data!r}")
        if reply.status in (0, 503):
            time.sleep(0.02)
        return reply

    def write(self, pool: urllib3.PoolManager, source: random.Random) -> bool:
        name, seed = f"w{source.randrange(20)}", source.getrandbits(40)
        allowed = self.allowed.setdefault(name, {None})
        if len(allowed) > 1:
            return self.settle(pool, name)
        (before,) = allowed
        path = f"/v1/objects/b/{name}"
        if before is not None and source.random() < 0.2:
            self.allowed[name] = {before, None}
            reply = self.ask(pool, "DELETE", path)
            after = None
        else:
            after = ((before[0] if before else 0) + 1, seed)
            self.allowed[name] = {before, after}
            data = content(seed)
            # An iterator makes the body chunked: that is staged, the other written in one step.
            body = iter([data[:5000], data[5000:]]) if source.random() < 0.3 and len(data) > 5000 else data
            reply = self.ask(pool, "PUT", path, body=body, headers={"ais-custom-md": f"seed={seed}"})
        if reply.status != 200:
            return False
        self.allowed[name] = {after}
        self.acknowledged += 1
        return True

    def settle(self, pool: urllib3.PoolManager, name: str) -> bool:
        """Ask what became of a write that was not answered."""
        reply = self.ask(pool, "GET", f"/v1/objects/b/{name}")
        if reply.status not in (200, 404):
            return False
        found = None
        if reply.status == 200:
            seed = int(reply.headers["ais-custom-md"].removeprefix("seed="))
            found = (int(reply.headers["ais-version"]), seed)
            if reply.data != content(seed):
                self.wrong.append(f"{name} is torn")
        if found not in self.allowed[name]:
            self.wrong.append(f"{name} is {found}, allowed {self.allowed[name]}")
        self.allowed[name] = {found}
        return True

    def read(self, pool: urllib3.PoolManager, source: random.Random) -> bool:
        reply = self.ask(pool, "GET", f"/v1/objects/b/w{source.randrange(20)}")
        if reply.status == 200:
            seed = int(reply.headers["ais-custom-md"].removeprefix("seed="))
            if reply.data != content(seed):
                self.wrong.append("a read got a torn object")
        return reply.status in (200, 404)

    def transform(self, pool: urllib3.PoolManager, source: random.Random) -> bool:
        reply = self.ask(pool, "GET", "/v1/objects/b/fixed?etl_name=reverse")
        if reply.status == 404 or (reply.status == 200 and reply.data != b"forwards"[::-1]):
            self.wrong.append(f"transform: {reply.status} {reply.data!r}")
        return reply.status == 200

    def await_progress(self, what: str) -> None:
        """Wait until each thread was answered several times since now."""
        goal = {kind: turns + 3 for kind, turns in self.turns.items()}
        deadline = time.monotonic() + _WAIT_SECONDS
        while any(self.turns[kind] < turns for kind, turns in goal.items()):
            assert not self.wrong, "\n".join(self.wrong)
            assert time.monotonic() < deadline, f"after {what}: {self.turns}, expected {goal}"
            time.sleep(0.005)


def children_of(pid: int) -> list[int]:
    found: list[int] = []
    try:
        for task in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{task}/children", encoding="ascii") as file:
                found += map(int, file.read().split())
    except OSError:
        pass  # it has just ended
    return found


def processes(store: StoreProcess) -> dict[str, list[int]]:
    """Return the pids of each kind."""
    found: dict[str, list[int]] = {"supervisor": [store.pid], "http_worker": [], "controller": []}
    for pid, command in store.children().items():
        found["controller" if "controller" in command else "http_worker"].append(pid)
    for kind, above in (("guard", "controller"), ("parent", "guard"), ("etl worker", "parent")):
        found[kind] = [child for pid in found[above] for child in children_of(pid)]
    return found


def wait_for(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + _WAIT_SECONDS
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.01)


def is_gone(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
            return file.read().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def refused(data: str) -> str:
    command = [sys.executable, "-m", "aistore", "serve", "--data", data, "--port", "0"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 1
    return result.stderr


def prepare(store: StoreProcess) -> None:
    message = {"id": "reverse", "code": encode_base64(REVERSE), "communication_type": "hpush://", "workers": 2}
    with urllib3.PoolManager() as pool:
        assert pool.request("POST", f"{store.endpoint}/v1/buckets/b", body=b'{"action":"create-bck"}').status == 200
        assert pool.request("PUT", f"{store.endpoint}/v1/objects/b/fixed", body=b"forwards").status == 200
        reply = pool.request("POST", f"{store.endpoint}/v1/etl/init_code", json=message)
        assert reply.status == 200, reply.data


def test_kill_any_process(
    tmp_path: Path, new_store: Callable[..., StoreProcess], count: Callable[[str, int], None]
) -> None:
    """Each time: service goes on, orphans end, a second start is refused, and all that was acknowledged is there."""
    data, source, load = str(tmp_path / "data"), random.Random(SEED), Load()
    store = new_store(data, arguments=("--workers", "2"))
    prepare(store)
    load.endpoint = store.endpoint
    load.start()
    try:
        for number in range(KILLS):
            kind = ROUND[number % len(ROUND)]
            load.await_progress(f"kill {number}")
            wait_for(lambda one=store, kind=kind: processes(one)[kind], f"no {kind}")
            found = processes(store)
            time.sleep(source.uniform(0.0, 0.05))
            victim = source.choice(found[kind])
            stopped = number % 2 == 1
            if stopped:
                os.kill(victim, signal.SIGSTOP)
            if kind != "supervisor":
                os.kill(victim, signal.SIGKILL)
                wait_for(lambda pid=victim: is_gone(pid), f"the killed {kind} is still there")
                continue
            if stopped:
                assert f"in use by process {store.pid}" in refused(data)
            store.kill()
            # Every other one under the other policy: the data are the same.
            policy = "durable" if stopped else "default"
            store = new_store(data, arguments=("--workers", "2", "--durability", policy))
            for one, pids in found.items():
                for pid in pids:
                    wait_for(lambda pid=pid: is_gone(pid), f"{one} {pid} outlives the supervisor")
            load.endpoint = store.endpoint
            count("supervisors killed", 1)
        load.await_progress("the last kill")
    finally:
        load.end()
    assert not load.wrong, "\n".join(load.wrong)
    assert load.acknowledged > KILLS
    with urllib3.PoolManager(retries=False) as pool:
        for name in load.allowed:
            assert load.settle(pool, name)
    assert not load.wrong, "\n".join(load.wrong)
    assert store.end() == 0
    assert "Traceback" not in store.errors()
    recover(data)
    check_files(data)
    check_nothing_left(data)
    count("kills of a process of a store", KILLS)

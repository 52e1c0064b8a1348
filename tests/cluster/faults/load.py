"""Clients that read, overwrite, create, remove and transform objects all the time, and note what they see."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from urllib.parse import quote

from sim.history import FOREVER, History, Read, Write

from aistore.client import Client, RetryPolicy
from aistore.errors import AisError, ObjectNotFoundError
from aistore.laptop.node import poll
from aistore.testing import LocalCluster

from . import content
from .sending import BUDGET_SECONDS, READ_SECONDS, WRITE_SECONDS, Answer, OutOfPatienceError, Sender

KEYS = [f"k{number}" for number in range(24)]
#: Bytes of objects: in one message, in several packets, more than a megabyte (staged piece by piece).
_SIZES = [20] * 6 + [5_000] * 6 + [60_000] * 4 + [1_500_000]
_READERS, _WRITERS = 4, 3
_PAUSE_SECONDS = 0.04
#: How many of the names that were made and removed are still looked at.
_REMEMBERED = 40
#: What the load transforms with: one that shows that it did.
TRANSFORM_NAME = "marking"
_TRANSFORM = "def transform(data):\n    return b'T:' + data\n"


def make_transform(cluster: LocalCluster) -> None:
    """Make the transform that loads use."""
    with Client(cluster.running[0].endpoint) as client:
        client.etl(TRANSFORM_NAME).init_code(_TRANSFORM, workers=1)


class Load:
    """Clients of a cluster; the object names they use are KEYS, and names that are made once and removed.

    ``etl`` is TRANSFORM_NAME, or empty: nothing is transformed.
    """

    def __init__(self, cluster: LocalCluster, *, bucket: str, etl: str, seed: int) -> None:
        self.bucket = bucket
        self.history = History()
        self.counts: Counter[str] = Counter()
        self.longest: dict[str, float] = {"read": 0.0, "write": 0.0}
        #: What was not answered in time, and what should not have been answered.
        self.failed_reads: list[str] = []
        self.failed_writes: list[str] = []
        self.unexpected: list[str] = []
        self.names: set[str] = set(KEYS)
        self._cluster = cluster
        self._etl = etl
        self._seed = seed
        self._recent: list[str] = []
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self.sender = Sender(
            lambda: {node.endpoint: node.id for node in list(cluster.nodes.values()) if node.endpoint and node.id}
        )
        self._threads = [self._thread(self._write, f"writer{number}") for number in range(_WRITERS)]
        self._threads += [self._thread(self._read, f"reader{number}") for number in range(_READERS)]
        self._threads.append(self._thread(self._read_as_programs_do, "program"))

    def _thread(self, work: Callable[[str, random.Random], None], name: str) -> threading.Thread:
        chance = random.Random(f"{self._seed} {name}")

        def run() -> None:
            try:
                work(name, chance)
            except Exception as error:  # a thread's own end would be seen by nobody
                self.unexpected.append(f"{name} ended: {error!r}")
                raise

        return threading.Thread(target=run, name=name)

    def start(self) -> None:
        """Write every one of KEYS, then begin in earnest."""
        chance = random.Random(self._seed)
        for key in KEYS:
            self.put("first", chance, key, f"first.{key}")
        for thread in self._threads:
            thread.start()

    def wait_busy(self, reads: int = 60, writes: int = 15) -> None:
        """Return when so much more has been read and written."""
        with self._lock:
            wanted = self.counts["reads"] + reads, self.counts["writes"] + writes
        poll(120, "the load", lambda: self.counts["reads"] >= wanted[0] and self.counts["writes"] >= wanted[1])

    def stop(self) -> None:
        """End all clients; each finishes what it has begun."""
        self._stopping.set()
        for thread in self._threads:
            thread.join()

    # What the clients do.

    def _pause(self, chance: random.Random) -> None:
        self._stopping.wait(chance.expovariate(1 / _PAUSE_SECONDS))

    def _write(self, name: str, chance: random.Random) -> None:
        number, mine = 0, []
        while not self._stopping.is_set():
            number += 1
            tag, dice = f"{name}.{number}", chance.random()
            if dice < 0.6:
                key = chance.choice(KEYS)
                self.put(name, chance, key, tag)
            elif dice < 0.85 or not mine:
                key = f"{name}/{number}"
                mine.append(key)
                self._remember(key)
                self.put(name, chance, key, tag, create=True)
            else:
                key = mine.pop(chance.randrange(len(mine)))
                self.delete(name, chance, key)
            if chance.random() < 0.3:
                self.get(name, chance, key)  # what one has just written is what one misses
            self._pause(chance)

    def _read(self, name: str, chance: random.Random) -> None:
        while not self._stopping.is_set():
            dice = chance.random()
            if dice < 0.2 and self._etl:
                self.get(name, chance, chance.choice(KEYS), transformed=True)
            else:
                self.get(name, chance, self._any_name(chance))
            self._pause(chance)

    def _read_as_programs_do(self, name: str, chance: random.Random) -> None:
        """Read through pyaistore's client, which follows the map."""
        endpoints = ",".join(node.endpoint for node in self._cluster.nodes.values())
        with Client(endpoints, connect_timeout_seconds=2.0, retry=RetryPolicy(budget_seconds=BUDGET_SECONDS)) as client:
            bucket = client.bucket(self.bucket)
            while not self._stopping.is_set():
                key, begin = self._any_name(chance), time.monotonic()
                try:
                    tag: str | None = content.tag_of(bucket.object(key).get().read())
                except ObjectNotFoundError:
                    tag = None
                except AisError as error:
                    self.failed_reads.append(f"{key} through pyaistore's client: {error!r}")
                    continue
                self._note_read(key, tag, begin, name, begun=begin)
                self._pause(chance)

    def _remember(self, key: str) -> None:
        with self._lock:
            self.names.add(key)
            self._recent.append(key)
            del self._recent[:-_REMEMBERED]

    def _any_name(self, chance: random.Random) -> str:
        with self._lock:
            return chance.choice(self._recent) if self._recent and chance.random() < 0.3 else chance.choice(KEYS)

    # One operation, until it is answered.

    def path(self, key: str) -> str:
        """Return the path of an object."""
        return f"/v1/objects/{self.bucket}/{quote(key)}"

    def get(self, name: str, chance: random.Random, key: str, *, transformed: bool = False) -> None:
        """Read an object, or what the transform makes of it."""
        path = self.path(key) + (f"?etl_name={self._etl}" if transformed else "")
        what, started = f"{'transform' if transformed else 'read'} of {key}", time.monotonic()
        begin = started

        def attempt(endpoint: str) -> Answer:
            nonlocal begin
            begin = time.monotonic()
            return self.sender.once("GET", endpoint, path, seconds=READ_SECONDS)

        try:
            answer, tries = self.sender.until_answered(chance, what, attempt)
        except OutOfPatienceError as error:
            self.failed_reads.append(str(error))
            return
        tag = None
        if answer.status == 200:
            data = answer.data
            if transformed:
                data = data.removeprefix(b"T:")
                self.counts["transforms"] += 1
            try:
                tag = content.tag_of(data)
            except ValueError as error:
                self.unexpected.append(f"{what} by {name}: {error}")
                return
        elif answer.status != 404 or transformed:
            self.unexpected.append(f"{what} by {name}: {answer}")
            return
        self._note_read(key, tag, begin, f"{name} at {answer.endpoint}", begun=started, tries=tries)

    def _note_read(self, key: str, tag: str | None, begin: float, by: str, *, begun: float, tries: int = 0) -> None:
        end = time.monotonic()
        with self._lock:
            self.history.reads.append(Read(key, tag, begin, end, by))
            self.counts["reads"] += 1
            self.counts["reads tried again"] += tries
            self.longest["read"] = max(self.longest["read"], end - begun)

    def put(self, name: str, chance: random.Random, key: str, tag: str, *, create: bool = False) -> None:
        """Write an object, or with ``create`` only if there is none. Each attempt writes a value of its own."""
        size, number = chance.choice(_SIZES), 0
        headers = {"If-None-Match": "*"} if create else {}

        def attempt(endpoint: str) -> Answer:
            nonlocal number
            number += 1
            value, begin, end = f"{tag}.{number}", time.monotonic(), FOREVER
            data = content.make(value, size)
            answer = self.sender.once("PUT", endpoint, self.path(key), data, headers=headers, seconds=WRITE_SECONDS)
            if answer.status == 200:
                end = time.monotonic()
            self._note_write(Write(key, value, begin, end, f"{name} at {endpoint}"))
            return answer

        self._change(
            f"{'create' if create else 'write'} of {key}", chance, attempt, {200, 409, 412} if create else {200}
        )

    def delete(self, name: str, chance: random.Random, key: str) -> None:
        """Remove an object."""

        def attempt(endpoint: str) -> Answer:
            begin, end = time.monotonic(), FOREVER
            answer = self.sender.once("DELETE", endpoint, self.path(key), seconds=WRITE_SECONDS)
            by = f"{name} at {endpoint}"
            if answer.status == 404:
                self._note_read(key, None, begin, by, begun=begin)
                return answer
            if answer.status == 200:
                end = time.monotonic()
            self._note_write(Write(key, None, begin, end, by))
            return answer

        self._change(f"delete of {key}", chance, attempt, {200, 404})

    def _note_write(self, write: Write) -> None:
        with self._lock:
            self.history.writes.append(write)

    def _change(self, what: str, chance: random.Random, attempt: Callable[[str], Answer], good: set[int]) -> None:
        begun = time.monotonic()
        try:
            answer, tries = self.sender.until_answered(chance, what, attempt)
        except OutOfPatienceError as error:
            self.failed_writes.append(str(error))
            return
        if answer.status not in good:
            self.unexpected.append(f"{what}: {answer}")
        with self._lock:
            self.counts["writes"] += 1
            self.counts["writes tried again"] += tries
            self.longest["write"] = max(self.longest["write"], time.monotonic() - begun)

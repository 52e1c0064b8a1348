"""One request to a cluster as a real client sends it: again, to another node, until it is answered."""

from __future__ import annotations

import json
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from typing import NamedTuple

import urllib3

#: What a client's retries may take altogether.
BUDGET_SECONDS = 60.0
#: How long one answer is waited for: what pyaistore's own client waits before it asks another node, or the same again.
READ_SECONDS = 10.0
WRITE_SECONDS = 30.0
_CONNECT_SECONDS = 2.0
_PAUSE_SECONDS, _PAUSE_SECONDS_MAX = 0.05, 1.0
#: How long a node that did not answer is not asked, while there are others.
_AVOIDED_SECONDS = 2.0


class Answer(NamedTuple):
    """An answer; status 0 is none."""

    status: int
    data: bytes
    endpoint: str

    def __str__(self) -> str:
        said = self.data[:200].decode(errors="replace")
        return f"{self.endpoint}: {self.status or 'no answer'} {said}"


class OutOfPatienceError(Exception):
    """A request was not answered within the budget."""


class Sender:
    """Sends requests to the nodes of ``places()`` (ids by endpoint), also those that do not run. Threads share it."""

    def __init__(self, places: Callable[[], Mapping[str, str]]) -> None:
        self._places = places
        self._pool = urllib3.PoolManager(maxsize=32, num_pools=64, retries=False)
        self._avoided: dict[str, float] = {}
        self._lock = threading.Lock()
        #: Attempts that were in vain, by what was said, for people.
        self.refusals: Counter[str] = Counter()

    def close(self) -> None:
        """Close all connections."""
        self._pool.clear()

    def choose(self, chance: random.Random, tried: Collection[str] = ()) -> str:
        """Return a node: one that was not tried yet and did answer lately, if there is one."""
        now, places = time.monotonic(), list(self._places())
        good = [place for place in places if self._avoided.get(place, 0.0) < now]
        return chance.choice([place for place in good if place not in tried] or good or places)

    def once(
        self, method: str, endpoint: str, path: str, body: bytes | None = None, *,
        headers: dict[str, str] | None = None, seconds: float = READ_SECONDS,
    ) -> Answer:  # fmt: skip
        """Send a request once."""
        try:
            reply = self._pool.request(
                method, endpoint + path, body=body, headers=headers or {},
                timeout=urllib3.Timeout(connect=_CONNECT_SECONDS, read=seconds),
            )  # fmt: skip
            if reply.status == 404 and self._is_stranger(reply.data):
                return Answer(0, b"a program of somebody else answers there", endpoint)
            return Answer(reply.status, reply.data, endpoint)
        except urllib3.exceptions.HTTPError as error:
            self._avoided[endpoint] = time.monotonic() + _AVOIDED_SECONDS
            return Answer(0, type(error).__name__.encode(), endpoint)

    def _is_stranger(self, error: bytes) -> bool:
        """Whether the store that says there is no such thing is another one, to which a dead node's port went."""
        ours = self._places().values()
        return json.loads(error).get("node") not in {*ours, *(node[1:] for node in ours)}  # a target's has a "t" more

    def until_answered(self, chance: random.Random, what: str, attempt: Callable[[str], Answer]) -> tuple[Answer, int]:
        """Attempt it at one node after the other; return the answer and the number of attempts that were in vain.

        Raises OutOfPatienceError.
        """
        begun, tries = time.monotonic(), 0
        tried: list[str] = []
        while True:
            answer = attempt(self.choose(chance, tried))
            tried = [*tried, answer.endpoint][-2:]
            if answer.status not in (0, 503):
                return answer, tries
            with self._lock:
                self.refusals[f"{what.split()[0]}: {str(answer).partition(': ')[2][:120]}"] += 1
            if time.monotonic() - begun > BUDGET_SECONDS:
                raise OutOfPatienceError(
                    f"{what}: no answer in {BUDGET_SECONDS:.0f} s, {tries + 1} tries, last {answer}"
                )
            time.sleep(min(_PAUSE_SECONDS_MAX, _PAUSE_SECONDS * 2**tries) * (0.5 + chance.random()))
            tries += 1

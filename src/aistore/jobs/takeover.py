"""When a job's owner counts as lost, as pure rules with the time passed in: for the observer, and for the owner itself.

An owner writes its job's record at least ``RENEWALS`` times in a lease and raises the counter each time. An observer
counts from when it last *saw a change*, on a clock of its own that counts suspension; clocks of different machines are
never compared. The owner stops to begin work when it could be counted as lost, measured from when it *sent* its last
write that was acknowledged: an observer cannot have seen that write before it was sent, so it waits at least as long.

Should an owner go on all the same (a stopped process, a slow disk), nothing is lost: the new owner replaced the record
under a condition, so the old one's next write of it fails and it leaves; and what it still has under way writes each
object conditionally and tagged, so that of two writers one finds the other's work and leaves it (``batch.py``).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from .document import Job

LEASE_SECONDS = 30.0
#: How often in a lease an owner writes at least.
RENEWALS = 3
#: How much earlier than others the owner itself counts as lost, as a part of the lease: two clocks may run differently
#: fast. Guessed, and far more than quartz is off.
MARGIN = 0.1


class _Seen(NamedTuple):
    owner: str
    counter: int
    at: float


class Observer:
    """What one node has seen of the jobs that others own."""

    def __init__(self, node: str, lease_seconds: float = LEASE_SECONDS) -> None:
        self._node = node
        self._lease_seconds = lease_seconds
        self._seen: Mapping[str, _Seen] = {}

    def lapsed(self, jobs: Iterable[Job], asked_at: float, answered_at: float) -> list[Job]:
        """Take the records that a request sent at ``asked_at`` had at ``answered_at``; return those of lost owners.

        A job that is seen for the first time, or changed, has its whole lease before it, however old the record is. It
        counts from the answer, because the change may have come after the question; and it ends at a question.
        """
        seen, lost = {}, []
        for job in jobs:
            if not job.runs or job.owner == self._node:
                continue
            before = self._seen.get(job.id)
            if before is None or (before.owner, before.counter) != (job.owner, job.counter):
                before = _Seen(job.owner, job.counter, answered_at)
            seen[job.id] = before
            if asked_at - before.at >= self._lease_seconds:
                lost.append(job)
        self._seen = seen
        return lost


class Lease:
    """What an owner knows of its own right to act."""

    def __init__(self, sent_at: float, lease_seconds: float = LEASE_SECONDS) -> None:
        self._lease_seconds = lease_seconds
        self._sent_at = sent_at

    def renewed(self, sent_at: float) -> None:
        """Note that a write of the record that was sent at ``sent_at`` was acknowledged."""
        self._sent_at = max(self._sent_at, sent_at)

    def may_act(self, now: float) -> bool:
        """Return whether work may begin now."""
        return now < self._sent_at + self._lease_seconds * (1 - MARGIN)

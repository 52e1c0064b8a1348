"""The production's rules with one of them broken, each by a subclass that decides one thing otherwise.

The simulator has to find each: else it would not find a mistake in that rule either.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from aistore.cluster import coherence as coherence_module
from aistore.cluster.coherence import Coherence
from aistore.cluster.documents import BucketRecord
from aistore.cluster.membership import Membership
from aistore.cluster.view import View

from .node import Rules
from .schedule import MIXTURES, SHORT


def mixture(name: str) -> dict[str, Any]:
    """Return what a plan has that makes a mixture of faults."""
    return {"faults": MIXTURES[name]}


class NewHomeDoesNotWait(Coherence):
    """A new home writes before the others have followed the map."""

    def owns(self, view: View, bucket: BucketRecord, name: str) -> bool:
        return self.is_leased() and view.home(bucket, name) == view.me


class OldHomeDoesNotDrain(Coherence):
    """An old home says that it follows the map while it still writes."""

    async def adopt(self, view: View) -> None:
        if self._view is None or view.stamp > self._view.stamp:
            self._view = view
            self._changed.set()
            self._changed = asyncio.Event()


class SettlesAtOnce(Membership):
    """A node takes every epoch for settled."""

    def _waiting_for(self, version: int, nodes: Mapping[str, str]) -> dict[str, str]:
        return {}


class IgnoresTheFence(Coherence):
    """A node acts whether its lease holds or not."""

    def is_leased(self) -> bool:
        return True


class AcknowledgesWithoutLease(Coherence):
    """A home acknowledges what the store did after the lease had lapsed."""

    def _acknowledge(self, bucket: BucketRecord, name: str) -> None:
        return


class LapsedDoesNotLook(Membership):
    """A node whose lease lapsed renews it and goes on with the map that it has."""

    async def _is_current(self, version: int) -> bool:
        return self._adopted > 0 or await super()._is_current(version)


class NewControllerDoesNotFence(Membership):
    """A controller that starts beside workers of an earlier one lets them act on until it has handed out its map."""

    def _extend(self, sent: float) -> None:
        if sent > float("-inf"):
            super()._extend(sent)


class ImpatientObserver(Membership):
    """An observer takes a lease for over after a third of the time for which its holder acts."""

    def __init__(self, *arguments: Any) -> None:
        *others, times = arguments
        super().__init__(*others, replace(times, lease=times.lease / 3))

    def _extend(self, sent: float) -> None:
        self._deadline = sent + 0.9 * 3 * self.times.lease
        self._workers.publish(self._deadline)


class StampsDoNotMatter(Coherence):
    """A copy is used by whoever is the home now, although the home was elsewhere meanwhile."""

    def is_good(self, bucket: BucketRecord, name: str, facts: Any) -> bool:
        return self.is_leased() and self.view.is_mine(bucket, name)


class UnansweredIsForgotten(Coherence):
    """A write that had no answer is sent again at once, while the first one may still arrive."""

    def __init__(self, clock: Any, places: Any, cache: Any, fence: Any, patience: Any) -> None:
        super().__init__(clock, places, cache, fence, replace(patience, late=0.1))


class EtagIsEnough(Coherence):
    """A copy with the store's ETag is taken for the same object, whatever its metadata."""

    async def read_stored(self, bucket: BucketRecord, name: str, *, begin: bool = True, copied: bool = True) -> Any:
        whole = coherence_module.is_of
        coherence_module.is_of = lambda facts, stored: facts.etag == stored.etag  # type: ignore[assignment]
        try:
            return await super().read_stored(bucket, name, begin=begin, copied=copied)
        finally:
            coherence_module.is_of = whole


#: What is broken, how, and what the schedules that are searched for it have in common.
BROKEN: dict[str, tuple[Rules, dict[str, Any]]] = {
    "a new home does not wait until the map is settled": (Rules(NewHomeDoesNotWait), mixture("handovers")),
    "an epoch is settled at once": (Rules(membership=SettlesAtOnce), mixture("handovers")),
    "writes have no condition": (Rules(conditions=False), mixture("stops")),
    "a node ignores its fence": (Rules(IgnoresTheFence), mixture("lapses")),
    "a lapsed node does not read the root again": (Rules(membership=LapsedDoesNotLook), mixture("returns")),
    "a lease is over after a third of its time": (Rules(membership=ImpatientObserver), mixture("lapses")),
    "a new controller does not fence its node": (
        Rules(membership=NewControllerDoesNotFence),
        mixture("controllers") | {"pause": 4.0, "nodes": 4},
    ),
    "stamps do not matter": (Rules(StampsDoNotMatter), mixture("deaths")),
    "an equal ETag is enough": (Rules(EtagIsEnough), mixture("deaths")),
}

#: What takes more schedules to show.
RARE: dict[str, tuple[Rules, dict[str, Any]]] = {
    "an old home does not end its writes": (Rules(OldHomeDoesNotDrain), mixture("slow handovers")),
    "a write is acknowledged without a lease": (
        Rules(AcknowledgesWithoutLease),
        mixture("slow lapses") | {"times": SHORT, "keys": 2, "clients": 6, "nodes": 3, "first": 3},
    ),
    "an unanswered write is sent again at once": (Rules(UnansweredIsForgotten), mixture("bad weather")),
}

"""Where a request goes: straight to the home of its object, or to an endpoint that passes it on.

Any node answers for any object, so nothing here has to be right, only mostly: what is wrong costs a hop. A node is gone
to straight after it has shown that it can be reached and belongs to the cluster, and is left alone for a while, longer
each time, after it could not be reached. So addresses that mean nothing where the client runs cost a moment now and
then, and never an error.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from ..errors import AisError
from .cluster_map import ClusterMap
from .endpoint import Endpoint

#: A map this old is asked for again, in case that no reply has told of a newer one; that of a single node later.
MAP_SECONDS = 10.0
LONE_MAP_SECONDS = 60.0
#: Between two questions for the map, at least; doubled up to the second while nobody answers.
REFRESH_SECONDS = 1.0
REFRESH_SECONDS_MAX = 30.0
#: How long a node is left alone after it could not be reached; doubled each time up to the second.
AVOIDED_SECONDS = 2.0
AVOIDED_SECONDS_MAX = 300.0
#: How long a node may take to show that it is there.
PROBE_SECONDS = 2.0
#: A node that was slow, but showed that it is there, is waited for as long as the caller said, for so long.
TRUSTED_SECONDS = 600.0

#: Asks an endpoint for the map, for so many seconds at most; raises AisError.
FetchMap = Callable[[Endpoint, float], ClusterMap]


class Place(NamedTuple):
    """Where a request goes; ``node`` is the id of its object's home, if that is where."""

    endpoint: Endpoint
    node: str = ""


@dataclass(slots=True)
class _Health:
    """What is known of an address."""

    reached: bool = False
    failures: int = 0
    avoided_until: float = 0.0
    trusted_until: float = 0.0
    probing: bool = False


class Routing:
    """The map that one process of a client follows. Threads share it; a forked child makes its own."""

    def __init__(
        self,
        endpoints: Sequence[Endpoint],
        fetch_map: FetchMap,
        *,
        follow: bool = True,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._endpoints = tuple(endpoints)
        self._fetch_map = fetch_map
        self._follow = follow
        self._clock = clock
        self._lock = threading.Lock()
        self._refreshing = threading.Lock()
        self._health: dict[str, _Health] = {}
        self._map: ClusterMap | None = None
        self._asked_once = False
        self._stale = True
        self._fetched_at = 0.0
        self._next_refresh = 0.0
        self._fruitless = 0

    @property
    def map(self) -> ClusterMap | None:
        """The map, if it is known."""
        return self._map

    def place(self, uname: str, avoid: Collection[str] = (), *, many: bool = False) -> Place:
        """Return where a request for the object ``uname`` goes ("" for a request that is for no object).

        ``avoid`` are addresses that this request was just sent to in vain. The map is not asked for before the second
        object, unless ``many`` are wanted: a program that reads one is done sooner without.
        """
        cluster = self._current(many) if uname and self._follow else None
        if cluster is not None:
            node = cluster.home(uname)
            endpoint = cluster.endpoints.get(node)
            if endpoint is not None and endpoint.url not in avoid and self._usable(endpoint):
                return Place(endpoint, node)
        return Place(self._gateway(avoid))

    def groups(self, unames: Sequence[str]) -> list[list[int]]:
        """Return the positions of ``unames``, in order, by the place that each goes to."""
        cluster = self._current(True) if self._follow else None
        if cluster is None:
            return [list(range(len(unames)))]
        homes: dict[str, list[int]] = {}
        for position, uname in enumerate(unames):
            homes.setdefault(cluster.home(uname), []).append(position)
        places: dict[str, list[int]] = {}
        for positions in homes.values():  # those whose homes cannot be gone to are one group
            places.setdefault(self.place(unames[positions[0]]).endpoint.url, []).extend(positions)
        return [sorted(positions) for positions in places.values()]

    def has_other(self, avoid: Collection[str]) -> bool:
        """Whether there is a place not among ``avoid`` that a request can go to instead."""
        return any(endpoint.url not in avoid and not self._avoided(endpoint) for endpoint in self._all())

    def answered(self, place: Place, map_version: str | None) -> None:
        """Note an answer, and the version of the map that it told of."""
        health = self._health.get(place.endpoint.url)
        if health is not None and health.failures:
            health.failures, health.avoided_until = 0, 0.0
        if map_version is not None and map_version.isdigit():
            known = self._map
            if known is None or int(map_version) > known.version:
                self._stale = self._asked_once = True

    def failed(self, place: Place) -> None:
        """Note that no answer came: the place is left alone for a while, and the map asked for again."""
        with self._lock:
            health = self._health.setdefault(place.endpoint.url, _Health())
            health.reached = False
            health.trusted_until = 0.0
            health.failures += 1
            pause = min(AVOIDED_SECONDS * 2 ** (health.failures - 1), AVOIDED_SECONDS_MAX)
            health.avoided_until = self._clock() + pause
            self._stale = True

    def timed_out(self, place: Place) -> bool:
        """Note that an answer did not come in time; return whether the place is only slow, which it is asked now."""
        if self._probe(place.endpoint):
            self._health.setdefault(place.endpoint.url, _Health()).trusted_until = self._clock() + TRUSTED_SECONDS
            return True
        self.failed(place)
        return False

    def is_waited_for(self, place: Place) -> bool:
        """Whether an answer is waited for as long as the caller says: nobody else has it, or the place is just slow."""
        health = self._health.get(place.endpoint.url)
        if health is not None and health.trusted_until > self._clock():
            return True
        return not self.has_other((place.endpoint.url,))

    def moved(self, place: Place, uname: str) -> bool:
        """Ask for the map again (not more often than is decent); return whether the object has another home now."""
        self._stale = True
        cluster = self._current(True)
        return cluster is not None and cluster.home(uname) != place.node

    def _all(self) -> Iterable[Endpoint]:
        """Return every place there is: those that the client was given, then the nodes of the map."""
        cluster = self._map
        if cluster is None:
            return self._endpoints
        known = {endpoint.url for endpoint in self._endpoints}
        return (*self._endpoints, *(node for node in cluster.endpoints.values() if node.url not in known))

    def _gateway(self, avoid: Collection[str]) -> Endpoint:
        places = list(self._all())
        if len(places) == 1:
            return places[0]
        for endpoint in places:
            if endpoint.url in avoid:
                continue
            health = self._health.get(endpoint.url)
            # A given endpoint is believed at first, a node of the map has to be seen.
            new = health is None and endpoint in self._endpoints
            if new or self._usable(endpoint):
                return endpoint

        # Nobody can be reached: whoever has been left alone for longest, and was not just tried.
        def last(endpoint: Endpoint) -> tuple[bool, float]:
            health = self._health.get(endpoint.url)
            return endpoint.url in avoid, health.avoided_until if health else 0.0

        return min(self._endpoints, key=last)

    def _avoided(self, endpoint: Endpoint) -> bool:
        health = self._health.get(endpoint.url)
        return health is not None and health.avoided_until > self._clock()

    def _usable(self, endpoint: Endpoint) -> bool:
        """Whether requests may go there; the first, and the first after a failure, finds out by asking for the map."""
        health = self._health.get(endpoint.url)
        if health is not None:
            if health.reached:
                return True
            if health.probing or health.avoided_until > self._clock():
                return False
        with self._lock:
            health = self._health.setdefault(endpoint.url, _Health())
            if health.probing:
                return False
            health.probing = True
        try:
            if self._probe(endpoint):
                health.reached = True
            else:
                self.failed(Place(endpoint))
        finally:
            health.probing = False
        return health.reached

    def _probe(self, endpoint: Endpoint) -> bool:
        """Whether a node of our cluster answers there. Another store that answers at the same address is none."""
        try:
            found = self._fetch_map(endpoint, PROBE_SECONDS)
        except AisError:
            return False
        known = self._map
        if known is not None and found.uuid != known.uuid:
            return False
        if known is not None and found.version > known.version:
            self._stale = True
        return True

    def _current(self, many: bool) -> ClusterMap | None:
        """Return the map if there is more than one node in it, asked for again where that is due."""
        if not self._asked_once and not many:
            self._asked_once = True
            return None
        self._asked_once = True
        now = self._clock()
        lone = self._map is None or len(self._map.digests) < 2
        due = self._stale or now - self._fetched_at > (LONE_MAP_SECONDS if lone else MAP_SECONDS)
        if due and now >= self._next_refresh and self._refreshing.acquire(blocking=self._map is None):
            try:
                if self._clock() >= self._next_refresh:
                    self._refresh()
            finally:
                self._refreshing.release()
        cluster = self._map
        return cluster if cluster is not None and len(cluster.digests) > 1 else None

    def _refresh(self) -> None:
        for endpoint in self._all():
            if self._avoided(endpoint):
                continue
            try:
                found = self._fetch_map(endpoint, PROBE_SECONDS)
            except AisError:
                continue
            known = self._map
            if known is None or found.uuid == known.uuid or endpoint in self._endpoints:
                health = self._health.setdefault(endpoint.url, _Health())
                health.reached, health.failures = True, 0
                self._learned(found)
                return
        self._fruitless += 1
        self._next_refresh = self._clock() + min(REFRESH_SECONDS * 2 ** (self._fruitless - 1), REFRESH_SECONDS_MAX)

    def _learned(self, found: ClusterMap) -> None:
        known = self._map
        self._fruitless, self._stale = 0, False
        self._fetched_at = self._clock()
        self._next_refresh = self._fetched_at + REFRESH_SECONDS
        if known is None or known.uuid != found.uuid or found.version >= known.version:
            self._map = found

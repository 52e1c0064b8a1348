"""What one process of a node does for its cache: at its start, and then ``CacheKeeper.step`` in a loop."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import shutil
import sqlite3
from collections.abc import Iterable
from contextlib import ExitStack

from ...errors import ConflictError, InternalError
from ..local.housekeeping import Housekeeper, recover_store
from .cache import Cache
from .evictor import TICK_SECONDS, Evictor
from .layout import CachePlaces, open_cache_directory
from .settings import CacheSettings, Pin

_log = logging.getLogger("aistore.storage")

#: How long the file of an evicted copy stays. Derived: the cache hands out no paths, so nobody needs it but a read
#: between its look-up and its open, which looks up again; but a power cut must not bring back a row whose file is gone,
#: so there has to be a sync in between, which each round of a second begins with.
GRACE_SECONDS = 1.0


def recover_cache(directory: str) -> None:
    """Clean up after processes that were killed, and after a power cut; for the owner of the cache, at its start.

    A cache whose index cannot be read is begun anew: all of it is in the store. Raises ConflictError for a directory
    that is no cache.
    """
    places = open_cache_directory(directory)
    for name in os.listdir(places.lock_files):  # their holders are dead
        os.unlink(f"{places.lock_files}/{name}")
    with contextlib.suppress(FileNotFoundError):
        os.unlink(places.boot)
    try:
        recover_store(places.objects)
    except (ConflictError, InternalError, sqlite3.DatabaseError) as error:
        _log.error("the cache %s is begun anew: %s", places.directory, error)
        _begin_anew(places)


def _begin_anew(places: CachePlaces) -> None:
    for name in os.listdir(places.objects):
        if name not in ("owner.lock", "writers.lock"):  # held by who calls this
            path = f"{places.objects}/{name}"
            if os.path.isdir(path):
                shutil.rmtree(path)
            else:
                os.unlink(path)
    recover_store(places.objects)


class CacheKeeper:
    """Evicts, and reclaims the space of what is gone. One per node; a second does no harm but evicts more."""

    def __init__(
        self, directory: str, settings: CacheSettings, *, tick_seconds: float = TICK_SECONDS,
        grace_seconds: float = GRACE_SECONDS,
    ) -> None:  # fmt: skip
        with ExitStack() as opened:
            self._cache = Cache(directory, dataclasses.replace(settings, hot_bytes_max=0))
            opened.callback(self._cache.close)
            self._housekeeper = Housekeeper(self._cache.places.objects, grace_seconds=grace_seconds)
            opened.callback(self._housekeeper.close)
            self._evictor = Evictor(self._cache, tick_seconds=tick_seconds)
            opened.pop_all()

    def pin(self, pins: Iterable[Pin]) -> None:
        """Never evict what these name, and only that."""
        self._evictor.pin(pins)

    def step(self, now: float) -> bool:
        """Do one bounded piece of work; return whether there may be more at once (else wait a second).

        ``now`` is a time in seconds that does not go back (``time.monotonic()``). What raises can be tried again.
        """
        more = self._housekeeper.step(now)  # first: a full disk gets room from it
        return self._evictor.step(now) or more

    def close(self) -> None:
        """Give every resource back."""
        self._evictor.close()
        self._housekeeper.close()
        self._cache.close()

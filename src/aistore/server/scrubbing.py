"""The scrubbers of a store, in a thread of the controller, and what can be asked of them."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import time
from collections.abc import Callable
from typing import Any

import msgspec

from ..settings import ProcessSettings
from ..storage.local import presence
from ..storage.local.layout import further
from ..storage.local.placement import ROOT
from ..storage.local.scrub import Scrubber
from ..wire.messages import DamagedObject, ScrubReport
from .link import ReportProgress, Verb

_log = logging.getLogger("aistore.scrub")

#: How often mountpaths are looked at. Derived: one that is disabled can be unmounted after so long.
_LOOK_SECONDS = 1.0


class Scrubbing:
    """One scrubber per mountpath, stepped in one thread of low priority."""

    def __init__(self, settings: ProcessSettings) -> None:
        self._data = settings.serve.data
        self._limits = settings.serve.limits
        self._lock = threading.Lock()
        self._scrubbers: dict[str, Scrubber] = {}
        self._wake = threading.Event()
        self._ending = False
        self._thread = threading.Thread(target=self._run, name="scrub")

    def start(self) -> None:
        """Begin to work."""
        self._thread.start()

    def close(self) -> None:
        """End after the piece at hand; blocks for as long as that takes."""
        self._ending = True
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join()
        for scrubber in self._opened():
            scrubber.close()

    def verbs(self) -> dict[str, Verb]:
        """Return the verbs of the controller that are about scrubbing."""

        def in_thread(work: Callable[[dict[str, Any]], None]) -> Verb:
            async def verb(arguments: dict[str, Any], report: ReportProgress) -> Any:
                await asyncio.to_thread(work, arguments)
                return msgspec.to_builtins(await asyncio.to_thread(self.report))

            return verb

        def start(arguments: dict[str, Any]) -> None:
            self._follow()
            for scrubber in self._opened():
                scrubber.start(int(arguments["bytes_per_second"]))
            self._wake.set()

        def stop(arguments: dict[str, Any]) -> None:
            for scrubber in self._opened():
                scrubber.stop()

        return {
            "scrub.start": in_thread(start),
            "scrub.stop": in_thread(stop),
            "scrub.state": in_thread(lambda arguments: self._follow()),
        }

    def report(self) -> ScrubReport:
        """Return how far the passes are, added up, and all damage that is known."""
        scrubbers = self._opened()
        states = [scrubber.state() for scrubber in scrubbers]
        damaged = [
            DamagedObject(record.bucket, record.name, record.version, record.file, record.problem, record.found_ns,
                          record.harmless)
            for scrubber in scrubbers
            for record in scrubber.damaged()
        ]  # fmt: skip
        return ScrubReport(
            running=any(state.running for state in states),
            began=max((state.began for state in states), default=0.0),
            ended=max((state.ended for state in states), default=0.0),
            objects=sum(state.objects for state in states),
            bytes=sum(state.bytes_done for state in states),
            objects_total=sum(state.objects_total for state in states),
            bytes_total=sum(state.bytes_total for state in states),
            index_errors=[state.index_error for state in states if state.index_error],
            damaged=damaged,
        )

    def _run(self) -> None:
        try:  # only this thread, on Linux; the disk's share follows the processor's
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 19)
        except OSError:
            pass
        next_look = float("-inf")
        while not self._ending:
            wait = _LOOK_SECONDS
            try:
                if time.monotonic() >= next_look:
                    next_look = time.monotonic() + _LOOK_SECONDS
                    self._follow()
            except Exception as error:  # it is looked at again
                _log.error("scrubbing: the mountpaths cannot be told: %s", error)
            for scrubber in self._opened():
                try:
                    wait = min(wait, scrubber.step(time.monotonic()))
                except Exception as error:  # one mountpath's failure must not end the others' scrubbing
                    _log.error("scrubbing failed: %s: %s", type(error).__name__, error)
            if self._wake.wait(wait):
                self._wake.clear()

    def _follow(self) -> None:
        """Open a scrubber for each mountpath that is available, and close those of others: nothing of them is held."""
        members = presence.mountpaths(self._data).members
        places = {member.id: further(self._data, member) for member in members}
        available = {
            id_
            for id_, place in places.items()
            if id_ == ROOT or (not presence.is_away(place) and os.path.exists(place.database))
        }
        with self._lock:
            for id_ in set(self._scrubbers) - available:
                self._scrubbers.pop(id_).close()
            for id_ in available - set(self._scrubbers):
                self._scrubbers[id_] = Scrubber(
                    places[id_],
                    bytes_per_second=self._limits.scrub_bytes_per_second,
                    period_seconds=self._limits.scrub_period_seconds,
                    catalog=places[ROOT],
                )

    def _opened(self) -> list[Scrubber]:
        with self._lock:
            return list(self._scrubbers.values())

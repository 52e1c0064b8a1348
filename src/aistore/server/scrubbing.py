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
from ..storage.local.fsck import mountpaths
from ..storage.local.scrub import Scrubber
from ..wire.messages import DamagedObject, ScrubReport
from .link import ReportProgress, Verb

_log = logging.getLogger("aistore.scrub")

_AFTER_FAILURE_SECONDS = 60.0


class Scrubbing:
    """One scrubber per mountpath, stepped in one thread of low priority."""

    def __init__(self, settings: ProcessSettings) -> None:
        limits = settings.serve.limits
        found = mountpaths(settings.serve.data)
        self._scrubbers = [
            Scrubber(
                mountpath,
                bytes_per_second=limits.scrub_bytes_per_second,
                period_seconds=limits.scrub_period_seconds,
                catalog=found[0],
            )
            for mountpath in found
        ]
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
        for scrubber in self._scrubbers:
            scrubber.close()

    def verbs(self) -> dict[str, Verb]:
        """Return the verbs of the controller that are about scrubbing."""

        def in_thread(work: Callable[[dict[str, Any]], None]) -> Verb:
            async def verb(arguments: dict[str, Any], report: ReportProgress) -> Any:
                await asyncio.to_thread(work, arguments)
                return msgspec.to_builtins(await asyncio.to_thread(self.report))

            return verb

        def start(arguments: dict[str, Any]) -> None:
            for scrubber in self._scrubbers:
                scrubber.start(int(arguments["bytes_per_second"]))
            self._wake.set()

        def stop(arguments: dict[str, Any]) -> None:
            for scrubber in self._scrubbers:
                scrubber.stop()

        return {
            "scrub.start": in_thread(start),
            "scrub.stop": in_thread(stop),
            "scrub.state": in_thread(lambda arguments: None),
        }

    def report(self) -> ScrubReport:
        """Return how far the passes are, added up, and all damage that is known."""
        states = [scrubber.state() for scrubber in self._scrubbers]
        damaged = [
            DamagedObject(record.bucket, record.name, record.version, record.file, record.problem, record.found_ns,
                          record.harmless)
            for scrubber in self._scrubbers
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
        while not self._ending:
            wait = _AFTER_FAILURE_SECONDS
            for scrubber in self._scrubbers:
                try:
                    wait = min(wait, scrubber.step(time.monotonic()))
                except Exception as error:  # one mountpath's failure must not end the others' scrubbing
                    _log.error("scrubbing failed: %s: %s", type(error).__name__, error)
            if self._wake.wait(wait):
                self._wake.clear()

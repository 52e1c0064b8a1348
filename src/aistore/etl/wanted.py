"""The transforms of this node, brought to what the cluster's root document says: started, stopped, removed."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Mapping
from typing import Any

import msgspec

from ..cluster.documents import EtlRecord
from ..cluster.view import View
from ..errors import ConflictError, EtlInitError, EtlNotFoundError, EtlNotRunningError, RetryLaterError
from ..model.etl import Stage
from .environments.lock import Lock
from .managed import ManagedEtl
from .manager import Manager
from .runners import ReportProgress

_log = logging.getLogger("aistore.etl")

#: How long a new view waits for transforms to end. Longer than a kill takes; what ends later ends beside all else.
END_SECONDS_MAX = 15.0


class Wanted:
    """What is wanted of the transforms here, by the newest view, and the work that brings them there.

    One task at a time works on a name, and goes on until what is there is what the newest view says.
    """

    def __init__(self, manager: Manager) -> None:
        self.manager = manager
        self._records: Mapping[str, EtlRecord] | None = None  # until there is a view
        self._known = asyncio.Event()
        self._working: dict[str, asyncio.Task[None]] = {}

    async def adopt(self, view: View) -> None:
        """Take ``view`` over; when this returns, nothing runs here that it does not want.

        What it wants and is not there is begun, in the background.
        """
        self._records = view.root.etls
        self._known.set()
        names = {*self._records, *self.manager.etls()}
        tasks = [self._work_on(name) for name in sorted(names)]
        if not tasks:
            return
        _, late = await asyncio.wait(tasks, timeout=END_SECONDS_MAX)
        if late:
            _log.error("%d transforms that nobody wants any more have not ended yet", len(late))

    async def ready(self, view: View) -> None:
        """Take ``view`` over, and return when its transforms take objects here, or cannot; the log says why."""
        await self.adopt(view)
        records = self._all()
        wanted = [etl for name, etl in self.manager.etls().items() if self._is_to_run(records.get(name))]
        await asyncio.gather(*(etl.settled(etl.spec.init_timeout_seconds) for etl in wanted))
        for etl in wanted:
            if not etl.runs:
                _log.error("etl job %s does not run on this node: %s", etl.spec.name, etl.life.message)

    def record(self, name: str) -> EtlRecord:
        """Return what the newest view has of an ETL; raises EtlNotFoundError."""
        record = self._all().get(name)
        if record is None:
            raise EtlNotFoundError.of(name)
        return record

    def _all(self) -> Mapping[str, EtlRecord]:
        if self._records is None:
            raise RetryLaterError(
                f"node {self.manager.node} is joining its cluster, and does not know its transforms yet",
                hint="try again in some seconds",
            )
        return self._records

    async def bring_up(self, name: str, uid: int, lock: Any, report: ReportProgress) -> Any:
        """Make one ready, as ``ManagedEtl.bring_up`` does, and return its lock; for whoever waits for it.

        ``uid`` says which of those that have had the name, ``lock`` what to install (None: whatever is resolved now).
        Raises EtlInitError with the reason, ConflictError if it was stopped or removed meanwhile.
        """
        task = self._work_on(name)
        await asyncio.wait([task])
        record = self._all().get(name)
        if record is None or record.uid != uid or not record.wanted:
            raise ConflictError(f"etl job {name} was stopped or removed while it was being made ready")
        etl = self.manager.etls().get(name) or self._add(record, lock)
        begun = etl.life.stage is Stage.INITIALIZING
        if begun:
            await etl.settled(record.spec.init_timeout_seconds)
        if begun and not etl.runs:
            raise EtlInitError(etl.life.message or f"etl job {name} is not ready")
        if not etl.runs:
            await etl.bring_up(report)
        return msgspec.to_builtins(etl.lock)

    async def find(self, arguments: dict[str, Any], report: ReportProgress) -> Any:
        """Answer ``etl_find``: as the manager does, but whoever cannot use a transform is told on which node."""
        name = str(arguments["name"])
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._known.wait(), float(arguments["wait"]))
        if name in self._all() and name not in self.manager.etls():
            raise EtlNotRunningError(
                f"etl job {name} is still Initializing on node {self.manager.node}", hint="try again later"
            )
        try:
            return await self.manager.verbs()["etl_find"](arguments, report)
        except EtlNotRunningError as error:
            raise EtlNotRunningError(
                f"node {self.manager.node}: {error.message}", hint=error.hint, status=error.status
            ) from error

    def _work_on(self, name: str) -> asyncio.Task[None]:
        task = self._working.get(name)
        if task is None or task.done():
            task = self._working[name] = asyncio.ensure_future(self._settle(name))
            task.add_done_callback(lambda done: self._done(name, done))
        return task

    def _done(self, name: str, task: asyncio.Task[None]) -> None:
        if self._working.get(name) is task:
            del self._working[name]
        if not task.cancelled() and task.exception() is not None:
            _log.error("etl job %s cannot be brought to what is wanted of it", name, exc_info=task.exception())

    async def _settle(self, name: str) -> None:
        """End what is not wanted under a name, begin what is. After each wait all is looked at again."""
        while True:
            record, etl = self._all().get(name), self.manager.etls().get(name)
            if etl is not None and (record is None or record.uid != etl.uid):
                await self.manager.remove(etl)
                self.manager.in_background(self.manager.tidy())
            elif etl is not None and record is not None and not record.wanted and etl.life.wanted:
                await etl.stop()
            else:
                if record is not None:
                    self._begin(record, etl)
                return

    def _begin(self, record: EtlRecord, etl: ManagedEtl | None) -> None:
        if record.making:
            return  # whoever makes it asks for it
        etl = etl or self._add(record, record.lock)
        if not record.wanted:
            etl.life, _ = etl.life.stop()
        elif etl.life.stage is Stage.UNKNOWN or not etl.life.wanted:
            self.manager.begin(etl)

    def _add(self, record: EtlRecord, lock: Any) -> ManagedEtl:
        known = msgspec.convert(lock, Lock) if lock is not None else None
        return self.manager.add(record.spec, known, record.uid, locked=True)

    @staticmethod
    def _is_to_run(record: EtlRecord | None) -> bool:
        return record is not None and record.wanted and not record.making

    async def close(self) -> None:
        """Wait for the work that is under way."""
        await asyncio.gather(*self._working.values(), return_exceptions=True)

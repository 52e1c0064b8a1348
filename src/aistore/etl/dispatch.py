"""One object through one transform or a line of them, from the HTTP worker's side."""

from __future__ import annotations

import os
from concurrent.futures import Executor

import msgspec

from ..errors import OverloadedError, TransformError
from ..model.etl import TransformCall
from ..settings import Limits
from ..storage.engine import Reading
from . import exchange
from .counted import CountedObject
from .running import Ask, Controller, Gone, Result, Running
from .warm import WarmWorkers


class Dispatcher:
    """Sends objects through transforms. One per HTTP worker."""

    def __init__(self, controller: Controller, threads: Executor, limits: Limits, spool: str) -> None:
        self._controller = controller
        self._threads = threads
        self._limits = limits
        self._spool = spool
        self._running: dict[str, Running] = {}
        self._input_bytes = 0  # copies of objects that wait for a worker or are with one, in memory
        self._workers = WarmWorkers(controller, self.find, threads, limits, spool)

    async def find(self, name: str, *, again: bool = False) -> Running:
        """Return where ETL ``name`` takes objects; waits for one that is being made ready.

        Raises EtlNotFoundError, EtlNotRunningError. ``again`` asks the controller even if the answer is known.
        """
        known = self._running.get(name)
        if known is None or again:
            self._running.pop(name, None)
            answer = await self._controller.call("etl_find", name=name, wait=self._limits.etl_ready_wait_seconds)
            known = msgspec.convert(answer, Running)
            self._running[name] = known
        return known

    async def transform(self, call: TransformCall, reading: Reading, *, gone: Gone | None = None) -> Result:
        """Run one object through the transforms of ``call`` and return the result; closes ``reading``.

        ``gone`` completes when the client went away: then the transform is ended and ClientGoneError raised.
        """
        info = reading.info
        held = 0
        source = -1
        try:
            stages = [await self.find(name) for name in call.stages]  # none begins where one is missing
            held = self._hold_input(stages[0], info.size)
            source = await self._input(reading)
            reading.close()
            ask = Ask(info.bucket, info.name, call.args)
            for running in stages[:-1]:
                result = await self._stage(running, call, source, ask, gone)
                os.close(source)
                source = -1
                self._input_bytes += result.size - held
                held = result.size
                source = self._next_input(result)
            return await self._stage(stages[-1], call, source, ask, gone)
        finally:
            if source >= 0:
                os.close(source)
            self._input_bytes -= held
            reading.close()

    async def _stage(self, running: Running, call: TransformCall, source: int, ask: Ask, gone: Gone | None) -> Result:
        if call.seconds:
            running = msgspec.structs.replace(running, object_timeout_seconds=call.seconds)
        try:
            with CountedObject(running.name, running.uid, os.fstat(source).st_size) as counted:
                try:
                    result = await self._workers.transform(running, source, ask, gone)
                finally:
                    counted.uid = self._running.get(running.name, running).uid
                counted.out_bytes = result.size
            return result
        except TransformError as error:
            error.message = f"ETL error: {running.name} failed on ais://{ask.bucket}/{ask.object}: {error.message}"
            raise

    def _next_input(self, result: Result) -> int:
        """Return a descriptor with what one stage made, for the next, which cannot write to it; closes ``result``."""
        if result.data is not None:
            return exchange.input_from_bytes(result.data, self._spool)
        descriptor, result.descriptor = result.descriptor, -1
        os.lseek(descriptor, 0, os.SEEK_SET)
        return descriptor

    def _hold_input(self, running: Running, size: int) -> int:
        """Account for the copy of an object in memory and return its bytes; raises OverloadedError above the limit."""
        in_memory = size if size <= self._limits.memfd_input_bytes_max else 0
        if in_memory and self._input_bytes and self._input_bytes + in_memory > self._limits.etl_input_bytes_max:
            raise OverloadedError(
                f"etl job {running.name}: objects of {self._input_bytes >> 20} MiB wait already",
                hint="try again in a second",
            )
        self._input_bytes += in_memory
        return in_memory

    async def _input(self, reading: Reading) -> int:
        """Return a descriptor with a copy of the object."""
        size = reading.info.size
        if size <= self._limits.piece_bytes:
            data = reading.read_cached(0, size)
            if data is not None:
                return exchange.input_from_bytes(data, self._spool)
        return await exchange.in_thread(
            self._threads, exchange.input_from_reading, reading, self._limits.memfd_input_bytes_max, self._spool
        )

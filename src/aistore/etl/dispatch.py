"""One object through one transform or a line of them, from the HTTP worker's side."""

from __future__ import annotations

import asyncio
import contextlib
import os
from concurrent.futures import Executor
from typing import TYPE_CHECKING

import msgspec

from ..errors import OverloadedError, TransformError
from ..model.etl import TransformCall
from ..settings import Limits
from ..storage.checksums import STORED_TYPE
from ..storage.engine import Reading
from . import exchange
from .counted import CountedObject, count_hit, count_miss
from .passing import Passing
from .results import Results
from .running import Ask, Controller, Gone, Result, Running
from .seeds import Recipe
from .sent import SentEarly
from .warm import WarmWorkers, header_of

if TYPE_CHECKING:
    from .servers.early import SentToServer
    from .servers.talk import ServerTransforms

    #: An object that was sent to a transform before the event loop heard of it.
    Early = SentEarly | SentToServer

#: How often an object begins again because a transform was made anew meanwhile.
_ATTEMPTS = 4
#: Larger objects are not sent early: copying them would hold up the requests behind them.
_EARLY_BYTES_MAX = 256 << 10
_PASSING_BYTES_MAX = 1 << 20


class Dispatcher:
    """Sends objects through transforms. One per HTTP worker; without ``results`` none are kept."""

    def __init__(
        self, controller: Controller, threads: Executor, limits: Limits, spool: str, results: Results | None = None
    ) -> None:
        self.results = results
        self._controller = controller
        self._threads = threads
        self._limits = limits
        self._spool = spool
        self._running: dict[str, Running] = {}
        self._input_bytes = 0  # copies of objects that wait for a worker or are with one, in memory
        self._workers = WarmWorkers(controller, self.find, threads, limits, spool)
        self._serving: ServerTransforms | None = None

    @property
    def _servers(self) -> ServerTransforms:
        """The transforms that are servers; a store that has none does without the libraries for them, 6 MiB."""
        if self._serving is None:
            from .servers.connect import connect, listen
            from .servers.talk import ServerTransforms

            self._serving = ServerTransforms(
                self.find, self._threads, self._limits, self._spool, connect=connect, listen=listen
            )
        return self._serving

    def close(self) -> None:
        """End what is kept of transforms that are servers."""
        if self._serving is not None:
            self._serving.close()

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

    def takes_early(self, call: TransformCall) -> bool:
        """Say whether objects may be sent to workers early, as far as it is known here where a transform is."""
        running = self._running.get(call.etl)
        return running is not None and not running.serves and _can_be_early(call, running)

    def send_early(self, call: TransformCall, reading: Reading, *, in_passing: bool = False) -> SentEarly | None:
        """Send a small object to a worker, if nothing has to be waited for and that is all to be done; else None.

        For a thread that is not the event loop's. The object goes on with ``transform`` or ends with ``end_early``,
        which a thread may call only when there is an answer. Of what is read ``in_passing`` nothing is kept in memory
        for others who read it; it may be larger.
        """
        running = self._running.get(call.etl)
        if running is None or not self.takes_early(call):
            return None
        ask = self._early_ask(call, running, reading, _PASSING_BYTES_MAX if in_passing else _EARLY_BYTES_MAX)
        header = None if ask is None else header_of(ask)
        size = reading.info.size
        data = None if header is None else reading.peek() if in_passing else reading.read_cached(0, size)
        if header is None or data is None:
            return None
        try:
            sent = SentEarly(running, header, data, self._spool)
        except OSError:  # the ordinary way finds out what it is
            return None
        self._input_bytes += size
        return sent

    def begin_early(self, call: TransformCall, reading: Reading) -> SentToServer | None:
        """Do what ``send_early`` does for a transform that is a server, but leave it to the caller to ``send`` it.

        For one thread alone.
        """
        running, serving = self._running.get(call.etl), self._serving
        if running is None or serving is None or not running.serves or not _can_be_early(call, running):
            return None
        pool, ask = serving.pool_for_early(running), self._early_ask(call, running, reading, _EARLY_BYTES_MAX)
        data = None if pool is None or ask is None else reading.read_cached(0, reading.info.size)
        if pool is None or ask is None or data is None:
            return None
        sent = serving.send_early(pool, running, ask, data)
        if sent is not None:
            self._input_bytes += sent.size
        return sent

    def _early_ask(self, call: TransformCall, running: Running, reading: Reading, bytes_max: int) -> Ask | None:
        """Return what a transform is told with an object that is sent early, None for one that cannot be."""
        info, seed = reading.info, ""
        if info.size > bytes_max or self._input_bytes + info.size > self._limits.etl_input_bytes_max:
            return None
        if call.seed is not None:
            if info.checksum.type != STORED_TYPE:
                return None
            recipe = Recipe.of(info.name, info.size, info.checksum.value, call.args, call.seed)
            seed = recipe.then(running.digest).seed()
        return Ask(info.bucket, info.name, call.args, seed)

    def end_early(self, sent: Early) -> None:
        """End what was sent early; a worker that has it and has not answered is killed."""
        self._input_bytes -= sent.size
        self._end(sent)

    def _end(self, sent: Early) -> None:
        if isinstance(sent, SentEarly) and sent.answer is None:
            self._workers.abandon(sent.running, sent)
        sent.close()

    async def transform(
        self, call: TransformCall, reading: Reading, *, gone: Gone | None = None, sent: Early | None = None
    ) -> Result:
        """Run one object through the transforms of ``call`` and return the result; closes ``reading``.

        ``gone`` completes when the client went away: then the transform is ended and ClientGoneError raised.
        ``sent``: the object is on its way already.
        """
        try:
            if sent is not None and await self.find(call.etl) == sent.running:
                taken, sent = sent, None
                with contextlib.suppress(_MadeAnewError):
                    return await self._followed(call, reading, gone, taken)
            for _ in range(_ATTEMPTS):
                stages = [await self.find(name) for name in call.stages]  # none begins where one is missing
                wanted = call.seed is not None or any(self._keeps(running) for running in stages)
                work = _Work(call, reading, gone, stages, may_begin_again=wanted)
                try:
                    work.recipes = await self._recipes(work) if wanted else []
                    return await self._made(work, len(stages))
                except _MadeAnewError:  # what was derived from the one before is worth nothing
                    continue
                finally:
                    self._release(work)
            raise OverloadedError(f"etl job {call.etl} is being made anew again and again", hint="try again later")
        finally:
            if sent is not None:
                self.end_early(sent)
            reading.close()

    async def _followed(self, call: TransformCall, reading: Reading, gone: Gone | None, sent: Early) -> Result:
        """Return what comes of an object that was sent early."""
        work = _Work(call, reading, gone, [sent.running], may_begin_again=False)
        work.source, work.held, work.sent = sent.passing(self._spool), sent.size, sent
        try:
            work.recipes = await self._recipes(work) if call.seed is not None else []
            return await self._made(work, 1)
        finally:
            untaken = work.take_sent()
            if untaken is not None:
                self._end(untaken)
            self._release(work)

    def _keeps(self, running: Running) -> bool:
        return running.cache and self.results is not None and self.results.are_kept

    async def _recipes(self, work: _Work) -> list[Recipe]:
        """Return what the result after each transform is made of."""
        info, call = work.reading.info, work.call
        checksum = info.checksum.value if info.checksum.type == STORED_TYPE else ""
        if not checksum:  # an object that is read from another store, past the cache
            work.source = await self._input(work)
            checksum = await asyncio.get_running_loop().run_in_executor(
                self._threads, exchange.checksum_of, os.dup(work.source.descriptor)
            )
        recipe, recipes = Recipe.of(info.name, info.size, checksum, call.args, call.seed), []
        for running in work.stages:
            recipe = recipe.then(running.digest)
            recipes.append(recipe)
        return recipes

    async def _made(self, work: _Work, count: int) -> Result:
        """Return what the first ``count`` transforms make of the object: as it is kept, or computed."""
        running = work.stages[count - 1]
        if not (self._keeps(running) and work.is_repeatable(count)):
            return await self._computed(work, count)
        assert self.results is not None
        await self.results.open()
        place = self.results.place(running.name, running.uid, work.reading.info.bucket, work.recipes[count - 1])
        kept = await self.results.find(place)
        if kept is not None:
            return await self._given_again(work, count, kept)
        patience = self._limits.etl_queue_wait_seconds + sum(work.seconds(number) for number in range(count))
        async with self.results.turn(place, patience, work.gone) as found:
            if found is not None:
                return await self._given_again(work, count, found)
            count_miss(running.name, running.uid)
            result = await self._computed(work, count)
            try:
                await self.results.keep(place, result)
            except BaseException:
                result.close()
                raise
            result.cache = "miss"
            return result

    async def _given_again(self, work: _Work, count: int, kept: Result) -> Result:
        """Return a result that was kept.

        Raises _MadeAnewError when a transform is another one by now, EtlNotRunningError when it does not run.
        """
        try:
            for running in work.stages[:count]:
                if not os.path.exists(running.mark):
                    await self.find(running.name, again=True)
                    raise _MadeAnewError
        except BaseException:
            kept.close()
            raise
        count_hit(running.name, running.uid, kept.size)
        kept.cache = "hit"
        return kept

    async def _computed(self, work: _Work, count: int) -> Result:
        running = work.stages[count - 1]
        if count > 1:
            source = self._next_input(work, await self._made(work, count - 1))
        else:
            source = work.source or await self._input(work)
            work.source = None
        try:
            result = await self._stage(work, count, source)
        finally:
            source.close()
        if work.recipes and self._running.get(running.name, running).digest != running.digest:
            result.close()
            raise _MadeAnewError
        return result

    async def _stage(self, work: _Work, count: int, source: Passing) -> Result:
        running, info, call = work.stages[count - 1], work.reading.info, work.call
        seed = work.recipes[count - 1].seed() if call.seed is not None else ""
        ask = Ask(info.bucket, info.name, call.args, seed)
        if call.seconds:
            running = msgspec.structs.replace(running, object_timeout_seconds=call.seconds)
        if running.direct_put and not call.offline:  # nobody gets sooner what is put here first
            running = msgspec.structs.replace(running, direct_put=False)
        try:
            with CountedObject(running.name, running.uid, source.size) as counted:
                try:
                    result = await self._through(running, source, ask, work)
                finally:
                    counted.uid = self._running.get(running.name, running).uid
                counted.out_bytes = result.size
            return result
        except TransformError as error:
            error.message = f"ETL error: {running.name} failed on ais://{ask.bucket}/{ask.object}: {error.message}"
            raise

    async def _through(self, running: Running, source: Passing, ask: Ask, work: _Work) -> Result:
        sent = work.take_sent()
        if running.serves:
            assert not isinstance(sent, SentEarly)
            return await self._servers.transform(running, source, ask, work.gone, sent)
        assert sent is None or isinstance(sent, SentEarly)
        return await self._workers.transform(running, source.descriptor, ask, work.gone, sent)

    def _next_input(self, work: _Work, result: Result) -> Passing:
        """Return what one stage made, for the next, which cannot write to it; closes ``result``."""
        self._input_bytes += result.size - work.held
        work.held = result.size
        if result.data is not None:
            return Passing(result.data, self._spool)
        descriptor, result.descriptor = result.descriptor, -1
        os.lseek(descriptor, 0, os.SEEK_SET)
        return Passing.of_file(descriptor, self._spool)

    def _release(self, work: _Work) -> None:
        self._input_bytes -= work.held
        if work.source is not None:
            work.source.close()

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

    async def _input(self, work: _Work) -> Passing:
        """Return a copy of the object."""
        reading, limits = work.reading, self._limits
        size = reading.info.size
        work.held = self._hold_input(work.stages[0], size)
        data = reading.read_cached(0, size) if size <= limits.piece_bytes else None
        if data is not None:
            source = Passing(data, self._spool)
        else:
            copy = await exchange.in_thread(
                self._threads, exchange.input_from_reading, reading, limits.memfd_input_bytes_max, self._spool
            )
            source = Passing.of_file(copy, self._spool)
        if not work.may_begin_again:
            reading.close()
        return source


class _Work:
    """One object on its way through the transforms of a call.

    ``source`` is a copy of it that nobody has taken yet, ``held`` what is accounted for in memory, ``sent`` what is on
    its way to the first transform already.
    ``recipes`` says what the result after each transform is made of, where that is wanted. With ``may_begin_again``
    the object is read again when a transform was made anew.
    """

    def __init__(
        self, call: TransformCall, reading: Reading, gone: Gone | None, stages: list[Running], *, may_begin_again: bool
    ) -> None:
        self.call = call
        self.reading = reading
        self.gone = gone
        self.stages = stages
        self.may_begin_again = may_begin_again
        self.source: Passing | None = None
        self.sent: Early | None = None
        self.held = 0
        self.recipes: list[Recipe] = []

    def take_sent(self) -> Early | None:
        """Return what was sent already, the caller's to close."""
        sent, self.sent = self.sent, None
        return sent

    def is_repeatable(self, count: int) -> bool:
        """Say whether the result of the first transforms may be one that was computed earlier."""
        if self.call.fresh:
            return False
        return self.call.seed is not None or all(running.deterministic for running in self.stages[:count])

    def seconds(self, number: int) -> float:
        """Return how long a transform may take."""
        return self.call.seconds or self.stages[number].object_timeout_seconds


class _MadeAnewError(Exception):
    """A transform was removed and made again while an object was on its way through it."""


def _can_be_early(call: TransformCall, running: Running) -> bool:
    return not (running.cache or call.then or call.seconds)

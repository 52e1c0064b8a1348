"""A job in the process that owns it: list once, hand batches to the homes of their names, write down how far it is.

Pages of the listing are worked on a few at a time and finished in order: K, the last name before which all is done,
moves over a page when every batch of it has come back. Only what is up to K is written down, so after a crash
the counts are those of K, and whoever goes on works off the rest again.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol, TypeVar

import msgspec

from ..errors import (
    AisError,
    BackendRefusedError,
    BucketNotFoundError,
    JobNotFoundError,
    OverloadedError,
    RetryLaterError,
    StaleJobError,
    error_from_code,
)
from .batch import BATCH_BYTES_MAX, BATCH_NAMES_MAX, Batch, BatchResult
from .chosen import ChosenNames, NamesPage
from .document import Counts, Job, JobKind, JobOptions, ObjectError
from .records import JobRecords, KeptJob
from .sync import Expected
from .takeover import LEASE_SECONDS, RENEWALS, Lease
from .targets import Collisions, ambiguous_extensions
from .verify import Draw, bound_of, is_drawn

_log = logging.getLogger("aistore.jobs")

T = TypeVar("T")

#: Names listed at a time, and such pages under way at once. Derived: 32 batches, more than a few nodes have in hand.
PAGE_NAMES = 512
PAGES_MAX = 4
#: How often at least a job that moves is written down. Guessed: what is done again after a crash, against the writes.
CHECKPOINT_SECONDS = 0.5
#: Names of a batch for each object that may be under way, where that is said: at its end fewer are.
_BATCH_WORKERS = 4
#: How often a batch is begun again whose node was lost, and the pauses between.
_ATTEMPTS_MAX = 20
_PAUSE_SECONDS, _PAUSE_SECONDS_MAX = 0.05, 5.0


class Workers(Protocol):
    """The nodes that work for a job. All verbs may raise RetryLaterError: the node was lost, the answer with it."""

    async def names(self, bucket: str, prefix: str, after: str, limit: int, *, cached: bool = False) -> NamesPage:
        """Return a page of the names that start with ``prefix``, those after ``after`` in the listing's own order.

        With ``cached`` only objects that some node has a copy of.
        """

    def home(self, job: Job, name: str) -> str:
        """Return the node that works on an object of a job's source."""

    async def run(self, node: str, batch: Batch) -> BatchResult:
        """Have ``node`` work off a batch, as soon as it has room for one more; cancelled there when cancelled here."""


def _unchanged(job: Job) -> Job:
    return job


class LostError(Exception):
    """Another node owns the job now, or somebody has removed its record."""


class _StoppedError(Exception):
    """Somebody asked for the job to end."""


class _FailedError(Exception):
    """An object failed, and the job is not to go on after that."""


@dataclass
class _Page:
    """A page under way: what its batches came to so far. ``removing`` says that it has names of the destination."""

    last: str
    facts: Mapping[str, str] = field(default_factory=dict)
    removing: bool = False
    task: asyncio.Task[None] | None = None
    counts: Counts = field(default_factory=Counts)
    errors: list[ObjectError] = field(default_factory=list)


class Progress(NamedTuple):
    """How far a job is, what is not written down yet included."""

    job: Job
    counts: Counts
    errors: tuple[ObjectError, ...]


class JobRun:
    """One job that this node owns. All methods run in one event loop."""

    def __init__(
        self, kept: KeptJob, records: JobRecords, workers: Workers, now: Callable[[], float], sent_at: float,
        lease_seconds: float = LEASE_SECONDS,
    ) -> None:  # fmt: skip
        self._job, self._tag = kept
        self._chosen = ChosenNames(kept.job.options)
        self._records = records
        self._workers = workers
        self._now = now
        self._lease = Lease(sent_at, lease_seconds)
        self._renew_seconds = lease_seconds / RENEWALS
        self._turn = asyncio.Lock()  # one write of the record at a time
        self._pages: deque[_Page] = deque()
        self._rooms: dict[str, asyncio.Lock] = {}
        self._written_at = now()
        self._main: asyncio.Task[None] | None = None
        self._stop = kept.job.stop
        self._lost = False

    @property
    def progress(self) -> Progress:
        """How far it is now."""
        counts, errors = self._job.counts, self._job.errors
        for page in self._pages:
            counts, errors = counts + page.counts, (*errors, *page.errors)
        return Progress(self._job, counts, errors)

    async def run(self) -> Job:
        """Do the job to its end, whatever that is, and return its record; raises LostError if it is another's.

        Cancelled, it leaves the record as it is: somebody goes on from there.
        """
        self._main = asyncio.ensure_future(self._work())
        renewing = asyncio.ensure_future(self._renew())
        try:
            if self._stop:
                raise _StoppedError
            await asyncio.shield(self._main)
            await self._write(lambda job: job.finish(time.time_ns()))
        except asyncio.CancelledError:
            if not self._main.cancelled():
                raise
            if self._lost:
                raise LostError from None
            await self._abort(self._stop)
        except _StoppedError:
            await self._abort(self._stop)
        except (_FailedError, AisError) as error:
            await self._abort(str(error))
        except LostError:
            raise
        except Exception as error:
            _log.exception("job %s failed", self._job.id)
            await self._abort(f"internal error ({type(error).__name__}), the store's log has the details")
        finally:
            for task in (self._main, renewing, *(page.task for page in self._pages if page.task)):
                task.cancel()
                with contextlib.suppress(BaseException):
                    await task
        return self._job

    def stop(self, reason: str) -> None:
        """Have it end; what is done stays done."""
        self._stop = self._stop or reason
        if self._main is not None:
            self._main.cancel()

    # --- the record

    async def _abort(self, reason: str) -> None:
        for page in self._pages:  # nothing is written any more when the job says that it has ended
            if page.task is not None:
                page.task.cancel()
        await asyncio.gather(*(page.task for page in self._pages if page.task), return_exceptions=True)
        _, counts, errors = self.progress
        beyond = counts - self._job.counts
        new = errors[len(self._job.errors) :]
        await self._write(lambda job: job.abort(time.time_ns(), reason, beyond, new), ending=True)
        self._pages.clear()

    async def _renew(self) -> None:
        """Say from time to time that the owner lives, also while nothing moves."""
        while True:
            await asyncio.sleep(self._renew_seconds / 4)
            if self._now() - self._written_at >= self._renew_seconds:
                try:
                    await self._write()
                except LostError:
                    return
                except AisError as error:
                    _log.warning("the record of job %s cannot be written: %s", self._job.id, error)

    async def _write(self, change: Callable[[Job], Job] = _unchanged, *, ending: bool = False) -> None:
        """Change the record and replace it where it is kept.

        Notices that somebody wants the job to end, or that it is another's now (LostError). What has moved while the
        write was under way is in the next one.
        """
        async with self._turn:
            if self._lost:
                raise LostError
            self._job = change(self._job)
            pause = _PAUSE_SECONDS
            while True:
                sent_at = self._now()
                self._job = self._job.renewed()
                try:
                    self._tag = await asyncio.to_thread(self._records.replace, self._job, self._tag)
                    break
                except StaleJobError:
                    await self._look_again(ending=ending)
                except JobNotFoundError:
                    self._give_up()
                    raise LostError from None
                except RetryLaterError as error:
                    _log.warning("the record of job %s cannot be written, trying again: %s", self._job.id, error)
                    await asyncio.sleep(pause)
                    pause = min(2 * pause, _PAUSE_SECONDS_MAX)
            self._written_at = self._now()
            self._lease.renewed(sent_at)

    async def _look_again(self, *, ending: bool) -> None:
        """Read the record that somebody else has changed: there is a wish to end, another owner, or none at all."""
        try:
            found = await asyncio.to_thread(self._records.load, self._job.id)
        except JobNotFoundError:
            self._give_up()
            raise LostError from None
        if found.job.owner != self._job.owner or not found.job.runs:
            self._give_up()
            raise LostError
        self._tag = found.tag
        counter = max(self._job.counter, found.job.counter)
        self._job = msgspec.structs.replace(self._job, counter=counter, stop=found.job.stop)
        if found.job.stop and self._job.runs and not ending:
            self.stop(found.job.stop)

    def _give_up(self) -> None:
        self._lost = True
        if self._main is not None:
            self._main.cancel()

    # --- the work

    async def _work(self) -> None:
        if not self._job.checked:
            await self._prepare()
        if self._job.options.named:
            self._job = msgspec.structs.replace(self._job, total=await asyncio.to_thread(self._chosen.count))
        await self._through(self._sources(self._job.done))
        if self._job.options.sync and not self._job.options.named:
            await self._sweep()

    async def _through(self, pages: AsyncIterator[_Page]) -> None:
        """Have pages worked off, a few at a time; K moves over them in their order."""
        more = True
        while more or self._pages:
            while more and len(self._pages) < PAGES_MAX:
                page = await anext(pages, None)
                if page is None:
                    more = False
                else:
                    self._pages.append(page)
            if not self._pages:
                return
            first = self._pages[0]
            assert first.task is not None
            await self._first_done(first.task)
            self._job = self._job.advance(first.last, first.counts, first.errors)
            self._pages.popleft()
            if self._now() - self._written_at >= CHECKPOINT_SECONDS and (more or self._pages):
                await self._write()

    async def _sources(self, after: str) -> AsyncIterator[_Page]:
        """Yield pages of the source that have been begun, those after K."""
        total, more = self._job.counts.names, True
        while more:
            listed = await self._list(after)
            after = listed.continuation or (listed.entries[-1][0] if listed.entries else after)
            total, more = total + len(listed.entries), bool(listed.continuation)
            if not more and not self._job.options.named:
                self._job = msgspec.structs.replace(self._job, total=total)
            yield self._begin(listed.entries, _Page(after, listed.facts))

    async def _sweep(self) -> None:
        """Remove what is left over at the destination: first whatever no source leads to, then looked at one by one.

        K stays: after a crash this is done again from its beginning, where what was removed is not there any more.
        """
        with Expected(self._job.options) as expected:
            async for listed in self._listing(self._list):
                await asyncio.to_thread(expected.add, [name for name, _ in listed.entries])
            try:
                await self._through(self._left_over(expected))
            except BucketNotFoundError:
                if not self._job.options.dry_run:  # which makes no destination
                    raise

    async def _left_over(self, expected: Expected) -> AsyncIterator[_Page]:
        job, wanted = self._job, self._job.options
        # An extension in the prefix may be another one at the destination.
        prefix = wanted.prepend + ("" if wanted.ext and "." in wanted.prefix else wanted.prefix)

        async def list_destination(after: str) -> NamesPage:
            return await self._again(lambda: self._workers.names(job.destination, prefix, after, PAGE_NAMES))

        async for listed in self._listing(list_destination):
            names = await asyncio.to_thread(expected.unexpected, [name for name, _ in listed.entries])
            if names:
                yield self._begin([(name, 0) for name in names], _Page(self._job.done, removing=True))

    async def _listing(self, list_page: Callable[[str], Awaitable[NamesPage]]) -> AsyncIterator[NamesPage]:
        """Yield all pages of a listing."""
        after = ""
        while True:
            page = await list_page(after)
            yield page
            after = page.continuation
            if not after:
                return

    async def _first_done(self, first: asyncio.Task[None]) -> None:
        """Wait for the first page, and raise what any page under way raises."""
        while not first.done():
            tasks = [page.task for page in self._pages if page.task and not page.task.done()]
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        first.result()

    async def _prepare(self) -> None:
        """Find out what has to be known before anything is done, and write down that it is."""
        wanted = self._job.options
        if wanted.sample:
            draw = Draw(self._job.id, wanted.sample)
            async for page in self._listing(self._list):
                await asyncio.to_thread(draw.add, [name for name, _ in page.entries])
            await self._write(lambda job: msgspec.structs.replace(job, checked=True, below=draw.below))
        elif ambiguous_extensions(wanted.ext) and not wanted.dry_run:
            await self._check_names()
            await self._write(lambda job: msgspec.structs.replace(job, checked=True))
        else:
            below = bound_of(wanted.percent) if wanted.percent else 0
            self._job = msgspec.structs.replace(self._job, checked=True, below=below)

    async def _check_names(self) -> None:
        """Refuse the job if two names lead to one, before anything is written; raises ConflictError."""
        with Collisions(self._job.options) as collisions:
            async for page in self._listing(self._list):
                await asyncio.to_thread(collisions.add, [name for name, _ in page.entries])

    async def _list(self, after: str) -> NamesPage:
        if self._job.options.named:
            return await asyncio.to_thread(self._chosen.page, after, PAGE_NAMES)
        prefix, cached = self._job.options.prefix, self._job.kind is JobKind.EVICT
        page = await self._again(
            lambda: self._workers.names(self._job.source, prefix, after, PAGE_NAMES, cached=cached)
        )
        entries = page.entries
        if self._job.options.flat:
            entries = [entry for entry in entries if "/" not in entry[0][len(prefix) :]]
        if self._job.below:
            entries = [entry for entry in entries if is_drawn(self._job, entry[0])]
        return msgspec.structs.replace(page, entries=entries)

    def _begin(self, entries: Iterable[tuple[str, int]], page: _Page) -> _Page:
        """Begin to work on a page."""
        batches = list(self._batches(entries, page))
        page.task = asyncio.ensure_future(self._work_off(page, batches))
        return page

    def _batches(self, entries: Iterable[tuple[str, int]], page: _Page) -> Iterable[Batch]:
        """Yield batches of names of one home each, bounded in names and bytes."""
        open_: dict[str, tuple[list[str], int]] = {}
        workers = self._job.options.workers
        names_max = min(BATCH_NAMES_MAX, _BATCH_WORKERS * workers or BATCH_NAMES_MAX)
        for name, size in entries:
            home = self._home(page, name)
            names, held = open_.get(home, ([], 0))
            names.append(name)
            open_[home] = names, held + size
            if len(names) >= names_max or held + size >= BATCH_BYTES_MAX:
                del open_[home]
                yield self._batch(names, page)
        for names, _ in open_.values():
            yield self._batch(names, page)

    def _home(self, page: _Page, name: str) -> str:
        """Return the node that works on a name: where what is written, or removed, lives."""
        job = self._job
        if page.removing:
            job = msgspec.structs.replace(job, options=JobOptions())  # it is a name of the destination already
        return self._workers.home(job, name)

    def _room(self, node: str) -> contextlib.AbstractAsyncContextManager[None]:
        """Wait until a node may have a batch: one at a time if so many objects may be under way there, which it has."""
        if not self._job.options.workers:
            return contextlib.nullcontext()
        return self._rooms.setdefault(node, asyncio.Lock())

    def _batch(self, names: list[str], page: _Page) -> Batch:
        job = self._job.shortened()
        facts = {name: page.facts[name] for name in names if name in page.facts} if job.options.call else {}
        return Batch(
            job.id, job.source, job.destination, names, job.options, job.kind, self._job.options.named, facts,
            page.removing,
        )  # fmt: skip

    async def _work_off(self, page: _Page, batches: list[Batch]) -> None:
        tasks = [asyncio.ensure_future(self._run(page, batch)) for batch in batches]
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _run(self, page: _Page, batch: Batch, attempt: int = 0) -> None:
        """Have a batch worked off; what is left of it goes to the homes that its names have by then."""
        left = batch.names
        try:
            await self._until_may_act()
            home = self._home(page, batch.names[0])
            async with self._room(home):
                result = await self._workers.run(home, batch)
        except RetryLaterError:
            if attempt + 1 == _ATTEMPTS_MAX:
                raise
        else:
            self._take(page, result)
            left = result.moved
        if not left:
            return
        if attempt + 1 == _ATTEMPTS_MAX:
            raise OverloadedError(f"the objects of job {self._job.id} change their nodes all the time")
        await asyncio.sleep(min(_PAUSE_SECONDS * 2**attempt, _PAUSE_SECONDS_MAX))
        for part in list(self._batches([(name, 0) for name in left], page)):
            await self._run(page, part, attempt + 1)

    def _take(self, page: _Page, result: BatchResult) -> None:
        """Count what a batch came to; raises what ends the job."""
        page.counts += result.counts
        page.errors += result.errors
        if result.fatal is not None:
            code, message, hint, status = result.fatal
            raise error_from_code(code, message, hint=hint, status=status)
        if result.counts.failed and not self._job.options.go_on:
            raise _FailedError(result.errors[0].message)

    async def _until_may_act(self) -> None:
        while not self._lease.may_act(self._now()):
            await asyncio.sleep(_PAUSE_SECONDS)

    async def _again(self, ask: Callable[[], Awaitable[T]]) -> T:
        """Ask a node, and again while nodes are lost; only as long as this node may act for the job."""
        pause = _PAUSE_SECONDS
        for attempt in range(_ATTEMPTS_MAX):
            await self._until_may_act()
            try:
                return await ask()
            except BackendRefusedError:
                raise  # for as long as nobody changes a setting
            except RetryLaterError:
                if attempt + 1 == _ATTEMPTS_MAX:
                    raise
            await asyncio.sleep(pause)
            pause = min(2 * pause, _PAUSE_SECONDS_MAX)
        raise AssertionError("unreachable")

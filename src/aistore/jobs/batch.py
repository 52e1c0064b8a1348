"""One batch of a job, where the bytes are: in an HTTP worker, beside the engine and the transforms' dispatcher.

A batch may run twice, one after the other or both at once: its node died, or its answer was lost. What a job writes
is tagged in the object's custom metadata with the job's id and the source's name. A run that finds the tag of its own
job and source at the destination has nothing to do there. Else it writes on the condition that the destination still is
what it has just seen, so that of two runs one writes and the other finds that it has.

Beside the tag is the recipe (``recipes.py``): what has the recipe that this job would give it is not made again.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Callable, Mapping
from typing import Protocol

import msgspec

from ..errors import (
    AisError,
    BackendRefusedError,
    BucketNotFoundError,
    ConflictError,
    EtlChangedError,
    EtlNotFoundError,
    EtlNotRunningError,
    NotHomeError,
    ObjectNotFoundError,
    OutOfSpaceError,
    OverloadedError,
    RetryLaterError,
)
from ..model.etl import TransformCall
from ..model.objects import ListOptions, ListPage, ObjectInfo, Only, PutOptions
from ..storage.engine import Reading
from .document import MESSAGE_CHARACTERS_MAX, STALE_STATUS, Counts, JobKind, JobOptions, ObjectError
from .recipes import RECIPE, TAG, Way, digest_of, recipe_in, recipe_of, spell, users_own, way_of
from .sync import remove_left_over
from .targets import target_name
from .verify import SourceChangedError, verify_object

#: Names and bytes of a batch. Guessed: what two workers transform in half a second, and no more than a large object.
BATCH_NAMES_MAX = 64
BATCH_BYTES_MAX = 64 << 20

#: Objects of one batch under way at once. As many as a batch request of a data loader has.
_WINDOW = 32
#: How often an object is looked at again because somebody wrote to its destination in between.
_CONFLICTS_MAX = 5
#: How long an object is tried again for a reason that passes, and the pauses between. Guessed: a restart of a transform
#: or of a disk takes seconds.
_PATIENCE_SECONDS = 30.0
_PAUSE_SECONDS, _PAUSE_SECONDS_MAX = 0.05, 2.0


class Batch(msgspec.Struct, frozen=True):
    """Names of the source to be worked off for a job; with ``removing`` names of the destination, see ``sync.py``.

    ``facts`` is what their listing tells of the sources (``recipes.py``, `fact_of`), by name.
    """

    job: str
    source: str
    destination: str
    names: list[str]
    options: JobOptions
    kind: JobKind = JobKind.COPY
    #: Whether the names were given, so that one which is not there is an error.
    named: bool = False
    facts: Mapping[str, str] = {}
    removing: bool = False

    @property
    def way(self) -> Way:
        """How objects are derived."""
        return way_of(self.source, self.options.call, self.options.digests)


class BatchResult(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a batch came to. ``fatal`` (code, message, hint, status) is why the whole job cannot go on.

    ``moved`` are names that were not worked on: what they become belongs to another node by now.
    """

    counts: Counts = Counts()
    errors: list[ObjectError] = []
    fatal: tuple[str, str, str, int] | None = None
    moved: list[str] = []


class Made(Protocol):
    """What a transform made of an object."""

    size: int
    data: bytes | None

    def read(self, start: int, length: int) -> bytes:
        """Return a part of it."""

    def close(self) -> None:
        """Give back what it holds."""


class Begun(Protocol):
    """An object that is on its way through its transform already, to a destination where nothing was."""

    reading: Reading

    def end(self) -> None:
        """Give it up, if nobody went on with it, and close ``reading``. May be called twice."""


class Rest(Protocol):
    """What of a batch is done one by one. Its attributes may be read by any thread."""

    @property
    def over(self) -> bool:
        """Whether no more is to be begun."""

    @property
    def begun(self) -> int:
        """How many objects are under way that had been begun."""

    def take(self, name: str, begun: Begun | None = None) -> None:
        """Take an object over, which may have been begun; ends it in any case."""


class Lane(Protocol):
    """A short way for many objects at once, those for which nothing has to be decided."""

    async def run(self, batch: Batch, rest: Rest) -> Counts:
        """Work off what it can and leave the others to ``rest``; return what came of its own.

        Nothing of it goes on when it is cancelled.
        """


class Objects(Protocol):
    """The objects of the store, from where a job works on them."""

    def lane(self, batch: Batch) -> Lane | None:
        """Return the short way for a batch, None if there is none for its kind."""

    async def open(self, bucket: str, name: str, *, latest: bool = False) -> Reading:
        """Open an object, with ``latest`` after a look at where it comes from.

        Raises BucketNotFoundError, ObjectNotFoundError.
        """

    async def head(self, bucket: str, name: str, *, latest: bool = False) -> ObjectInfo:
        """Return what is known of an object; as ``open``."""

    async def list(self, bucket: str, options: ListOptions) -> ListPage:
        """Return one page of a listing."""

    async def list_cached(self, bucket: str, options: ListOptions) -> ListPage:
        """Return one page of the objects that some node has a copy of."""

    async def transform(self, call: TransformCall, reading: Reading, begun: Begun | None = None) -> Made:
        """Run an object through transforms and close it; ``begun``: it is on its way."""

    async def digests(self, call: TransformCall, *, again: bool = False) -> tuple[str, ...]:
        """Return the digests of transforms, as this process knows them or (``again``) asked for.

        Raises EtlNotFoundError, EtlNotRunningError.
        """

    async def checksum(self, read: Callable[[int, int], bytes], size: int) -> str:
        """Return the checksum of ``size`` bytes as they are read, of the type that is stored with objects."""

    async def copy(self, reading: Reading, bucket: str, name: str, options: PutOptions) -> ObjectInfo:
        """Write the bytes of an opened object, verified; raises ConflictError for a precondition that is not met."""

    async def put(self, made: Made, bucket: str, name: str, options: PutOptions) -> ObjectInfo:
        """Write what a transform made; raises as ``copy``."""

    async def remove(self, bucket: str, name: str, only: Only) -> None:
        """Remove an object; raises ObjectNotFoundError, ConflictError if it is not the one that is meant."""

    async def prefetch(self, bucket: str, name: str, *, latest: bool) -> int:
        """Have a copy of an object where it lives and return its size; raises OutOfSpaceError, as ``open``."""

    async def evict(self, bucket: str, name: str) -> int | None:
        """Drop the copy of an object and return its size, None if there was none."""


class _Tally:
    """What has come of a batch so far."""

    def __init__(self, *, go_on: bool) -> None:
        self.counts = Counts()
        self.errors: list[ObjectError] = []
        self.moved: list[str] = []
        self.fatal: AisError | None = None
        self._go_on = go_on

    @property
    def over(self) -> bool:
        return self.fatal is not None or (bool(self.counts.failed) and not self._go_on)

    def result(self) -> BatchResult:
        fatal = self.fatal
        told = None if fatal is None else (fatal.code, fatal.message, fatal.hint, fatal.status)
        return BatchResult(self.counts, self.errors, told, self.moved)


async def run_batch(objects: Objects, batch: Batch) -> BatchResult:
    """Work off a batch; an object's error is in the result. Nothing of it goes on when it is cancelled."""
    tally = _Tally(go_on=batch.options.go_on)
    lane, rest = objects.lane(batch), _OneByOne(objects, batch, tally)
    try:
        if lane is None:
            for name in batch.names:
                rest.take(name)
        else:
            counts = await lane.run(batch, rest)  # others add theirs meanwhile
            tally.counts += counts
        await rest.join()
    finally:
        await rest.end()
    return tally.result()


class _OneByOne:
    """Works off objects by themselves, a window of them at once beside those that were begun."""

    def __init__(self, objects: Objects, batch: Batch, tally: _Tally) -> None:
        self._objects = objects
        self._batch = batch
        self._tally = tally
        self._room = batch.options.workers or _WINDOW
        self._waiting: deque[str] = deque()
        self._held: list[Begun] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._ended = False
        self.begun = 0

    @property
    def over(self) -> bool:
        return self._tally.over

    def take(self, name: str, begun: Begun | None = None) -> None:
        """Work an object off when it is its turn; at once if it was begun."""
        if self._ended:
            if begun is not None:
                begun.end()
        elif begun is not None:
            self._held.append(begun)
            self.begun += 1
            self._tasks.append(asyncio.ensure_future(self._go_on(name, begun)))
        else:
            self._waiting.append(name)
            if self._room:
                self._room -= 1
                self._tasks.append(asyncio.ensure_future(self._work()))

    async def _work(self) -> None:
        while self._waiting and not self._tally.over:
            await _work_off(self._objects, self._batch, self._waiting.popleft(), self._tally, None)
        self._room += 1

    async def _go_on(self, name: str, begun: Begun) -> None:
        try:
            await _work_off(self._objects, self._batch, name, self._tally, begun)
        finally:
            self.begun -= 1

    async def join(self) -> None:
        """Wait for all that was taken."""
        await asyncio.gather(*self._tasks)

    async def end(self) -> None:
        """End what is under way, and what may still come."""
        self._ended = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for begun in self._held:
            begun.end()


async def _work_off(objects: Objects, batch: Batch, name: str, tally: _Tally, begun: Begun | None) -> None:
    try:
        counts = await _patiently(objects, batch, name, begun)  # others add theirs meanwhile
    except (BucketNotFoundError, EtlNotFoundError, EtlChangedError, OutOfSpaceError, BackendRefusedError) as error:
        tally.fatal = tally.fatal or error
    except NotHomeError:
        tally.moved.append(name)
    except SourceChangedError as error:
        tally.counts += Counts(stale=1)
        tally.errors.append(ObjectError(name, shortened(str(error)), STALE_STATUS))
    except AisError as error:
        if isinstance(error, EtlNotRunningError) and error.status < 500:  # it was stopped
            tally.fatal = tally.fatal or error
        else:
            tally.counts += Counts(failed=1)
            tally.errors.append(ObjectError(name, shortened(error.message), error.status))
    else:
        tally.counts += counts


def shortened(message: str) -> str:
    """Return a message as a record keeps it: the beginning, and the end, where a traceback says what it was."""
    if len(message) <= MESSAGE_CHARACTERS_MAX:
        return message
    half = MESSAGE_CHARACTERS_MAX // 2 - 2
    return f"{message[:half]} … {message[-half:]}"


async def _patiently(objects: Objects, batch: Batch, name: str, begun: Begun | None) -> Counts:
    """Do one object, again while it fails for a reason that passes; see ``_once``.

    Where too many objects wait for a transform it waits for as long as that takes: those of one job may be many.
    """
    loop = asyncio.get_running_loop()
    pause, deadline = _PAUSE_SECONDS, math.inf
    while True:
        try:
            return await _once(objects, batch, name, begun)
        except (OutOfSpaceError, NotHomeError, BackendRefusedError):
            raise
        except OverloadedError:
            deadline = math.inf
        except RetryLaterError as error:
            deadline = min(deadline, loop.time() + _PATIENCE_SECONDS)
            if error.status < 500 or loop.time() + pause > deadline:
                raise
        begun = None
        await asyncio.sleep(pause)
        pause = min(2 * pause, _PAUSE_SECONDS_MAX)


async def _once(objects: Objects, batch: Batch, name: str, begun: Begun | None) -> Counts:
    """Do one object and return what has come of it."""
    if batch.removing:
        return await remove_left_over(objects, batch, name)
    if batch.kind is JobKind.VERIFY:
        return await verify_object(objects, batch, name)
    if batch.kind is JobKind.EVICT:
        size = await objects.evict(batch.source, name)
        return Counts(gone=1) if size is None else Counts(1, size)
    if batch.kind is not JobKind.PREFETCH:
        return await _written(objects, batch, name, begun)
    try:
        return Counts(1, await objects.prefetch(batch.source, name, latest=batch.options.latest))
    except ObjectNotFoundError:
        if batch.named:
            raise
        return Counts(gone=1)


async def _written(objects: Objects, batch: Batch, name: str, begun: Begun | None) -> Counts:
    """Copy or transform an object, unless what is there is what would be written."""
    target = target_name(name, batch.options)
    for _ in range(_CONFLICTS_MAX):
        seen, going, begun = None, begun, None
        if going is None:
            found = await _opened(objects, batch, name, target)
            if isinstance(found, Counts):
                return found
            reading, seen = found
        else:
            reading = going.reading
        try:
            return await _write(objects, batch, reading, target, seen, going)
        except EtlChangedError:
            raise
        except ConflictError:
            continue  # somebody has written there since, perhaps another run of this batch
        finally:
            reading.close()
    raise ConflictError(f"{target!r} is being written by others all the time", hint="run the job again")


async def _opened(objects: Objects, batch: Batch, name: str, target: str) -> Counts | tuple[Reading, ObjectInfo | None]:
    """Return the opened source and what is at the destination; or what came of it if nothing is to be written."""
    seen = await _seen(objects, batch, target)
    mine = _tag_of(seen)
    if seen is not None and mine[:1] == [batch.job]:
        if mine[1:2] != [digest_of(name)]:
            raise ConflictError(f"another name of the source leads to {target!r} too", hint="its object was kept")
        return Counts(1, seen.size)
    if seen is not None and not batch.options.force and await _is_current(objects, batch, name, seen):
        return Counts(skipped=1)
    try:
        # What is here of it may be older than what was listed, which is why it is not current.
        latest = batch.options.latest or (seen is not None and name in batch.facts)
        return await objects.open(batch.source, name, latest=latest), seen
    except ObjectNotFoundError:
        if batch.named and not batch.options.sync:
            raise
        return await _without_source(objects, batch, target)


async def _seen(objects: Objects, batch: Batch, target: str) -> ObjectInfo | None:
    """Return what is at the destination, None for nothing; where nothing will be written there may be no bucket."""
    if batch.source == batch.destination:
        return None
    try:
        return await objects.head(batch.destination, target)
    except ObjectNotFoundError:
        return None
    except BucketNotFoundError:
        if batch.options.dry_run:
            return None
        raise


async def _is_current(objects: Objects, batch: Batch, name: str, seen: ObjectInfo) -> bool:
    """Say whether what is there is what would be written.

    A transform's result is if its recipe is the same. A copy is if it has the same bytes and custom metadata, whoever
    made it.
    """
    recipe, way = recipe_in(seen.custom), batch.way
    same_way = recipe is not None and recipe.way.makes == way.makes and recipe.is_of(name)
    if way.stages:
        if recipe is None or not same_way:
            return False
        if recipe.is_of_listed(batch.facts.get(name, "")):
            return True
    try:
        source = await objects.head(batch.source, name, latest=batch.options.latest or name in batch.facts)
    except ObjectNotFoundError:
        return False
    unchanged = recipe is not None and same_way and recipe.is_of_same(source)
    if way.stages:
        return unchanged
    same_bytes = unchanged or (seen.size, seen.checksum) == (source.size, source.checksum)
    return same_bytes and users_own(seen.custom) == users_own(source.custom)


async def _without_source(objects: Objects, batch: Batch, target: str) -> Counts:
    """Return what comes of a name that has no object: removed since it was listed, or named all the same."""
    if batch.options.sync:
        removed = await remove_left_over(objects, batch, target)
        if removed.removed:
            return removed
    return Counts(gone=1)


async def _write(
    objects: Objects, batch: Batch, reading: Reading, target: str, seen: ObjectInfo | None, begun: Begun | None
) -> Counts:
    source, wanted, call = reading.info, batch.options, batch.options.call
    if call is None and wanted.dry_run:
        return Counts(1, source.size)
    size = source.size if call is None else None
    custom = custom_of(batch.job, batch.way, source)
    options = PutOptions(custom=custom, if_version=seen.version if seen is not None else 0, size=size)
    if call is None:
        return Counts(1, (await objects.copy(reading, batch.destination, target, options)).size)
    made = await objects.transform(call, reading, begun)
    try:
        await _check_digests(objects, batch, call)
        if wanted.dry_run:
            return Counts(1, made.size)
        return Counts(1, (await objects.put(made, batch.destination, target, options)).size)
    finally:
        made.close()


def custom_of(job: str, way: Way, source: ObjectInfo) -> dict[str, str]:
    """Return the custom metadata of what a job derives from ``source``: the user's own, the tag, the recipe."""
    custom = users_own(source.custom)
    custom[TAG] = f"{job} {digest_of(source.name)}"
    custom[RECIPE] = spell(recipe_of(way, source))
    return custom


async def _check_digests(objects: Objects, batch: Batch, call: TransformCall) -> None:
    """Raise EtlChangedError unless the transforms are those that the job began with: its recipes name these."""
    wanted = batch.options.digests
    if wanted and await objects.digests(call) != wanted and await objects.digests(call, again=True) != wanted:
        raise EtlChangedError(
            f"{' >> '.join(call.stages)} was made anew while the job ran", hint="run the job again: it does the rest"
        )


def _tag_of(info: ObjectInfo | None) -> list[str]:
    return [] if info is None else info.custom.get(TAG, "").split(" ")

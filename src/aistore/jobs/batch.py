"""One batch of a job, where the bytes are: in an HTTP worker, beside the engine and the transforms' dispatcher.

A batch may run twice, one after the other or both at once: its node died, or its answer was lost. What a job writes
is tagged in the object's custom metadata with the job's id, the source's name and what the source was. A run that
finds the tag of its own job and source at the destination has nothing to do there. Else it writes on the condition
that the destination still is what it has just seen, so that of two runs one writes and the other finds that it has.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Mapping
from typing import Protocol

import msgspec

from ..errors import (
    AisError,
    BackendRefusedError,
    BucketNotFoundError,
    ConflictError,
    EtlNotFoundError,
    EtlNotRunningError,
    NotHomeError,
    ObjectNotFoundError,
    OutOfSpaceError,
    RetryLaterError,
)
from ..model.etl import TransformCall
from ..model.objects import ListOptions, ListPage, ObjectInfo, PutOptions
from ..storage.engine import Reading
from .document import MESSAGE_CHARACTERS_MAX, Counts, JobKind, JobOptions, ObjectError
from .targets import target_name

#: The key of an object's custom metadata that says which job wrote it, of what.
TAG = "ais-job"

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
    """Names of the source to be worked off for a job."""

    job: str
    source: str
    destination: str
    names: list[str]
    options: JobOptions
    kind: JobKind = JobKind.COPY
    #: Whether the names were given, so that one which is not there is an error.
    named: bool = False


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


class Objects(Protocol):
    """The objects of the store, from where a job works on them."""

    async def open(self, bucket: str, name: str, *, latest: bool = False) -> Reading:
        """Open an object, with ``latest`` after a look at where it comes from.

        Raises BucketNotFoundError, ObjectNotFoundError.
        """

    async def head(self, bucket: str, name: str) -> ObjectInfo:
        """Return what is known of an object; raises as ``open``."""

    async def list(self, bucket: str, options: ListOptions) -> ListPage:
        """Return one page of a listing."""

    async def list_cached(self, bucket: str, options: ListOptions) -> ListPage:
        """Return one page of the objects that some node has a copy of."""

    async def transform(self, call: TransformCall, reading: Reading) -> Made:
        """Run an object through transforms and close it."""

    async def copy(self, reading: Reading, bucket: str, name: str, options: PutOptions) -> ObjectInfo:
        """Write the bytes of an opened object, verified; raises ConflictError for a precondition that is not met."""

    async def put(self, made: Made, bucket: str, name: str, options: PutOptions) -> ObjectInfo:
        """Write what a transform made; raises as ``copy``."""

    async def prefetch(self, bucket: str, name: str, *, latest: bool) -> int:
        """Have a copy of an object where it lives and return its size; raises OutOfSpaceError, as ``open``."""

    async def evict(self, bucket: str, name: str) -> int | None:
        """Drop the copy of an object and return its size, None if there was none."""


class _Tally:
    """What has come of a batch so far."""

    def __init__(self, *, go_on: bool) -> None:
        self.objects = self.bytes = self.gone = 0
        self.errors: list[ObjectError] = []
        self.moved: list[str] = []
        self.fatal: AisError | None = None
        self._go_on = go_on

    @property
    def over(self) -> bool:
        return self.fatal is not None or (bool(self.errors) and not self._go_on)

    def result(self) -> BatchResult:
        counts = Counts(self.objects, self.bytes, len(self.errors), self.gone)
        fatal = self.fatal
        told = None if fatal is None else (fatal.code, fatal.message, fatal.hint, fatal.status)
        return BatchResult(counts, self.errors, told, self.moved)


async def run_batch(objects: Objects, batch: Batch) -> BatchResult:
    """Work off a batch; an object's error is in the result. Nothing of it goes on when it is cancelled."""
    tally, names = _Tally(go_on=batch.options.go_on), iter(batch.names)

    async def work() -> None:
        for name in names:
            if tally.over:
                return
            await _work_off(objects, batch, name, tally)

    window = min(batch.options.workers or _WINDOW, len(batch.names))
    tasks = [asyncio.ensure_future(work()) for _ in range(window)]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    return tally.result()


async def _work_off(objects: Objects, batch: Batch, name: str, tally: _Tally) -> None:
    try:
        size = await _patiently(objects, batch, name)
    except (BucketNotFoundError, EtlNotFoundError, OutOfSpaceError, BackendRefusedError) as error:
        tally.fatal = tally.fatal or error
    except NotHomeError:
        tally.moved.append(name)
    except AisError as error:
        if isinstance(error, EtlNotRunningError) and error.status < 500:  # it was stopped
            tally.fatal = tally.fatal or error
        else:
            tally.errors.append(ObjectError(name, shortened(error.message), error.status))
    else:
        if size is None:
            tally.gone += 1
        else:
            tally.objects += 1
            tally.bytes += size


def shortened(message: str) -> str:
    """Return a message as a record keeps it: the beginning, and the end, where a traceback says what it was."""
    if len(message) <= MESSAGE_CHARACTERS_MAX:
        return message
    half = MESSAGE_CHARACTERS_MAX // 2 - 2
    return f"{message[:half]} … {message[-half:]}"


async def _patiently(objects: Objects, batch: Batch, name: str) -> int | None:
    """Do one object, again while it fails for a reason that passes; see ``_once``."""
    deadline = asyncio.get_running_loop().time() + _PATIENCE_SECONDS
    pause = _PAUSE_SECONDS
    while True:
        try:
            return await _once(objects, batch, name)
        except (OutOfSpaceError, NotHomeError, BackendRefusedError):
            raise
        except RetryLaterError as error:
            if error.status < 500 or asyncio.get_running_loop().time() + pause > deadline:
                raise
        await asyncio.sleep(pause)
        pause = min(2 * pause, _PAUSE_SECONDS_MAX)


async def _once(objects: Objects, batch: Batch, name: str) -> int | None:
    """Do one object and return the size of the result; None if there is no such object any more."""
    if batch.kind is JobKind.EVICT:
        return await objects.evict(batch.source, name)
    if batch.kind is not JobKind.PREFETCH:
        return await _written(objects, batch, name)
    try:
        return await objects.prefetch(batch.source, name, latest=batch.options.latest)
    except ObjectNotFoundError:
        if batch.named:
            raise
        return None


async def _written(objects: Objects, batch: Batch, name: str) -> int | None:
    target = target_name(name, batch.options)
    for _ in range(_CONFLICTS_MAX):
        seen = None if batch.options.dry_run else await _seen(objects, batch.destination, target)
        mine = _tag_of(seen)
        if seen is not None and mine[:1] == [batch.job]:
            if mine[1:2] != [_digest(name)]:
                raise ConflictError(f"another name of the source leads to {target!r} too", hint="its object was kept")
            return seen.size
        try:
            reading = await objects.open(batch.source, name, latest=batch.options.latest)
        except ObjectNotFoundError:
            if batch.named:
                raise
            return None  # removed since it was listed
        try:
            return await _write(objects, batch, reading, target, seen)
        except ConflictError:
            continue  # somebody has written there since, perhaps another run of this batch
        finally:
            reading.close()
    raise ConflictError(f"{target!r} is being written by others all the time", hint="run the job again")


async def _seen(objects: Objects, bucket: str, name: str) -> ObjectInfo | None:
    try:
        return await objects.head(bucket, name)
    except ObjectNotFoundError:
        return None


async def _write(objects: Objects, batch: Batch, reading: Reading, target: str, seen: ObjectInfo | None) -> int:
    source, wanted, call = reading.info, batch.options, batch.options.call
    custom = {key: value for key, value in source.custom.items() if key != TAG}
    if call is None and wanted.dry_run:
        return source.size
    if call is None and not wanted.force and seen is not None and _is_copy(seen, source, custom):
        return source.size
    custom[TAG] = f"{batch.job} {_digest(source.name)} {source.version} {source.checksum.value}"
    size = source.size if call is None else None
    options = PutOptions(custom=custom, if_version=seen.version if seen is not None else 0, size=size)
    if call is None:
        return (await objects.copy(reading, batch.destination, target, options)).size
    made = await objects.transform(call, reading)
    try:
        if wanted.dry_run:
            return made.size
        return (await objects.put(made, batch.destination, target, options)).size
    finally:
        made.close()


def _is_copy(seen: ObjectInfo, source: ObjectInfo, custom: Mapping[str, str]) -> bool:
    """Say whether what is there is what would be written."""
    has = {key: value for key, value in seen.custom.items() if key != TAG}
    return (seen.size, seen.checksum) == (source.size, source.checksum) and has == custom


def _tag_of(info: ObjectInfo | None) -> list[str]:
    return [] if info is None else info.custom.get(TAG, "").split(" ")


def _digest(name: str) -> str:
    """Return what a tag says of the source's name, which may be long."""
    return hashlib.blake2b(name.encode(), digest_size=12).hexdigest()

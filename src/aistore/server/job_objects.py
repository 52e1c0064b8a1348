"""The objects of a store as a job's batches work on them: where they are on this machine alone, or in an object store.

Both hide which it is behind the URI of the bucket.
"""

from __future__ import annotations

import asyncio
import dataclasses
import functools
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

import xxhash

from ..cluster.documents import BucketRecord
from ..errors import BadRequestError, NotHomeError, OutOfSpaceError
from ..jobs.batch import Batch, Begun, Lane, Made
from ..model.etl import TransformCall
from ..model.names import BucketRef, parse_bucket_uri
from ..model.objects import ListOptions, ListPage, ObjectInfo, Only, PutOptions
from ..storage.engine import Reading
from ..storage.verified import VerifiedRead, verify
from .job_lane import BegunObject, JobLane, is_for_lane
from .node.copies import StagedCopy, cache_bucket
from .node.listing import Listing
from .node.worker import AnsweredElsewhere, SharedObjects
from .store import Store

T = TypeVar("T")

#: How long a prefetch waits for eviction to make room, and between its looks. Guessed: a round of it takes a second.
_ROOM_SECONDS, _ROOM_PAUSE_SECONDS = 10.0, 0.2

_bucket = functools.lru_cache(maxsize=1024)(parse_bucket_uri)


class StoreObjects:
    """Objects of one HTTP worker's store."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lane: JobLane | None = None

    async def open(self, bucket: str, name: str, *, latest: bool = False) -> Reading:
        """Open an object, with ``latest`` after a look at where it comes from.

        Raises BucketNotFoundError, ObjectNotFoundError.
        """
        shared = self._shared(bucket)
        if shared is None:
            return self._store.engine.get(_bucket(bucket).name, name)
        objects, record = shared
        # As if another node had asked: answered here, from a good copy or from the object store.
        found = await objects.coherence.read(record, name, forwarded=True, latest=latest)
        try:
            return objects.reading(record, name, found)
        except AnsweredElsewhere as elsewhere:
            raise NotHomeError(f"{bucket}/{name} is at node {elsewhere.home}", hint="try again") from None

    async def head(self, bucket: str, name: str, *, latest: bool = False) -> ObjectInfo:
        """Return what is known of an object; as ``open``."""
        shared = self._shared(bucket)
        if shared is None:
            return self._store.engine.head(_bucket(bucket).name, name)
        objects, record = shared
        info: ObjectInfo = (await objects.coherence.head(record, name, forwarded=True, latest=latest))[0]
        return info

    async def list(self, bucket: str, options: ListOptions) -> ListPage:
        """Return one page of a listing."""
        shared = self._shared(bucket)
        if shared is None:
            return await self._store.in_thread(self._store.engine.list, _bucket(bucket).name, options)
        return (await Listing(*shared).page(options, marked=False)).page

    async def list_cached(self, bucket: str, options: ListOptions) -> ListPage:
        """Return one page of the objects that some node has a copy of."""
        return (await Listing(*self._outside(bucket)).cached(options)).page

    async def prefetch(self, bucket: str, name: str, *, latest: bool) -> int:
        """Have a copy of an object here, waiting for eviction to make room; raises OutOfSpaceError."""
        objects, record = self._outside(bucket)
        deadline = asyncio.get_running_loop().time() + _ROOM_SECONDS
        while True:
            copy = await objects.coherence.prefetch(record, name, latest=latest)
            if copy is not None:
                with copy:
                    return copy.info.size
            if asyncio.get_running_loop().time() > deadline:
                raise OutOfSpaceError(
                    f"there is no room for a copy of {bucket}/{name} on node {objects.me}",
                    hint="a larger --cache-size keeps more, and so do fewer pinned objects",
                )
            await asyncio.sleep(_ROOM_PAUSE_SECONDS)

    async def evict(self, bucket: str, name: str) -> int | None:
        """Drop the copy of an object that is here."""
        objects, record = self._outside(bucket)
        return await objects.evict(record, name)

    def lane(self, batch: Batch) -> Lane | None:
        """Return the short way for a batch of new objects through one transform, all of them on this machine alone."""
        if not is_for_lane(batch) or self._shared(batch.source) or self._shared(batch.destination):
            return None
        if self._lane is None:
            self._lane = JobLane(self._store.engine, self._store.dispatcher)
        return self._lane

    async def transform(self, call: TransformCall, reading: Reading, begun: Begun | None = None) -> Made:
        """Run an object through transforms and close it; ``begun``: it is on its way."""
        assert begun is None or isinstance(begun, BegunObject)
        call = dataclasses.replace(call, offline=True)
        return await self._store.dispatcher.transform(call, reading, sent=begun.take() if begun else None)

    async def digests(self, call: TransformCall, *, again: bool = False) -> tuple[str, ...]:
        """Return the digests of transforms, as this process knows them or (``again``) asked for."""
        found = [await self._store.dispatcher.find(etl, again=again) for etl in call.stages]
        return tuple(running.digest for running in found)

    async def checksum(self, read: Callable[[int, int], bytes], size: int) -> str:
        """Return the checksum of ``size`` bytes as they are read; raises ObjectDamagedError."""
        return await self._store.in_thread(_checksum, read, size, self._store.limits.piece_bytes)

    async def remove(self, bucket: str, name: str, only: Only) -> None:
        """Remove an object; raises ObjectNotFoundError, ConflictError if it is not the one that is meant."""
        shared = self._shared(bucket)
        if shared is None:
            await self._committed(self._store.engine.delete(_bucket(bucket).name, name, only=only))
            return
        objects, record = shared
        removing = asyncio.ensure_future(objects.coherence.delete(record, name, forwarded=True, only=only))
        removed = await _to_its_end(removing)
        if not isinstance(removed, ObjectInfo):
            raise NotHomeError(f"{bucket}/{name} has moved to node {removed.home}")

    async def copy(self, reading: Reading, bucket: str, name: str, options: PutOptions) -> ObjectInfo:
        """Write the bytes of an opened object: small ones in one step, large ones in pieces, verified on the way."""
        size = reading.info.size
        if size > self._store.limits.piece_bytes:
            if reading.suspected():
                await self._store.in_thread(verify, reading)
            return await self._in_pieces(VerifiedRead(reading), size, bucket, name, options)
        data = reading.read_cached(0, size)
        if data is None:
            data = await self._store.in_thread(reading.read, 0, size)
        return await self._put(bucket, name, data, options)

    async def put(self, made: Made, bucket: str, name: str, options: PutOptions) -> ObjectInfo:
        """Write what a transform made."""
        if made.data is not None:
            return await self._put(bucket, name, made.data, options)
        return await self._in_pieces(made.read, made.size, bucket, name, options)

    def _outside(self, bucket: str) -> tuple[SharedObjects, BucketRecord]:
        """Return the way to a bucket whose objects are in an object store."""
        shared = self._shared(bucket)
        if shared is None:
            raise BadRequestError(f"the objects of {bucket} are here, there are no copies of them")
        return shared

    def _shared(self, bucket: str) -> tuple[SharedObjects, BucketRecord] | None:
        """Return the way to a bucket that is in an object store, None for one that is on this machine alone."""
        ref: BucketRef = _bucket(bucket)
        if not self._store.is_node and not ref.is_backed:
            return None
        assert self._store.shared is not None
        return self._store.shared, self._store.shared.bucket(*ref)

    async def _put(self, bucket: str, name: str, data: bytes, options: PutOptions) -> ObjectInfo:
        shared = self._shared(bucket)
        if shared is None:
            return await self._committed(self._store.engine.put(_bucket(bucket).name, name, data, options))
        return await self._in_pieces(
            lambda start, length: data[start : start + length], len(data), bucket, name, options
        )

    async def _committed(self, future: Future[ObjectInfo]) -> ObjectInfo:
        """Wait for a write, also when cancelled: nothing is written after the batch has ended."""
        return await _to_its_end(asyncio.ensure_future(self._store.done(future)))

    async def _in_pieces(
        self, read: Callable[[int, int], bytes], size: int, bucket: str, name: str, options: PutOptions
    ) -> ObjectInfo:
        store, shared = self._store, self._shared(bucket)
        stage: Callable[[], Any]
        if shared is None:
            stage = functools.partial(store.engine.stage, _bucket(bucket).name, name, options)
        else:
            stage = functools.partial(shared[0].cache.stage, cache_bucket(shared[1]), name, options)
        staging: Any = await store.in_thread(stage)

        def move(start: int) -> None:
            staging.write(read(start, min(store.limits.piece_bytes, size - start)))

        try:
            for start in range(0, size, store.limits.piece_bytes):
                await store.in_thread(move, start)
            if shared is None:
                return await self._committed(staging.commit())
            return await self._write(*shared, name, staging, options)
        finally:
            await store.in_thread(staging.abort)

    async def _write(
        self, objects: SharedObjects, record: BucketRecord, name: str, staging: Any, options: PutOptions
    ) -> ObjectInfo:
        """Write what was staged to the object store, as the home of the object."""
        size, checksum = await objects.in_thread(staging.finish)
        staged = StagedCopy(staging, size, checksum.value)
        written = await _to_its_end(
            asyncio.ensure_future(objects.coherence.write(record, name, staged, options, forwarded=True))
        )
        if not isinstance(written, ObjectInfo):
            raise NotHomeError(f"{record.provider}://{record.name}/{name} has moved to node {written.home}")
        return written


def _checksum(read: Callable[[int, int], bytes], size: int, piece_bytes: int) -> str:
    hasher = xxhash.xxh64()
    for start in range(0, size, piece_bytes):
        hasher.update(read(start, min(piece_bytes, size - start)))
    return hasher.hexdigest()


async def _to_its_end(writing: asyncio.Future[T]) -> T:
    """Wait for a write; when cancelled, until it has ended all the same."""
    try:
        return await asyncio.shield(writing)
    except asyncio.CancelledError:
        writing.add_done_callback(_look)
        await asyncio.wait((writing,))  # which may be cancelled too
        raise


def _look(writing: asyncio.Future[T]) -> None:
    """Take note of how a write ended that nobody waits for any more."""
    if not writing.cancelled():
        writing.exception()

"""The objects of buckets that are in object stores, as one HTTP worker serves them: here, or at the node they live on.

A handler that finds that another node has to answer raises AnsweredElsewhere before it has read the request's body;
``app.py`` passes the request on then.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import Any

from ...cluster.coherence import Coherence, Elsewhere, Remote
from ...cluster.documents import BucketRecord
from ...cluster.patience import Patience
from ...cluster.view import View, urls
from ...errors import AisError, BucketNotFoundError, NotHomeError, OutOfSpaceError, PeerUnreachableError
from ...model.names import SCHEMES
from ...model.objects import Checksum, ObjectInfo, PutOptions, parse_range
from ...settings import ProcessSettings, Secret
from ...storage.cache.cache import Cache
from ...storage.cache.reading import KeptCopy
from ...storage.cache.settings import parse_capacity
from ...storage.checksums import STORED_TYPE, Hasher
from ...storage.engine import Reading
from ...storage.objectstore.contract import StoredBody
from ...storage.objectstore.reading import StoredReading
from ...wire.headers import MAP_VERSION
from ..forwarding import Forwarded, forward
from ..handlers.transform_calls import asks_for_transform
from ..link import ControllerLink
from ..peers import Peers
from ..request import Request
from .alone import backed_cache
from .clock import BootClock
from .copies import NodeCache, StagedCopy, cache_bucket, check_whole
from .fence import FenceReader, Unfenced
from .lapsed import read_while_leased, write_while_leased
from .stores import BucketStores, in_thread, open_own_store
from .views import Following

#: How long a read waits for the home of an object before the object store is asked instead.
_READ_SECONDS = 2.0


class AnsweredElsewhere(Exception):  # no error: the answer is at node ``home``
    """Another node has to answer a request."""

    def __init__(self, home: str) -> None:
        super().__init__(home)
        self.home = home


class SharedObjects:
    """Reads and writes objects of shared buckets. Belongs to the event loop, except where it says otherwise."""

    def __init__(self, settings: ProcessSettings, link: ControllerLink, place: str) -> None:
        serve = settings.serve
        self._alone = not serve.store
        self._directory = serve.cache or backed_cache(serve.data)
        self._cache_settings = parse_capacity(serve.cache_size)
        self.stores = BucketStores(open_own_store(serve))
        self._copies = NodeCache(self.stores.threads)
        self._clock = BootClock()
        fence = FenceReader(settings.fence) if serve.store else Unfenced()
        patience = Patience(turn=1.5 * serve.lease_seconds)
        self.coherence = Coherence(self._clock, self.stores, self._copies, fence, patience)
        self._following = Following(link, place, self._adopt)
        self.me = settings.target_id
        self.peers = Peers(self.me, Secret(serve.cluster_secret or "alone"), self.urls, self._version)
        #: Where this process answers the plain reads of other nodes; 0 where it does not.
        self.reads_port = 0

    def start(self) -> None:
        """Follow the controller's views."""
        self._following.start()

    async def close(self) -> None:
        """End everything, the cache too."""
        await self._following.close()
        await self._clock.close()
        self.peers.close()
        self.stores.close()
        self._copies.close()

    async def _adopt(self, view: View) -> None:
        """Run on a view; the cache is opened with the first one that has buckets."""
        if view.root.buckets and not self._copies.is_open:
            cache = await self.in_thread(Cache, self._directory, self._cache_settings)
            self._copies.use(cache)
        await self.coherence.adopt(view)

    @property
    def cache(self) -> Cache:
        """The node's copies."""
        return self._copies.cache

    @property
    def view(self) -> View:
        """The view this process runs on; raises NotHomeError before there is one."""
        return self.coherence.view

    def bucket(self, provider: str, name: str) -> BucketRecord:
        """Return a bucket; raises BucketNotFoundError, NotHomeError before this node has a map."""
        if self._alone and not self.coherence.has_view:
            raise BucketNotFoundError.of(name, SCHEMES[provider])
        return self.view.bucket(provider, name)

    def buckets(self) -> list[BucketRecord]:
        """Return all buckets; raises NotHomeError before this node has a map."""
        if self._alone and not self.coherence.has_view:
            return []
        found = self.view.root.buckets
        return [found[key] for key in sorted(found) if not found[key].deleting]

    def urls(self) -> Mapping[str, str]:
        """Return where each node is reached."""
        return urls(self.view.root)

    def _version(self) -> int:
        return self.view.version

    async def pass_on(self, request: Request, home: str) -> Forwarded:
        """Pass a request on to the node that has to answer it; raises PeerUnreachableError, NotHomeError.

        What the object store can answer too is not waited for long; what takes long is, until the node is gone.
        """
        reads = request.method in ("GET", "HEAD")
        if reads and not asks_for_transform(request.query):
            reply = await forward(self.peers, request, home, _READ_SECONDS)
        else:
            passing = asyncio.ensure_future(forward(self.peers, request, home))
            gone = asyncio.ensure_future(self.coherence.until_gone(home))
            try:
                await asyncio.wait((passing, gone), return_when=asyncio.FIRST_COMPLETED)
                if not passing.done():
                    error = PeerUnreachableError if reads else NotHomeError
                    raise error(f"node {home} left the cluster before it answered", hint="try again")
            except BaseException:
                await _drop(passing)
                raise
            finally:
                gone.cancel()
            reply = passing.result()
        if reply.status == 503 and reads:
            reply.close()
            raise PeerUnreachableError(f"node {home} cannot answer now")
        reply.added.append((MAP_VERSION.encode(), str(self.view.version).encode()))
        return reply

    # Reading.

    def kept(self, bucket: str, name: str) -> KeptCopy | None:
        """Return the copy of an ais:// object that is in memory and may be given out. From any thread, never waits."""
        record = self.view.root.buckets.get(f"ais/{bucket}")
        if record is None or record.deleting:
            return None
        copy = self.cache.kept(cache_bucket(record), name)
        return copy if copy is not None and self.coherence.is_good(record, name, copy.facts) else None

    def open_quickly(self, bucket: str, name: str) -> Reading | None:
        """Open the copy of an ais:// object if it may be given out. From any thread; raises BucketNotFoundError."""
        view = self.view
        record = view.bucket("ais", bucket)
        if not record.immutable and view.home(record, name) != view.me:
            return None  # a copy of another node's object may not be given out: no need to look for one
        return self.coherence.read_copy(record, name)

    async def open(self, request: Request, bucket: BucketRecord, name: str) -> Reading:
        """Open an object; raises ObjectNotFoundError, AnsweredElsewhere."""
        wanted = request.headers.get("range")
        work = self.coherence.read(
            bucket, name, forwarded=request.stays, latest=asks_for_latest(request), partly=wanted is not None
        )
        found = await read_while_leased(work, self.coherence.is_leased)
        reading = self.reading(bucket, name, found, wanted)
        request.opened = None if isinstance(found, Remote) else (bucket, name)
        return reading

    async def drop_damaged(self, request: Request) -> bool:
        """Drop the copy that a request found damaged, so that it is read from the store; False if there is none."""
        if request.opened is None:
            return False
        (bucket, name), request.opened = request.opened, None
        await self.evict(bucket, name)
        return True

    def reading(self, bucket: BucketRecord, name: str, found: Any, wanted: str | None = None) -> Reading:
        """Return what ``Coherence.read`` found as a Reading; raises AnsweredElsewhere.

        ``wanted`` is the part that a request is for, as it spells it.
        """
        if isinstance(found, Elsewhere):
            raise AnsweredElsewhere(found.home)
        if isinstance(found, Remote):
            store, key = self.stores.of(bucket, name)
            info, part = found.info, None
            if wanted is not None:
                try:
                    part = parse_range(wanted, info.size)
                except AisError:  # for who answers the request to tell
                    part = None
            return StoredReading(store.blocking, key, info, found.facts.etag, found.body, part)
        reading: Reading = found
        return reading

    async def head(self, request: Request, bucket: BucketRecord, name: str) -> tuple[ObjectInfo, bool]:
        """Describe an object, and say whether a copy is here; raises ObjectNotFoundError, AnsweredElsewhere."""
        work = self.coherence.head(bucket, name, forwarded=request.stays, latest=asks_for_latest(request))
        found = await read_while_leased(work, self.coherence.is_leased)
        if isinstance(found, Elsewhere):
            raise AnsweredElsewhere(found.home)
        info, present = found
        return info, present

    # Writing.

    def check_home(self, request: Request, bucket: BucketRecord, name: str) -> None:
        """Raise AnsweredElsewhere unless a write belongs here, before its body is read; BadRequestError for names."""
        self.stores.of(bucket, name)
        view = self.view
        home = view.home(bucket, name)
        if home and home != view.me and not request.stays:
            raise AnsweredElsewhere(home)

    async def put(
        self, request: Request, bucket: BucketRecord, name: str, data: bytes, options: PutOptions
    ) -> ObjectInfo:
        """Write an object whose bytes are in memory."""
        try:
            staging = await self.in_thread(self.cache.stage, cache_bucket(bucket), name, options)
        except OutOfSpaceError:
            return await self._write(request, bucket, name, _in_memory(bucket, name, data, options), options)
        try:
            staging.write(data)
            size, checksum = staging.finish()
            return await self._write(request, bucket, name, StagedCopy(staging, size, checksum.value), options)
        finally:
            staging.abort()

    async def put_staged(
        self, request: Request, bucket: BucketRecord, name: str, staging: Any, options: PutOptions
    ) -> ObjectInfo:
        """Write an object whose bytes were staged in the cache."""
        size, checksum = await self.in_thread(staging.finish)
        return await self._write(request, bucket, name, StagedCopy(staging, size, checksum.value), options)

    async def _write(
        self, request: Request, bucket: BucketRecord, name: str, staged: Any, options: PutOptions
    ) -> ObjectInfo:
        work = self.coherence.write(bucket, name, staged, options, forwarded=request.stays)
        return _here(await write_while_leased(work, self.coherence.is_leased))

    async def delete(self, request: Request, bucket: BucketRecord, name: str) -> ObjectInfo:
        """Remove an object; raises ObjectNotFoundError, AnsweredElsewhere."""
        work = self.coherence.delete(bucket, name, forwarded=request.stays)
        return _here(await write_while_leased(work, self.coherence.is_leased))

    async def set_custom(
        self, request: Request, bucket: BucketRecord, name: str, custom: Mapping[str, str], *, replace: bool
    ) -> ObjectInfo:
        """Merge custom metadata into an object's, or replace it."""

        def change(before: Mapping[str, str]) -> Mapping[str, str]:
            return custom if replace else {**before, **custom}

        stagings: list[Any] = []

        def stage(body: StoredBody) -> StagedCopy:
            with body:
                staging = self.cache.stage(cache_bucket(bucket), name, PutOptions(size=body.length))
                stagings.append(staging)
                for chunk in body.chunks():
                    staging.write(bytes(chunk))
                size, checksum = staging.finish()
                check_whole(bucket.uri, name, body.info, checksum.value)
                return StagedCopy(staging, size, checksum.value)

        async def rewrite() -> ObjectInfo | Elsewhere:
            staging_in_thread = functools.partial(self.in_thread, stage)
            try:
                return await self.coherence.set_custom(bucket, name, change, staging_in_thread, forwarded=request.stays)
            finally:  # those that did not become the copy
                for staging in stagings:
                    staging.abort()

        return _here(await write_while_leased(rewrite(), self.coherence.is_leased))

    async def evict(self, bucket: BucketRecord, name: str) -> int | None:
        """Drop the copy of an object and return its size, None if there was none."""
        async with self._copies.locked(bucket, name):
            copy = self._copies.open(bucket, name)
            if copy is None:
                return None
            with copy:
                size = copy.info.size
            await self._copies.forget(bucket, name)
            return size

    async def in_thread(self, work: Callable[..., Any], *arguments: Any) -> Any:
        """Run what waits for a disk or a store in a thread."""
        return await in_thread(self.stores.threads, work, *arguments)


def asks_for_latest(request: Request) -> bool:
    """Say whether a request wants the object store to be asked, whatever is here."""
    return bool(request.query) and (request.flag("latest-ver") or request.flag("latest"))


async def _drop(passing: asyncio.Future[Forwarded]) -> None:
    """End what is being passed on, before its request ends, which it watches."""
    passing.cancel()
    (found,) = await asyncio.gather(passing, return_exceptions=True)
    if isinstance(found, Forwarded):
        found.close()


def _here(answer: ObjectInfo | Elsewhere) -> ObjectInfo:
    if isinstance(answer, Elsewhere):  # its body has been read: the client has to send it again
        raise NotHomeError(f"the object has moved to node {answer.home} meanwhile", hint="try again")
    return answer


class _Unkept:
    """A staging that keeps nothing: there is no room for a copy."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def buffer(self) -> bytes:
        """Return the bytes."""
        return self._data

    def commit(self, facts: object) -> Future[None]:
        """Do nothing."""
        done: Future[None] = Future()
        done.set_result(None)
        return done


def _in_memory(bucket: BucketRecord, name: str, data: bytes, options: PutOptions) -> StagedCopy:
    hasher = Hasher(options.expected)
    hasher.update(data)
    checksum = Checksum(STORED_TYPE, hasher.finish(f"{bucket.uri}/{name}"))
    return StagedCopy(_Unkept(data), len(data), checksum.value)

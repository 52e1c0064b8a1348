"""How an object is read and written so that nobody gets an older one than was acknowledged. Runs in HTTP workers.

A node *owns* an object while it is its home, no other node can still believe to be that (``View.is_mine``), and its
lease holds. Only owners write, and only owners give out a copy without asking the store:

- A read by the owner is answered from the copy, if the copy's stamp says that only this node wrote since it was equal
  to the store's; else the store is asked, under the object's lock, and the copy gets a new stamp.
- A read by the home that is not (yet, or any more) the owner asks the store each time and changes nothing here.
- A read by any other node is for the home; where that does not answer, the store is asked, which is right always.
- A write drops the copy first, so that whatever happens then, nothing old is here; then it replaces in the store what
  it knows to be there, and nothing else; then it is acknowledged, if the lease still held when the store had answered,
  and its bytes become the copy.

The epoch that stamps a copy is the settled one from before the store was asked.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from msgspec import structs

from ..errors import (
    AisError,
    AmbiguousWriteError,
    BackendUnavailableError,
    ConflictError,
    NotHomeError,
    ObjectNotFoundError,
    StaleConditionError,
    StoredNotFoundError,
)
from ..model.objects import ObjectInfo, Only, PutOptions
from ..storage.arguments import check_only
from ..storage.cache.facts import CachedFacts, CachedReading
from ..storage.objectstore.contract import ABSENT, Absent, StoredBody, StoredInfo
from ..storage.objectstore.metadata import NONCE, encode, version_of
from ..storage.objectstore.whole import WholeBody
from .documents import BucketRecord
from .facts import facts_of, info_of, is_of
from .patience import DEFAULT_PATIENCE, Patience
from .view import View
from .world import Cache, Clock, Fence, Places, Staged, Store

_log = logging.getLogger("aistore.cluster")

#: Marks the lock of those who make a copy of an object; no name has the character.
_FETCHING = "\0fetching"


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """The answer is for another node to give."""

    home: str


@dataclass(frozen=True, slots=True)
class Remote:
    """An object that is read from the store, not from a copy here: its facts and its bytes."""

    info: ObjectInfo
    facts: CachedFacts
    #: None: the bytes have to be asked for again.
    body: StoredBody | None


Read = CachedReading | Remote | Elsewhere


@dataclass(slots=True)
class _Fetch:
    """A copy being made, and everybody of this process who waits for it."""

    done: asyncio.Event = field(default_factory=asyncio.Event)
    error: AisError | None = None
    #: A write was in the way: none is made now.
    in_the_way: bool = False


class Coherence:
    """The objects of a cluster, as one process of one node serves them."""

    def __init__(
        self, clock: Clock, places: Places, cache: Cache, fence: Fence, patience: Patience = DEFAULT_PATIENCE
    ) -> None:
        self._clock = clock
        self._places = places
        self._cache = cache
        self._fence = fence
        self._patience = patience
        self._view: View | None = None
        self._changed = asyncio.Event()
        self._writes: Counter[tuple[str, str, str]] = Counter()
        self._write_ended = asyncio.Event()
        self._fetches: dict[tuple[str, str], _Fetch] = {}
        self._keeping = 0

    # The map.

    @property
    def has_view(self) -> bool:
        """Whether there is a view yet."""
        return self._view is not None

    @property
    def view(self) -> View:
        """The view that this process runs on."""
        if self._view is None:
            raise NotHomeError("this node is joining its cluster", hint="try again in some seconds")
        return self._view

    async def adopt(self, view: View) -> None:
        """Run on ``view`` from now on; return when no write is under way of an object that left this node with it."""
        if self._view is None or view.stamp > self._view.stamp:
            self._view = view
            self._changed.set()
            self._changed = asyncio.Event()
        while any(self._has_left(view, *key) for key in self._writes):
            self._write_ended.clear()
            await self._write_ended.wait()

    def _has_left(self, view: View, provider: str, bucket: str, name: str) -> bool:
        record = view.root.buckets.get(f"{provider}/{bucket}")
        return record is None or record.deleting or not view.is_mine(record, name)

    def is_leased(self) -> bool:
        """Say whether this node may act now."""
        return self._clock.now() < self._fence.deadline()

    def owns(self, view: View, bucket: BucketRecord, name: str) -> bool:
        """Say whether this node alone writes the object now."""
        return self.is_leased() and view.is_mine(bucket, name)

    async def until_gone(self, node: str) -> None:
        """Return when ``node`` is not on the map any more, or has started again."""
        record = self.view.root.nodes.get(node)
        while record is not None:
            found = self.view.root.nodes.get(node)
            if found is None or found.incarnation != record.incarnation:
                return
            await self._until_changed(1.0)

    # Reading.

    def read_copy(self, bucket: BucketRecord, name: str) -> CachedReading | None:
        """Open the copy of an object if it may be given out without asking anybody; quick."""
        reading = self._cache.open(bucket, name)
        if reading is not None and not self.is_good(bucket, name, reading.facts):
            reading.close()
            return None
        return reading

    def is_good(self, bucket: BucketRecord, name: str, facts: CachedFacts) -> bool:
        """Say whether a copy with these facts may be given out without asking anybody."""
        if bucket.immutable:
            return True
        return not bucket.validates and self.is_leased() and self.view.may_serve(bucket, name, facts.stamp)

    async def read(
        self, bucket: BucketRecord, name: str, *, forwarded: bool = False, latest: bool = False, partly: bool = False
    ) -> Read:
        """Open an object; raises ObjectNotFoundError. ``forwarded``: another node took this one for the home.

        ``latest`` asks the store whatever is known, for changes made by other programs. ``partly`` says that not all
        will be read: of an object that is too large for a copy to be made, no bytes are asked for yet.
        """
        while True:
            view = self.view
            if not latest:
                copy = self.read_copy(bucket, name)
                if copy is not None:
                    return copy
            home = view.home(bucket, name)
            if home != view.me and home and not forwarded:
                return Elsewhere(home)
            if not (self.owns(view, bucket, name) or bucket.immutable):
                return await self.read_stored(bucket, name, begin=not partly)
            if latest or bucket.validates:
                return await self._validated(bucket, name, partly=partly)
            fetch = self._fetches.get((bucket.id, name))
            if fetch is None:
                return await self._fetch(bucket, name, partly=partly)
            await fetch.done.wait()
            if fetch.error is not None:
                raise fetch.error
            if fetch.in_the_way:
                return await self.read_stored(bucket, name)

    async def read_stored(
        self, bucket: BucketRecord, name: str, *, begin: bool = True, copied: bool = True
    ) -> CachedReading | Remote:
        """Ask the store for an object, and give out the copy here only if the store still has the same.

        Unless ``begin``, no bytes are asked for yet. ``copied`` False: the caller knows that there is no copy.
        """
        store, key = self._places.of(bucket, name)
        copy = self._cache.open(bucket, name) if copied else None
        good = False
        try:
            stored, body = None, None
            if copy is not None or not begin:
                stored = await store.head(key)
                good = copy is not None and is_of(copy.facts, stored)
                if good and copy is not None:
                    return copy
            if begin:
                body = await store.get(key)
                assert body is not None
                stored = body.info
        except StoredNotFoundError:
            raise missing(bucket, name) from None
        finally:
            if copy is not None and not good:
                copy.close()
        assert stored is not None
        facts = facts_of(stored, 0)
        return Remote(info_of(bucket, name, stored, facts), facts, body)

    async def _validated(self, bucket: BucketRecord, name: str, *, partly: bool) -> CachedReading | Remote:
        """Read as the owner what another program may have changed; the copy follows."""
        try:
            found = await self.read_stored(bucket, name, begin=False)
        except ObjectNotFoundError:
            if self._cache.facts(bucket, name) is not None:
                async with self._cache.locked(bucket, name):
                    await self._cache.forget(bucket, name)
            raise
        if not isinstance(found, Remote) or (partly and found.info.size >= self._patience.copied_bytes_max):
            return found
        if found.body is not None:
            found.body.close()
        copied = await self._copied(bucket, name, known=False, partly=partly)
        return await self.read_stored(bucket, name, begin=not partly) if copied is None else copied

    async def _fetch(self, bucket: BucketRecord, name: str, *, partly: bool) -> CachedReading | Remote:
        """Make a good copy, once for all who wait in this process.

        They may share its failure too: nobody writes the object while its lock is held.
        """
        fetch = self._fetches[bucket.id, name] = _Fetch()
        try:
            found = await self._copied(bucket, name, partly=partly)
            fetch.in_the_way = found is None
        except AisError as error:
            fetch.error = error
            raise
        finally:
            del self._fetches[bucket.id, name]
            fetch.done.set()
        return await self.read_stored(bucket, name, begin=not partly) if found is None else found

    async def prefetch(self, bucket: BucketRecord, name: str, *, latest: bool = False) -> CachedReading | None:
        """Make a good copy of an object of any size, if there is none yet; None where there is no room for it.

        Raises NotHomeError on a node that does not own it, ObjectNotFoundError.
        """
        if not (self.owns(self.view, bucket, name) or bucket.immutable):
            raise NotHomeError(f"node {self.view.me} is not, or not yet, the home of {bucket.uri}/{name}")
        copy = None if latest else self.read_copy(bucket, name)
        made = copy or await self._copied(bucket, name, known=not latest, any_size=True)
        if made is None:
            raise NotHomeError(f"{bucket.uri}/{name} is being written for longer than a read waits", hint="try again")
        if isinstance(made, Remote):
            if made.body is not None:
                made.body.close()
                raise NotHomeError(f"{bucket.uri}/{name} has moved to another node meanwhile")
            return None
        return made

    async def _copied(
        self, bucket: BucketRecord, name: str, *, known: bool = True, partly: bool = False, any_size: bool = False
    ) -> CachedReading | Remote | None:
        """Make a good copy and open it, unless (with ``known``) another process has made one meanwhile.

        None while a write takes its time, which may be most of a minute when the store does not answer it. Who makes a
        copy is waited for as long as that takes: it holds a lock of its own before that of the object. An object that
        came whole is given out at once, and its copy made meanwhile: others get the locks, and the copy, later. But
        a copy of what it was before is replaced first.
        """
        async with AsyncExitStack() as held:
            await held.enter_async_context(self._cache.locked(bucket, name + _FETCHING))
            if not await held.enter_async_context(self._cache.locked(bucket, name, self._patience.read)):
                return None
            copy = self._cache.open(bucket, name)
            if copy is not None and known and self.is_good(bucket, name, copy.facts):
                return copy
            if copy is not None:
                copy.close()
            view = self.view
            found = await self.read_stored(bucket, name, begin=not partly, copied=copy is not None)
            if not (self.owns(view, bucket, name) or bucket.immutable):
                return found  # true when the store was asked, but not for longer
            if not isinstance(found, Remote):
                if found.facts.stamp < view.settled:
                    await self._cache.restamp(bucket, name, structs.replace(found.facts, stamp=view.settled))
                return found
            if found.info.size >= self._patience.copied_bytes_max and not any_size:
                return found
            if found.body is None:
                found = await self.read_stored(bucket, name)
                if not isinstance(found, Remote) or found.body is None:
                    return found
            facts = structs.replace(found.facts, stamp=view.settled)
            later = copy is None and self._keeping < self._patience.keeping_max and not any_size
            if isinstance(found.body, WholeBody) and later:
                self._keeping += 1
                self._clock.spawn(self._keep(bucket, name, found.body, facts, held.pop_all()), "keep a copy")
                return found
            made = await self._cache.fill(bucket, name, found.body, facts)
            return replace(found, body=None) if made is None else made

    async def _keep(
        self, bucket: BucketRecord, name: str, body: WholeBody, facts: CachedFacts, held: AsyncExitStack
    ) -> None:
        """Make the copy of what was given out already, then let go of its lock."""
        try:
            async with held:
                await self._clock.sleep(self._patience.keeping)
                await self._cache.fill_whole(bucket, name, body, facts)
        except AisError as error:  # that costs a copy, nothing more
            _log.warning("%s/%s could not be kept here: %s", bucket.uri, name, error.message)
        finally:
            self._keeping -= 1

    async def head(self, bucket: BucketRecord, name: str, *, forwarded: bool = False, latest: bool = False) -> Any:
        """Return an object's ObjectInfo and whether a copy is here, or Elsewhere; raises ObjectNotFoundError."""
        view = self.view
        facts = self._cache.facts(bucket, name)
        if facts is not None and not latest and self.is_good(bucket, name, facts):
            copy = self._cache.open(bucket, name)
            if copy is not None:
                with copy:
                    return copy.info, True
        home = view.home(bucket, name)
        if home != view.me and home and not forwarded:
            return Elsewhere(home)
        store, key = self._places.of(bucket, name)
        try:
            stored = await store.head(key)
        except StoredNotFoundError:
            raise missing(bucket, name) from None
        return info_of(bucket, name, stored, facts_of(stored, 0)), facts is not None and facts.etag == stored.etag

    # Writing.

    async def write(
        self, bucket: BucketRecord, name: str, staged: Staged, options: PutOptions, *, forwarded: bool = False
    ) -> ObjectInfo | Elsewhere:
        """Write an object; raises ConflictError for a precondition, AmbiguousWriteError for an unknown outcome."""
        nonce = secrets.token_hex(8)
        seconds = self._patience.write + staged.size / self._patience.bytes_per_second
        condition: Absent | str | None = None
        known: CachedFacts | None = None
        asked = False
        until = self._clock.now() + self._patience.turn
        while True:
            async with self._owning(bucket, name, until, forwarded=forwarded) as view:
                if isinstance(view, Elsewhere):
                    return view
                store, key = self._places.of(bucket, name)
                if not asked:
                    known = await self._known(store, key, bucket, name, options)
                self._check(bucket, name, known, options)
                condition = ABSENT if known is None else known.etag
                version = 1 if known is None else known.version + 1
                await self._cache.forget(bucket, name)
                metadata = encode(version, staged.checksum, nonce, options.custom)
                try:
                    stored = await store.put(key, staged.buffer(), metadata, condition, seconds)
                except (StaleConditionError, AmbiguousWriteError) as error:
                    found = await self._outcome(error, nonce, store, key, view, bucket, name, until)
                    if found is None or found.metadata.get(NONCE) != nonce:
                        known = None if found is None else facts_of(found, 0)
                        asked = True
                        continue
                    stored, version = found, version_of(found.metadata)
                self._acknowledge(bucket, name)
                facts = facts_of(stored, view.settled, version=version, custom=options.custom)
                await self._cache.keep(bucket, name, staged, facts)
                return info_of(bucket, name, stored, facts, checksum=staged.checksum, size=staged.size)

    async def delete(
        self, bucket: BucketRecord, name: str, *, forwarded: bool = False, only: Only | None = None
    ) -> ObjectInfo | Elsewhere:
        """Remove an object and return what it was; raises ObjectNotFoundError, ConflictError if it is not ``only``."""
        until = self._clock.now() + self._patience.turn
        removed: ObjectInfo | None = None
        while True:
            async with self._owning(bucket, name, until, forwarded=forwarded) as view:
                if isinstance(view, Elsewhere):
                    return view
                if bucket.immutable:
                    raise self._refuse(bucket, name, "removed")
                store, key = self._places.of(bucket, name)
                await self._cache.forget(bucket, name)
                try:
                    stored = await store.head(key)
                except StoredNotFoundError:
                    if removed is None:
                        raise missing(bucket, name) from None
                    return removed
                found = info_of(bucket, name, stored, facts_of(stored, 0))
                check_only(found, only)
                removed = found
                try:
                    await store.delete(key, self._patience.write)
                except AmbiguousWriteError:
                    # It may still be done, after a later write of this object: nobody writes it until that is over.
                    await self._clock.sleep(self._patience.late)
                    if self._clock.now() >= until or not self._stayed(view, bucket, name):
                        raise
                    continue
                self._acknowledge(bucket, name)
                return removed

    async def set_custom(
        self, bucket: BucketRecord, name: str, change: Callable[[Mapping[str, str]], Mapping[str, str]],
        stage: Callable[[StoredBody], Any], *, forwarded: bool = False,
    ) -> ObjectInfo | Elsewhere:  # fmt: skip
        """Replace an object's custom metadata by what ``change`` makes of it, which writes its bytes again.

        ``stage`` takes the bytes from the store and returns them staged, to be awaited.
        """
        nonce, until = secrets.token_hex(8), self._clock.now() + self._patience.turn
        while True:
            async with self._owning(bucket, name, until, forwarded=forwarded) as view:
                if isinstance(view, Elsewhere):
                    return view
                if bucket.immutable:
                    raise self._refuse(bucket, name, "changed")
                store, key = self._places.of(bucket, name)
                await self._cache.forget(bucket, name)
                try:
                    body = await store.get(key)
                except StoredNotFoundError:
                    raise missing(bucket, name) from None
                assert body is not None
                before = facts_of(body.info, 0)
                staged: Staged = await stage(body)
                custom = change(before.custom)
                metadata = encode(before.version, staged.checksum, nonce, custom)
                seconds = self._patience.write + staged.size / self._patience.bytes_per_second
                try:
                    stored = await store.put(key, staged.buffer(), metadata, before.etag, seconds)
                except (StaleConditionError, AmbiguousWriteError) as error:
                    found = await self._outcome(error, nonce, store, key, view, bucket, name, until)
                    if found is None or found.metadata.get(NONCE) != nonce:
                        if self._clock.now() >= until:
                            raise error from None
                        continue
                    stored = found
                self._acknowledge(bucket, name)
                facts = facts_of(stored, view.settled, version=before.version, custom=custom)
                await self._cache.keep(bucket, name, staged, facts)
                return info_of(bucket, name, stored, facts, checksum=staged.checksum, size=staged.size)

    @asynccontextmanager
    async def _owning(
        self, bucket: BucketRecord, name: str, until: float, *, forwarded: bool
    ) -> AsyncIterator[View | Elsewhere]:
        """Hold the lock of an object that this node owns, and give the view by which it does; raises NotHomeError."""
        while True:
            view = await self._turn(bucket, name, until, forwarded=forwarded)
            if isinstance(view, Elsewhere):
                yield view
                return
            async with self._writing(view, bucket, name) as owned:
                if owned:
                    yield view
                    return

    async def _turn(self, bucket: BucketRecord, name: str, until: float, *, forwarded: bool) -> View | Elsewhere:
        """Wait until this node owns the object; raises NotHomeError when that is not so in time."""
        lapsed = self._clock.now() + self._patience.lapsed
        while True:
            view = self.view
            if view.root.buckets.get(f"{bucket.provider}/{bucket.name}") != bucket:
                view.bucket(bucket.provider, bucket.name)  # raises if it is gone; else its properties changed
                raise NotHomeError(f"bucket {bucket.name} has changed meanwhile", hint="try again")
            home = view.home(bucket, name)
            if home != view.me and home:
                if forwarded:
                    raise NotHomeError(f"{bucket.uri}/{name} lives on node {home}")
                return Elsewhere(home)
            if self.owns(view, bucket, name):
                return view
            left = (until if self.is_leased() else min(until, lapsed)) - self._clock.now()
            if left <= 0:
                why = "waits for the others to follow the map" if self.is_leased() else "has lost its lease"
                why = why if home else "knows of no node that keeps objects"
                raise NotHomeError(f"node {view.me} {why}: it cannot write {bucket.name}/{name} now", hint="try again")
            await self._until_changed(min(left, 0.25))

    async def _until_changed(self, seconds: float) -> None:
        changed = asyncio.ensure_future(self._changed.wait())
        sleeping = asyncio.ensure_future(self._clock.sleep(seconds))
        try:
            await asyncio.wait((changed, sleeping), return_when=asyncio.FIRST_COMPLETED)
        finally:
            changed.cancel()
            sleeping.cancel()

    @asynccontextmanager
    async def _writing(self, view: View, bucket: BucketRecord, name: str) -> AsyncIterator[bool]:
        """Hold the object's lock; gives whether this node still owns it on the same map."""
        key = (bucket.provider, bucket.name, name)
        async with self._cache.locked(bucket, name):
            self._writes[key] += 1
            try:
                now = self.view
                yield now.version == view.version and self.owns(now, bucket, name)
            finally:
                self._writes[key] -= 1
                if not self._writes[key]:
                    del self._writes[key]
                self._write_ended.set()

    async def _known(
        self, store: Store, key: str, bucket: BucketRecord, name: str, options: PutOptions
    ) -> CachedFacts | None:
        """Return what a write will replace. Where that is not known it may be a guess: the store will say so."""
        copy = self._cache.facts(bucket, name)
        if copy is not None and self.is_good(bucket, name, copy):
            return copy
        if not options.if_version:
            return None
        try:
            return facts_of(await store.head(key), 0)
        except StoredNotFoundError:
            return None

    async def _outcome(
        self, error: AisError, nonce: str, store: Store, key: str, view: View, bucket: BucketRecord, name: str,
        until: float,
    ) -> StoredInfo | None:  # fmt: skip
        """Return what is stored after a write that failed: with its nonce if it was done, else it was not and will not.

        Raises AmbiguousWriteError where that cannot be said: what had no answer may still be done, until that is over,
        and where another node may have been the home meanwhile it may have been done and replaced.
        """
        found = await self._look_hard(store, key)
        if isinstance(error, AmbiguousWriteError) and (found is None or found.metadata.get(NONCE) != nonce):
            await self._clock.sleep(self._patience.late)
            found = await self._look_hard(store, key)
            done = found is not None and found.metadata.get(NONCE) == nonce
            if not done and (self._clock.now() >= until or not self._stayed(view, bucket, name)):
                raise error
        return found

    def _stayed(self, view: View, bucket: BucketRecord, name: str) -> bool:
        """Say whether this node was the object's only home from ``view`` to now."""
        return self.is_leased() and self.view.is_mine_since(bucket, name, view.settled)

    async def _look_hard(self, store: Store, key: str) -> StoredInfo | None:
        """Read back what a write came to; raises AmbiguousWriteError when the store does not say."""
        for attempt in range(5):
            try:
                return await store.head(key)
            except StoredNotFoundError:
                return None
            except BackendUnavailableError:
                await self._clock.sleep(0.2 * 2**attempt)
        raise AmbiguousWriteError("the object store does not answer: the write may have been done or not")

    def _check(self, bucket: BucketRecord, name: str, known: CachedFacts | None, options: PutOptions) -> None:
        """Raise unless the write's precondition holds for what is known to be there."""
        if known is not None and bucket.immutable:
            raise self._refuse(bucket, name, "replaced")
        if options.if_version is not None and options.if_version != (0 if known is None else known.version):
            there = "does not exist" if known is None else f"is at version {known.version}"
            raise ConflictError(f"{bucket.uri}/{name} {there}")

    def _refuse(self, bucket: BucketRecord, name: str, what: str) -> ConflictError:
        where = bucket.uri
        return ConflictError(
            f"{where} is immutable: {name} cannot be {what}",
            hint=f"write under another name, or allow it with `ais bucket props set {where} immutable=false`",
        )

    def _acknowledge(self, bucket: BucketRecord, name: str) -> None:
        """Raise unless this node may still act: else another one may have taken over, and the answer is not known."""
        if not self.is_leased():
            raise AmbiguousWriteError(
                f"{bucket.uri}/{name}: this node lost its lease while the object store wrote",
                hint="try again; the write may have been done",
            )


def missing(bucket: BucketRecord, name: str) -> ObjectNotFoundError:
    """Return the error for an object that is not in its bucket."""
    return ObjectNotFoundError(f"{bucket.uri}/{name} does not exist")

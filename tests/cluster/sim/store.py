"""An object store with the consistency of S3: every request takes effect at one moment, then everybody sees it.

ETags are hashes of the contents, as S3's are: the same bytes again have the same ETag again. Requests travel over the
simulated network, so they may take effect after their sender gave up, or died.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from typing import Any

from aistore.errors import (
    AmbiguousWriteError,
    BackendUnavailableError,
    StaleConditionError,
    StoredNotFoundError,
)
from aistore.storage.objectstore.contract import ABSENT, StoredInfo, StoredPage
from aistore.storage.objectstore.metadata import NONCE
from aistore.storage.objectstore.whole import WholeBody

from .network import STORE, Network

#: What no condition protects takes effect so long after its sender gave up at most.
LATE_SECONDS = 25.0
#: How long a read is tried before the store is said to be unavailable.
READ_SECONDS = 10.0


class ObjectStore:
    """The store itself: what it holds, and what was done to it."""

    def __init__(self, network: Network) -> None:
        self.network = network
        self.objects: dict[str, tuple[StoredInfo, bytes]] = {}
        self.down = False
        #: Prefix of keys for which it does not look at conditions.
        self.careless = ""
        #: Kinds of conditions (None, ABSENT, `str` for an ETag) under which a write may arrive again much later, and
        #: those under which it never takes effect later than LATE_SECONDS after its sender gave up.
        self.twice: set[Any] = {str, ABSENT}
        self.bounded: set[Any] = {None}
        self.requests = 0
        #: (time, key, value or None, metadata): all that took effect.
        self.log: list[tuple[float, str, bytes | None, Mapping[str, str]]] = []

    def check(self) -> None:
        """Raise what every request gets during an outage."""
        self.requests += 1
        if self.down:
            raise BackendUnavailableError("the object store answers 503")

    def head(self, key: str) -> StoredInfo:
        """Describe a key."""
        return self.get(key)[0]

    def get(self, key: str) -> tuple[StoredInfo, bytes]:
        """Return a key's description and bytes."""
        self.check()
        if key not in self.objects:
            raise StoredNotFoundError(f"{key} does not exist")
        return self.objects[key]

    def put(self, key: str, data: bytes, metadata: Mapping[str, str], condition: Any) -> StoredInfo:
        """Write a key if the condition holds; an outage may hit before or after."""
        if self.down and self.network.chance.random() < 0.7:
            self.check()
        self.requests += 1
        old = self.objects.get(key)
        if self.careless and key.startswith(self.careless):
            pass
        elif condition is ABSENT:
            if old is not None:
                raise StaleConditionError(f"{key} exists")
        elif condition is not None and (old is None or old[0].etag != condition):
            raise StaleConditionError(f"{key} is another one now")
        etag = '"' + hashlib.md5(data, usedforsecurity=False).hexdigest() + '"'
        info = StoredInfo(key, len(data), etag, int(self.network.loop.now * 1e9), dict(metadata))
        self.objects[key] = (info, data)
        self.log.append((self.network.loop.now, key, data, metadata))
        if self.down:
            raise AmbiguousWriteError("the object store answers 500: it may have been done")
        return info

    def delete(self, key: str) -> None:
        """Remove a key."""
        self.check()
        if self.objects.pop(key, None) is not None:
            self.log.append((self.network.loop.now, key, None, {}))

    def list(self, prefix: str, start_after: str, limit: int) -> StoredPage:
        """Return a page of keys in the order of their bytes."""
        self.check()
        found = sorted(key for key in self.objects if key.startswith(prefix) and key > start_after)
        page = [self.objects[key][0] for key in found[:limit]]
        bare = [StoredInfo(info.key, info.size, info.etag, info.modified_ns, {}) for info in page]
        return StoredPage(bare, found[limit - 1] if len(found) > limit else "")


class StoreClient:
    """The store as one node reaches it: ``world.Store``, with a prefix of its own."""

    def __init__(self, store: ObjectStore, node: str, prefix: str = "") -> None:
        self._store = store
        self._node = node
        self._prefix = prefix

    async def head(self, key: str) -> StoredInfo:
        """Describe a key."""
        key = self._prefix + key
        return self._mine(await self._read(lambda: self._store.head(key)))

    async def get(self, key: str, unless_etag: str = "") -> WholeBody | None:
        """Begin to read a key, None if it still has that ETag."""
        key = self._prefix + key
        info, data = await self._read(lambda: self._store.get(key))
        return None if unless_etag and info.etag == unless_etag else WholeBody(self._mine(info), data)

    async def put(self, key: str, data: Any, metadata: Mapping[str, str], condition: Any, seconds: float) -> StoredInfo:
        """Write a key under a condition."""
        key, data, metadata = self._prefix + key, bytes(data), dict(metadata)
        return self._mine(
            await self._write(
                lambda: self._store.put(key, data, metadata, condition), seconds, condition, NONCE in metadata
            )
        )

    async def delete(self, key: str, seconds: float) -> None:
        """Remove a key."""
        key = self._prefix + key
        await self._write(lambda: self._store.delete(key), seconds, None)

    async def list(self, prefix: str, start_after: str = "", limit: int = 1000) -> StoredPage:
        """Return a page of keys."""
        full = self._prefix + prefix
        after = self._prefix + start_after if start_after else ""
        page = await self._read(lambda: self._store.list(full, after, limit))
        cut = len(self._prefix)
        return StoredPage([self._mine(info) for info in page.entries], page.continuation[cut:])

    def _mine(self, info: StoredInfo) -> StoredInfo:
        return StoredInfo(info.key[len(self._prefix) :], info.size, info.etag, info.modified_ns, info.metadata)

    async def _read(self, answer: Callable[[], Any]) -> Any:
        return await self._store.network.ask(self._node, STORE, answer, READ_SECONDS, BackendUnavailableError)

    async def _write(self, answer: Callable[[], Any], seconds: float, condition: Any, heavy: bool = False) -> Any:
        store, kind = self._store, str if isinstance(condition, str) else condition
        late_max = seconds + LATE_SECONDS if kind in store.bounded else float("inf")
        return await store.network.ask(
            self._node, STORE, answer, seconds, AmbiguousWriteError, kind in store.twice, late_max, heavy
        )

"""What the cluster's code needs of the world around it: a clock, object stores, the other nodes, a cache of objects.

The server gives it the real ones (``server/``), the simulator (``tests/cluster``) those of its own, so the rules that
decide what is served are the same code in both. Nothing in this package asks the time, opens a socket or starts a task
in any other way.

The records that pass through are those of the object stores and of the cache: ``storage/objectstore`` and
``storage/cache``.
"""

from __future__ import annotations

from collections.abc import Coroutine, Mapping
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any, Protocol

from .documents import BucketRecord, NodeRecord
from .view import View

if TYPE_CHECKING:
    from ..storage.cache.facts import CachedFacts, CachedReading
    from ..storage.objectstore.contract import Absent, StoredBody, StoredInfo, StoredPage
    from ..storage.objectstore.whole import WholeBody


class Clock(Protocol):
    """Time as one process feels it."""

    def now(self) -> float:
        """Return seconds on a clock that never goes back and counts while the machine sleeps."""

    async def sleep(self, seconds: float) -> None:
        """Return after ``seconds``."""

    def spawn(self, work: Coroutine[Any, Any, None], name: str) -> None:
        """Run ``work`` beside its caller, as long as the process lives."""


class Store(Protocol):
    """Keys of an object store. The errors are those of ``storage/objectstore/contract.py``."""

    async def head(self, key: str) -> StoredInfo:
        """Describe a key; raises StoredNotFoundError."""

    async def get(self, key: str, unless_etag: str = "") -> StoredBody | None:
        """Begin to read a key, None if it still has that ETag; raises StoredNotFoundError."""

    async def put(
        self, key: str, data: Any, metadata: Mapping[str, str], condition: Absent | str | None, seconds: float
    ) -> StoredInfo:
        """Write a key under a condition; raises StaleConditionError, AmbiguousWriteError."""

    async def delete(self, key: str, seconds: float) -> None:
        """Remove a key, whether it is there or not; raises AmbiguousWriteError."""

    async def list(self, prefix: str, start_after: str = "", limit: int = 1000) -> StoredPage:
        """Return a page of the keys that begin with ``prefix``."""


class Staged(Protocol):
    """The bytes of an object that is being written, all of them here and hashed."""

    size: int
    checksum: str

    def buffer(self) -> Any:
        """Return the bytes, as anything with the buffer protocol."""


class Cache(Protocol):
    """The copies of objects that this node keeps, shared by its processes."""

    def open(self, bucket: BucketRecord, name: str) -> CachedReading | None:
        """Open a copy; quick."""

    def facts(self, bucket: BucketRecord, name: str) -> CachedFacts | None:
        """Return what is known of a copy; quick."""

    def locked(
        self, bucket: BucketRecord, name: str, seconds: float = float("inf")
    ) -> AbstractAsyncContextManager[bool]:
        """Keep every other process of this node from changing an object meanwhile, or its copy.

        Gives False, and keeps nobody, when another one had it for about ``seconds``.
        """

    async def forget(self, bucket: BucketRecord, name: str) -> None:
        """Drop a copy, so that no crash brings it back."""

    async def keep(self, bucket: BucketRecord, name: str, staged: Staged, facts: CachedFacts) -> None:
        """Make what was staged the copy; without room there is none afterwards."""

    async def fill(self, bucket: BucketRecord, name: str, body: StoredBody, facts: CachedFacts) -> CachedReading | None:
        """Make the copy from the store's bytes, closing ``body``, and open it; None without room."""

    async def fill_whole(self, bucket: BucketRecord, name: str, body: WholeBody, facts: CachedFacts) -> None:
        """Make the copy from bytes that are all here; without room there is none afterwards."""

    async def restamp(self, bucket: BucketRecord, name: str, facts: CachedFacts) -> None:
        """Replace the facts of a copy whose ETag they have."""


class Places(Protocol):
    """Where the objects of buckets are."""

    def of(self, bucket: BucketRecord, name: str) -> tuple[Store, str]:
        """Return the store and the key of an object; raises BadRequestError for a name it cannot have there."""


class Fence(Protocol):
    """Until when this node may act, as its controller last said; read by all of its processes."""

    def deadline(self) -> float:
        """Return that time on the clock's scale; the past while the node may not act."""


class Workers(Protocol):
    """The processes of this node that serve objects."""

    async def adopt(self, view: View) -> None:
        """Return when all of them run on ``view`` and no write of an object that left this node is under way."""

    def publish(self, deadline: float) -> None:
        """Let them act until ``deadline``."""


class Others(Protocol):
    """The other nodes of the cluster."""

    async def adopted(self, node: str, record: NodeRecord, version: int) -> tuple[str, int]:
        """Ask a node to adopt a version of the root document, at least.

        Return its incarnation and the version it has then adopted with all of its processes. Raises
        PeerUnreachableError.
        """

"""The contract of an object store: its verbs on keys, what they promise, what a store may lack.

A key is the whole name of a stored object below the place that the store was opened at. Verbs block and may be called
from any number of threads. Reads are tried again on failures that pass; a write is sent once, because who sends it
twice may overwrite what came between. What a verb can raise, besides what it says:

- BadRequestError: the key cannot be named in this store without becoming another one (``names.py``). Nothing was sent.
- BackendUnavailableError: no route, no answer in time, an answer that says "not now". A write with this error was
  certainly not done.
- BackendRefusedError: credentials, clock, a bucket that is not there; the hint says what to look at.
- NotSupportedError: the store lacks what the verb needs; ``capabilities`` says so beforehand.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Protocol

import msgspec

#: How long a write may take unless its caller says otherwise: what S3 itself gives a request that does not progress.
WRITE_SECONDS = 60.0


class Absent(enum.Enum):
    """The condition of a write that nothing may be there."""

    ABSENT = "absent"


ABSENT = Absent.ABSENT


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a store can do, as declared for its kind or found out by trying (``probe.py``).

    ``conditional_create``: of several writes that require "not there", one succeeds; ``conditional_replace``: a write
    that requires an ETag is refused when there is another one. ``byte_order``: listings come in the order of the keys'
    UTF-8, else in an order of the store's own, the same each time. ``metadata_bytes_max`` counts names and values of
    one key's metadata. ``nesting``: ``a`` and ``a/b`` can be there at once. ``forbidden`` are characters that a key may
    not have, besides those that none may.
    """

    writable: bool = True
    listing: bool = True
    ranges: bool = True
    conditional_create: bool = True
    conditional_replace: bool = True
    byte_order: bool = True
    metadata_bytes_max: int = 2048
    nesting: bool = True
    key_bytes_max: int = 1024
    segment_bytes_max: int = 1024
    forbidden: str = ""

    @property
    def metadata(self) -> bool:
        """Whether a key can have metadata of ours at all."""
        return self.metadata_bytes_max > 0

    @property
    def shared(self) -> bool:
        """Whether several writers can agree through this store: what a cluster needs."""
        return self.writable and self.listing and self.conditional_create and self.conditional_replace and self.metadata


class StoredInfo(msgspec.Struct, frozen=True, gc=False):
    """What a store says of a key; ``modified_ns`` in Unix nanoseconds, 0 where it was not said (after a write).

    ``etag`` names the content, as the store spells it; stores may give equal content an equal one. A listing has no
    ``metadata``. The names in it are lower case.
    """

    key: str
    size: int
    etag: str
    modified_ns: int
    metadata: Mapping[str, str] = msgspec.field(default_factory=dict)


class StoredPage(msgspec.Struct, frozen=True):
    """A page of a listing, in the store's order. ``continuation``, if more may follow, is the next ``start_after``.

    ``foreign`` counts keys among them that other programs wrote and that cannot be named here (``names.py``).
    """

    entries: list[StoredInfo]
    continuation: str
    foreign: int = 0


class StoredGroups(msgspec.Struct, frozen=True):
    """One level below a prefix: ``groups`` are the prefixes that go on (each ends in ``/``), ``entries`` the keys."""

    groups: list[str]
    entries: list[StoredInfo]
    foreign: int = 0


class StoredBody(Protocol):
    """Bytes on their way: ``length`` from ``start`` of the version that ``info`` describes. To be read once."""

    info: StoredInfo
    start: int
    length: int

    def chunks(self) -> Iterator[Any]:
        """Yield the bytes in pieces of about 1 MiB, each with the buffer protocol; raises BackendUnavailableError."""

    def read(self) -> bytes:
        """Return all of them; raises BackendUnavailableError."""

    def close(self) -> None:
        """Let the connection go. May be called twice, and in the middle of ``chunks``."""

    def __enter__(self) -> StoredBody: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class ObjectStore(Protocol):
    """Keys of one object store, below one prefix. ``url`` is for people and has no secrets."""

    url: str
    capabilities: Capabilities

    def head(self, key: str) -> StoredInfo:
        """Describe a key; raises StoredNotFoundError."""

    def get(
        self, key: str, start: int = 0, length: int | None = None, *, unless_etag: str = "", if_etag: str = ""
    ) -> StoredBody | None:
        """Begin to read ``length`` bytes (None: all) of a key from ``start``; less where it ends before.

        None if the key still has the ETag ``unless_etag``. Raises StoredNotFoundError, StaleConditionError when it has
        another than ``if_etag``, RangeNotSatisfiableError for a start beyond its end.
        """

    def put(
        self,
        key: str,
        data: Any,
        metadata: Mapping[str, str] = {},
        condition: Absent | str | None = None,
        seconds: float = WRITE_SECONDS,
    ) -> StoredInfo:
        """Write a whole key in one request: ``data`` is bytes or any flat buffer, a mapped file for instance.

        The buffer is not copied, and after a failure it may be held for a moment longer than the call lasts: a mapping
        is better left to the garbage collector than closed.

        ``condition`` is ABSENT (nothing may be there), an ETag that must be there, or None. Given up after ``seconds``
        at most, and perhaps a fifth sooner. Raises StaleConditionError (nothing was written), AmbiguousWriteError (it
        may have been, or may be in a moment), TooLargeError (metadata).
        """

    def put_parts(self, key: str, parts: Iterator[Any], metadata: Mapping[str, str] = {}) -> StoredInfo:
        """Write a key from buffers of any size, as a multipart upload, without a condition; raises as ``put``."""

    def delete(self, key: str, seconds: float = WRITE_SECONDS) -> None:
        """Remove a key, whether it is there or not; raises AmbiguousWriteError."""

    def delete_many(self, keys: Sequence[str], seconds: float = WRITE_SECONDS) -> None:
        """Remove keys, in as few requests as the store allows; after AmbiguousWriteError some may be left."""

    def list(self, prefix: str = "", start_after: str = "", limit: int = 1000) -> StoredPage:
        """Return the first ``limit`` keys that begin with ``prefix`` (any text) and follow ``start_after``."""

    def list_groups(self, prefix: str = "") -> StoredGroups:
        """Return one level: ``prefix`` is empty or ends in ``/``. All of it at once, so for levels that are small."""

    def close(self) -> None:
        """Give connections back."""

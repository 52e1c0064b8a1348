"""The contract of a storage engine: its verbs and what each promises.

An engine is used by several processes at once, each with its own instance over the same place. Its verbs block;
whoever calls them from an event loop knows which ones are quick (``head``, ``get``: an index look-up and an open) and
which ones wait for a disk (``list``, ``delete``, everything that writes) and belong in a thread.

Promises, held by ``conformance.py`` on every engine:

- A write is seen whole or not at all, by every process, from the moment its future is done.
- An overwrite is one step: a reader has the old object or the new one, and an opened Reading keeps the one it has.
- Versions of a name count 1, 2, 3 … and start again after a delete.
- Bytes that are not those that were stored are not given out as a whole object: a read of all of an object at once is
  compared with its checksum. Who reads in pieces does that itself (``verified.py``); a part alone cannot be compared.
- Listings are in byte order of UTF-8 names and never miss a name that was committed before and not touched since.
- Names are any text that UTF-8 can hold, up to 1,024 bytes; ``a`` and ``a/b`` are unrelated.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from types import TracebackType
from typing import Any, Protocol

from ..errors import ObjectDamagedError
from ..model.buckets import BucketInfo
from ..model.objects import ListOptions, ListPage, ObjectInfo, Only, PutOptions


class Reading(Protocol):
    """An opened object: its bytes cannot change or vanish until ``close``, whatever happens to the name.

    ``path`` is the immutable file of the bytes (the first ``info.size`` bytes of it are the object) if there is one;
    a path that was just handed out stays valid for at least a minute after the object was replaced or deleted.
    """

    info: ObjectInfo
    path: str | None

    def read(self, start: int, length: int) -> bytes:
        """Return ``length`` bytes from ``start``; verified if that is the whole object. Raises ObjectDamagedError."""

    def read_cached(self, start: int, length: int) -> bytes | None:
        """Return the bytes if that surely needs no disk, else None: then ``read`` belongs in a thread."""

    def peek(self) -> bytes | memoryview | None:
        """Return all bytes, verified, if that surely needs no disk and they are no more than 1 MiB, else None.

        They are good until this thread peeks again, and nothing is kept in memory for others who read them.
        """

    def damaged(self, problem: str) -> ObjectDamagedError:
        """Note that the stored bytes are bad, ``problem`` says how, and return the error to raise."""

    def suspected(self) -> bool:
        """Say whether damage was noted before: then nothing may be given out before all of it was verified."""

    def close(self) -> None:
        """Give the descriptor back. May be called twice."""

    def __enter__(self) -> Reading: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class KeptReading(Reading, Protocol):
    """A Reading of an object that the engine holds in memory; the same one for everybody, never closed.

    ``replies`` is for the caller: what it made of the object and wants to find again as long as that is unchanged.
    """

    replies: dict[str, Any]


class Staging(Protocol):
    """A write in progress. Nothing of it can be seen until ``commit``'s future is done."""

    def write(self, chunk: bytes | memoryview) -> None:
        """Append ``chunk``; hashed on the way. Raises OutOfSpaceError."""

    def commit(self) -> Future[ObjectInfo]:
        """Publish. The future raises ChecksumMismatchError, ConflictError (precondition), BucketNotFoundError."""

    def abort(self) -> None:
        """Drop what was written. May be called twice, and after ``commit`` (then it does nothing)."""


class Engine(Protocol):
    """One store of buckets and objects."""

    def create_bucket(self, bucket: str, props: Mapping[str, Any]) -> BucketInfo:
        """Create an empty bucket; raises BucketExistsError."""

    def delete_bucket(self, bucket: str) -> None:
        """Remove a bucket and all that is in it, in one step for readers; raises BucketNotFoundError."""

    def head_bucket(self, bucket: str) -> BucketInfo:
        """Return a bucket's properties; raises BucketNotFoundError."""

    def list_buckets(self) -> list[BucketInfo]:
        """Return all buckets, by name."""

    def get(self, bucket: str, name: str) -> Reading:
        """Open an object for reading; raises BucketNotFoundError, ObjectNotFoundError."""

    def get_many(self, bucket: str, names: Sequence[str]) -> Mapping[str, Reading]:
        """Open those of some hundred objects that are there; one that ``get`` has to say more about is left out.

        Raises BucketNotFoundError, MountpathUnavailableError.
        """

    def absent(self, bucket: str, names: Sequence[str]) -> list[str]:
        """Return those of some hundred names that have no object; raises as ``get_many``."""

    def kept(self, bucket: str, name: str) -> KeptReading | None:
        """Return an object that is in memory and unchanged, None for any other; never waits, raises nothing."""

    def head(self, bucket: str, name: str) -> ObjectInfo:
        """Return what is known of an object; raises as ``get``."""

    def put(self, bucket: str, name: str, data: bytes, options: PutOptions) -> Future[ObjectInfo]:
        """Write a whole object; the future raises as ``Staging.commit``."""

    def stage(self, bucket: str, name: str, options: PutOptions) -> Staging:
        """Begin to write an object piece by piece; raises BucketNotFoundError, OutOfSpaceError."""

    def delete(self, bucket: str, name: str, *, only: Only | None = None) -> Future[ObjectInfo]:
        """Remove an object; the future gives what was removed, or raises as ``get``.

        It raises ConflictError, and nothing is removed, unless ``only`` says yes to what is there at that moment.
        """

    def set_custom(self, bucket: str, name: str, custom: Mapping[str, str], *, replace: bool) -> Future[ObjectInfo]:
        """Merge ``custom`` into the object's custom metadata, or replace it; the version stays."""

    def list(self, bucket: str, options: ListOptions) -> ListPage:
        """Return one page of a listing; raises BucketNotFoundError."""

    def close(self) -> None:
        """Finish accepted writes and give every resource back."""

"""An object on its way into the cache: staged, sent to the store where it is a write, then committed with its facts."""

from __future__ import annotations

import mmap
from collections.abc import Callable
from concurrent.futures import Future

from ...errors import OutOfSpaceError
from ...model.objects import Checksum, ObjectInfo
from ..local.staging import LocalStaging
from .facts import CacheBucket, CachedFacts, encode_facts, info_of
from .recency import Recency, slot_of


class CacheStaging:
    """A copy in the making; nobody sees it before ``commit``'s future is done. For use by several threads."""

    def __init__(self, staging: LocalStaging, bucket: CacheBucket, name: str, boot: str, recency: Recency) -> None:
        self._staging = staging
        self._bucket = bucket
        self._name = name
        self._boot = boot
        self._recency = recency

    def write(self, chunk: bytes | memoryview) -> None:
        """Append ``chunk``; raises OutOfSpaceError, and then nothing is left: read the store instead."""
        try:
            self._staging.write(chunk)
        except OutOfSpaceError:
            self._recency.want(len(chunk))
            raise

    def finish(self) -> tuple[int, Checksum]:
        """Say that all bytes were written, and return how many and their checksum. May be called twice.

        Raises ChecksumMismatchError when they are not those that were expected, and then nothing is left.
        """
        return self._staging.finish(f"{self._bucket.url}/{self._name}")

    def buffer(self) -> bytes | mmap.mmap:
        """Return the bytes after ``finish``, to be sent to the store: a read-only mapping of those in a file.

        The mapping stays good whatever becomes of this, as long as somebody holds it.
        """
        return self._staging.buffer()

    def commit(self, facts: CachedFacts) -> Future[ObjectInfo]:
        """Make the bytes the object's copy; the future gives what clients are told of it.

        Whoever holds the key's lock must wait for the future before letting it go. The future raises OutOfSpaceError,
        ChecksumMismatchError, BucketNotFoundError (dropped meanwhile): then there is no copy, and nothing is lost.
        Raises BadRequestError for facts that cannot be kept.
        """
        self.finish()
        committed = self._staging.commit(encode_facts(facts, self._boot))
        return _then(committed, lambda info: self._committed(info, facts))

    def abort(self) -> None:
        """Drop what was written. May be called twice, and after ``commit``."""
        self._staging.abort()

    def _committed(self, info: ObjectInfo, facts: CachedFacts) -> ObjectInfo:
        self._recency.touch(slot_of(self._bucket.key, self._name))
        return info_of(self._bucket, info, facts)


def _then(before: Future[ObjectInfo], change: Callable[[ObjectInfo], ObjectInfo]) -> Future[ObjectInfo]:
    """Return a future of what ``change`` makes of the result of another."""
    after: Future[ObjectInfo] = Future()
    after.set_running_or_notify_cancel()  # what is committed cannot be called back

    def done(before: Future[ObjectInfo]) -> None:
        error = before.exception()
        if error is not None:
            after.set_exception(error)
        else:
            after.set_result(change(before.result()))

    before.add_done_callback(done)
    return after

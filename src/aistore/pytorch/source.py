"""Where a dataset gets its objects from: what it asks of a store, and the store that answers over HTTP."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Protocol

from ..client import Client
from ..errors import AisError, EtlNotRunningError, OverloadedError
from ..model.etl import Stage
from ..model.names import BucketRef


class Source(Protocol):
    """What a dataset asks of a store. A source can be pickled, and each process opens connections of its own."""

    def names(self, prefix: str) -> Iterator[str]:
        """Yield the names of all objects that start with ``prefix``, in byte order."""
        ...

    def check_transform(self, name: str) -> None:
        """Raise EtlNotFoundError or EtlNotRunningError if objects cannot be read through transform ``name``."""
        ...

    def fetch(self, entries: Sequence[tuple[str, str]]) -> Iterator[bytes | AisError]:
        """Yield the bytes, or the error, of each ``(object, transform or "")``, in order, as they arrive."""
        ...

    def close(self) -> None:
        """Close the connections of this process; the next call opens new ones."""
        ...


class StoreSource:
    """A bucket of a store, read over HTTP; ``url`` None is the store that clients find by themselves."""

    def __init__(self, url: str | None, bucket: BucketRef) -> None:
        self._client = Client(url)
        self.url = self._client.endpoint
        self._bucket = self._client.bucket(bucket)

    def names(self, prefix: str) -> Iterator[str]:
        """Yield the names of all objects that start with ``prefix``, in byte order, page by page."""
        return (entry.name for entry in self._bucket.list(prefix, props="name"))

    def check_transform(self, name: str) -> None:
        """Raise EtlNotFoundError or EtlNotRunningError if objects cannot be read through transform ``name``."""
        etl = self._client.etl(name)
        etl.details()
        summary = etl.summary()
        if summary is not None and summary.stage == Stage.ABORTED.value:
            state = "stopped" if summary.message in ("", "stopped") else f"Aborted: {summary.message}"
            raise EtlNotRunningError(f"etl job {name} is {state}", hint=f"`ais etl start {name}` starts it")

    def fetch(self, entries: Sequence[tuple[str, str]]) -> Iterator[bytes | AisError]:
        """Yield the bytes, or the error, of each ``(object, transform or "")``, in order, as they arrive.

        An entry that found the transform's queue full is asked for again; what is left after that is its error.
        """
        for entry, result in zip(entries, self._bucket.batch(entries), strict=True):
            yield self._insist(entry, result) if isinstance(result, OverloadedError) else result

    def _insist(self, entry: tuple[str, str], result: bytes | AisError) -> bytes | AisError:
        """Ask for one entry until the store is no longer too busy for it, within the client's patience."""
        retry = self._client.transport.settings.retry
        started = time.monotonic()
        while isinstance(result, OverloadedError):
            pause = retry.pause_when_busy(result.retry_after_seconds, time.monotonic() - started)
            if pause is None:
                break
            time.sleep(pause)
            result = next(self._bucket.batch([entry]))
        return result

    def close(self) -> None:
        """Close the connections of this process; the next call opens new ones."""
        self._client.close()

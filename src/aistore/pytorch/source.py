"""Where a dataset gets its objects from: what it asks of a store, and the store that answers over HTTP."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Protocol

from ..client import Client, RetryPolicy
from ..client.pipeline import EtlArgs, Seed
from ..errors import AisError, EtlNotRunningError, RetryLaterError
from ..model.etl import Stage, parse_stages
from ..model.names import BucketRef


class Source(Protocol):
    """What a dataset asks of a store. A source can be pickled, and each process opens connections of its own."""

    def names(self, prefix: str) -> Iterator[str]:
        """Yield the names of all objects that start with ``prefix``, in byte order."""
        ...

    def check_transform(self, name: str) -> None:
        """Raise EtlNotFoundError or EtlNotRunningError if objects cannot be read through transform ``name``."""
        ...

    def fetch(self, entries: Sequence[tuple[str, str]], seed: Seed | None = None) -> Iterator[bytes | AisError]:
        """Yield the bytes, or the error, of each ``(object, transform or "")``, in order, as they arrive.

        ``seed`` fixes what transforms draw at random.
        """
        ...

    def close(self) -> None:
        """Close the connections of this process; the next call opens new ones."""
        ...


class StoreSource:
    """A bucket of a store, read over HTTP; ``url`` None is the store that clients find by themselves."""

    def __init__(
        self, url: str | None, bucket: BucketRef, retry_seconds: float = 60.0, etl_args: EtlArgs | None = None
    ) -> None:
        self._client = Client(url)  # for what is asked before the training begins: a wrong address is told at once
        self.url = self._client.endpoint
        self._bucket = self._client.bucket(bucket)
        self._patient = Client(url, retry=RetryPolicy(budget_seconds=retry_seconds))
        self._wanted = self._patient.bucket(bucket)
        self._etl_args = etl_args

    def names(self, prefix: str) -> Iterator[str]:
        """Yield the names of all objects that start with ``prefix``, in byte order, page by page."""
        return (entry.name for entry in self._bucket.list(prefix, props="name"))

    def check_transform(self, name: str) -> None:
        """Raise EtlNotFoundError or EtlNotRunningError if objects cannot be read through transform ``name``.

        ``resize >> gray`` is a line of them; raises BadRequestError for one that cannot be.
        """
        for stage in parse_stages(name):
            etl = self._client.etl(stage)
            etl.details()
            summary = etl.summary()
            if summary is not None and summary.stage == Stage.ABORTED.value:
                state = "stopped" if summary.message in ("", "stopped") else f"Aborted: {summary.message}"
                raise EtlNotRunningError(f"etl job {stage} is {state}", hint=f"`ais etl start {stage}` starts it")

    def fetch(self, entries: Sequence[tuple[str, str]], seed: Seed | None = None) -> Iterator[bytes | AisError]:
        """Yield the bytes, or the error, of each ``(object, transform or "")``, in order, as they arrive.

        What can succeed later (a full queue, a node that has just gone or come) is asked for again for a while; what is
        left after that is its error.
        """
        for entry, result in zip(entries, self._wanted.batch(entries, etl_args=self._etl_args, seed=seed), strict=True):
            yield self._insist(entry, seed, result) if _comes_later(result) else result

    def _insist(self, entry: tuple[str, str], seed: Seed | None, result: bytes | AisError) -> bytes | AisError:
        """Ask for one entry until the store can give it, within the client's patience."""
        retry = self._patient.transport.settings.retry
        started = time.monotonic()
        while _comes_later(result):
            told = getattr(result, "retry_after_seconds", 1.0)
            pause = retry.pause_when_busy(told, time.monotonic() - started)
            if pause is None:
                break
            time.sleep(pause)
            result = next(self._wanted.batch([entry], etl_args=self._etl_args, seed=seed))
        return result

    def close(self) -> None:
        """Close the connections of this process; the next call opens new ones."""
        self._client.close()
        self._patient.close()


def _comes_later(result: bytes | AisError) -> bool:
    return isinstance(result, RetryLaterError) and result.status == 503 and result.retry_after_seconds is not None

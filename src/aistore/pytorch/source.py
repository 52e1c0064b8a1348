"""Where a dataset gets its objects from: the three things it asks of a store, and the store over HTTP."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import msgspec
import urllib3

from ..errors import AisError, InternalError, StoreUnreachableError
from ..wire import batch, messages


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
    """A bucket of a store, read over HTTP."""

    def __init__(self, url: str, bucket: str) -> None:
        self.url = url.rstrip("/")
        self.bucket = bucket
        self._pool: urllib3.PoolManager | None = None
        self._pool_pid = 0

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_pool": None, "_pool_pid": 0}

    def _http(self) -> urllib3.PoolManager:
        if self._pool is None or self._pool_pid != os.getpid():
            self._pool, self._pool_pid = urllib3.PoolManager(retries=False), os.getpid()
        return self._pool

    def _request(self, method: str, path: str, body: bytes | None = None) -> urllib3.BaseHTTPResponse:
        try:
            reply = self._http().request(
                method,
                self.url + path,
                body=body,
                headers={"content-type": "application/json", "accept": "application/json"},
                preload_content=False,
            )
        except urllib3.exceptions.HTTPError as error:
            raise StoreUnreachableError(
                f"no store answers at {self.url}: {error}", hint="start one with `ais serve`, or correct the address"
            ) from error
        if reply.status >= 400:
            data = reply.read()
            reply.release_conn()
            raise messages.decode_error(data, reply.status)
        return reply

    def names(self, prefix: str) -> Iterator[str]:
        """Yield the names of all objects that start with ``prefix``, in byte order, page by page."""
        token = ""
        while True:
            value = {"prefix": prefix, "props": "name", "continuation_token": token}
            body = msgspec.json.encode({"action": "list", "value": value})
            page = msgspec.json.decode(
                self._request("GET", f"/v1/buckets/{self.bucket}", body).data, type=messages.ListJson
            )
            for entry in page.entries:
                yield entry.name
            token = page.continuation_token
            if not token:
                return

    def check_transform(self, name: str) -> None:
        """Raise EtlNotFoundError if there is no transform ``name``."""
        _ = self._request("GET", f"/v1/etl/{name}").data

    def fetch(self, entries: Sequence[tuple[str, str]]) -> Iterator[bytes | AisError]:
        """Yield the bytes, or the error, of each ``(object, transform or "")``, in order, as they arrive."""
        for start in range(0, len(entries), batch.ENTRIES_MAX):
            part = list(entries[start : start + batch.ENTRIES_MAX])
            reply = self._request(
                "POST", f"/v1/batch/{self.bucket}", msgspec.json.encode(batch.BatchRequest(entries=part))
            )
            try:
                count = 0
                for frame in batch.read_frames(reply.read):
                    count += 1
                    yield frame.data if frame.status == 200 else messages.decode_error(frame.data, frame.status)
                if count != len(part):
                    raise InternalError(f"the batch reply has {count} entries of {len(part)}")
                reply.release_conn()
            except BaseException:
                reply.close()  # what is left of the body must not be read as the next reply
                raise

    def close(self) -> None:
        """Close the connections of this process; the next call opens new ones."""
        if self._pool is not None and self._pool_pid == os.getpid():
            self._pool.clear()
        self._pool = None

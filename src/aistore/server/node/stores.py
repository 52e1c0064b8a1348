"""The object stores of a node: their blocking verbs in threads, and which one has the objects of a bucket."""

from __future__ import annotations

import asyncio
import functools
import threading
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from ...cluster.documents import BucketRecord
from ...errors import BackendUnavailableError, ForbiddenError, OverloadedError
from ...model.names import check_object_name
from ...settings import ServeSettings
from ...storage.objectstore.contract import Absent, Capabilities, ObjectStore, StoredBody, StoredInfo, StoredPage
from ...storage.objectstore.urls import Place, open_object_store, parse_url
from ...storage.objectstore.whole import WHOLE_BYTES_MAX, WholeBody

T = TypeVar("T")

#: Requests to object stores that one process has under way. Derived: at 10 ms each, 6,400 a second.
_THREADS = 64

_SCHEMES = {"aws": "s3", "gcp": "gs", "azure": "az"}
#: Properties of a bucket that say how its store is reached, by the option of the store.
_OPTIONS = {
    "extra.aws.endpoint": "endpoint",
    "extra.aws.cloud_region": "region",
    "extra.aws.profile": "profile",
    "extra.anonymous": "anonymous",
}


def open_own_store(serve: ServeSettings) -> ObjectStore | None:
    """Open the cluster's store, with what was found out about it at the start; None on a store of one machine."""
    if not serve.store:
        return None
    store = open_object_store(serve.store)
    store.capabilities = Capabilities(**serve.store_capabilities)
    return store


def in_thread(threads: ThreadPoolExecutor, work: Callable[..., T], *arguments: Any) -> asyncio.Future[T]:
    """Run what waits for a disk or a store in a thread; raises OverloadedError once this process is ending."""
    try:
        return asyncio.get_running_loop().run_in_executor(threads, work, *arguments)
    except RuntimeError as error:  # of an executor that was shut down
        raise OverloadedError("this node is stopping", hint="try again") from error


class ThreadedStore:
    """An object store whose verbs are awaited."""

    def __init__(self, store: ObjectStore, threads: ThreadPoolExecutor) -> None:
        self.blocking = store
        self._threads = threads

    def _run(self, verb: Callable[..., T], *arguments: Any, **options: Any) -> asyncio.Future[T]:
        return in_thread(self._threads, functools.partial(verb, *arguments, **options))

    async def head(self, key: str) -> StoredInfo:
        """Describe a key."""
        return await self._run(self.blocking.head, key)

    async def get(self, key: str, unless_etag: str = "") -> StoredBody | None:
        """Begin to read a key; a small one comes whole."""
        return await self._run(self._get, key, unless_etag)

    def _get(self, key: str, unless_etag: str) -> StoredBody | None:
        body = self.blocking.get(key, unless_etag=unless_etag)
        if body is None or body.length > WHOLE_BYTES_MAX:
            return body
        with body:
            return WholeBody(body.info, body.read())

    async def put(
        self, key: str, data: Any, metadata: Mapping[str, str], condition: Absent | str | None, seconds: float
    ) -> StoredInfo:
        """Write a key."""
        return await self._run(self.blocking.put, key, data, metadata, condition, seconds)

    async def delete(self, key: str, seconds: float) -> None:
        """Remove a key."""
        await self._run(self.blocking.delete, key, seconds)

    async def list(self, prefix: str, start_after: str = "", limit: int = 1000) -> StoredPage:
        """Return a page of keys."""
        return await self._run(self.blocking.list, prefix, start_after, limit)


class PromptStore(ThreadedStore):
    """The same for who would rather ask again than wait: no read takes longer than ``seconds``.

    The library insists on reads for half a minute, on connections that may lead nowhere; a lease may be shorter.
    """

    def __init__(self, store: ThreadedStore, seconds: float) -> None:
        super().__init__(store.blocking, store._threads)
        self._seconds = seconds

    async def get(self, key: str, unless_etag: str = "") -> StoredBody | None:
        """Begin to read a key; raises BackendUnavailableError when that takes too long."""
        return await self._in_time(super().get(key, unless_etag), f"GET {key}")

    async def list(self, prefix: str, start_after: str = "", limit: int = 1000) -> StoredPage:
        """Return a page of keys; raises BackendUnavailableError when that takes too long."""
        return await self._in_time(super().list(prefix, start_after, limit), f"LIST {prefix}")

    async def _in_time(self, work: Coroutine[Any, Any, T], what: str) -> T:
        try:
            return await asyncio.wait_for(work, self._seconds)
        except asyncio.TimeoutError:
            raise BackendUnavailableError(
                f"{what}: the object store did not answer within {self._seconds:g} s", hint="it is asked again"
            ) from None


class BucketStores:
    """Where the objects of each bucket are: ais:// buckets in the cluster's own store, others in the user's."""

    def __init__(self, own: ObjectStore | None) -> None:
        self.threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="store")
        self._own = None if own is None else ThreadedStore(own, self.threads)
        self._own_place = None if own is None else parse_url(own.url)
        self._others: dict[tuple[str, ...], ThreadedStore] = {}
        self._lock = threading.Lock()

    def of(self, bucket: BucketRecord, name: str) -> tuple[ThreadedStore, str]:
        """Return the store and the key of an object; raises BadRequestError, ForbiddenError."""
        check_object_name(name)
        store, prefix = self.bucket(bucket)
        if bucket.provider != "ais" and self._own_place is not None:
            _check_not_own(self._own_place, bucket, name)
        return store, prefix + name

    def bucket(self, bucket: BucketRecord) -> tuple[ThreadedStore, str]:
        """Return the store of a bucket, and what stands before the names of its objects there."""
        if bucket.provider == "ais":
            assert self._own is not None
            return self._own, f"{bucket.name}/"
        return self._other(bucket), ""

    def _other(self, bucket: BucketRecord) -> ThreadedStore:
        url, options = location(bucket)
        key = (url, *(f"{name}={value}" for name, value in sorted(options.items())))
        with self._lock:
            found = self._others.get(key)
            if found is None:
                found = self._others[key] = ThreadedStore(open_object_store(url, options), self.threads)
            return found

    def close(self) -> None:
        """Give connections and threads back."""
        self.threads.shutdown(wait=True, cancel_futures=True)
        for store in self._others.values():
            store.blocking.close()
        if self._own is not None:
            self._own.blocking.close()


def _check_not_own(own: Place, bucket: BucketRecord, name: str) -> None:
    """Refuse a name where the cluster keeps its own: the document with its secret, objects that have homes.

    Another endpoint may be another name of the same store, so none is taken for a store of its own.
    """
    if _SCHEMES.get(bucket.provider) == own.kind and bucket.name == own.bucket and name.startswith(own.base):
        raise ForbiddenError(
            f"{bucket.uri}/{name[:128]} is below {own.url}/, which is the cluster's own",
            hint="its objects are those of the ais:// buckets",
        )


def location(bucket: BucketRecord) -> tuple[str, dict[str, str]]:
    """Return the URL of the store that a bucket of another provider is, and the options to open it with."""
    options = {
        option: str(bucket.props[prop]) for prop, option in _OPTIONS.items() if bucket.props.get(prop) not in (None, "")
    }
    if bucket.provider == "ht":
        return str(bucket.props["extra.http.original_url"]), options
    return f"{_SCHEMES[bucket.provider]}://{bucket.name}", options

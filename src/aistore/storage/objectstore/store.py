"""An ObjectStore over obstore: single writes, patient reads, listings in pages, errors in our words."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import obstore
from obstore import exceptions

from ...errors import (
    AmbiguousWriteError,
    BadRequestError,
    NotSupportedError,
    RangeNotSatisfiableError,
    StaleConditionError,
    StoredNotFoundError,
    TooLargeError,
)
from .body import EmptyBody, ObstoreBody
from .clients import Clients
from .contract import ABSENT, WRITE_SECONDS, Absent, Capabilities, StoredBody, StoredGroups, StoredInfo, StoredPage
from .directories import list_directory
from .failures import LIBRARY_ERRORS, translate
from .names import check_key
from .pages import PrefixReader, unix_ns
from .s3_pages import S3PageReader

if TYPE_CHECKING:
    from obstore import GetOptions

_METADATA_NAME = re.compile(r"[a-z][a-z0-9-]*")
_METADATA_VALUE = re.compile(r"[\x21-\x7e]([\x20-\x7e]*[\x21-\x7e])?")
_PART_BYTES = 16 << 20
#: What S3 takes in one request, and the others about as much; an upload in parts has no condition.
_PUT_BYTES_MAX = 5 << 30


class ObstoreStore:
    """The keys below ``base`` (empty, or ending in ``/``) of one bucket, container, directory or web address."""

    def __init__(
        self,
        url: str,
        kind: str,
        base: str,
        clients: Clients,
        capabilities: Capabilities,
        pages: PrefixReader | S3PageReader,
    ) -> None:
        self.url = url
        self.capabilities = capabilities
        self._kind = kind
        self._base = base
        self._clients = clients
        self._seen = False  # whether the bucket is known to be there
        self._pages = pages

    def head(self, key: str) -> StoredInfo:
        """Describe a key; raises StoredNotFoundError."""
        path = self._path(key)
        try:
            result = obstore.get(self._clients.reading(), path, options={"head": True})
        except LIBRARY_ERRORS as error:
            raise self._failed(error, "HEAD", key) from error
        return self._info(key, result.meta, result.attributes)

    def get(
        self, key: str, start: int = 0, length: int | None = None, *, unless_etag: str = "", if_etag: str = ""
    ) -> StoredBody | None:
        """Begin to read ``length`` bytes (None: all) of a key from ``start``; see the contract."""
        path = self._path(key)
        options: GetOptions = {}
        if start or length is not None:
            if not self.capabilities.ranges:
                raise NotSupportedError(f"{self.url}: this store does not serve ranges", hint="read the whole object")
            if length == 0:
                return self._empty(key, start, unless_etag, if_etag)
            options["range"] = {"offset": start} if length is None else (start, start + length)
        if unless_etag:
            options["if_none_match"] = unless_etag
        if if_etag:
            options["if_match"] = if_etag
        try:
            result = obstore.get(self._clients.reading(), path, options=options)
        except exceptions.NotModifiedError:
            return None
        except LIBRARY_ERRORS as error:
            raise self._failed(error, "GET", key) from error
        info = self._info(key, result.meta, result.attributes)
        first, end = result.range
        if first != start:
            raise NotSupportedError(
                f"GET {self.url}/{key}: asked for bytes from {start}, the store sent them from {first}",
                hint="this store does not serve ranges; read the whole object",
            )
        return ObstoreBody(info, first, end - first, result, f"GET {self.url}/{key}")

    def put(
        self,
        key: str,
        data: Any,
        metadata: Mapping[str, str] = {},
        condition: Absent | str | None = None,
        seconds: float = WRITE_SECONDS,
    ) -> StoredInfo:
        """Write a whole key in one request; see the contract."""
        path = self._path(key)
        self._check_writable("PUT", key)
        attributes = self._attributes(key, metadata)
        if memoryview(data).nbytes > _PUT_BYTES_MAX and self._kind not in ("memory", "file"):
            raise TooLargeError(
                f"PUT {self.url}/{key}: {memoryview(data).nbytes:,} bytes are more than an object store takes at once",
                hint="expected 5 GiB at most; write it with the store's own tools, it can be read here",
            )
        if self._kind == "memory":  # it would keep the caller's own buffer
            data = bytes(data)
        try:
            result = obstore.put(
                self._clients.writing(seconds),
                path,
                data,
                attributes=attributes or None,
                mode=self._mode(key, condition),
                use_multipart=False,
            )
        except LIBRARY_ERRORS as error:
            raise self._failed(error, "PUT", key, writing=True) from error
        self._seen = True
        return StoredInfo(key, memoryview(data).nbytes, result["e_tag"] or "", 0, dict(metadata))

    def put_parts(self, key: str, parts: Iterator[Any], metadata: Mapping[str, str] = {}) -> StoredInfo:
        """Write a key from buffers of any size, as a multipart upload, without a condition; raises as ``put``."""
        path = self._path(key)
        self._check_writable("PUT", key)
        attributes = self._attributes(key, metadata)
        counted = _Counted(parts)
        try:
            result = obstore.put(
                self._clients.writing(3600.0),
                path,
                counted,
                attributes=attributes or None,
                use_multipart=True,
                chunk_size=_PART_BYTES,
                max_concurrency=4,
            )
        except LIBRARY_ERRORS as error:
            if counted.failure is not None:
                raise counted.failure from None
            raise self._failed(error, "PUT", key, writing=True) from error
        return StoredInfo(key, counted.size, result["e_tag"] or "", 0, dict(metadata))

    def delete(self, key: str, seconds: float = WRITE_SECONDS) -> None:
        """Remove a key, whether it is there or not; raises AmbiguousWriteError."""
        self.delete_many([key], seconds)

    def delete_many(self, keys: Sequence[str], seconds: float = WRITE_SECONDS) -> None:
        """Remove keys, in as few requests as the store allows; after AmbiguousWriteError some may be left."""
        paths = [self._path(key) for key in keys]
        if not paths:
            return
        what = keys[0] if len(keys) == 1 else f"{keys[0]} and {len(keys) - 1} more"
        self._check_writable("DELETE", what)
        client = self._clients.writing(seconds)
        try:
            obstore.delete(client, paths)
        except FileNotFoundError as error:
            failure = self._failed(error, "DELETE", what, writing=True)
            if not isinstance(failure, StoredNotFoundError):
                raise failure from error
            if len(keys) > 1:  # one of them was not there: where that is an error, it ended the others
                for key in keys:
                    self.delete(key, seconds)
        except LIBRARY_ERRORS as error:
            raise self._failed(error, "DELETE", what, writing=True) from error

    def list(self, prefix: str = "", start_after: str = "", limit: int = 1000) -> StoredPage:
        """Return the first ``limit`` keys that begin with ``prefix`` and follow ``start_after``, as the store sorts."""
        if limit < 1:
            raise BadRequestError(f"a page of {limit} keys is not possible", hint="expected a limit of 1 or more")
        if not self.capabilities.listing:
            raise NotSupportedError(
                f"{self.url}: this store cannot list what it has",
                hint="name the objects that you want, for example from a file of names",
            )
        if self._kind == "file":
            return list_directory(self.url.removeprefix("file://"), prefix, start_after, limit)
        try:
            page = self._pages.read(prefix, start_after, limit, self.capabilities.byte_order)
        except LIBRARY_ERRORS as error:
            raise self._failed(error, "LIST", prefix) from error
        self._seen = True
        return page

    def list_groups(self, prefix: str = "") -> StoredGroups:
        """Return one level: ``prefix`` is empty or ends in ``/``. All of it at once, so for levels that are small."""
        if prefix and not prefix.endswith("/"):
            raise BadRequestError(f"{prefix!r} is not a level", hint="expected an empty prefix, or one ending in '/'")
        groups: dict[str, None] = {}
        entries: list[StoredInfo] = []
        foreign, after = 0, ""
        while True:  # a walk that jumps over each group
            page = self.list(prefix, after, 1000)
            foreign += page.foreign
            jump = ""
            for entry in page.entries:
                name, slash, _ = entry.key[len(prefix) :].partition("/")
                if not slash:
                    entries.append(entry)
                elif prefix + name + "/" not in groups:
                    groups[prefix + name + "/"] = None
                    jump = prefix + name + "/\U0010ffff"
            if not page.continuation:
                return StoredGroups(list(groups), entries, foreign)
            last = page.entries[-1].key if page.entries else ""
            after = jump if jump and last.startswith(jump[:-1]) else page.continuation

    def close(self) -> None:
        """Give connections back."""
        self._clients.close()
        self._pages.close()

    # What the verbs share.

    def _path(self, key: str) -> str:
        return self._base + check_key(key, self.capabilities, self.url)

    def _check_writable(self, verb: str, key: str) -> None:
        if not self.capabilities.writable:
            raise NotSupportedError(f"{verb} {self.url}/{key}: this store can only be read")

    def _mode(self, key: str, condition: Absent | str | None) -> Any:
        if condition is None:
            return "overwrite"
        able = self.capabilities.conditional_create if condition is ABSENT else self.capabilities.conditional_replace
        if not able:
            raise NotSupportedError(
                f"PUT {self.url}/{key}: this store does not write under a condition",
                hint="it can serve one node that is its only writer",
            )
        if condition is ABSENT:
            return "create"
        if self._kind == "gs":  # here writes are conditional on generations, which only a HEAD tells
            return {"version": self._generation(key, str(condition))}
        return {"e_tag": condition}

    def _generation(self, key: str, etag: str) -> str:
        try:
            meta = obstore.head(self._clients.reading(), self._path(key))
        except LIBRARY_ERRORS as error:
            failure = self._failed(error, "HEAD", key)
            if isinstance(failure, StoredNotFoundError):
                failure = StaleConditionError(f"PUT {self.url}/{key}: the key is not there, nothing was written")
            raise failure from error
        if meta["e_tag"] != etag:
            raise StaleConditionError(f"PUT {self.url}/{key}: the key is not as expected, nothing was written")
        return str(meta["version"])

    def _attributes(self, key: str, metadata: Mapping[str, str]) -> dict[str, str]:
        if not metadata:
            return {}
        most = self.capabilities.metadata_bytes_max
        if not most:
            raise NotSupportedError(f"PUT {self.url}/{key}: this store keeps no metadata with a key")
        size = sum(len(name) + len(value) for name, value in metadata.items())
        if size > most:
            raise TooLargeError(
                f"PUT {self.url}/{key}: {size} bytes of metadata are too many", hint=f"this store takes {most}"
            )
        for name, value in metadata.items():
            if not _METADATA_NAME.fullmatch(name) or not _METADATA_VALUE.fullmatch(value):
                raise BadRequestError(
                    f"metadata {name!r}: {value!r} cannot be stored",
                    hint="expected a name of a-z, 0-9 and '-', a value of printable ASCII without spaces at its ends",
                )
        if self._kind == "az":  # Azure's names are identifiers of C#
            return {name.replace("-", "_"): value for name, value in metadata.items()}
        return dict(metadata)

    def _info(self, key: str, meta: Mapping[str, Any], attributes: Mapping[str, str]) -> StoredInfo:
        self._seen = True
        metadata = {name.lower(): value for name, value in attributes.items() if not name[:1].isupper()}
        if self._kind == "az":
            metadata = {name.replace("_", "-"): value for name, value in metadata.items()}
        return StoredInfo(key, meta["size"], meta["e_tag"] or "", unix_ns(meta["last_modified"]), metadata)

    def _empty(self, key: str, start: int, unless_etag: str, if_etag: str) -> StoredBody | None:
        info = self.head(key)
        if unless_etag and info.etag == unless_etag:
            return None
        if if_etag and info.etag != if_etag:
            raise StaleConditionError(f"GET {self.url}/{key}: the key is not as expected")
        if start > info.size:
            raise RangeNotSatisfiableError(f"GET {self.url}/{key}: the range is outside the object")
        return EmptyBody(info, start)

    def _failed(self, error: BaseException, verb: str, key: str, *, writing: bool = False) -> Exception:
        failure = translate(error, f"{verb} {self.url}/{key}", writing=writing)
        if isinstance(failure, StoredNotFoundError) and not self._seen and self.capabilities.listing:
            # An answer to HEAD has no body that could tell a missing bucket from a missing key.
            try:
                self.list("", "", 1)
            except (AmbiguousWriteError, StoredNotFoundError):
                return failure
            except Exception as worse:
                return worse
        return failure


class _Counted:
    """An iterator of buffers that counts bytes, and remembers what its source raised (the library rewords it)."""

    def __init__(self, parts: Iterator[Any]) -> None:
        self.size = 0
        self.failure: Exception | None = None
        self._parts = iter(parts)

    def __iter__(self) -> _Counted:
        return self

    def __next__(self) -> Any:
        try:
            part = next(self._parts)
        except StopIteration:
            raise
        except Exception as error:
            self.failure = error
            raise
        self.size += memoryview(part).nbytes
        return part

"""The buckets of an engine over an object store: one small document each, beside the prefixes of their objects."""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping
from typing import Any

import msgspec

from ...errors import BadRequestError, BucketExistsError, BucketNotFoundError, StaleConditionError, StoredNotFoundError
from ...model.buckets import BucketInfo
from .contract import ABSENT, ObjectStore
from .names import unnamable

#: Names of documents; no bucket begins with a dot.
PLACE = ".ais/buckets/"


class BucketDocument(msgspec.Struct, frozen=True):
    """What is kept of a bucket. One that is ``deleting`` is gone for everybody but who removes its objects."""

    name: str
    id: int
    created_ns: int
    props: dict[str, Any] = {}
    deleting: bool = False
    format: int = 1


class BucketDocuments:
    """Reads and writes the documents in ``store``; nothing is remembered, so any process may change them."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    def create(self, bucket: str, props: Mapping[str, Any]) -> BucketInfo:
        """Make a bucket; raises BucketExistsError, BadRequestError (the name)."""
        check_bucket(bucket)
        made = BucketDocument(bucket, secrets.randbits(62), time.time_ns(), dict(props))
        found = self._find(bucket)
        if found is not None and not found[0].deleting:
            raise BucketExistsError.of(bucket)
        if found is not None:  # whoever was removing it did not finish
            self.finish_delete(bucket)
        try:
            self._store.put(PLACE + bucket, msgspec.json.encode(made), condition=ABSENT)
        except StaleConditionError as error:
            raise BucketExistsError.of(bucket) from error
        return _info(made)

    def find(self, bucket: str) -> BucketInfo:
        """Return a bucket; raises BucketNotFoundError."""
        found = self._find(bucket)
        if found is None or found[0].deleting:
            raise BucketNotFoundError.of(bucket)
        return _info(found[0])

    def list(self) -> list[BucketInfo]:
        """Return all buckets, by name."""
        found = []
        after = ""
        while True:
            page = self._store.list(PLACE, after)
            for entry in page.entries:
                try:
                    found.append(self.find(entry.key.removeprefix(PLACE)))
                except BucketNotFoundError:
                    continue
            after = page.continuation
            if not after:
                return sorted(found, key=lambda info: info.name.encode())

    def begin_delete(self, bucket: str) -> None:
        """Make a bucket vanish for every reader and writer; raises BucketNotFoundError."""
        found = self._find(bucket)
        if found is None or found[0].deleting:
            raise BucketNotFoundError.of(bucket)
        going = msgspec.structs.replace(found[0], deleting=True)
        condition = found[1] if self._store.capabilities.conditional_replace else None
        try:
            self._store.put(PLACE + bucket, msgspec.json.encode(going), condition=condition)
        except StaleConditionError as error:
            raise BucketNotFoundError.of(bucket) from error

    def finish_delete(self, bucket: str) -> None:
        """Remove the objects of a bucket that is being deleted, then its document."""
        while keys := [entry.key for entry in self._store.list(bucket + "/").entries]:
            self._store.delete_many(keys)
        self._store.delete(PLACE + bucket)

    def _find(self, bucket: str) -> tuple[BucketDocument, str] | None:
        check_bucket(bucket)
        try:
            body = self._store.get(PLACE + bucket)
        except StoredNotFoundError:
            return None
        assert body is not None
        return msgspec.json.decode(body.read(), type=BucketDocument), body.info.etag


def check_bucket(bucket: str) -> str:
    """Return ``bucket`` if it can be a prefix of keys; raises BadRequestError."""
    if unnamable(bucket) or "/" in bucket or bucket.startswith("."):
        raise BadRequestError(
            f"bucket name {bucket!r} is not possible here", hint="expected a name without '/' that begins without a dot"
        )
    return bucket


def _info(document: BucketDocument) -> BucketInfo:
    return BucketInfo(document.name, document.id, document.created_ns, document.props)

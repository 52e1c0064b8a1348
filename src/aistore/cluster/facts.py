"""What is known of an object in a store, as copies of it are kept with it and as clients are told of it."""

from __future__ import annotations

import time
from collections.abc import Mapping

from ..model.objects import Checksum, ObjectInfo, can_be_told
from ..storage.cache.facts import CachedFacts
from ..storage.checksums import STORED_TYPE
from ..storage.objectstore.contract import StoredInfo
from ..storage.objectstore.metadata import checksum_of, custom_of, version_of
from .documents import BucketRecord


def facts_of(
    stored: StoredInfo, stamp: int, *, version: int = 0, custom: Mapping[str, str] | None = None
) -> CachedFacts:
    """Return the facts of a stored object; ``version`` and ``custom`` if they are known better than from metadata.

    A store does not say when it wrote what it was just sent; now is near enough for the people who are told.
    """
    metadata = stored.metadata
    found = _told(metadata) if custom is None else custom
    written_ns = stored.modified_ns or time.time_ns()
    return CachedFacts(stored.etag, version or version_of(metadata), written_ns, stamp, found)


def is_of(facts: CachedFacts, stored: StoredInfo) -> bool:
    """Say whether a copy with these facts is what is stored.

    The ETag alone does not say so: many stores make it of the bytes, and the same bytes may have been written again
    with other metadata. Where there is none, as of plain web servers, the time of writing has to do.
    """
    return (
        facts.etag == stored.etag
        and (stored.etag != "" or facts.modified_ns == stored.modified_ns)
        and facts.version == version_of(stored.metadata)
        and facts.custom == _told(stored.metadata)
    )


def _told(metadata: Mapping[str, str]) -> dict[str, str]:
    """Return the custom metadata of a stored object, without what another program wrote that no header can tell."""
    return {key: value for key, value in custom_of(metadata).items() if can_be_told(key, value)}


def info_of(
    bucket: BucketRecord, name: str, stored: StoredInfo, facts: CachedFacts, *, checksum: str = "", size: int = -1
) -> ObjectInfo:
    """Return what clients are told of a stored object."""
    known = Checksum(STORED_TYPE, checksum) if checksum else checksum_of(stored.metadata)
    return ObjectInfo(
        bucket.name, name, stored.size if size < 0 else size, facts.version, known, facts.modified_ns, facts.custom,
        facts.etag,
    )  # fmt: skip

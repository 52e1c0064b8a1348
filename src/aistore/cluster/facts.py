"""What is known of an object in a store: from the metadata that this project writes with it, or without."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping

from ..errors import TooLargeError
from ..model.objects import Checksum, ObjectInfo, can_be_told
from ..storage.cache.facts import CachedFacts
from ..storage.checksums import STORED_TYPE
from ..storage.objectstore.contract import StoredInfo
from .documents import BucketRecord

#: Names of metadata in the store. The nonce tells a write from any other.
VERSION, CHECKSUM, NONCE, CUSTOM = "ais-version", "ais-checksum", "ais-nonce", "ais-custom"
#: What stores keep with an object, at least; S3 has the least, 2 KB with the names.
_CUSTOM_BYTES_MAX = 1_800
_CHECKSUM = re.compile("[0-9a-f]{16}")


def metadata_of(version: int, checksum: str, nonce: str, custom: Mapping[str, str]) -> dict[str, str]:
    """Return the metadata of an object that is written to a store; raises TooLargeError."""
    metadata = {VERSION: str(version), CHECKSUM: checksum, NONCE: nonce}
    if custom:
        metadata[CUSTOM] = json.dumps(dict(custom), separators=(",", ":"))  # ASCII, as a header has to be
        if len(metadata[CUSTOM]) > _CUSTOM_BYTES_MAX:
            raise TooLargeError(
                f"custom metadata of {len(metadata[CUSTOM])} bytes",
                hint=f"expected {_CUSTOM_BYTES_MAX} at most: object stores keep no more with an object",
            )
    return metadata


def _custom_of(metadata: Mapping[str, str]) -> dict[str, str]:
    """Return the custom metadata kept with an object.

    Another program may have written anything there: what could not be told in a header is left out.
    """
    try:
        found = json.loads(metadata.get(CUSTOM, "{}"))
    except (ValueError, RecursionError):
        return {}
    if not isinstance(found, dict):
        return {}
    return {key: value for key, value in found.items() if isinstance(value, str) and can_be_told(key, value)}


def noted_checksum(metadata: Mapping[str, str]) -> str:
    """Return the checksum that was noted with an object when it was written; empty where there is none."""
    text = metadata.get(CHECKSUM, "")
    return text if _CHECKSUM.fullmatch(text) else ""


def facts_of(
    stored: StoredInfo, stamp: int, *, version: int = 0, custom: Mapping[str, str] | None = None
) -> CachedFacts:
    """Return the facts of a stored object; ``version`` and ``custom`` if they are known better than from metadata.

    A store does not say when it wrote what it was just sent; now is near enough for the people who are told.
    """
    metadata = stored.metadata
    found = _custom_of(metadata) if custom is None else custom
    written_ns = stored.modified_ns or time.time_ns()
    return CachedFacts(stored.etag, version or version_of(metadata), written_ns, stamp, found)


def is_of(facts: CachedFacts, stored: StoredInfo) -> bool:
    """Say whether a copy with these facts is what is stored.

    The ETag alone does not say so: many stores make it of the bytes, and the same bytes may have been written again
    with other metadata.
    """
    return (
        facts.etag == stored.etag
        and facts.version == version_of(stored.metadata)
        and facts.custom == _custom_of(stored.metadata)
    )


def version_of(metadata: Mapping[str, str]) -> int:
    """Return the version that is noted with an object; 1 for one that another program wrote."""
    text = metadata.get(VERSION, "")
    return max(1, int(text)) if text.isdecimal() and len(text) < 18 else 1


def info_of(
    bucket: BucketRecord, name: str, stored: StoredInfo, facts: CachedFacts, *, checksum: str = "", size: int = -1
) -> ObjectInfo:
    """Return what clients are told of a stored object; without a noted checksum, a plain ETag's MD5."""
    value = checksum or noted_checksum(stored.metadata)
    kind, etag = STORED_TYPE, stored.etag.strip('"')
    if not value:
        kind, value = ("md5", etag) if len(etag) == 32 and etag.isalnum() else ("none", "")
    return ObjectInfo(
        bucket.name, name, stored.size if size < 0 else size, facts.version, Checksum(kind, value), facts.modified_ns,
        facts.custom,
    )  # fmt: skip

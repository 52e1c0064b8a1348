"""What this project writes beside an object's bytes, as the metadata of its key; keys of other programs have none."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping

from ...errors import TooLargeError
from ...model.objects import Checksum, ObjectInfo
from ..checksums import STORED_TYPE
from .contract import StoredInfo

#: Names of metadata. The nonce tells a write from any other.
VERSION, CHECKSUM, NONCE, CUSTOM, CREATED = "ais-version", "ais-checksum", "ais-nonce", "ais-custom", "ais-created"

#: The checksum of a key whose writer did not note one.
UNKNOWN = Checksum("none", "")

#: What stores keep with an object, at least; S3 has the least, 2 KB with the names.
CUSTOM_BYTES_MAX = 1_800
#: More is no count of writes, and does not fit into the numbers of databases.
_VERSION_END = 10**17
_CHECKSUM = re.compile("[0-9a-f]{16}")


def encode(version: int, checksum: str, nonce: str, custom: Mapping[str, str], created_ns: int = 0) -> dict[str, str]:
    """Return the metadata for an object that is written; raises TooLargeError.

    ``nonce`` tells this write from any other. Without ``created_ns`` the store's own time of writing counts.
    """
    metadata = {VERSION: str(version), CHECKSUM: checksum, NONCE: nonce}
    if created_ns:
        metadata[CREATED] = str(created_ns)
    if custom:
        # ASCII without a space: what signs a request may fold two spaces of a header into one.
        text = json.dumps(dict(custom), separators=(",", ":")).replace(" ", "\\u0020")
        if len(text) > CUSTOM_BYTES_MAX:
            raise TooLargeError(
                f"custom metadata of {len(text)} bytes",
                hint=f"expected {CUSTOM_BYTES_MAX} at most: object stores keep no more with an object",
            )
        metadata[CUSTOM] = text
    return metadata


def decode(bucket: str, name: str, stored: StoredInfo) -> ObjectInfo:
    """Return what is known of a stored object: version 1, and perhaps no checksum, where nothing is noted."""
    noted = stored.metadata
    created = _number(noted.get(CREATED, "")) or stored.modified_ns
    return ObjectInfo(bucket, name, stored.size, version_of(noted), checksum_of(noted), created, custom_of(noted))


def version_of(noted: Mapping[str, str]) -> int:
    """Return the version that is noted with an object; 1 for one that another program wrote."""
    number = _number(noted.get(VERSION, ""))
    return number if 0 < number < _VERSION_END else 1


def checksum_of(noted: Mapping[str, str]) -> Checksum:
    """Return the checksum that is noted with an object, else UNKNOWN.

    An ETag that looks like an MD5 need not be the bytes' one: of objects that S3 has encrypted it is not.
    """
    text = noted.get(CHECKSUM, "")
    return Checksum(STORED_TYPE, text) if _CHECKSUM.fullmatch(text) else UNKNOWN


def custom_of(noted: Mapping[str, str]) -> dict[str, str]:
    """Return the custom metadata kept with an object; what is none, written by another program, is left out."""
    try:
        found = json.loads(noted.get(CUSTOM, "{}"))
    except (ValueError, RecursionError):
        return {}
    if not isinstance(found, dict):
        return {}
    return {key: value for key, value in found.items() if isinstance(value, str)}


def _number(text: str) -> int:
    return int(text) if text.isdecimal() and len(text) < 20 else 0

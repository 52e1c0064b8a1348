"""What this project writes beside an object's bytes, as the metadata of its key; keys of other programs have none."""

from __future__ import annotations

import json
from collections.abc import Mapping

from ...model.objects import Checksum, ObjectInfo
from ..checksums import STORED_TYPE
from .contract import StoredInfo

VERSION, CHECKSUM, NONCE, CUSTOM, CREATED = "ais-version", "ais-checksum", "ais-nonce", "ais-custom", "ais-created"

#: The checksum of a key whose writer did not note one.
UNKNOWN = Checksum("none", "")


def encode(info: ObjectInfo, nonce: str) -> dict[str, str]:
    """Return the metadata for an object that is written; ``nonce`` tells this write from any other."""
    metadata = {
        VERSION: str(info.version),
        CHECKSUM: info.checksum.value,
        NONCE: nonce,
        CREATED: str(info.created_ns),
    }
    if info.custom:
        # ASCII without a space: what signs a request may fold two spaces of a header into one.
        metadata[CUSTOM] = json.dumps(dict(info.custom), separators=(",", ":")).replace(" ", "\\u0020")
    return metadata


def decode(bucket: str, name: str, stored: StoredInfo) -> ObjectInfo:
    """Return what is known of a stored object: version 1, and no checksum, where nothing is noted."""
    noted = stored.metadata
    checksum = Checksum(STORED_TYPE, noted[CHECKSUM]) if noted.get(CHECKSUM) else UNKNOWN
    created = _number(noted.get(CREATED, "")) or stored.modified_ns
    return ObjectInfo(
        bucket, name, stored.size, _number(noted.get(VERSION, "")) or 1, checksum, created, _custom(noted)
    )


def _number(text: str) -> int:
    return int(text) if text.isdecimal() and len(text) < 20 else 0


def _custom(noted: Mapping[str, str]) -> dict[str, str]:
    try:
        found = json.loads(noted.get(CUSTOM, "{}"))
    except (ValueError, RecursionError):
        return {}  # another program's
    return {str(key): str(value) for key, value in found.items()} if isinstance(found, dict) else {}

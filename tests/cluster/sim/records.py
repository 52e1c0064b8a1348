"""The records of object stores and of the cache."""

from __future__ import annotations

try:
    from aistore.storage.objectstore.contract import ABSENT, StoredInfo, StoredPage
except ImportError:
    from collections.abc import Mapping

    import msgspec

    class StoredInfo(msgspec.Struct, frozen=True):
        key: str
        size: int
        etag: str
        modified_ns: int
        metadata: Mapping[str, str]

    class StoredPage(msgspec.Struct, frozen=True):
        entries: list
        continuation: str

    ABSENT = object()

__all__ = ["ABSENT", "StoredInfo", "StoredPage"]

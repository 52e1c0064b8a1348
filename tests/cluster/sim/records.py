"""The records of object stores and of the cache."""

from __future__ import annotations

import sys
import types

try:
    import aistore.storage.cache.facts
    import aistore.storage.objectstore.contract  # noqa: F401
except ImportError:
    import enum
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
        foreign: int = 0

    class Absent(enum.Enum):
        ABSENT = "absent"

    class CachedFacts(msgspec.Struct, frozen=True):
        etag: str
        version: int
        modified_ns: int
        stamp: int
        custom: Mapping[str, str] = {}

    class CachedReading:
        pass

    class StoredBody:
        pass

    contract = types.ModuleType("aistore.storage.objectstore.contract")
    contract.__dict__.update(
        StoredInfo=StoredInfo, StoredPage=StoredPage, Absent=Absent, ABSENT=Absent.ABSENT, StoredBody=StoredBody
    )
    facts = types.ModuleType("aistore.storage.cache.facts")
    facts.__dict__.update(CachedFacts=CachedFacts, CachedReading=CachedReading)
    for name, module in {
        "aistore.storage.objectstore": types.ModuleType("aistore.storage.objectstore"),
        "aistore.storage.objectstore.contract": contract,
        "aistore.storage.cache": types.ModuleType("aistore.storage.cache"),
        "aistore.storage.cache.facts": facts,
    }.items():
        sys.modules[name] = module

from aistore.storage.objectstore.contract import ABSENT, StoredInfo, StoredPage

__all__ = ["ABSENT", "StoredInfo", "StoredPage"]

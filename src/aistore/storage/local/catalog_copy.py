"""A copy of the catalog on every mountpath, so that losing one disk does not lose what is known of buckets and disks.

Written by housekeeping within seconds of a change. Nothing reads it in normal life: it is there to make the first
mountpath's index again.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any

import msgspec

from . import index
from .layout import Mountpath
from .placement import MountpathSet
from .syncing import replace_file

_KIND = "pyaistore catalog"
FORMAT = 1


class CopiedBucket(msgspec.Struct, frozen=True, kw_only=True):
    """A bucket's row."""

    id: int
    name: str
    created_ns: int
    props: dict[str, Any]


class CatalogCopy(msgspec.Struct, frozen=True, kw_only=True):
    """The catalog. Buckets yet to be created get ids from ``next_bucket`` on: older ones may have been removed."""

    kind: str = _KIND
    format: int = FORMAT
    mountpaths: MountpathSet
    next_bucket: int
    buckets: list[CopiedBucket]


def write_copies(connection: sqlite3.Connection, known: MountpathSet, places: Sequence[Mountpath]) -> list[Mountpath]:
    """Write the catalog of ``connection``, the first mountpath's, to each of ``places``; return where that failed."""
    connection.execute("BEGIN")
    try:
        rows = connection.execute("SELECT id, name, created_ns, props FROM buckets ORDER BY id").fetchall()
        last = connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'buckets'").fetchone()
    finally:
        connection.execute("COMMIT")
    copy = CatalogCopy(
        mountpaths=known,
        next_bucket=(last[0] if last else 0) + 1,
        buckets=[
            CopiedBucket(id=id_, name=name, created_ns=created_ns, props=index.decode_props(props))
            for id_, name, created_ns, props in rows
        ],
    )
    data = msgspec.json.format(msgspec.json.encode(copy), indent=1)
    return [place for place in places if not _write(place.copy, data)]


def read_copy(place: Mountpath) -> CatalogCopy | None:
    """Return a mountpath's copy of the catalog; None if it has none that can be read."""
    try:
        with open(place.copy, "rb") as file:
            copy = msgspec.json.decode(file.read(), type=CatalogCopy)
    except (OSError, msgspec.DecodeError):
        return None
    return copy if (copy.kind, copy.format) == (_KIND, FORMAT) else None


def _write(path: str, data: bytes) -> bool:
    try:
        replace_file(path, data)
    except OSError:
        return False
    return True

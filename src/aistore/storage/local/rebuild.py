"""Making the index again from the trailers of the files, when the index is lost or broken.

What cannot come back: objects that lived in the index (256 bytes and less), properties of buckets, and empty buckets.
What may come back though it was deleted: objects whose files were still in their grace. Both are counted or said.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from typing import NamedTuple

from ...errors import ConflictError
from . import index, recovery
from .layout import Mountpath, open_directory
from .stamps import EVERYTHING, Stamps
from .trailer import Record


class Rebuilt(NamedTuple):
    """What was found: buckets and objects indexed, older versions put into the trash, files without a trailer."""

    buckets: int
    objects: int
    superseded: int
    unreadable: int


def rebuild(directory: str) -> Rebuilt:
    """Put the old index aside (``index.db.before-…``) and make a new one; for the owner of a store nobody has open.

    Raises ConflictError when a process is writing. Bytes are not read, only trailers: a scrub is a different thing.
    """
    mountpath = _unopened(directory)
    _refuse_writers(mountpath)
    _put_aside(mountpath)
    open_directory(directory)
    newest: dict[tuple[str, bytes], Record] = {}
    losers: list[str] = []
    unreadable = 0
    for place in _places(mountpath):
        record = recovery.read_trailer(mountpath, place)
        if record is None:
            unreadable += 1
            continue
        key = (record.bucket, record.name)
        other = newest.get(key)
        if other is None or _age(other) < _age(record):
            newest[key] = record
            losers += [other.place] if other else []
        else:
            losers.append(place)
    buckets = _latest_buckets(newest)
    kept = [record for record in newest.values() if buckets[record.bucket] == record.bucket_id]
    losers += [record.place for record in newest.values() if buckets[record.bucket] != record.bucket_id]
    _fill(mountpath, buckets, kept, losers)
    return Rebuilt(len(buckets), len(kept), len(losers), unreadable)


def _unopened(directory: str) -> Mountpath:
    mountpath = Mountpath(f"{os.path.abspath(directory)}/mp0")
    if not os.path.isdir(mountpath.data):
        raise ConflictError(f"{directory} has no data to make an index from", hint="expected a data directory")
    return mountpath


def _refuse_writers(mountpath: Mountpath) -> None:
    for name in recovery.unsealed(mountpath):
        marker = recovery.take(mountpath, name)
        if marker is None:
            raise ConflictError(f"{mountpath.directory} is being written to", hint="stop the store, then rebuild")
        os.close(marker)


def _put_aside(mountpath: Mountpath) -> None:
    suffix = f"before-{time.time_ns()}"
    for part in ("", "-wal", "-shm"):
        try:
            os.rename(f"{mountpath.database}{part}", f"{mountpath.database}.{suffix}{part}")
        except FileNotFoundError:
            pass


def _places(mountpath: Mountpath) -> Iterator[str]:
    for generation in sorted(os.listdir(mountpath.data)):
        for file in os.listdir(f"{mountpath.data}/{generation}"):
            yield f"{generation}/{file}"


def _age(record: Record) -> tuple[int, int, int]:
    # Numbers of buckets only grow; a version starts again after a delete, so the time decides before it.
    return record.bucket_id, record.created_ns, record.version


def _latest_buckets(newest: dict[tuple[str, bytes], Record]) -> dict[str, int]:
    """Return the number of each bucket: the last one, if a bucket of that name was removed and created again."""
    buckets: dict[str, int] = {}
    for (bucket, _), record in newest.items():
        buckets[bucket] = max(record.bucket_id, buckets.get(bucket, 0))
    return buckets


def _fill(mountpath: Mountpath, buckets: dict[str, int], kept: list[Record], losers: list[str]) -> None:
    stamps = Stamps(mountpath.stamps)
    writer = index.Writer(mountpath.database, mountpath.commit_lock, stamps, durable=True)
    try:
        with writer.transaction((EVERYTHING,)) as connection:
            now = time.time_ns()
            connection.executemany(
                "INSERT INTO buckets (id, name, created_ns, props) VALUES (?, ?, ?, ?)",
                ((number, bucket, now, index.encode_props({})) for bucket, number in buckets.items()),
            )
            connection.executemany(
                "INSERT INTO objects VALUES (?, ?, ?, ?, ?, ?, ?, ?, NULL)",
                map(index.row_of, kept),
            )
            connection.executemany("INSERT INTO trash (place) VALUES (?)", ((place,) for place in losers))
    finally:
        writer.close()
        stamps.close()

"""A turn at writing to one mountpath's index, and the proof in it that an object belongs there.

A name lives on one mountpath only. Two rules keep that so, each checked by the writer while it holds the turn:

- away from the name's home, a write changes what is there and creates nothing;
- at its home, it creates only if no other candidate has the name.

Since nobody creates elsewhere, what the second rule found stays true until the commit. The set of mountpaths, and with
it every home, changes only while whoever changes it holds the turns of all of them (members.py).
"""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING, Any

from . import index
from .generations import Generations
from .placement import ROOT

if TYPE_CHECKING:
    from .catalog import Snapshot
    from .mountpaths import Mountpaths
    from .opened import OpenMountpath


class Elsewhere(Exception):
    """The operation belongs to another mountpath; nothing was changed by it."""

    def __init__(self, mountpath: str) -> None:
        super().__init__(mountpath)
        self.mountpath = mountpath


class Turn:
    """What an operation works with: a connection within a transaction, and where files of the mountpath are."""

    __slots__ = ("_disk", "_mountpaths", "connection")

    def __init__(self, connection: sqlite3.Connection, disk: OpenMountpath, mountpaths: Mountpaths) -> None:
        self.connection = connection
        self._disk = disk
        self._mountpaths = mountpaths

    @property
    def store(self) -> Generations:
        """The mountpath's files."""
        return self._disk.store

    def find(self, bucket: str, key: bytes, name: str, *, creates: bool = False) -> tuple[int, tuple[Any, ...] | None]:
        """Return the bucket's id and the object's row, None if it is nowhere; it may be created then.

        Raises BucketNotFoundError, MountpathUnavailableError when it may be where nobody can look, and Elsewhere.
        """
        disk = self._disk
        catalog = self._mountpaths.catalog.current(bucket, None if disk.further else self.connection)
        bucket_id = catalog.bucket(bucket).id
        row: tuple[Any, ...] | None = self.connection.execute(index.LOOK_UP, (bucket_id, key)).fetchone()
        if disk.further or not catalog.placement.single:
            self._check_place(catalog, bucket, key, name, exists=row is not None, creates=creates)
        return bucket_id, row

    def _check_place(
        self, catalog: Snapshot, bucket: str, key: bytes, name: str, *, exists: bool, creates: bool
    ) -> None:
        here = self._disk.id
        candidates = (ROOT,) if catalog.placement.single else catalog.placement.candidates(bucket, key)
        if here not in candidates:
            raise Elsewhere(candidates[0])
        if exists:
            return
        what = f"ais://{bucket}/{name}"
        for other in candidates:
            if other == here:
                continue
            if self._mountpaths.get(other, what).look_up(catalog.bucket(bucket).id, key, bucket, name) is not None:
                raise Elsewhere(other)
        if creates and here != candidates[0]:
            raise Elsewhere(candidates[0])

"""The mountpaths of a store as one process has them open."""

from __future__ import annotations

import os
import sqlite3
import threading
import weakref
from collections.abc import Callable

from ...errors import InternalError
from .catalog import Catalog
from .health import disk_words, unavailable
from .layout import further, open_directory
from .opened import OpenMountpath
from .placement import ROOT
from .settings import LocalSettings
from .stamps import EPOCH, Stamps


class Mountpaths:
    """Opens each mountpath when it is first needed, and again when it was away. For use by several threads."""

    def __init__(self, directory: str, settings: LocalSettings) -> None:
        places = open_directory(directory)
        self._directory = os.path.abspath(directory)
        self._settings = settings
        self._lock = threading.Lock()
        self._closed = False
        #: Called when a mountpath is let go: what it gave may be of no use any more.
        self.let_go: Callable[[], None] = lambda: None
        self._opened: dict[str, OpenMountpath] = {}
        self._dropped: weakref.WeakSet[OpenMountpath] = weakref.WeakSet()
        #: Tables stay mapped until the end, whatever is opened again: who holds a ticket looks into one.
        self._stamps = {ROOT: Stamps(places.stamps)}
        #: The first mountpath's table, whose word of everything guards the catalog.
        self.stamps = self._stamps[ROOT]
        self.catalog = Catalog(places.directory, places.database, self.stamps)
        known = self.catalog.current().mountpaths
        #: The first mountpath, which is always open.
        self.root = OpenMountpath(ROOT, places, self.stamps, known, self, settings)

    @property
    def single(self) -> bool:
        """Whether there is only the first one now."""
        return self.catalog.current().placement.single

    def get(self, id_: str, what: str) -> OpenMountpath:
        """Return a mountpath; raises MountpathUnavailableError for ``what``, an object's or a bucket's address."""
        if id_ == ROOT:
            return self.root
        disk = self._opened.get(id_)
        if disk is not None and disk.words[EPOCH] == disk.epoch:
            return disk
        return self._open(id_, what)

    def drop(self, disk: OpenMountpath) -> None:
        """Let a mountpath go that is not what was opened any more."""
        with self._lock:
            self._drop(disk)

    def end(self) -> None:
        """Accept nothing more on any mountpath, and wait until what was accepted is finished. May be called twice."""
        with self._lock:
            self._closed = True
            disks = [self.root, *self._opened.values(), *self._dropped]
        for disk in disks:
            disk.end()
        for disk in disks:
            disk.close()

    def close(self) -> None:
        """Give the rest back, after ``end``. May be called twice."""
        self.catalog.close()
        for stamps in self._stamps.values():
            stamps.close()

    def _open(self, id_: str, what: str) -> OpenMountpath:
        with self._lock:
            if self._closed:
                raise InternalError(f"{what}: the engine is closed")
            disk = self._opened.get(id_)
            if disk is not None:
                if disk.health.current:
                    return disk
                self._drop(disk)
                del disk  # an error below keeps what this call has
            known = self.catalog.current().mountpaths
            member = known.member(id_)
            if member is None:
                raise unavailable(id_, id_, "it has left the store", what)
            places = further(self._directory, member)
            try:
                if id_ not in self._stamps:
                    self._stamps[id_] = Stamps(places.stamps)
                stamps = self._stamps[id_]
                if stamps.epoch % 2:
                    raise unavailable(id_, member.path, stamps.reason, what)
                disk = OpenMountpath(id_, places, stamps, known, self, self._settings)
            except (OSError, sqlite3.Error) as error:
                # Not said to others: housekeeping looks at every mountpath itself.
                reason = getattr(error, "strerror", None) or disk_words(error) or str(error)
                raise unavailable(id_, member.path, reason, what) from error
            self._opened[id_] = disk
            return disk

    def _drop(self, disk: OpenMountpath) -> None:
        if self._opened.get(disk.id) is disk:
            del self._opened[disk.id]
            self.let_go()
            self._dropped.add(disk)  # alive as long as its thread, or a call, works with it
            disk.end()

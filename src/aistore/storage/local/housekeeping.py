"""What one maintenance process of a store does for all of its mountpaths: ``Housekeeper.step`` in a loop."""

from __future__ import annotations

import logging
import os
import sqlite3
from contextlib import closing
from dataclasses import dataclass

from . import index, stamps
from .catalog import read_mountpaths
from .catalog_copy import write_copies
from .layout import Mountpath, further, open_directory
from .placement import ROOT, MountpathSet
from .presence import bring_back, look_after, mountpaths, writing
from .reclaim import GRACE_SECONDS, Reclaimer
from .recovery import recover
from .stamps import EVERYTHING, Stamps

_log = logging.getLogger("aistore.storage")

#: How often mountpaths are looked at. Guessed: a disk that is gone is found out sooner by those who use it; one that is
#: back is used again after this.
_LOOK_SECONDS = 2.0


def recover_store(directory: str) -> None:
    """Clean up after processes that were killed, and after a power cut; for the owner of ``directory``, at its start.

    A mountpath that cannot be used does not stop the store: it is unavailable until it can.
    """
    recover(directory)
    for member in mountpaths(directory).members:
        if member.id != ROOT:
            places = further(directory, member)
            with closing(_table(places)) as table:
                was_away = table.epoch % 2 == 1
                table.epoch |= 1  # nobody has it open, and nobody shall before it was looked at
            try:
                bring_back(directory, member.id, verify=was_away)
            except (OSError, sqlite3.Error) as error:
                _log.error("mountpath %s (%s) is unavailable: %s", member.path, member.id, error)


@dataclass
class _Part:
    """The housekeeping of one further mountpath, as long as that stays available."""

    reclaimer: Reclaimer
    places: Mountpath
    stamps: Stamps
    epoch: int

    def close(self) -> None:
        self.reclaimer.close()
        self.stamps.close()


class Housekeeper:
    """Reclaims space on every mountpath, brings mountpaths back, and keeps copies of the catalog on all of them.

    One per store at a time is enough; a second does no harm.
    """

    def __init__(self, directory: str, *, grace_seconds: float = GRACE_SECONDS) -> None:
        self._directory = os.path.abspath(directory)
        self._grace_seconds = grace_seconds
        places = open_directory(directory)
        self._root = places
        self._reclaimer = Reclaimer(places, grace_seconds=grace_seconds)
        self._stamps = Stamps(places.stamps)
        self._connection = index.connect(places.database)
        self._parts: dict[str, _Part] = {}
        self._copied: dict[str, int] = {}
        self._next_look = float("-inf")

    def step(self, now: float) -> bool:
        """Do one bounded piece of work for each mountpath; return whether there may be more at once.

        ``now`` is a time in seconds that does not go back (``time.monotonic()``).
        """
        if now >= self._next_look:
            self._next_look = now + _LOOK_SECONDS
            self._look_around()
        more = self._reclaimer.step(now)
        for id_, part in list(self._parts.items()):
            try:
                more = part.reclaimer.step(now) or more
            except (OSError, sqlite3.Error) as error:
                _log.warning("housekeeping of mountpath %s failed: %s", id_, error)
                self._close(id_)
        return more

    def close(self) -> None:
        """Give every resource back."""
        for id_ in list(self._parts):
            self._close(id_)
        self._reclaimer.close()
        self._connection.close()
        self._stamps.close()

    def _look_around(self) -> None:
        if self._stamps.interrupted:
            with writing(self._directory) as writer, writer.transaction(()):
                pass  # a killed writer left words dirty, which makes everybody's reads slow: clean after this
        known = read_mountpaths(self._connection)
        for id_ in set(self._parts) - {member.id for member in known.members}:
            self._close(id_)
        for member in known.members:
            if member.id == ROOT:
                continue
            look_after(self._directory, member, known)
            self._follow(member.id, further(self._directory, member))
        self._copy_catalog(known)

    def _follow(self, id_: str, places: Mountpath) -> None:
        """Open or close the housekeeping of a mountpath, as its state says; then see what was removed there."""
        part = self._parts.get(id_)
        if part is not None and part.stamps.epoch != part.epoch:
            self._close(id_)
            part = None
        try:
            if part is None:
                with closing(_table(places)) as table:
                    epoch = table.epoch
                if epoch % 2:
                    return
                reclaimer = Reclaimer(places, grace_seconds=self._grace_seconds)
                part = self._parts[id_] = _Part(reclaimer, places, Stamps(places.stamps), epoch)
            if part.stamps.interrupted:
                part.reclaimer.doom([])  # as for the first mountpath above
            self._doom_removed(part)
        except (OSError, sqlite3.Error) as error:
            _log.warning("housekeeping of mountpath %s failed: %s", id_, error)
            self._close(id_)

    def _doom_removed(self, part: _Part) -> None:
        """Have the objects of removed buckets purged, those of a writer that was late for the removal too."""
        with closing(index.connect(part.places.database)) as connection:
            present, last = [], -1
            while True:
                (last,) = connection.execute("SELECT min(bucket) FROM objects WHERE bucket > ?", (last,)).fetchone()
                if last is None:
                    break
                present.append((last,))
        removed = [
            row for row in present if self._connection.execute("SELECT 1 FROM removed WHERE bucket = ?", row).fetchone()
        ]
        if removed:
            part.reclaimer.doom(removed)

    def _copy_catalog(self, known: MountpathSet) -> None:
        word = self._stamps.words[EVERYTHING]
        if word & 1:
            return
        places = {ROOT: self._root, **{id_: part.places for id_, part in self._parts.items()}}
        behind = [place for id_, place in places.items() if self._copied.get(id_) != word]
        if behind:
            failed = write_copies(self._connection, known, behind)
            self._copied = {id_: word for id_, place in places.items() if place not in failed}

    def _close(self, id_: str) -> None:
        part = self._parts.pop(id_, None)
        if part is not None:
            part.close()


def _table(places: Mountpath) -> Stamps:
    stamps.create(places.stamps)
    return Stamps(places.stamps)

"""What a disk and an index can tell without work: for metrics, not for decisions."""

from __future__ import annotations

import os
import sqlite3
from typing import NamedTuple

from ...fallbacks import lacks
from .layout import further
from .placement import ROOT, Member
from .presence import is_away, mountpaths


class DiskCounters(NamedTuple):
    """What a block device has done since the machine started, for whomever; ``name`` is the kernel's."""

    name: str
    reads: int
    read_bytes: int
    writes: int
    write_bytes: int
    busy_ms: int


class MountpathFacts(NamedTuple):
    """One mountpath as it is now; sizes in bytes.

    ``available`` says whether it could be looked at; if not, everything else is 0.
    """

    name: str
    directory: str
    available: bool
    capacity: int = 0
    used: int = 0
    free: int = 0
    index_bytes: int = 0
    index_log_bytes: int = 0
    trash_files: int = 0
    open_generations: int = 0
    device: int = 0
    disk: DiskCounters | None = None


def mountpath_facts(data: str) -> list[MountpathFacts]:
    """Return the facts of every mountpath of a data directory. Takes a millisecond, and as long as a sick disk does."""
    os.stat(data)  # what is gone is not made again for somebody who only looks
    return [_facts(data, member) for member in mountpaths(data).members]


def _facts(data: str, member: Member) -> MountpathFacts:
    mountpath = further(data, member)
    name, directory = member.id, mountpath.directory
    if member.id != ROOT and is_away(mountpath):
        return MountpathFacts(name, directory, available=False)
    try:
        disk = os.statvfs(mountpath.data)
        block = disk.f_frsize
        device = os.stat(mountpath.data).st_dev
        return MountpathFacts(
            name,
            directory,
            available=True,
            capacity=disk.f_blocks * block,
            used=(disk.f_blocks - disk.f_bfree) * block,
            free=disk.f_bavail * block,
            index_bytes=os.path.getsize(mountpath.database),
            index_log_bytes=_size(f"{mountpath.database}-wal"),
            trash_files=_trash_files(mountpath.database),
            open_generations=len(os.listdir(mountpath.markers)),
            device=device,
            disk=_disk_counters(device),
        )
    except (OSError, sqlite3.Error):
        return MountpathFacts(name, directory, available=False)


def _disk_counters(device: int) -> DiskCounters | None:
    """Return a device's line of /proc/diskstats; None where there is no such file or line (macOS, overlay, tmpfs)."""
    if lacks("proc"):
        return None
    wanted = [str(os.major(device)), str(os.minor(device))]
    try:
        with open("/proc/diskstats", encoding="ascii") as lines:
            for line in lines:
                fields = line.split()
                if fields[:2] == wanted:
                    reads, read_sectors, writes, write_sectors, busy_ms = (int(fields[n]) for n in (3, 5, 7, 9, 12))
                    return DiskCounters(fields[2], reads, read_sectors * 512, writes, write_sectors * 512, busy_ms)
    except OSError:
        pass
    return None


def _size(path: str) -> int:
    try:
        return os.path.getsize(path)
    except FileNotFoundError:
        return 0


def _trash_files(database: str) -> int:
    # The reclaimer empties the trash from its oldest end, so the ends tell how many there are: no counting of rows.
    connection = sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=1.0)
    try:
        (first,) = connection.execute("SELECT min(seq) FROM trash").fetchone()
        (last,) = connection.execute("SELECT max(seq) FROM trash").fetchone()
    finally:
        connection.close()
    return 0 if first is None else last - first + 1

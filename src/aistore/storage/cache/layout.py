"""Where things are in a cache directory, and how one is begun and recognised.

::

    DIR/cache.json     what this directory is, and the version of its format
    DIR/objects/       the copies, as a data directory of storage/local keeps objects
    DIR/keys.lock      byte ranges of it are locked for keys, see keylocks.py
    DIR/keys/          where the system has no such locks: a file per locked key
    DIR/recency        when what was used, shared memory of all processes, see recency.py
    DIR/boot           where the system does not name its runs: a name for the one since the cache was opened
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
from typing import NamedTuple

from ...errors import ConflictError
from ...fallbacks import lacks
from ..local.layout import CACHE_MARK, refuse_cache
from ..local.locks import Ownership, hold
from ..local.syncing import replace_file

FORMAT = 1
_KIND = "pyaistore cache directory"
_TOLERATED = frozenset({"lost+found", f"{CACHE_MARK}.new"})


class CachePlaces(NamedTuple):
    """The paths of a cache directory."""

    directory: str

    @property
    def objects(self) -> str:
        """The data directory of the copies."""
        return f"{self.directory}/objects"

    @property
    def locks(self) -> str:
        """The file whose byte ranges are locked."""
        return f"{self.directory}/keys.lock"

    @property
    def lock_files(self) -> str:
        """The directory of files that are locked instead."""
        return f"{self.directory}/keys"

    @property
    def recency(self) -> str:
        """The table of when what was used."""
        return f"{self.directory}/recency"

    @property
    def boot(self) -> str:
        """The file with a name for this run of the machine."""
        return f"{self.directory}/boot"


def open_cache_directory(directory: str) -> CachePlaces:
    """Begin a cache directory, or recognise one. Safe to call from many processes at once.

    Raises ConflictError for a data directory, one with something else in it, and one of a newer format.
    """
    directory = os.path.abspath(directory)
    os.makedirs(directory, mode=0o700, exist_ok=True)
    descriptor = os.open(directory, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        if not _recognise(directory):
            # First of all: what is found beside it is the cache's.
            replace_file(f"{directory}/{CACHE_MARK}", json.dumps({"kind": _KIND, "format": FORMAT}).encode())
        places = CachePlaces(directory)
        for part in (places.objects, places.lock_files):
            os.makedirs(part, mode=0o700, exist_ok=True)
    finally:
        os.close(descriptor)
    return places


def own_cache(directory: str) -> Ownership:
    """Become the owner of a cache directory, whatever state it is in, as ``locks.hold``; raises ConflictError."""
    return hold(open_cache_directory(directory).objects)


def refuse_cache_as_data(directory: str) -> None:
    """Raise ConflictError when ``directory`` is a cache or a part of one, which must not become a data directory."""
    directory = os.path.abspath(directory)
    refuse_cache(directory)
    refuse_cache(os.path.dirname(directory))


def boot_name(places: CachePlaces) -> str:
    """Return a name for this run of the machine: what was written in another run may be older than it seems."""
    if not lacks("proc"):
        try:
            with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
                return file.read().strip()[:13]
        except OSError:
            pass
    path = f"{places.boot}.{secrets.token_hex(8)}"
    with open(path, "w", encoding="ascii") as file:
        file.write(secrets.token_hex(6))
    try:
        os.link(path, places.boot)  # whole, and by one process only
    except FileExistsError:
        pass
    finally:
        os.unlink(path)
    with open(places.boot, encoding="ascii") as file:
        return file.read()


def _recognise(directory: str) -> bool:
    """Say whether the directory is a cache already; raises ConflictError unless it can be."""
    try:
        with open(f"{directory}/{CACHE_MARK}", encoding="utf-8") as file:
            found = json.load(file)
        kind, version = found["kind"], found["format"]
    except FileNotFoundError:
        if os.path.exists(f"{directory}/format.json"):
            raise ConflictError(
                f"{directory} is the data directory of a store and cannot be a cache, whose objects are thrown away",
                hint="choose an empty directory or a new one for --cache",
            ) from None
        strangers = sorted(set(os.listdir(directory)) - _TOLERATED)
        if strangers:
            shown = ", ".join(strangers[:3]) + (", ..." if len(strangers) > 3 else "")
            raise ConflictError(
                f"{directory} is not empty and not a cache of this store: it has {shown}",
                hint="choose an empty directory or a new one for --cache",
            ) from None
        return False
    except (ValueError, KeyError, TypeError) as error:
        raise ConflictError(f"{directory}/{CACHE_MARK} cannot be read: {error}") from error
    if kind != _KIND or not isinstance(version, int):
        raise ConflictError(f"{directory} is not a cache of this store: its {CACHE_MARK} says {found!r}")
    if version > FORMAT:
        raise ConflictError(
            f"{directory} has cache format {version}, this version of the store reads up to {FORMAT}",
            hint="install the newer version that wrote it, or choose another directory",
        )
    return True

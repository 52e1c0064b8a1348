"""Where an object of the source goes, and which names of a source could lead to the same place.

Prepending keeps names apart; replacing extensions may not: with ``{"jpg": "txt"}``, ``a.jpg`` and ``a.txt`` both lead
to ``a.txt``. Only names whose extensions end as the same one can meet, so a job whose extensions cannot meet is not
checked at all, and in any other only these names are.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Iterable, Mapping
from types import TracebackType

from ..errors import ConflictError
from .document import JobOptions


def target_name(name: str, options: JobOptions) -> str:
    """Return the name that ``name`` of the source has at the destination."""
    if options.ext:
        stem, dot, extension = name.rpartition(".")
        if dot and "/" not in extension:
            name = stem + dot + options.ext.get(extension, extension)
    return options.prepend + name


def ambiguous_extensions(ext: Mapping[str, str]) -> frozenset[str]:
    """Return the extensions of names of which two can lead to one name.

    >>> sorted(ambiguous_extensions({"jpg": "txt"})), sorted(ambiguous_extensions({"a": "b", "b": "a"}))
    (['jpg', 'txt'], [])
    """
    leading: dict[str, set[str]] = {}
    for old, new in ext.items():
        leading.setdefault(new, set()).add(old)
    for new, old_ones in leading.items():
        if new not in ext:
            old_ones.add(new)  # names that have it already keep it
    return frozenset(old for old_ones in leading.values() if len(old_ones) > 1 for old in old_ones)


class Collisions:
    """Finds two names of a source that lead to one name, over a listing of any length, in bounded memory.

    Digests of the ambiguous names' targets go into a temporary database on disk, of which SQLite keeps 2 MB in memory.
    A digest of 16 bytes is met twice by chance never: 2^64 names would be needed.
    """

    def __init__(self, options: JobOptions) -> None:
        self._options = options
        self._ambiguous = ambiguous_extensions(options.ext)
        self._database = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        self._database.execute("PRAGMA synchronous=OFF")
        self._database.execute("PRAGMA cache_size=-2000")
        self._database.execute("CREATE TABLE seen (target BLOB PRIMARY KEY, extension TEXT) WITHOUT ROWID")

    def add(self, names: Iterable[str]) -> None:
        """Take names of the source; raises ConflictError that tells two which lead to one. Blocks."""
        self._database.execute("BEGIN")
        for name in names:
            stem, dot, extension = name.rpartition(".")
            if not dot or extension not in self._ambiguous:
                continue
            target = target_name(name, self._options)
            digest = hashlib.blake2b(target.encode(), digest_size=16).digest()
            try:
                self._database.execute("INSERT INTO seen VALUES (?, ?)", (digest, extension))
            except sqlite3.IntegrityError:
                ((other,),) = self._database.execute("SELECT extension FROM seen WHERE target = ?", (digest,))
                raise ConflictError(
                    f"two names of the source lead to {target!r}: {f'{stem}.{other}'!r} and {name!r}",
                    hint="choose other extensions, or a prefix that has only one of them; nothing was written",
                ) from None
        self._database.execute("COMMIT")

    def close(self) -> None:
        """Give the database back."""
        self._database.close()

    def __enter__(self) -> Collisions:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

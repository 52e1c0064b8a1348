"""What is left over at a destination when sources are gone, and how it is removed: only what such a job has made.

An object is left over if its recipe says that the same kind of job (a copy, or a transform) made it of the job's source
bucket, if the job would write to this very name what it makes of that source, and if there is no such source any more.
What anybody else put there has no such recipe. It is removed on the condition that it is still what was looked at.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import TYPE_CHECKING

from ..errors import ConflictError, ObjectNotFoundError
from ..model.objects import ObjectInfo
from .document import Counts, JobOptions
from .recipes import RECIPE, TAG, recipe_in
from .targets import target_name

if TYPE_CHECKING:
    from .batch import Batch, Objects


class Expected:
    """The names that a job's sources lead to, of any number, in bounded memory.

    Their digests go into a temporary database on disk, of which SQLite keeps 2 MB in memory.
    """

    def __init__(self, options: JobOptions) -> None:
        self._options = options
        self._database = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        self._database.execute("PRAGMA synchronous=OFF")
        self._database.execute("PRAGMA cache_size=-2000")
        self._database.execute("CREATE TABLE expected (target BLOB PRIMARY KEY) WITHOUT ROWID")

    def add(self, names: Iterable[str]) -> None:
        """Take names of sources. Blocks."""
        self._database.execute("BEGIN")
        targets = ((_digest(target_name(name, self._options)),) for name in names)
        self._database.executemany("INSERT OR IGNORE INTO expected VALUES (?)", targets)
        self._database.execute("COMMIT")

    def unexpected(self, targets: Iterable[str]) -> list[str]:
        """Return those names that no source leads to. Blocks."""
        look = "SELECT 1 FROM expected WHERE target = ?"
        return [name for name in targets if self._database.execute(look, (_digest(name),)).fetchone() is None]

    def close(self) -> None:
        """Give the database back."""
        self._database.close()

    def __enter__(self) -> Expected:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def source_of(target: str, found: ObjectInfo, batch: Batch) -> str | None:
    """Return the source of which this kind of job made an object that is there; None if no such job did."""
    recipe, options = recipe_in(found.custom), batch.options
    if recipe is None or recipe.way.bucket != batch.source or bool(recipe.way.stages) != bool(options.etl):
        return None
    names = [recipe.name] if recipe.name else _leading_to(target, options)
    for name in names:
        if recipe.is_of(name) and name.startswith(options.prefix) and target_name(name, options) == target:
            return name
    return None


def _leading_to(target: str, options: JobOptions) -> Iterator[str]:
    """Yield the names that could lead to ``target``."""
    name = target.removeprefix(options.prepend)
    yield name
    stem, _, extension = name.rpartition(".")
    for old, new in options.ext.items():
        if new == extension:
            yield f"{stem}.{old}"


async def remove_left_over(objects: Objects, batch: Batch, target: str) -> Counts:
    """Remove what is left over at a name of the destination, if it is; counts it as removed."""
    try:
        found = await objects.head(batch.destination, target)
    except ObjectNotFoundError:
        return Counts()
    source = source_of(target, found, batch)
    if source is None:
        return Counts()
    try:
        await objects.head(batch.source, source, latest=True)
    except ObjectNotFoundError:
        pass
    else:
        return Counts()  # it has come since, or a source is hidden from the listing
    if not batch.options.dry_run:
        try:
            await objects.remove(batch.destination, target, lambda now: _same(now, found))
        except (ObjectNotFoundError, ConflictError):
            return Counts()  # somebody has removed it, or has put something else there
    return Counts(removed=1)


def _same(now: ObjectInfo, then: ObjectInfo) -> bool:
    marks = (then.custom.get(TAG), then.custom.get(RECIPE))
    return (now.version, now.checksum, now.custom.get(TAG), now.custom.get(RECIPE)) == (
        then.version, then.checksum, *marks,
    )  # fmt: skip


def _digest(name: str) -> bytes:
    return hashlib.blake2b(name.encode(), digest_size=16).digest()

"""Whether derived objects are what their recipes make: each is made again, of the source that it names, and compared.

Three things can be wrong, and are told apart: the stored bytes do not match their checksum; they do, and the transform
makes other ones; or the transform makes other ones each time, so that nothing can be said of the stored ones. A source
that has changed since, or is gone, is no difference: it is told beside them, and the job that derives makes it right.
"""

from __future__ import annotations

import contextlib
import hashlib
import heapq
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from ..errors import (
    AisError,
    BucketNotFoundError,
    ConflictError,
    EtlNotFoundError,
    EtlNotRunningError,
    ObjectDamagedError,
    ObjectNotFoundError,
    TransformError,
)
from ..model.etl import TransformCall
from ..model.objects import ObjectInfo
from .document import Counts, Job
from .recipes import Recipe, Way, checksum_of, recipe_in

if TYPE_CHECKING:
    from .batch import Batch, Objects

#: Digests of names are numbers below this, so a part of them is a part of the names, whatever these are.
_DIGEST_END = 1 << 62


class SourceChangedError(Exception):
    """The source of a derived object is not what it was, so the object cannot be compared."""


# --- which objects


def digest_for(job: str, name: str) -> int:
    """Return a number by which a job draws its sample: spread evenly, and different for each job."""
    digest = hashlib.blake2b(name.encode(), digest_size=8, key=job.encode()).digest()
    return int.from_bytes(digest, "big") % _DIGEST_END


class Draw:
    """Draws ``count`` names of any number, all with equal chances, in memory for ``count``."""

    def __init__(self, job: str, count: int) -> None:
        self._job = job
        self._count = count
        self._least: list[int] = []  # negative, so that the heap's first is the largest

    def add(self, names: Iterable[str]) -> None:
        """Take names."""
        for name in names:
            number = -digest_for(self._job, name)
            if len(self._least) < self._count:
                heapq.heappush(self._least, number)
            elif number > self._least[0]:
                heapq.heapreplace(self._least, number)

    @property
    def below(self) -> int:
        """The bound of `digest_for` under which the names are that were drawn."""
        return _DIGEST_END if len(self._least) < self._count else 1 - self._least[0]


def bound_of(percent: float) -> int:
    """Return the bound of `digest_for` under which a part of all names is."""
    return max(1, int(_DIGEST_END * percent / 100))


def is_drawn(job: Job, name: str) -> bool:
    """Say whether an object is one of those that a job verifies."""
    return not job.below or digest_for(job.id, name) < job.below


# --- one object


async def verify_object(objects: Objects, batch: Batch, name: str) -> Counts:
    """Compare an object with what its recipe makes; one that is not derived is skipped.

    Raises ConflictError that says how it differs, SourceChangedError, ObjectDamagedError.
    """
    try:
        reading = await objects.open(batch.source, name, latest=True)
    except ObjectNotFoundError:
        if batch.named:
            raise
        return Counts(gone=1)
    try:
        info, recipe = reading.info, recipe_in(reading.info.custom)
        if recipe is None:
            return Counts(skipped=1)
        found = await objects.checksum(reading.read, info.size)
    finally:
        reading.close()
    if checksum_of(info) not in ("", found):
        raise ObjectDamagedError(f"its bytes have the checksum {found}, {checksum_of(info)} was stored with them")
    source = await _source(objects, recipe, name)
    if not recipe.way.stages:
        await _compare_copy(objects, recipe, source, found)
    else:
        await _compare_made(objects, recipe, source, (info.size, found), batch.options.etl_seconds)
    return Counts(objects=1, bytes=info.size)


async def _source(objects: Objects, recipe: Recipe, name: str) -> ObjectInfo:
    """Return the source, which is what it was; raises SourceChangedError."""
    if not recipe.is_of(recipe.name or name):
        raise ConflictError(
            "the name of its source is too long to be recorded, and another one than its own", hint="it may be right"
        )
    where = f"{recipe.way.bucket}/{recipe.name or name}"
    try:
        source = await objects.head(recipe.way.bucket, recipe.name or name, latest=True)
    except (ObjectNotFoundError, BucketNotFoundError):
        raise SourceChangedError(f"the source {where} is gone") from None
    if not recipe.is_of_same(source):
        raise SourceChangedError(
            f"the source {where} has changed since: it was version {recipe.version} ({_told(recipe.checksum)}), "
            f"it is version {source.version} ({_told(checksum_of(source))})"
        )
    return source


async def _compare_copy(objects: Objects, recipe: Recipe, source: ObjectInfo, found: str) -> None:
    expected = recipe.checksum
    if not expected:
        with contextlib.closing(await objects.open(recipe.way.bucket, source.name)) as reading:
            expected = await objects.checksum(reading.read, reading.info.size)
    if expected != found:
        raise ConflictError(f"it differs: its bytes have the checksum {found}, those of its source {expected}")


async def _compare_made(
    objects: Objects, recipe: Recipe, source: ObjectInfo, found: tuple[int, str], seconds: float
) -> None:
    """Make it again and compare; again once more if it differs, to see whether the transform makes it the same."""
    way = recipe.way
    if way.told:
        raise ConflictError("the arguments and the seed it was made with are too long to be recorded")
    first, *then = (stage.etl for stage in way.stages)
    call = TransformCall(first, way.args, tuple(then), seconds, way.seed or None, fresh=True)
    await _check_digests(objects, way, call)
    made = await _make(objects, recipe, source, call)
    if made == found:
        return
    again = await _make(objects, recipe, source, call)
    await _check_digests(objects, way, call)
    if again != made:
        raise ConflictError(f"not reproducible: {' >> '.join(call.stages)} makes other bytes of it each time")
    raise ConflictError(
        f"it differs: it has {found[0]} bytes with the checksum {found[1]}, "
        f"{' >> '.join(call.stages)} makes {made[0]} bytes with {made[1]}"
    )


async def _check_digests(objects: Objects, way: Way, call: TransformCall) -> None:
    """Raise ConflictError if the transforms are not those of the recipe."""
    with _cannot_be_made():
        digests = await objects.digests(call)
        if digests != way.digests:  # as far as this process knows
            digests = await objects.digests(call, again=True)
    if digests != way.digests:
        told = " >> ".join(f"{stage.etl} {stage.digest}" for stage in way.stages)
        raise ConflictError(
            f"its transform has changed since: {told} made it, {' >> '.join(digests)} is here now",
            hint="run the job again",
        )


async def _make(objects: Objects, recipe: Recipe, source: ObjectInfo, call: TransformCall) -> tuple[int, str]:
    """Make an object again and return its size and checksum."""
    reading = await objects.open(recipe.way.bucket, source.name, latest=True)
    if not recipe.is_of_same(reading.info):
        reading.close()
        raise SourceChangedError(f"the source {recipe.way.bucket}/{source.name} is changing now")
    with _cannot_be_made():
        made = await objects.transform(call, reading)
    try:
        return made.size, await objects.checksum(made.read, made.size)
    finally:
        made.close()


@contextlib.contextmanager
def _cannot_be_made() -> Iterator[None]:
    """Say what the error of a transform means: it is one of this object, and the others are looked at all the same."""
    try:
        yield
    except TransformError as error:
        raise ConflictError(f"it cannot be made again: {error.message}") from error
    except EtlNotRunningError as error:
        if error.status >= 500:
            raise
        raise _not_there(error) from error
    except EtlNotFoundError as error:
        raise _not_there(error) from error


def _not_there(error: AisError) -> ConflictError:
    return ConflictError(f"it cannot be made again: {error.message}", hint="start the transform, or make it again")


def _told(checksum: str) -> str:
    return checksum or "no checksum known"

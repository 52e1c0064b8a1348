"""The record of a job: what it is told to do, who owns it, how far it is. Pure values; who keeps them is records.py.

A record says "all names up to K are done" and nothing of single names beyond: what comes after K is listed and worked
off again by whoever goes on, and what was written before is recognised at the destination (``batch.py``).
"""

from __future__ import annotations

import enum
import operator
import secrets
import string
from collections.abc import Iterable, Mapping

import msgspec

from ..errors import BadRequestError, InternalError
from ..model.etl import TransformCall
from ..model.names import check_object_name

FORMAT = 1

#: Errors of objects that a record keeps, and how much of each message. Guessed: enough to see what is wrong, and small
#: enough that a record of all of them is rewritten in a blink. All are counted.
ERRORS_MAX = 256
MESSAGE_CHARACTERS_MAX = 1000

#: The status of an object that was to be verified and whose source has changed since: that of an unmet precondition.
STALE_STATUS = 412

#: Objects of a sample that is counted; beyond it a percentage will do. Guessed: a few MB while it is drawn.
SAMPLE_MAX = 100_000

#: Names that one node may work on at the same time for one job, if it is told how many.
WORKERS_MAX = 256


class JobKind(str, enum.Enum):
    """What a job does; the values are the wire's."""

    COPY = "copy-bck"
    TRANSFORM = "etl-bck"
    COPY_OBJECTS = "copy-listrange"
    TRANSFORM_OBJECTS = "etl-listrange"
    PREFETCH = "prefetch-listrange"
    EVICT = "evict-listrange"
    VERIFY = "etl-verify"

    @property
    def writes(self) -> bool:
        """Whether it has a destination; else it is about objects where they are, and that is its source again."""
        return self not in (JobKind.PREFETCH, JobKind.EVICT, JobKind.VERIFY)

    @property
    def transforms(self) -> bool:
        """Whether objects go through transforms."""
        return self in (JobKind.TRANSFORM, JobKind.TRANSFORM_OBJECTS)

    @property
    def chooses(self) -> bool:
        """Whether its request names objects, or has a template of their names; else a prefix does."""
        return self not in (JobKind.COPY, JobKind.TRANSFORM)


class JobState(str, enum.Enum):
    """Where a job is in its life."""

    RUNNING = "running"
    FINISHED = "finished"
    ABORTED = "aborted"


class JobOptions(msgspec.Struct, frozen=True, omit_defaults=True):
    """Which objects, under which names, and how.

    ``ext`` replaces what stands after the last dot of a name. ``go_on`` goes on after the error of an object. ``flat``
    leaves out names with a slash after the prefix. ``workers`` 0 leaves it to the store how many objects are under way
    at once. Objects go through ``etl``, then through each of ``etl_then``, with ``etl_args``; ``etl_seconds`` 0 leaves
    an object the time that a transform was made with, ``seed`` None leaves every run different. ``names`` and
    ``template`` choose objects without a listing (``chosen.py``); ``latest`` compares copies with the object store.
    ``digests`` are those of the transforms when the job began. ``sync`` removes what is left over of sources that are
    gone (``sync.py``). ``sample`` objects of all, or about ``percent`` of them, are verified; all if both are 0.
    """

    prefix: str = ""
    prepend: str = ""
    ext: Mapping[str, str] = {}
    dry_run: bool = False
    force: bool = False
    go_on: bool = False
    flat: bool = False
    workers: int = 0
    etl: str = ""
    etl_then: tuple[str, ...] = ()
    etl_args: str = ""
    etl_seconds: float = 0.0
    names: tuple[str, ...] = ()
    template: str = ""
    latest: bool = False
    seed: str | None = None
    digests: tuple[str, ...] = ()
    sync: bool = False
    sample: int = 0
    percent: float = 0.0

    @property
    def named(self) -> bool:
        """Whether objects are named one by one, so that one which is not there is an error."""
        return bool(self.names or self.template)

    @property
    def call(self) -> TransformCall | None:
        """The transforms that objects go through; None where they are copied."""
        if not self.etl:
            return None
        return TransformCall(self.etl, self.etl_args, self.etl_then, self.etl_seconds, self.seed)


class ObjectError(msgspec.Struct, frozen=True, omit_defaults=True):
    """An object of the source that failed: its name, why, and the status that a request for it would have had."""

    name: str
    message: str
    status: int = 500


class Counts(msgspec.Struct, frozen=True):
    """What has come of a job's objects. Each counts once: ``bytes`` are those of the results of ``objects``.

    ``gone`` names were removed before their turn came. ``skipped`` objects are as they would be made (or, verified, not
    derived), ``removed`` ones were left over, ``stale`` ones are of sources that have changed since.
    """

    objects: int = 0
    bytes: int = 0
    failed: int = 0
    gone: int = 0
    skipped: int = 0
    removed: int = 0
    stale: int = 0

    @property
    def names(self) -> int:
        """All names that were worked on; what was left over is of none."""
        return self.objects + self.failed + self.gone + self.skipped + self.stale

    def __add__(self, other: Counts) -> Counts:
        return Counts(*map(operator.add, msgspec.structs.astuple(self), msgspec.structs.astuple(other)))

    def __sub__(self, other: Counts) -> Counts:
        return Counts(*map(operator.sub, msgspec.structs.astuple(self), msgspec.structs.astuple(other)))


class Job(msgspec.Struct, frozen=True, omit_defaults=True):
    """The record. It only grows, with defaults; ``format`` is raised when an older reader would misunderstand it.

    ``source`` and ``destination`` are URIs of buckets. ``counter`` is raised by every write of the owner: whoever
    watches sees by it that the owner lives (takeover.py).
    ``done`` is K, the last name of which all before are done; empty before the first. Where the names were given it is
    how many of them are done. ``checked`` says that no two names of the source lead to one at the destination, and that
    it is known which objects a sample has: those whose digest (``verify.py``) is less than ``below``. ``total`` is how
    many names there are, 0 while that is not known: where names are listed, until the last of them is. ``stop`` is the
    reason why somebody asked it to end.
    """

    format: int
    id: str
    kind: JobKind
    source: str
    destination: str
    owner: str
    started_ns: int
    options: JobOptions = JobOptions()
    counter: int = 0
    state: JobState = JobState.RUNNING
    ended_ns: int = 0
    checked: bool = False
    below: int = 0
    total: int = 0
    done: str = ""
    counts: Counts = Counts()
    errors: tuple[ObjectError, ...] = ()
    stop: str = ""
    reason: str = ""

    @property
    def runs(self) -> bool:
        """Whether it has not ended."""
        return self.state is JobState.RUNNING

    @property
    def error(self) -> str:
        """Why it did not do all of its work; empty if it did, or runs."""
        if self.state is JobState.ABORTED:
            return self.reason or "aborted"
        if self.state is JobState.FINISHED and self.counts.failed:
            noun = "object" if self.counts.failed == 1 else "objects"
            if self.kind is JobKind.VERIFY:
                first = f", the first of them: {self.errors[0].name}: {self.errors[0].message}" if self.errors else ""
                return f"{self.counts.failed} {noun} did not verify{first}"
            first = f", the first of them: {self.errors[0].message}" if self.errors else ""
            return f"{self.counts.failed} {noun} failed{first}"
        return ""

    def advance(self, done: str, counts: Counts, errors: Iterable[ObjectError]) -> Job:
        """Return the record with all names up to ``done`` done, and what they came to."""
        kept = sorted((*self.errors, *errors), key=lambda error: error.status == STALE_STATUS)  # these are none
        return msgspec.structs.replace(self, done=done, counts=self.counts + counts, errors=tuple(kept[:ERRORS_MAX]))

    def finish(self, now_ns: int) -> Job:
        """Return the record of a job that has come to its end."""
        return self.shortened()._ended(now_ns)

    def shortened(self) -> Job:
        """Return the record without the names that were given, which may be many."""
        return msgspec.structs.replace(self, options=msgspec.structs.replace(self.options, names=()))

    def _ended(self, now_ns: int) -> Job:
        return msgspec.structs.replace(self, state=JobState.FINISHED, ended_ns=now_ns)

    def abort(self, now_ns: int, reason: str, counts: Counts, errors: Iterable[ObjectError]) -> Job:
        """Return the record of a job that ends before its end; ``counts`` and ``errors`` are of names beyond K."""
        ended = self.shortened().advance(self.done, counts, errors)
        return msgspec.structs.replace(ended, state=JobState.ABORTED, ended_ns=now_ns, reason=reason)

    def ask_to_stop(self, reason: str) -> Job:
        """Return the record with the wish that its owner end it."""
        return msgspec.structs.replace(self, stop=self.stop or reason)

    def renewed(self) -> Job:
        """Return the record as its owner writes it to say that it lives."""
        return msgspec.structs.replace(self, counter=self.counter + 1)

    def taken_over(self, node: str) -> Job:
        """Return the record with another owner."""
        return msgspec.structs.replace(self, owner=node, counter=self.counter + 1)


def new_job_id() -> str:
    """Return an id as the field's clients tell them from names: a letter, then letters and digits."""
    letters = string.ascii_letters
    return secrets.choice(letters) + "".join(secrets.choice(letters + string.digits) for _ in range(10))


def check_options(options: JobOptions) -> JobOptions:
    """Return ``options`` if every one can be honoured, dots before extensions dropped; raises BadRequestError."""
    ext = {key.removeprefix("."): value.removeprefix(".") for key, value in options.ext.items()}
    for text in (*ext, *ext.values()):
        if not text or "/" in text or not text.isprintable():
            raise BadRequestError(f"extension {text!r} cannot be the end of a name", hint='expected {"jpg": "txt"}')
    if options.prepend:
        check_object_name(options.prepend + "x")
    if not 0 <= options.workers <= WORKERS_MAX:
        raise BadRequestError(f"num-workers {options.workers} is out of range", hint=f"expected 0 to {WORKERS_MAX}")
    if not 0 <= options.sample <= SAMPLE_MAX:
        raise BadRequestError(
            f"a sample of {options.sample} objects is out of range",
            hint=f"expected 1 to {SAMPLE_MAX}, or a percentage, or all of them",
        )
    if not 0 <= options.percent <= 100:
        raise BadRequestError(f"{options.percent} percent is out of range", hint="expected more than 0, up to 100")
    return msgspec.structs.replace(options, ext=ext)


def encode(job: Job) -> bytes:
    """Return the record as it is kept."""
    return msgspec.json.encode(job)


def decode(data: bytes) -> Job:
    """Return a kept record; raises InternalError for what is none, or is of a later format."""
    try:
        job = msgspec.json.decode(data, type=Job)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InternalError(f"the record of a job cannot be read: {error}") from error
    if job.format > FORMAT:
        raise InternalError(f"the record of job {job.id} has format {job.format}, this version knows {FORMAT}")
    return job

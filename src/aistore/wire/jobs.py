"""Jobs on the wire: what starts one, and what is told of it, in AIStore's spellings (a job is an "xaction" there)."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any, TypeVar

import msgspec

from ..errors import BadRequestError, NotFoundError

T = TypeVar("T")

#: What the field's command line calls the kinds of jobs; requests may use either.
DISPLAY_NAMES = {
    "copy-bck": "copy-bucket", "etl-bck": "etl-bucket", "move-bck": "rename-bucket", "copy-listrange": "copy-objects",
    "etl-listrange": "etl-objects", "delete-listrange": "delete-objects", "evict-listrange": "evict-objects",
    "evict-remote-bck": "evict-remote-bucket", "prefetch-listrange": "prefetch-objects", "promote": "promote-files",
    "summary-bck": "summary", "lru": "lru-eviction", "cleanup-store": "cleanup", "make-n-copies": "mirror",
    "ec-encode": "ec-bucket", "index-shard": "shard-index", "load-lom-cache": "warm-up-metadata",
    "summary-shard": "shard-summary", "election": "elect-primary", "archive": "archive", "list": "list",
    "get-batch": "get-batch", "etl-inline": "etl-inline", "download": "download", "dsort": "dsort",
    "blob-download": "blob-download", "rebalance": "rebalance", "resilver": "resilver", "rechunk": "rechunk",
    "ec-get": "ec-get", "ec-put": "ec-put", "ec-resp": "ec-resp", "put-copies": "put-copies",
    "create-inventory": "create-inventory", "etl-verify": "verify-etl",
}  # fmt: skip
_KINDS = {**{kind: kind for kind in DISPLAY_NAMES}, **{name: kind for kind, name in DISPLAY_NAMES.items()}}

#: The end of a job that has not ended; clients compare the text.
NO_TIME = "0001-01-01T00:00:00Z"


def kind_of(text: str) -> str:
    """Return the kind of a job by either of its names, empty for none; raises NotFoundError for an unknown one."""
    if text and text not in _KINDS:
        raise NotFoundError(f"unknown kind of job {text!r}", hint="for example copy-bck or etl-bck")
    return _KINDS.get(text, "")


class NamedBucket(msgspec.Struct, frozen=True):
    """A bucket as the value of a request names it."""

    name: str
    provider: str = ""
    namespace: dict[str, str] | str | None = None


class CopyMessage(msgspec.Struct, frozen=True, rename={"name": "id"}):
    """The value of ``copy-bck``, ``etl-bck``, ``copy-listrange`` and ``etl-listrange``.

    ``name``, ``request_timeout``, ``pipeline`` and ``etl_args`` and ``seed`` (which are ours) are of transforms alone,
    ``objnames``, ``template`` and ``to`` of requests that choose objects.
    """

    prefix: str = ""
    prepend: str = ""
    dry_run: bool = False
    force: bool = False
    latest: bool = msgspec.field(name="latest-ver", default=False)
    synchronize: bool = False
    ext: dict[str, str] | None = None
    workers: int = msgspec.field(name="num-workers", default=0)
    go_on: bool = msgspec.field(name="coer", default=False)
    flat: bool = msgspec.field(name="non-recurs", default=False)
    name: str = ""
    request_timeout: str = ""
    pipeline: list[str] | None = None
    etl_args: str = ""
    seed: str | None = None
    objnames: list[str] | None = None
    template: str = ""
    to: NamedBucket | None = msgspec.field(name="tobck", default=None)


class SelectionMessage(msgspec.Struct, frozen=True):
    """The value of ``prefetch-listrange`` and ``evict-listrange``: names, or a template (also a prefix, or nothing)."""

    objnames: list[str] | None = None
    template: str = ""
    latest: bool = msgspec.field(name="latest-ver", default=False)
    workers: int = msgspec.field(name="num-workers", default=0)
    go_on: bool = msgspec.field(name="coer", default=False)


class VerifyMessage(msgspec.Struct, frozen=True):
    """The value of ``etl-verify``, which is of this store alone: ``sample`` objects, or ``percent`` of them, or all."""

    prefix: str = ""
    sample: int = 0
    percent: float = 0.0
    workers: int = msgspec.field(name="num-workers", default=0)
    request_timeout: str = ""


def decode_verify(value: Any) -> VerifyMessage:
    """Return the value of a request to verify a bucket; raises BadRequestError."""
    return _decode(value, VerifyMessage)


def decode_selection(value: Any) -> SelectionMessage:
    """Return the value of a request about many objects; raises BadRequestError."""
    return _decode(value, SelectionMessage)


def decode_copy(value: Any) -> CopyMessage:
    """Return the value of a request to copy or transform a bucket; raises BadRequestError."""
    return _decode(value, CopyMessage)


def _decode(value: Any, kind: type[T]) -> T:
    if value is None:
        return kind()
    if not isinstance(value, dict):
        raise BadRequestError(f"the value is a {type(value).__name__}", hint='expected an object: {"prefix": "…", …}')
    try:
        return msgspec.convert({str(key).lower(): item for key, item in value.items()}, kind)
    except msgspec.ValidationError as error:
        raise BadRequestError(f"the value of the request cannot be read: {error}") from error


class ObjectError(msgspec.Struct, frozen=True, rename={"name": "obj_name", "message": "msg", "status": "ecode"}):
    """An object that a job could not copy or transform, by its URI."""

    name: str
    message: str = ""
    status: int = 0


class JobStatus(msgspec.Struct, frozen=True):
    """Whether a job has ended (``end_time`` in Unix nanoseconds is not 0), and how."""

    uuid: str
    kind: str
    err: str = ""
    end_time: int = 0
    aborted: bool = False


class SnapBucket(msgspec.Struct, frozen=True):
    """A bucket in a snap; both are empty for none."""

    name: str = ""
    provider: str = ""


class SnapStats(msgspec.Struct, frozen=True, rename="kebab"):
    """Counts of a snap, as text; ``loc`` is what the node did itself."""

    loc_objs: str = "0"
    loc_bytes: str = "0"
    out_objs: str = "0"
    out_bytes: str = "0"
    in_objs: str = "0"
    in_bytes: str = "0"


class JobExtra(msgspec.Struct, frozen=True):
    """What this store tells beyond AIStore: objects that failed, names that were gone, how far the listing is done.

    ``total`` is how many names the job is about, 0 while that is not known. ``skipped`` objects were as they would be
    made, ``removed`` ones were left over of sources that are gone; of ``stale`` ones, which were to be verified, the
    source has changed since.
    """

    failed: int = 0
    gone: int = 0
    done_through: str = ""
    dry_run: bool = False
    etl: str = ""
    total: int = 0
    skipped: int = 0
    removed: int = 0
    stale: int = 0


class JobSnap(msgspec.Struct, frozen=True):
    """What one node tells of a job."""

    id: str
    kind: str
    start_time: str = msgspec.field(name="start-time", default=NO_TIME)
    end_time: str = msgspec.field(name="end-time", default=NO_TIME)
    bucket: SnapBucket = msgspec.field(name="bck", default=SnapBucket())
    source: SnapBucket = msgspec.field(name="src-bck", default=SnapBucket())
    destination: SnapBucket = msgspec.field(name="dst-bck", default=SnapBucket())
    stats: SnapStats = SnapStats()
    aborted: bool = False
    is_idle: bool = False
    abort_err: str = msgspec.field(name="abort-err", default="")
    err: str = ""
    ctlmsg: str = ""
    packed: str = msgspec.field(name="glob.id", default="0")
    ext: JobExtra | None = None


def spell_time(nanoseconds: int) -> str:
    """Return Unix nanoseconds as RFC 3339 text in UTC, 0 as the time of what has not happened."""
    if not nanoseconds:
        return NO_TIME
    seconds, fraction = divmod(nanoseconds, 10**9)
    return datetime.fromtimestamp(seconds, tz=timezone.utc).strftime("%Y-%m-%dT%H:%M:%S") + f".{fraction:09}Z"


def parse_time(text: str) -> int:
    """Return the Unix nanoseconds of what `spell_time` wrote."""
    if text == NO_TIME:
        return 0
    whole, _, fraction = text.removesuffix("Z").partition(".")
    moment = datetime.strptime(whole, "%Y-%m-%dT%H:%M:%S").replace(tzinfo=timezone.utc)
    return int(moment.timestamp()) * 10**9 + int(fraction.ljust(9, "0")[:9] or 0)

"""Jobs: what the store works on by itself, seen from outside."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypedDict
from urllib.parse import quote

import msgspec

from ..errors import BadRequestError, JobNotFoundError, RequestTimeoutError
from ..model.names import BucketRef
from ..wire.jobs import JobExtra, JobSnap, ObjectError, SnapBucket, parse_time
from .transport import Request, Transport

if TYPE_CHECKING:
    from typing_extensions import Unpack

_JSON = {"Content-Type": "application/json"}
#: How often a job is looked at while somebody waits for it: soon at first, then less often. Its end is told at once by
#: the node that works on it.
_POLL_SECONDS, _POLL_SECONDS_MAX = 0.005, 0.5


@dataclass(frozen=True, slots=True)
class JobInfo:
    """What is known of a job: times in Unix nanoseconds, 0 for an end that has not come; sizes in bytes of results.

    ``source`` and ``destination`` are URIs of buckets.

    ``failed`` objects were left out, ``gone`` ones were removed before their turn. ``skipped`` ones were as they would
    be made (or, in a job that verifies, are not derived), ``removed`` ones were left over of sources that are gone; of
    ``stale`` ones, which were to be verified, the source has changed since. ``total`` is how many names there are, 0
    while that is not known. ``error`` is why not all was done.
    """

    id: str
    kind: str
    source: str
    destination: str
    started_ns: int
    ended_ns: int
    objects: int
    bytes: int
    failed: int
    gone: int
    aborted: bool
    error: str
    about: str
    dry_run: bool
    etl: str
    total: int = 0
    skipped: int = 0
    removed: int = 0
    stale: int = 0

    @property
    def runs(self) -> bool:
        """Whether it has not ended."""
        return self.ended_ns == 0


class Job:
    """A job of the store, by id; whether there is one is known when you ask for it."""

    def __init__(self, transport: Transport, job_id: str) -> None:
        self._transport = transport
        self.id = job_id

    def __repr__(self) -> str:
        return f"Job({self.id!r})"

    def __str__(self) -> str:
        return self.id

    def info(self) -> JobInfo:
        """Return how far the job is; raises JobNotFoundError."""
        return self._look()

    def _look(self, wait_seconds: float = 0.0) -> JobInfo:
        """Return how far the job is, after its end if that comes within ``wait_seconds``."""
        found = list_jobs(self._transport, self.id, wait_seconds=wait_seconds)
        if not found:
            raise JobNotFoundError.of(self.id)
        return found[0]

    def wait(
        self, timeout_seconds: float | None = None, *, on_progress: Callable[[JobInfo], None] | None = None
    ) -> JobInfo:
        """Return when the job has ended; ``on_progress`` is called with each look at it.

        Raises RequestTimeoutError when it has not ended in time; it goes on then.
        """
        deadline = None if timeout_seconds is None else time.monotonic() + timeout_seconds
        pause = 0.0
        while True:
            looked = time.monotonic()
            info = self._look(pause)
            waited = time.monotonic() - looked
            if on_progress is not None:
                on_progress(info)
            if not info.runs:
                return info
            if deadline is not None and time.monotonic() + pause > deadline:
                raise RequestTimeoutError(
                    f"job {self.id} has not ended within {timeout_seconds:g} s", hint=f"ais show job {self.id}"
                )
            time.sleep(max(0.0, pause - waited))  # of another node's job the end is not told
            pause = min(max(_POLL_SECONDS, 1.5 * pause), _POLL_SECONDS_MAX)

    def errors(self) -> list[ObjectError]:
        """Return the objects that failed, as many as the store remembers; raises JobNotFoundError."""
        body = msgspec.json.encode({"ID": self.id})
        request = Request("GET", "/v1/cluster", query={"what": "job_errors"}, headers=_JSON, body=body)
        return self._transport.fetch(request, list[ObjectError])

    def stop(self) -> None:
        """End the job; what is done stays done. One that has ended stays as it is. Raises JobNotFoundError."""
        stop_jobs(self._transport, job_id=self.id)


def stop_jobs(transport: Transport, *, job_id: str = "", kind: str = "") -> None:
    """End the jobs that run, by id or by kind."""
    body = msgspec.json.encode({"action": "stop", "value": {"ID": job_id, "Kind": kind}})
    transport.call(Request("PUT", "/v1/cluster", headers=_JSON, body=body))


def list_jobs(transport: Transport, job_id: str = "", kind: str = "", *, wait_seconds: float = 0.0) -> list[JobInfo]:
    """Return the jobs that the store remembers, the newest first; all nodes' parts of one added up.

    With ``wait_seconds`` the store answers when that one job has ended, or after so long.
    """
    body = msgspec.json.encode({"ID": job_id, "Kind": kind, **({"wait": wait_seconds} if wait_seconds else {})})
    request = Request("GET", "/v1/cluster", query={"what": "qryxstats"}, headers=_JSON, body=body)
    by_id: dict[str, list[JobSnap]] = {}
    for snaps in transport.fetch(request, dict[str, list[JobSnap]]).values():
        for snap in snaps:
            by_id.setdefault(snap.id, []).append(snap)
    return sorted(map(_merge, by_id.values()), key=lambda info: info.started_ns, reverse=True)


def _uri(bucket: SnapBucket) -> str:
    return str(BucketRef(bucket.provider, bucket.name)) if bucket.name else ""


def _merge(snaps: list[JobSnap]) -> JobInfo:
    first, extras = snaps[0], [snap.ext or JobExtra() for snap in snaps]
    ends = [parse_time(snap.end_time) for snap in snaps]
    return JobInfo(
        id=first.id,
        kind=first.kind,
        source=_uri(first.source) or _uri(first.bucket),
        destination=_uri(first.destination),
        started_ns=min(parse_time(snap.start_time) for snap in snaps),
        ended_ns=max(ends) if all(ends) else 0,
        objects=sum(int(snap.stats.loc_objs) for snap in snaps),
        bytes=sum(int(snap.stats.loc_bytes) for snap in snaps),
        failed=sum(extra.failed for extra in extras),
        gone=sum(extra.gone for extra in extras),
        aborted=any(snap.aborted for snap in snaps),
        error=next((snap.err for snap in snaps if snap.err), ""),
        about=first.ctlmsg,
        dry_run=extras[0].dry_run,
        etl=extras[0].etl,
        total=sum(extra.total for extra in extras),
        skipped=sum(extra.skipped for extra in extras),
        removed=sum(extra.removed for extra in extras),
        stale=sum(extra.stale for extra in extras),
    )


class JobArguments(TypedDict, total=False):
    """Which objects a job works on, under which names, and how: see ``Bucket.copy``."""

    prefix: str
    names: Iterable[str]
    template: str
    prepend: str
    ext: Mapping[str, str]
    dry_run: bool
    force: bool
    sync: bool
    latest: bool
    go_on: bool
    flat: bool
    workers: int


#: The wire's spellings of the arguments.
_SPELT = {
    "sync": "synchronize", "latest": "latest-ver", "go_on": "coer", "flat": "non-recurs", "workers": "num-workers",
    "names": "objnames",
}  # fmt: skip


def start_on_bucket(
    transport: Transport, source: BucketRef, destination: BucketRef, *, stages: tuple[str, ...] = (),
    etl_args: str = "", seed: str | None = None, object_timeout: str = "", **arguments: Unpack[JobArguments],
) -> Job:  # fmt: skip
    """Begin to copy objects of a bucket to another, or to transform them; see ``Bucket.copy`` and ``Bucket.transform``.

    ``stages`` are the transforms they go through. Raises BadRequestError for objects chosen in several ways.
    """
    chosen = [name for name in ("prefix", "names", "template") if arguments.get(name)]
    if len(chosen) > 1:
        raise BadRequestError(f"objects are chosen by {' and '.join(chosen)}", hint="pass one of them")
    named = arguments.get("names") is not None or bool(arguments.get("template"))
    value: dict[str, Any] = {"prefix": "", "prepend": "", "dry_run": False, "force": False, "synchronize": False}
    value |= {_SPELT.get(name, name): argument for name, argument in arguments.items() if argument is not None}
    if "objnames" in value:
        value["objnames"] = list(value["objnames"])
    if stages:
        value |= {
            "id": stages[0],
            "pipeline": list(stages[1:]),
            "etl_args": etl_args,
            "request_timeout": object_timeout,
        }
        value |= {"seed": seed} if seed is not None else {}
    action = ("etl" if stages else "copy") + ("-listrange" if named else "-bck")
    body = msgspec.json.encode({"action": action, "name": "", "value": value})
    query = {"provider": source.provider, "bck_to": destination.uname}
    reply = transport.call(Request("POST", f"/v1/buckets/{quote(source.name)}", query=query, headers=_JSON, body=body))
    return Job(transport, reply.decode())


def start_to_verify(
    transport: Transport, bucket: BucketRef, *, prefix: str, sample: int, percent: float, workers: int,
    object_timeout: str,
) -> Job:  # fmt: skip
    """Begin to compare derived objects with what their recipes make; see ``Bucket.verify``."""
    value = {
        "prefix": prefix, "sample": sample, "percent": percent, "num-workers": workers,
        "request_timeout": object_timeout,
    }  # fmt: skip
    body = msgspec.json.encode({"action": "etl-verify", "name": "", "value": value})
    path, query = f"/v1/buckets/{quote(bucket.name)}", {"provider": bucket.provider}
    return Job(transport, transport.call(Request("POST", path, query=query, headers=_JSON, body=body)).decode())

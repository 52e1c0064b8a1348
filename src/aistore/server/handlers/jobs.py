"""Jobs: started by requests on buckets, asked after and stopped by requests on the cluster."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import Any

import msgspec

from ...errors import (
    BadRequestError,
    BucketExistsError,
    BucketNotFoundError,
    ClientGoneError,
    JobNotFoundError,
    NotSupportedError,
)
from ...jobs.batch import Batch, run_batch
from ...jobs.chosen import choose
from ...jobs.document import Job, JobKind, JobOptions, JobState, check_options
from ...model.etl import check_args, check_seed, check_stages, parse_duration
from ...model.names import (
    BucketRef,
    canonical_provider,
    check_bucket_name,
    check_etl_name,
    check_provider,
    parse_bucket_uname,
    parse_bucket_uri,
)
from ...wire.jobs import (
    CopyMessage,
    JobExtra,
    JobSnap,
    JobStatus,
    ObjectError,
    SnapBucket,
    SnapStats,
    decode_copy,
    decode_selection,
    decode_verify,
    kind_of,
    spell_time,
)
from ...wire.messages import Action, lower_keys
from ..job_objects import StoreObjects
from ..replies import Reply, json_reply, text_reply
from ..request import Request
from ..store import Store

#: The actions on a bucket that start a job with a destination.
KINDS = {
    "copybck": JobKind.COPY, "etlbck": JobKind.TRANSFORM,
    "copylistrange": JobKind.COPY_OBJECTS, "etllistrange": JobKind.TRANSFORM_OBJECTS,
}  # fmt: skip
#: Without dashes they are of 2021, where ``prefix`` is put before the names of what is written.
_ACTIONS_2021 = ("copybck", "etlbck")
#: The questions about jobs.
QUERIES = ("status", "status_all", "running_all", "qryxstats", "job_errors")
#: How long jobs on chosen objects stay among those that run when they have ended: in AIStore they wait for more.
_IDLE_SECONDS = 60
#: How long a question about a job may wait for its end. Guessed: no client's patience with a reply ends sooner.
_WAIT_SECONDS_MAX = 10


async def start_on_bucket(store: Store, request: Request, bucket: str, message: Action) -> Reply:
    """Copy or transform a bucket, or some of its objects, into another; the reply is the job's id."""
    kind, value = KINDS[message.verb], decode_copy(message.value)
    if message.action in _ACTIONS_2021 and not value.prepend:
        value = msgspec.structs.replace(value, prefix="", prepend=value.prefix)
    source = BucketRef(canonical_provider(request.query.get("provider", "")), bucket)
    options = _options(kind, value)
    destination = _destination(request, value) or (source if options.dry_run else None)
    if destination is None:
        raise BadRequestError("the request names no bucket to write to", hint="bck_to=ais%2F%40%23%2F<bucket>%2F")
    if source == destination and not options.dry_run:
        raise BadRequestError(
            f"{source} is both the source and the destination", hint="choose another bucket, or dry_run"
        )
    head_bucket(store, source)
    if options.call:
        digests = await StoreObjects(store).digests(options.call, again=True)
        options = msgspec.structs.replace(options, digests=digests)
    if not options.dry_run:
        await _make_bucket(store, destination)
    job_id = await store.controller.call(
        "job_start",
        kind=kind.value,
        source=str(source),
        destination=str(destination),
        options=msgspec.to_builtins(options),
    )
    return text_reply(job_id)


def _destination(request: Request, value: CopyMessage) -> BucketRef | None:
    """Return the bucket that a job writes to, from the query or, where objects are chosen, from the value."""
    uname = request.query.get("bck_to", "")
    if uname:
        return parse_bucket_uname(uname)
    if value.to is None:
        return None
    if any(value.to.namespace.values() if isinstance(value.to.namespace, dict) else value.to.namespace or ()):
        raise NotSupportedError(f"{value.to.name} is in a namespace, which this store does not have")
    return BucketRef(canonical_provider(value.to.provider), check_bucket_name(value.to.name))


#: The actions on many objects of a bucket that start a job; the second spelling is of 2021.
ON_OBJECTS = {
    "prefetchlistrange": JobKind.PREFETCH, "evictlistrange": JobKind.EVICT, "evictobjlistrange": JobKind.EVICT,
}  # fmt: skip


async def start_on_objects(store: Store, request: Request, bucket: str, message: Action) -> Reply:
    """Have copies made of many objects that are outside of this store, or dropped; the reply is the job's id."""
    kind, value = ON_OBJECTS[message.verb], decode_selection(message.value)
    source = BucketRef(canonical_provider(request.query.get("provider", "")), bucket)
    head_bucket(store, source)
    if not source.is_backed:
        what = "prefetch" if kind is JobKind.PREFETCH else "evict"
        raise BadRequestError(f"{what} is for buckets outside of the store, as s3://", hint=f"{source} is in it")
    options = msgspec.structs.replace(
        choose(value.objnames, value.template), go_on=value.go_on, workers=value.workers, latest=value.latest
    )
    job_id = await store.controller.call(
        "job_start",
        kind=kind.value,
        source=str(source),
        destination=str(source),
        options=msgspec.to_builtins(check_options(options)),
    )
    return text_reply(job_id)


async def start_to_verify(store: Store, request: Request, bucket: str, message: Action) -> Reply:
    """Compare derived objects of a bucket with what their recipes make; the reply is the job's id."""
    value = decode_verify(message.value)
    source = BucketRef(canonical_provider(request.query.get("provider", "")), bucket)
    head_bucket(store, source)
    if value.sample and value.percent:
        raise BadRequestError("a sample is given as a number and as a percentage", hint="choose one of them")
    options = JobOptions(
        prefix=value.prefix, go_on=True, workers=value.workers, sample=value.sample, percent=value.percent,
        etl_seconds=parse_duration(value.request_timeout) if value.request_timeout else 0.0,
    )  # fmt: skip
    job_id = await store.controller.call(
        "job_start",
        kind=JobKind.VERIFY.value,
        source=str(source),
        destination=str(source),
        options=msgspec.to_builtins(check_options(options)),
    )
    return text_reply(job_id)


def is_shared(store: Store, bucket: BucketRef) -> bool:
    """Say whether a bucket's objects are in an object store; raises NotSupportedError for a provider not served."""
    if store.shared is None:
        check_provider(bucket.provider)
    return store.is_node or bucket.is_backed


def head_bucket(store: Store, bucket: BucketRef) -> None:
    """Raise BucketNotFoundError unless there is a bucket."""
    if is_shared(store, bucket):
        assert store.shared is not None
        store.shared.bucket(*bucket)
    else:
        store.engine.head_bucket(bucket.name)


async def _make_bucket(store: Store, bucket: BucketRef) -> None:
    """Make a bucket of our own unless there is one; of another provider it has to be there."""
    shared = is_shared(store, bucket)
    try:
        head_bucket(store, bucket)
    except BucketNotFoundError:
        if bucket.is_backed:
            raise
        with contextlib.suppress(BucketExistsError):
            if shared:
                await store.controller.call("bucket.create", provider=bucket.provider, name=bucket.name, props={})
            else:
                await store.in_thread(store.engine.create_bucket, bucket.name, {})


def _options(kind: JobKind, value: CopyMessage) -> JobOptions:
    if value.synchronize and value.prepend:
        raise BadRequestError("synchronize and prepend exclude each other")
    if kind.transforms != bool(value.name):
        raise BadRequestError(
            f"{kind.value} names no transform" if kind.transforms else f"{kind.value} names a transform",
            hint="the value of etl-bck has the name of a transform as id",
        )
    if not kind.transforms and (value.pipeline or value.etl_args or value.seed is not None):
        raise BadRequestError(f"{kind.value} has a pipeline or arguments of transforms", hint="etl-bck transforms")
    chosen = _chosen(kind, value)
    return check_options(
        msgspec.structs.replace(
            chosen,
            prepend=value.prepend,
            ext=value.ext or {},
            dry_run=value.dry_run,
            force=value.force,
            go_on=value.go_on,
            flat=value.flat,
            workers=1 if value.workers == -1 else value.workers,
            latest=value.latest,
            sync=value.synchronize,
            etl=value.name,
            etl_then=check_stages([check_etl_name(value.name), *(value.pipeline or ())])[1:] if value.name else (),
            etl_args=check_args(value.etl_args),
            seed=None if value.seed is None else check_seed(value.seed),
            etl_seconds=parse_duration(value.request_timeout) if value.request_timeout else 0.0,
        )
    )


def _chosen(kind: JobKind, value: CopyMessage) -> JobOptions:
    """Return options with the objects that a request is about: those under a prefix, named, or of a template."""
    if not kind.chooses:
        if value.objnames is not None or value.template:
            raise BadRequestError(
                f"{kind.value} is for all objects of a bucket", hint=f"{kind.value[:-4]}-listrange takes names"
            )
        return JobOptions(prefix=value.prefix)
    if value.prefix:
        if value.objnames is not None or value.template:
            raise BadRequestError("objects are chosen in two ways", hint="by a prefix, by names or by a template")
        return JobOptions(prefix=value.prefix)
    return choose(value.objnames, value.template)


async def query(store: Store, request: Request, what: str) -> Reply:
    """Answer ``what=`` about jobs: which one, or of which kind, is in the body."""
    body = await request.body(store.limits.control_body_bytes_max)
    wanted = _wanted(body)
    job_id, kind = _text(wanted, "id"), kind_of(_text(wanted, "kind"))
    jobs = await _list(store, job_id, wait=_seconds(wanted, "wait"))
    found = [job for job in jobs if kind in ("", job.kind.value)]
    if job_id and not found:
        raise JobNotFoundError.of(job_id)
    if what in ("status", "job_errors") and not job_id:
        raise BadRequestError("the query names no job", hint='expected {"ID": "…"}')
    if what == "job_errors":
        return json_reply(await _errors(store, job_id))
    if what == "status":
        return json_reply(_status(found[0]))
    if what == "status_all":
        active = bool(wanted.get("show_active"))
        return json_reply([_status(job) for job in found if job.runs or not active])
    if what == "running_all":
        return json_reply([f"{job.kind.value}[{job.id}]" for job in found if job.runs or _idles(job)])
    return json_reply({f"t{store.settings.node_id}": [_snap(job) for job in found]})


def _idles(job: Job) -> bool:
    """Say whether a job counts as one that waits for more objects to be chosen, as clients of AIStore expect."""
    writes_chosen = job.kind.chooses and job.kind.writes and job.state is JobState.FINISHED
    return writes_chosen and time.time_ns() - job.ended_ns < _IDLE_SECONDS * 10**9


def _wanted(body: bytes) -> dict[str, Any]:
    if not body.strip():
        return {}
    try:
        return lower_keys(msgspec.json.decode(body))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadRequestError(f"the query of jobs is not JSON: {error}") from error


def _text(fields: dict[str, Any], key: str) -> str:
    value = fields.get(key) or ""
    if not isinstance(value, str):
        raise BadRequestError(f"{key!r} is {value!r}", hint="expected text")
    return value


def _seconds(fields: dict[str, Any], key: str) -> float:
    value = fields.get(key) or 0
    if not isinstance(value, (int, float)) or not 0 <= value <= _WAIT_SECONDS_MAX:
        raise BadRequestError(f"{key!r} is {value!r}", hint=f"expected seconds, at most {_WAIT_SECONDS_MAX}")
    return value


async def stop(store: Store, value: dict[str, Any]) -> None:
    """End jobs that run, by id or by kind; raises JobNotFoundError for an unknown id."""
    job_id, kind = _text(value, "id"), kind_of(_text(value, "kind"))
    if not job_id and not kind:
        raise BadRequestError("the request to stop names no job", hint='expected {"ID": "…"} or {"Kind": "…"}')
    await store.controller.call("job_stop", id=job_id, kind=kind, reason="stopped by request")


async def work_off(store: Store, request: Request, message: Any) -> Reply:
    """Work off a batch for the node that owns the job; ended when that node does not wait any more."""
    try:
        batch = msgspec.convert(message, Batch)
    except msgspec.ValidationError as error:
        raise BadRequestError(f"the batch cannot be read: {error}") from error
    working = asyncio.ensure_future(run_batch(StoreObjects(store), batch))
    try:
        await asyncio.wait((working, request.gone), return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientGoneError
        return json_reply(working.result())
    finally:
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)


async def errors_of_etl(store: Store, etl: str, job_id: str) -> list[ObjectError]:
    """Return the objects that failed in a job through a transform or a line with it, by default in the last one."""
    jobs = await _list(store, job_id)
    last = next((job for job in jobs if job.options.call and etl in job.options.call.stages), None)
    if last is None and job_id:
        raise JobNotFoundError.of(job_id)
    return [] if last is None else await _errors(store, last.id)


async def _errors(store: Store, job_id: str) -> list[ObjectError]:
    found = await _list(store, job_id, errors=True)
    return [
        ObjectError(f"{job.source}/{error.name}", error.message, error.status) for job in found for error in job.errors
    ]


async def _list(store: Store, job_id: str = "", *, errors: bool = False, wait: float = 0.0) -> list[Job]:
    """Return the records of all jobs, or of one, perhaps after a wait for its end; the newest first."""
    return msgspec.convert(await store.controller.call("job_list", id=job_id, errors=errors, wait=wait), list[Job])


def _status(job: Job) -> JobStatus:
    return JobStatus(job.id, job.kind.value, job.error, job.ended_ns, not job.runs and bool(job.reason))


def _snap(job: Job) -> JobSnap:
    aborted = bool(job.reason)
    return JobSnap(
        id=job.id,
        kind=job.kind.value,
        start_time=spell_time(job.started_ns),
        end_time=spell_time(job.ended_ns),
        bucket=SnapBucket() if job.kind.writes else _snap_bucket(job.source),
        source=_snap_bucket(job.source) if job.kind.writes else SnapBucket(),
        destination=_snap_bucket(job.destination) if job.kind.writes else SnapBucket(),
        stats=SnapStats(loc_objs=str(job.counts.objects), loc_bytes=str(job.counts.bytes)),
        aborted=aborted,
        is_idle=not job.runs,
        abort_err=job.reason,
        err=job.error,
        ctlmsg=_what(job),
        packed=str(job.options.workers << 10),
        ext=JobExtra(
            job.counts.failed,
            job.counts.gone,
            job.done,
            job.options.dry_run,
            job.options.etl,
            job.total,
            job.counts.skipped,
            job.counts.removed,
            job.counts.stale,
        ),
    )


def _snap_bucket(uri: str) -> SnapBucket:
    bucket = parse_bucket_uri(uri)
    return SnapBucket(bucket.name, bucket.provider)


def _what(job: Job) -> str:
    """Return a job in a line, as far as its options say more than its buckets."""
    wanted = job.options
    stages = wanted.call.stages if wanted.call else ()
    sample = f"{wanted.percent:g}%" if wanted.percent else str(wanted.sample or "")
    said = {
        "etl": " >> ".join(stages), "prefix": wanted.prefix, "template": wanted.template, "prepend": wanted.prepend,
        "sample": sample,
    }  # fmt: skip
    parts = [f"{key}:{value}" for key, value in said.items() if value]
    flags = {"dry-run": wanted.dry_run, "sync": wanted.sync}
    return ", ".join(parts + [flag for flag, is_set in flags.items() if is_set])

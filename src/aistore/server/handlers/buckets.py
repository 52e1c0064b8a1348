"""Buckets: ``/v1/buckets[/<bucket>]``."""

from __future__ import annotations

import msgspec

from ...cluster.documents import BucketRecord
from ...errors import BadRequestError, NotSupportedError
from ...model.names import canonical_provider, check_bucket_name, check_provider
from ...wire import headers as names
from ...wire.messages import Action, ListJson, decode_action, lower_keys
from ..description import FLAG, PROVIDER, TEXT, Content, Parameter, operation
from ..replies import Empty, Reply, json_reply
from ..request import Request
from ..store import Store
from . import jobs
from .bucket_props import bucket_props
from .listing import list_objects
from .properties import checked_properties, shared_props


def bucket_of(request: Request, rest: str) -> str:
    """Return the bucket named by the path."""
    canonical_provider(request.query.get("provider", ""))
    return check_bucket_name(rest.strip("/"))


_BUCKET_PATH = "/v1/buckets/{bucket}"


@operation(
    "/v1/buckets",
    "List buckets.",
    Parameter("provider", "Of other providers than ais there are none."),
    body=Content(Action),
    returns=Content({"type": "array", "items": {"type": "object"}}),
    errors=(404, 501),
)
@operation(
    _BUCKET_PATH,
    "List the objects of a bucket, page by page. What to list is in the value of the body, or in the query.",
    PROVIDER,
    Parameter("prefix", "Names that begin with this."),
    Parameter("continuation_token", "From the page before."),
    Parameter("start_after", "Names that sort after this."),
    body=Content(Action),
    also={200: ("A page.", (Content(ListJson), Content(TEXT, "application/msgpack")))},
    errors=(404, 501),
)
async def get(store: Store, request: Request, rest: str) -> Reply:
    """List buckets, or the objects of one."""
    body = await request.body(store.limits.control_body_bytes_max)
    message = decode_action(body) if body.strip() else None
    if message is not None and message.verb not in ("list", ""):
        raise NotSupportedError(f"bucket query {message.action!r} is not supported by this store")
    if not rest.strip("/"):
        return _list_buckets(store, request)
    bucket = bucket_of(request, rest)
    value = lower_keys(message.value) if message is not None and message.value is not None else {}
    return await list_objects(store, request, bucket, value)


def _list_buckets(store: Store, request: Request) -> Reply:
    provider = request.query.get("provider", "")
    found = [] if store.is_node else [("ais", info.name) for info in store.engine.list_buckets()]
    if store.shared is not None:
        found += [(record.provider, record.name) for record in store.shared.buckets()]
    wanted = canonical_provider(provider) if provider else ""
    return json_reply(
        [
            {"name": name, "provider": kind, "namespace": {"uuid": "", "name": ""}}
            for kind, name in found
            if wanted in ("", kind)
        ]
    )


@operation(
    _BUCKET_PATH,
    "Create a bucket: create-bck. Jobs: copy-, etl-bck; copy-, etl-, prefetch-listrange; etl-verify.",
    PROVIDER,
    Parameter("bck_to", "The bucket to write to: ais/@#/<bucket>/."),
    body=Content(Action),
    also={200: ("Done, or begun.", (Content(TEXT, "text/plain"),))},
    errors=(409, 501, 507),
)
async def post(store: Store, request: Request, rest: str) -> Reply:
    """Create a bucket, or start a job that copies or transforms it."""
    bucket = bucket_of(request, rest)
    message = decode_action(await request.body(store.limits.control_body_bytes_max))
    if message.verb in jobs.KINDS:
        return await jobs.start_on_bucket(store, request, bucket, message)
    if message.verb in jobs.ON_OBJECTS:
        return await jobs.start_on_objects(store, request, bucket, message)
    if message.verb == "etlverify":
        return await jobs.start_to_verify(store, request, bucket, message)
    if message.verb != "createbck":
        raise NotSupportedError(f"bucket action {message.action!r} is not supported by this store")
    provider = canonical_provider(request.query.get("provider", ""))
    if store.shared is not None and (store.is_node or provider != "ais"):
        props = checked_properties(provider, message.value or {})
        await store.controller.call("bucket.create", provider=provider, name=bucket, props=props)
        return Empty()
    check_provider(provider)
    if message.value:
        raise NotSupportedError("bucket properties are not supported by this store", hint="create the bucket without")
    await store.in_thread(store.engine.create_bucket, bucket, {})
    return Empty()


@operation(
    _BUCKET_PATH,
    "Destroy a bucket: action destroy-bck. One outside of the store: evict-remote-bck; copies alone: evict-listrange.",
    PROVIDER,
    Parameter("keep_bck_md", "With evict-remote-bck: drop the copies and keep the bucket.", FLAG),
    body=Content(Action),
    also={200: ("Done, or begun.", (Content(TEXT, "text/plain"),))},
    errors=(501, 507),
)
async def delete(store: Store, request: Request, rest: str) -> Reply:
    """Destroy a bucket and all that is in it."""
    bucket = bucket_of(request, rest)
    message = decode_action(await request.body(store.limits.control_body_bytes_max))
    if message.verb in jobs.ON_OBJECTS:
        return await jobs.start_on_objects(store, request, bucket, message)
    record = store.shared_bucket(request, bucket)
    if record is not None:
        return await _delete_shared(store, record, message, keep=request.flag("keep_bck_md"))
    if message.verb != "destroybck":
        raise NotSupportedError(f"bucket action {message.action!r} is not supported by this store")
    await store.in_thread(store.engine.delete_bucket, bucket)
    return Empty()


async def _delete_shared(store: Store, record: BucketRecord, message: Action, *, keep: bool) -> Reply:
    if message.verb == "destroybck" and record.provider != "ais":
        raise BadRequestError(
            f"{record.name} is a bucket of {record.provider}: this store does not destroy it",
            hint="to forget it here and what is cached of it, evict it",
        )
    if message.verb not in ("destroybck", "evictremotebck") or (message.verb[0] == "e" and record.provider == "ais"):
        raise NotSupportedError(f"bucket action {message.action!r} is not supported for {record.provider} buckets")
    verb = "bucket.evict" if keep and record.provider != "ais" else "bucket.delete"
    await store.controller.call(verb, provider=record.provider, name=record.name)
    return Empty()


@operation(_BUCKET_PATH, "Return a bucket's properties, in the header Ais-Bucket-Props.", PROVIDER, errors=(501, 404))
async def head(store: Store, request: Request, rest: str) -> Reply:
    """Return a bucket's properties in a header."""
    if "bsumm_remote" in request.query:  # the first of several requests for a summary, whose answer would be a job
        raise NotSupportedError("bucket summaries are not supported by this store")
    bucket = bucket_of(request, rest)
    record = store.shared_bucket(request, bucket)
    found = bucket_props(store.engine.head_bucket(bucket)) if record is None else shared_props(record)
    props = msgspec.json.encode(found).decode().encode("ascii", "backslashreplace").decode()
    return Empty([(names.BUCKET_PROPS, props)])


@operation(
    _BUCKET_PATH,
    "Set bucket properties (set-bprops), or put the defaults back first (reset-bprops).",
    PROVIDER,
    body=Content(Action),
    errors=(404, 501),
)
async def patch(store: Store, request: Request, rest: str) -> Reply:
    """Set properties of a bucket whose objects are in an object store."""
    record = store.shared_bucket(request, bucket_of(request, rest))
    message = decode_action(await request.body(store.limits.control_body_bytes_max))
    if record is None or message.verb not in ("setbprops", "resetbprops"):
        raise NotSupportedError("setting bucket properties is not supported by this store")
    props = checked_properties(record.provider, message.value or {}, changed=True)
    await store.controller.call(
        "bucket.props", provider=record.provider, name=record.name, props=props, reset=message.verb == "resetbprops"
    )
    return Empty()


@operation(_BUCKET_PATH, "Actions on many objects: none is here yet.", body=Content(Action), refused=True)
async def put(store: Store, request: Request, rest: str) -> Reply:
    """Refuse multi-object actions."""
    raise NotSupportedError("multi-object actions on buckets are not supported by this store")

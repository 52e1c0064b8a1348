"""Buckets: ``/v1/buckets[/<bucket>]``."""

from __future__ import annotations

from typing import Any

import msgspec

from ...errors import NotSupportedError
from ...model.buckets import BucketInfo
from ...model.names import check_bucket_name, check_provider
from ...wire import headers as names
from ...wire.messages import Action, ListJson, decode_action, lower_keys
from ..description import PROVIDER, TEXT, Content, Parameter, operation
from ..replies import Empty, Reply, json_reply
from ..request import Request
from ..store import Store
from .listing import list_objects


def bucket_of(request: Request, rest: str) -> str:
    """Return the bucket named by the path."""
    check_provider(request.query.get("provider", ""))
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
    if provider and provider != "ais":
        return json_reply([])
    return json_reply(
        [
            {"name": info.name, "provider": "ais", "namespace": {"uuid": "", "name": ""}}
            for info in store.engine.list_buckets()
        ]
    )


@operation(_BUCKET_PATH, "Create a bucket: action create-bck.", PROVIDER, body=Content(Action), errors=(409, 501, 507))
async def post(store: Store, request: Request, rest: str) -> Reply:
    """Create a bucket."""
    bucket = bucket_of(request, rest)
    message = decode_action(await request.body(store.limits.control_body_bytes_max))
    if message.verb != "createbck":
        raise NotSupportedError(f"bucket action {message.action!r} is not supported by this store")
    if message.value:
        raise NotSupportedError("bucket properties are not supported by this store", hint="create the bucket without")
    await store.in_thread(store.engine.create_bucket, bucket, {})
    return Empty()


@operation(_BUCKET_PATH, "Destroy a bucket: action destroy-bck.", PROVIDER, body=Content(Action), errors=(501, 507))
async def delete(store: Store, request: Request, rest: str) -> Reply:
    """Destroy a bucket and all that is in it."""
    bucket = bucket_of(request, rest)
    message = decode_action(await request.body(store.limits.control_body_bytes_max))
    if message.verb != "destroybck":
        raise NotSupportedError(f"bucket action {message.action!r} is not supported by this store")
    await store.in_thread(store.engine.delete_bucket, bucket)
    return Empty()


@operation(_BUCKET_PATH, "Return a bucket's properties, in the header Ais-Bucket-Props.", PROVIDER, errors=(501, 404))
async def head(store: Store, request: Request, rest: str) -> Reply:
    """Return a bucket's properties in a header."""
    if "bsumm_remote" in request.query:  # the first of several requests for a summary, whose answer would be a job
        raise NotSupportedError("bucket summaries are not supported by this store")
    info = store.engine.head_bucket(bucket_of(request, rest))
    props = msgspec.json.encode(bucket_props(info)).decode().encode("ascii", "backslashreplace").decode()
    return Empty([(names.BUCKET_PROPS, props)])


@operation(_BUCKET_PATH, "Set bucket properties: none can be set yet.", body=Content(Action), refused=True)
async def patch(store: Store, request: Request, rest: str) -> Reply:
    """Refuse to set properties: this store has none that can be changed yet."""
    raise NotSupportedError("setting bucket properties is not supported by this store")


@operation(_BUCKET_PATH, "Actions on many objects: none is here yet.", body=Content(Action), refused=True)
async def put(store: Store, request: Request, rest: str) -> Reply:
    """Refuse multi-object actions."""
    raise NotSupportedError("multi-object actions on buckets are not supported by this store")


def bucket_props(info: BucketInfo) -> dict[str, Any]:
    """Return a bucket's properties by the field's keys: what is true of every bucket here."""
    props: dict[str, Any] = {
        "provider": "ais",
        "backend_bck": {"name": "", "provider": ""},
        "write_policy": {"data": "", "md": ""},
        "checksum": {
            "type": "xxhash2", "validate_cold_get": False, "validate_warm_get": False, "validate_obj_move": False,
            "enable_read_range": False,
        },
        "versioning": {"enabled": True, "validate_warm_get": False, "synchronize": False},
        "mirror": {"copies": 1, "burst_buffer": 0, "enabled": False},
        "ec": {
            "compression": "never", "bundle_multiplier": 0, "objsize_limit": 0, "data_slices": 0, "parity_slices": 0,
            "enabled": False, "disk_only": False,
        },
        "chunks": {
            "objsize_limit": "0B", "max_monolithic_size": "0B", "chunk_size": "0B", "checkpoint_every": 0, "flags": 0,
        },
        "lru": {"dont_evict_time": "0s", "capacity_upd_time": "0s", "enabled": False},
        "rate_limit": {},
        "extra": {},
        "access": str((1 << 64) - 1),
        "features": "0",
        "bid": str(info.id),
        "created": str(info.created_ns),
    }  # fmt: skip
    return props

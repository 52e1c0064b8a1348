"""Buckets and listings: ``/v1/buckets[/<bucket>]``."""

from __future__ import annotations

import datetime
from typing import Any

import msgspec

from ...errors import BadRequestError, NotSupportedError
from ...model.buckets import BucketInfo
from ...model.names import check_bucket_name, check_provider
from ...model.objects import ListOptions, ListPage, ObjectInfo
from ...wire import headers as names
from ...wire.messages import (
    ENTRY_CACHED,
    ListEntryJson,
    ListEntryMsgpack,
    ListJson,
    ListMsgpack,
    decode_action,
    lower_keys,
)
from ..replies import Bytes, Empty, Reply, json_reply
from ..request import Request
from ..store import Store

_LIST_PROPS = frozenset("name size checksum atime version copies ec custom location cached status".split())
_FLAG_NAME_ONLY, _FLAG_NAME_SIZE = 1 << 4, 1 << 5
#: Bits of the list flags that change the answer in a way this store cannot give.
_FLAGS_NOT_SUPPORTED = {3: "listing archives", 11: "listing without recursion", 15: "listing an inventory"}


def bucket_of(request: Request, rest: str) -> str:
    """Return the bucket named by the path."""
    check_provider(request.query.get("provider", ""))
    return check_bucket_name(rest.strip("/"))


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
    options = _list_options(store, request, value)
    page = await store.in_thread(store.engine.list, bucket, options)
    return _page_reply(request, page, _wanted_props(value), str(value.get("uuid") or ""))


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


def _list_options(store: Store, request: Request, value: dict[str, Any]) -> ListOptions:
    flags = _integer(value, "flags")
    for bit, what in _FLAGS_NOT_SUPPORTED.items():
        if flags >> bit & 1:
            raise NotSupportedError(f"{what} is not supported by this store")
    limit = _integer(value, "pagesize")
    if limit < 0:
        raise BadRequestError(f"pagesize {limit} is negative")
    texts = {}
    for key in ("prefix", "continuation_token", "start_after"):
        texts[key] = value.get(key) or request.query.get(key, "")
        if not isinstance(texts[key], str):
            raise BadRequestError(f"{key} of a listing must be text")
    return ListOptions(
        prefix=texts["prefix"],
        start_after=max(texts["continuation_token"], texts["start_after"], key=str.encode),
        limit=min(limit or store.limits.list_page_max, store.limits.list_page_max),
    )


def _integer(value: dict[str, Any], key: str) -> int:
    try:
        return int(value.get(key) or 0)
    except (TypeError, ValueError) as error:
        raise BadRequestError(f"{key} {value.get(key)!r} of a listing is not a number") from error


def _wanted_props(value: dict[str, Any]) -> frozenset[str]:
    flags = _integer(value, "flags")
    text = str(value.get("props") or "")
    props = frozenset(filter(None, text.replace(" ", "").split(",")))
    unknown = props - _LIST_PROPS
    if unknown:
        raise BadRequestError(
            f"unknown props {sorted(unknown)}", hint="expected some of: " + ",".join(sorted(_LIST_PROPS))
        )
    if flags & _FLAG_NAME_ONLY or props == {"name"}:
        return frozenset()
    if flags & _FLAG_NAME_SIZE or not props:
        return frozenset({"size"})
    return props


def _page_reply(request: Request, page: ListPage, props: frozenset[str], uuid: str) -> Reply:
    uuid = uuid or "list"
    if "application/msgpack" in request.headers.get("accept", ""):
        entries = [
            ListEntryMsgpack(n=info.name, f=ENTRY_CACHED, **_fields(info, props, _MSGPACK)) for info in page.entries
        ]
        message = ListMsgpack(Entries=entries, UUID=uuid, ContinuationToken=page.continuation)
        return Bytes(msgspec.msgpack.encode(message), media_type="application/msgpack")
    entries_json = [
        ListEntryJson(name=info.name, flags=ENTRY_CACHED, **_fields(info, props, _JSON)) for info in page.entries
    ]
    return json_reply(ListJson(entries=entries_json, uuid=uuid, continuation_token=page.continuation))


_MSGPACK = {"size": "s", "checksum": "cs", "atime": "a", "version": "v", "custom": "m"}
_JSON = {"size": "size", "checksum": "checksum", "atime": "atime", "version": "version", "custom": "custom_md"}


def _fields(info: ObjectInfo, props: frozenset[str], keys: dict[str, str]) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    if "size" in props:
        fields[keys["size"]] = info.size if keys is _MSGPACK else str(info.size)
    if len(props) <= 1:
        return fields
    if "checksum" in props:
        fields[keys["checksum"]] = info.checksum.value
    if "atime" in props:
        when = datetime.datetime.fromtimestamp(info.created_ns / 1e9, tz=datetime.timezone.utc)
        fields[keys["atime"]] = when.strftime("%d %b %y %H:%M UTC")
    if "version" in props:
        fields[keys["version"]] = str(info.version)
    if "custom" in props and info.custom:
        fields[keys["custom"]] = names.encode_custom(info.custom)
    return fields


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


async def delete(store: Store, request: Request, rest: str) -> Reply:
    """Destroy a bucket and all that is in it."""
    bucket = bucket_of(request, rest)
    message = decode_action(await request.body(store.limits.control_body_bytes_max))
    if message.verb != "destroybck":
        raise NotSupportedError(f"bucket action {message.action!r} is not supported by this store")
    await store.in_thread(store.engine.delete_bucket, bucket)
    return Empty()


async def head(store: Store, request: Request, rest: str) -> Reply:
    """Return a bucket's properties in a header."""
    if "bsumm_remote" in request.query:  # the first of several requests for a summary, whose answer would be a job
        raise NotSupportedError("bucket summaries are not supported by this store")
    info = store.engine.head_bucket(bucket_of(request, rest))
    props = msgspec.json.encode(bucket_props(info)).decode().encode("ascii", "backslashreplace").decode()
    return Empty([(names.BUCKET_PROPS, props)])


async def patch(store: Store, request: Request, rest: str) -> Reply:
    """Refuse to set properties: this store has none that can be changed yet."""
    raise NotSupportedError("setting bucket properties is not supported by this store")


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

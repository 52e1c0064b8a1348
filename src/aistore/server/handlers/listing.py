"""Listing the objects of a bucket, one page a request: ``GET /v1/buckets/<bucket>``."""

from __future__ import annotations

import datetime
import functools
from collections.abc import Mapping
from typing import Any

import msgspec

from ...errors import BadRequestError, NotSupportedError
from ...model.objects import ListOptions, ListPage, ObjectInfo
from ...wire import headers as names
from ...wire.messages import ENTRY_CACHED, ListEntryJson, ListEntryMsgpack, ListJson, ListMsgpack
from ..node.listing import Listing
from ..replies import Bytes, Headers, Reply, json_reply
from ..request import Request
from ..store import Store

_PROPS = frozenset("name size checksum atime version copies ec custom location cached status".split())
_FLAG_CACHED, _FLAG_NOT_CACHED = 1 << 0, 1 << 9
_FLAG_NAME_ONLY, _FLAG_NAME_SIZE = 1 << 4, 1 << 5
#: Bits of the list flags that change the answer in a way this store cannot give.
_FLAGS_NOT_SUPPORTED = {3: "listing archives", 11: "listing without recursion", 15: "listing an inventory"}


async def list_objects(store: Store, request: Request, bucket: str, value: Mapping[str, Any]) -> Reply:
    """Return one page; ``value`` is what the request asks for, its keys in lower case."""
    options, props = _options(store, request, value), _wanted_props(value)
    packed = "application/msgpack" in request.headers.get("accept", "")
    record = store.shared_bucket(request, bucket)
    if record is not None:
        assert store.shared is not None
        uuid, listing = str(value.get("uuid") or "list"), Listing(store.shared, record)
        flags = _integer(value, "flags")
        if flags & _FLAG_CACHED:
            shared = await listing.cached(options)
        elif flags & _FLAG_NOT_CACHED:
            shared = await listing.not_cached(options)
        else:
            shared = await listing.page(options, marked="cached" in props)
        headers = [(names.UNNAMABLE, str(shared.foreign))] if shared.foreign else []
        return await store.in_thread(_spell, shared.page, props, uuid, packed, shared.cached, headers)
    # Spelling a page takes as long as reading it: both belong in the thread.
    return await store.in_thread(_page, store, bucket, options, props, str(value.get("uuid") or "list"), packed)


def _options(store: Store, request: Request, value: Mapping[str, Any]) -> ListOptions:
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
        # Not the larger one: a store may list in an order of its own, and a token is always further.
        start_after=texts["continuation_token"] or texts["start_after"],
        limit=min(limit or store.limits.list_page_max, store.limits.list_page_max),
    )


def _integer(value: Mapping[str, Any], key: str) -> int:
    try:
        return int(value.get(key) or 0)
    except (TypeError, ValueError) as error:
        raise BadRequestError(f"{key} {value.get(key)!r} of a listing is not a number") from error


def _wanted_props(value: Mapping[str, Any]) -> frozenset[str]:
    flags = _integer(value, "flags")
    text = str(value.get("props") or "")
    props = frozenset(filter(None, text.replace(" ", "").split(",")))
    unknown = props - _PROPS
    if unknown:
        raise BadRequestError(f"unknown props {sorted(unknown)}", hint="expected some of: " + ",".join(sorted(_PROPS)))
    if flags & _FLAG_NAME_ONLY or props == {"name"}:
        return frozenset()
    if flags & _FLAG_NAME_SIZE or not props:
        return frozenset({"size"})
    return props


def _page(
    store: Store,
    bucket: str,
    options: ListOptions,
    props: frozenset[str],
    uuid: str,
    packed: bool,
) -> Bytes:
    return _spell(store.engine.list(bucket, options), props, uuid, packed, None)


def _spell(
    page: ListPage, props: frozenset[str], uuid: str, packed: bool, cached: frozenset[str] | None, headers: Headers = ()
) -> Bytes:
    """Return a page as the client wants it; of the names, ``cached`` have a copy (None: all)."""
    if packed:
        message = ListMsgpack(_msgpack_entries(page.entries, props, cached), uuid, page.continuation)
        return Bytes(msgspec.msgpack.encode(message), headers, media_type="application/msgpack")
    return json_reply(ListJson(_json_entries(page.entries, props, cached), uuid, page.continuation), headers)


# By position, and in one expression each: a page has 10,000 entries.


def _msgpack_entries(
    infos: list[ObjectInfo], props: frozenset[str], cached: frozenset[str] | None
) -> list[ListEntryMsgpack]:
    size, checksum, atime = "size" in props, "checksum" in props, "atime" in props
    version, custom = "version" in props, "custom" in props
    return [
        ListEntryMsgpack(
            info.name,
            info.size if size else 0,
            info.checksum.value if checksum else "",
            _minute(info.created_ns // _MINUTE_NS) if atime else "",
            str(info.version) if version else "",
            "",
            names.encode_custom(info.custom) if custom and info.custom else "",
            0,
            ENTRY_CACHED if cached is None or info.name in cached else 0,
        )
        for info in infos
    ]


def _json_entries(infos: list[ObjectInfo], props: frozenset[str], cached: frozenset[str] | None) -> list[ListEntryJson]:
    size, checksum, atime = "size" in props, "checksum" in props, "atime" in props
    version, custom = "version" in props, "custom" in props
    return [
        ListEntryJson(
            info.name,
            str(info.size) if size else "",
            info.checksum.value if checksum else "",
            _minute(info.created_ns // _MINUTE_NS) if atime else "",
            str(info.version) if version else "",
            ENTRY_CACHED if cached is None or info.name in cached else 0,
            names.encode_custom(info.custom) if custom and info.custom else "",
        )
        for info in infos
    ]


_MINUTE_NS = 60_000_000_000


@functools.lru_cache(4096)  # objects next to each other in a listing were often written together
def _minute(number: int) -> str:
    """Return a time, in minutes since 1970, as listings spell it."""
    return datetime.datetime.fromtimestamp(number * 60, tz=datetime.timezone.utc).strftime("%d %b %y %H:%M UTC")

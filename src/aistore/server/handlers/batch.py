"""Many objects in one reply, each transformed or not: ``POST /v1/batch/<bucket>``. The framing is wire/batch.py's."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator

import msgspec

from ...errors import AisError, BadRequestError
from ...model.names import check_bucket_name, check_provider
from ...wire import batch as frames
from ..error_replies import as_ais_error, error_body
from ..replies import Reply, Stream
from ..request import Request
from ..store import Store
from .objects import open_object


async def post(store: Store, request: Request, rest: str) -> Reply:
    """Stream the entries in the order of the request; an entry that fails is a frame with its error."""
    check_provider(request.query.get("provider", ""))
    bucket = check_bucket_name(rest.strip("/"))
    body = await request.body(store.limits.control_body_bytes_max)
    try:
        wanted = msgspec.json.decode(body, type=frames.BatchRequest)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadRequestError(
            f"the batch request cannot be read: {error}", hint='expected {"entries": [["name", "etl or empty"], …]}'
        ) from error
    if not 0 < len(wanted.entries) <= frames.ENTRIES_MAX:
        raise BadRequestError(f"{len(wanted.entries)} entries in a batch", hint=f"expected 1 to {frames.ENTRIES_MAX}")
    store.engine.head_bucket(bucket)
    for etl in {etl for _, etl in wanted.entries if etl}:
        await store.dispatcher.find(etl)  # a missing transform is the request's error, not each entry's
    return Stream(_entries(store, bucket, wanted), media_type=frames.CONTENT_TYPE)


async def _entries(store: Store, bucket: str, wanted: frames.BatchRequest) -> AsyncIterator[bytes]:
    """Yield frames in order while up to a window of later entries is being read and transformed."""
    ahead: deque[asyncio.Task[tuple[int, bytes]]] = deque()
    following = iter(wanted.entries)
    position = 0
    try:
        while True:
            while len(ahead) < store.limits.batch_window and (entry := next(following, None)) is not None:
                ahead.append(asyncio.ensure_future(_entry(store, bucket, *entry, wanted.etl_args)))
            if not ahead:
                break
            status, data = await ahead[0]
            ahead.popleft()
            header = frames.encode_header(status, position, data)
            # Small data is joined to its header: one message to the server instead of two.
            if len(data) < 65536:
                yield header + data
            else:
                yield header
                yield data
            position += 1
        yield frames.encode_end(position)
    finally:
        for task in ahead:
            task.cancel()
        if ahead:
            await asyncio.gather(*ahead, return_exceptions=True)


async def _entry(store: Store, bucket: str, name: str, etl: str, etl_args: str) -> tuple[int, bytes]:
    try:
        reading = open_object(store, bucket, name)
        if etl:
            result = await store.dispatcher.transform(etl, reading, etl_args)
            try:
                return 200, result.data if result.data is not None else await store.in_thread(result.read_all)
            finally:
                result.close()
        try:
            data = reading.read_cached(0, reading.info.size) if reading.info.size <= store.limits.piece_bytes else None
            if data is None:
                data = await store.in_thread(reading.read, 0, reading.info.size)
            return 200, data
        finally:
            reading.close()
    except Exception as error:
        ours: AisError = as_ais_error(error)
        body = error_body(ours, method="POST", path=f"/v1/objects/{bucket}/{name}", node=store.settings.node_id)
        return ours.status, msgspec.json.encode(body)

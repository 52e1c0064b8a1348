"""Writing and removing objects that are in an object store, at the node that they live on."""

from __future__ import annotations

import functools

from ...cluster.documents import BucketRecord
from ...errors import ClientGoneError
from ...model.objects import PutOptions
from ...wire import headers as names
from ...wire.messages import decode_action
from ..node.copies import cache_bucket
from ..replies import Empty, Reply
from ..request import Request
from ..store import Store
from .bodies import write_body


async def put(store: Store, request: Request, bucket: BucketRecord, name: str, options: PutOptions) -> Reply:
    """Write an object from the body: kept in memory when it is small, staged in the cache when it is not."""
    shared = store.shared
    assert shared is not None
    shared.check_home(request, bucket, name)
    length = request.content_length
    if length is not None and length <= store.limits.piece_bytes:
        data = await request.body(length)
        if len(data) != length:
            raise ClientGoneError
        info = await shared.put(request, bucket, name, data, options)
        return Empty(names.info_headers(info))
    request.hold(store.limits.piece_bytes)
    stage = functools.partial(shared.cache.stage, cache_bucket(bucket), name, options)
    staging = await shared.in_thread(stage)
    try:
        await write_body(store, request, staging)
        info = await shared.put_staged(request, bucket, name, staging, options)
    finally:
        await shared.in_thread(staging.abort)
    return Empty(names.info_headers(info))


async def delete(store: Store, request: Request, bucket: BucketRecord, name: str) -> Reply:
    """Remove an object, or only (action ``evict``) the copy of it on the node it lives on."""
    shared = store.shared
    assert shared is not None
    shared.check_home(request, bucket, name)
    body = await request.body(store.limits.control_body_bytes_max)
    if not body.strip() or not decode_action(body).verb.startswith("evict"):
        await shared.delete(request, bucket, name)
    else:
        await shared.evict(bucket, name)
    return Empty()

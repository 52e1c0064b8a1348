"""Bodies of requests on their way into a staging."""

from __future__ import annotations

from ...errors import ClientGoneError
from ...storage.engine import Staging
from ..request import Request
from ..store import Store


async def write_body(store: Store, request: Request, staging: Staging) -> None:
    """Write the body in pieces of about the size that is worth a thread hop."""
    pending: list[bytes] = []
    size = total = 0
    async for chunk in request.chunks():
        pending.append(chunk)
        size += len(chunk)
        if size >= store.limits.piece_bytes:
            await store.in_thread(staging.write, b"".join(pending))
            total += size
            pending, size = [], 0
    if pending:
        await store.in_thread(staging.write, b"".join(pending))
        total += size
    if request.content_length not in (None, total):
        raise ClientGoneError

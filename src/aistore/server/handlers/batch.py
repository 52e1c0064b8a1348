"""Many objects in one reply, each transformed or not: ``POST /v1/batch/<bucket>``. The framing is wire/batch.py's."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Iterator

import msgspec

from ...errors import AisError, BadRequestError, ClientGoneError
from ...model.names import check_bucket_name, check_provider
from ...storage.engine import Reading
from ...wire import batch as frames
from ..description import BYTES, PROVIDER, Content, operation
from ..error_replies import as_ais_error, error_body
from ..replies import Reply, Stream
from ..request import Request
from ..store import Store
from .objects import open_object

#: Below this the copy costs less than another message. Guessed.
_JOINED_BYTES_MAX = 64 << 10


@operation(
    "/v1/batch/{bucket}",
    "Read many objects, each transformed or not, in one reply of frames.",
    PROVIDER,
    body=Content(frames.BatchRequest),
    returns=Content(BYTES, frames.CONTENT_TYPE),
)
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
    return Stream(_entries(store, request, bucket, wanted), media_type=frames.CONTENT_TYPE)


async def _entries(
    store: Store, request: Request, bucket: str, wanted: frames.BatchRequest
) -> AsyncGenerator[bytes, None]:
    """Yield frames in order while up to a window of later entries is being read and transformed.

    The window is bounded in bytes too, its own and those of all replies. When the client goes away, what is under way
    is ended.
    """
    ahead: deque[tuple[asyncio.Task[tuple[int, bytes]], int]] = deque()
    following = iter(wanted.entries)
    position = held = 0
    next_up: tuple[tuple[str, str], Reading | Exception] | None = None
    gone = request.gone

    def end_all(_: object) -> None:
        for task, _ in ahead:
            task.cancel()

    gone.add_done_callback(end_all)
    try:
        while True:
            while len(ahead) < store.limits.batch_window:
                if next_up is None:
                    if (entry := next(following, None)) is None:
                        break
                    next_up = entry, _open(store, bucket, entry[0])
                entry, opened = next_up
                size = 0 if isinstance(opened, Exception) else opened.info.size
                if not store.admission.take_entry(size, held):
                    break
                next_up = None
                task = asyncio.ensure_future(_entry(store, bucket, *entry, wanted.etl_args, opened))
                ahead.append((task, size))
                held += size
            if not ahead:
                break
            try:
                status, data = await ahead[0][0]
            except asyncio.CancelledError:
                if gone.done():
                    raise ClientGoneError from None
                raise
            _, size = ahead.popleft()
            for message in _messages(frames.encode_header(status, position, data), data, store.limits.piece_bytes):
                yield message
            if gone.done():
                raise ClientGoneError
            held -= size
            store.admission.give_entries(size)
            position += 1
        yield frames.encode_end(position)
    finally:
        gone.remove_done_callback(end_all)
        for task, _ in ahead:
            task.cancel()
        if ahead:
            await asyncio.gather(*(task for task, _ in ahead), return_exceptions=True)
        store.admission.give_entries(held)
        if next_up is not None and not isinstance(next_up[1], Exception):
            next_up[1].close()


def _messages(header: bytes, data: bytes, piece: int) -> Iterator[bytes]:
    """Yield an entry as it is sent: small data joined to its header, one message to the server instead of two.

    Large data goes in pieces, because the server takes several messages ahead of a client that does not read.
    """
    if len(data) < _JOINED_BYTES_MAX:
        yield header + data
        return
    yield header
    for start in range(0, len(data), piece):
        yield data[start : start + piece]


def _open(store: Store, bucket: str, name: str) -> Reading | Exception:
    """Return the opened object, or why it cannot be: an entry's error is its own, not the batch's."""
    try:
        return open_object(store, bucket, name)
    except Exception as error:
        return error


async def _entry(
    store: Store, bucket: str, name: str, etl: str, etl_args: str, opened: Reading | Exception
) -> tuple[int, bytes]:
    try:
        if isinstance(opened, Exception):
            raise opened
        reading = opened
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

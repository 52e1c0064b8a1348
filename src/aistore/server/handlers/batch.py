"""Many objects in one reply, each transformed or not: ``POST /v1/batch/<bucket>``. The framing is wire/batch.py's."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Iterator
from urllib.parse import quote, urlencode

import msgspec

from ...cluster.coherence import Elsewhere
from ...cluster.documents import BucketRecord
from ...errors import AisError, BadRequestError, ClientGoneError, PeerUnreachableError
from ...model.etl import TransformCall
from ...model.names import check_bucket_name
from ...storage.engine import Reading
from ...wire import batch as frames
from ...wire.headers import MAP_VERSION
from ..description import BYTES, PROVIDER, Content, operation
from ..error_replies import as_ais_error, error_body
from ..replies import Reply, Stream
from ..request import Request
from ..store import Store
from .objects import open_object
from .transform_calls import call_of_text, query_of_call

#: An object's name, and the transforms that it goes through.
Entry = tuple[str, TransformCall | None]

#: Below this the copy costs less than another message. Guessed.
_JOINED_BYTES_MAX = 64 << 10
#: What another node may answer for one entry.
_ENTRY_BYTES_MAX = 4 << 30


@operation(
    "/v1/batch/{bucket}",
    "Read many objects, each transformed or not, in one reply of frames.",
    PROVIDER,
    body=Content(frames.BatchRequest),
    returns=Content(BYTES, frames.CONTENT_TYPE),
)
async def post(store: Store, request: Request, rest: str) -> Reply:
    """Stream the entries in the order of the request; an entry that fails is a frame with its error."""
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
    objects = _Shared(store, record) if (record := store.shared_bucket(request, bucket)) else _Own(store, bucket)
    calls = {text: call_of_text(text, wanted.etl_args, wanted.seed) for text in {etl for _, etl in wanted.entries}}
    for etl in {etl for call in calls.values() if call for etl in call.stages}:
        await store.dispatcher.find(etl)  # a missing transform is the request's error, not each entry's
    version = [(MAP_VERSION, str(store.shared.view.version))] if store.is_node and store.shared is not None else []
    entries = [(name, calls[etl]) for name, etl in wanted.entries]
    return Stream(_entries(store, request, objects, entries), version, media_type=frames.CONTENT_TYPE)


async def _entries(
    store: Store, request: Request, objects: _Own | _Shared, wanted: list[Entry]
) -> AsyncGenerator[bytes, None]:
    """Yield frames in order while up to a window of later entries is being read and transformed.

    The window is bounded in bytes too, its own and those of all replies. When the client goes away, what is under way
    is ended.
    """
    ahead: deque[tuple[asyncio.Task[tuple[int, bytes]], int]] = deque()
    following = iter(wanted)
    position = held = 0
    next_up: tuple[Entry, Reading | Exception | None] | None = None
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
                    next_up = entry, objects.open(entry[0])
                entry, opened = next_up
                size = _held(store, opened)
                if not store.admission.take_entry(size, held):
                    break
                next_up = None
                task = asyncio.ensure_future(_entry(store, objects, *entry, opened))
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
        if next_up is not None and next_up[1] is not None and not isinstance(next_up[1], Exception):
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


def _held(store: Store, opened: Reading | Exception | None) -> int:
    """Return how much memory an entry will take; a guess for one whose object is not here."""
    if opened is None:
        return store.limits.piece_bytes
    return 0 if isinstance(opened, Exception) else opened.info.size


class _Own:
    """Entries of a bucket on this machine; raises BucketNotFoundError."""

    def __init__(self, store: Store, bucket: str) -> None:
        self._store = store
        self.bucket = bucket
        store.engine.head_bucket(bucket)

    def open(self, name: str) -> Reading | Exception:
        """Return the opened object, or why it cannot be: an entry's error is its own, not the batch's."""
        try:
            return open_object(self._store, self.bucket, name)
        except Exception as error:
            return error

    async def find(self, name: str, call: TransformCall | None) -> Reading | tuple[int, bytes]:
        """Never called: what is here is opened at once."""
        raise AssertionError(name)


class _Shared:
    """Entries of a bucket in an object store: here, or asked of the nodes that the objects live on."""

    def __init__(self, store: Store, record: BucketRecord) -> None:
        assert store.shared is not None
        self._shared = store.shared
        self._record = record
        self.bucket = record.name

    def open(self, name: str) -> Reading | Exception | None:
        """Return the opened copy if there is one that may be given out, else None."""
        try:
            return self._shared.coherence.read_copy(self._record, name)
        except Exception as error:
            return error

    async def find(self, name: str, call: TransformCall | None) -> Reading | tuple[int, bytes]:
        """Return the opened object, or status and bytes of what another node makes of the request for it."""
        shared, record = self._shared, self._record
        found = await shared.coherence.read(record, name)
        if isinstance(found, Elsewhere):
            query = urlencode({"provider": record.provider, **query_of_call(call)})
            path = f"/v1/objects/{quote(record.name)}/{quote(name)}?{query}"
            try:
                async with await shared.peers.request(found.home, "GET", path) as reply:
                    data = await reply.body(_ENTRY_BYTES_MAX)
                if reply.status != 503:
                    return reply.status, data
            except PeerUnreachableError:
                pass
            found = await shared.coherence.read(record, name, forwarded=True)
        return shared.reading(record, name, found)


async def _entry(
    store: Store, objects: _Own | _Shared, name: str, call: TransformCall | None, opened: Reading | Exception | None
) -> tuple[int, bytes]:
    try:
        if isinstance(opened, Exception):
            raise opened
        reading = opened
        if reading is None:
            found = await objects.find(name, call)
            if isinstance(found, tuple):
                return found
            reading = found
        if call is not None:
            result = await store.dispatcher.transform(call, reading)
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
        path = f"/v1/objects/{objects.bucket}/{name}"
        body = error_body(ours, method="POST", path=path, node=store.settings.node_id)
        return ours.status, msgspec.json.encode(body)

"""What a transform that is a server asks of the store: ``/v1/etl/_object/<name>/<secret>/<UNAME>``.

For transforms that reach the store's own address. Those in a sandbox have an address of their own, where the same is
answered and nothing else (etl/servers/gateway.py).
"""

from __future__ import annotations

import os

from ...errors import AisError, ClientGoneError
from ...etl.servers.call_files import Offers
from ...etl.servers.callers import PREFIX, check_secret, unrecognized
from ..description import BYTES, Content, Parameter, operation
from ..replies import Bytes, Empty, Pieces, Reply
from ..request import Request
from ..store import Store

#: How its routes are called in the table.
KIND = "etl/_object"
_PATH = PREFIX + "{etl}/{secret}/{name}"
_OBJECT = Content(BYTES, "application/octet-stream")

__all__ = ["KIND", "PREFIX", "get", "put"]


async def _offers(store: Store, rest: str) -> tuple[Offers, str]:
    """Return what the caller may have, and the object's unique name; raises BadRequestError."""
    name, _, rest = rest.partition("/")
    secret, _, uname = rest.partition("/")
    for again in (False, True):  # it may have been made anew since it was last looked for
        try:
            return check_secret(await store.dispatcher.find(name, again=again), secret), uname
        except AisError:
            if again:
                raise unrecognized() from None
    raise AssertionError("unreachable")


@operation(_PATH, "Return the object that a transform was asked for, to that transform.", returns=_OBJECT)
async def get(store: Store, request: Request, rest: str) -> Reply:
    """Return the object that a transform was asked for."""
    offers, uname = await _offers(store, rest)
    descriptor = offers.open(uname)
    size = os.fstat(descriptor).st_size
    if request.method == "HEAD":
        os.close(descriptor)
        return Empty(length=size)
    if size <= store.limits.piece_bytes:
        try:
            return Bytes(os.pread(descriptor, size, 0))
        finally:
            os.close(descriptor)
    piece = store.admission.take_piece()

    def end() -> None:
        store.admission.give_piece(piece)
        os.close(descriptor)

    def read(start: int, length: int) -> bytes:
        return os.pread(descriptor, length, start)

    return Pieces(read, 0, size, (), threads=store.threads, close=end, piece_bytes=piece)


@operation(
    _PATH,
    "Take the result that a transform made of the object that it was asked for.",
    Parameter("uuid", "Which call the result is for, as Ais-Node-Url says."),
    body=_OBJECT,
    errors=(409, 422),
)
async def put(store: Store, request: Request, rest: str) -> Reply:
    """Take the result that a transform made of the object."""
    offers, uname = await _offers(store, rest)
    file = offers.begin_put(uname, request.query.get("uuid", ""))
    request.hold(store.limits.piece_bytes)
    total = 0
    try:
        async for chunk in request.chunks():
            total += len(chunk)
            await store.in_thread(file.write, chunk)
        if request.content_length not in (None, total):
            raise ClientGoneError
        file.commit()
    finally:
        file.abort()
    return Empty()

"""One object through a transform's server by HTTP: sent to it, or fetched by it (``hpush``, ``hpull``, ``hrev``)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from ...wire.http1 import Head
from ..running import Result
from .call import Call
from .connection import Body, Connection, Exchange
from .early import SentToServer
from .pool import Pool
from .replies import check_unmarked_end, length_put, read_error, read_result
from .requests import is_pulled, put_url, request_head


async def transform(pool: Pool[Connection], call: Call, *, fresh: bool) -> Result:
    """Run an object through the server that ``pool`` has connections to.

    Raises TransformError, TryAgainError, BrokenConnectionError, what making a connection raises, and what the call's
    watch says.
    """
    connection = await pool.take(call.watch, fresh=fresh)

    async def begin(exchange: Exchange) -> Head:
        return await exchange.begin(*await _request(call))

    return await _exchanged(pool, connection, call, begin)


async def follow(sent: SentToServer, call: Call) -> Result:
    """Return what comes of an object that was sent early; raises as ``transform``."""
    connection, pool = sent.take_over()
    return await _exchanged(pool, connection, call, lambda exchange: exchange.follow(sent.unsent))


async def _exchanged(
    pool: Pool[Connection], connection: Connection, call: Call, begin: Callable[[Exchange], Awaitable[Head]]
) -> Result:
    """Return what comes back on a connection that was taken from the pool, and give that back."""
    watch, reusable = call.watch, False
    try:
        watch.guard(connection.cut)
        async with Exchange(connection) as exchange:
            reply = await begin(exchange)
            if reply.status == 204:
                result = call.files.put(length_put(reply))
            elif 200 <= reply.status < 300:
                result = await read_result(exchange, reply, call.spool)
                if reply.ends_with_connection:
                    check_unmarked_end(result, reply, empty=not call.source.size)
            else:
                error = await read_error(exchange, reply)
                reusable = exchange.is_clean
                raise error
            reusable = exchange.is_clean
        if watch.error is not None:  # what came may have ended where it was cut
            result.close()
            raise watch.error
        return result
    finally:
        watch.guard(None)
        pool.give(connection, reusable=reusable and watch.error is None)


async def _request(call: Call) -> tuple[bytes, Body | None]:
    """Make what the request needs; return its head, and its body if it has one."""
    running, ask, files = call.running, call.ask, call.files
    pulled, file = is_pulled(running), await call.file()
    body = call.body() if not pulled and not file else None
    node_url = put_url(running, ask, files.id) if running.direct_put else ""
    if node_url or (pulled and not file):
        await files.offer()
    length = body.size if body is not None else None
    return request_head(running, ask, length=length, file=file, node_url=node_url), body

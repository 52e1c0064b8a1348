"""One object through a transform's server by HTTP: sent to it, or fetched by it (``hpush``, ``hpull``, ``hrev``)."""

from __future__ import annotations

import os
from concurrent.futures import Executor

from ..running import Ask, Result, Running
from .call_files import CallFiles
from .connection import Body, Connection, Exchange
from .pool import Pool
from .replies import length_put, read_error, read_result
from .requests import is_pulled, put_url, request_head
from .watch import Watch


async def transform(
    pool: Pool[Connection], running: Running, source: int, ask: Ask, files: CallFiles, watch: Watch, *,
    fresh: bool, threads: Executor, spool: str,
) -> Result:  # fmt: skip
    """Run the object behind ``source`` through the server that ``pool`` has connections to.

    Raises TransformError, TryAgainError, BrokenConnectionError, OSError where no connection can be made, and what
    ``watch`` says.
    """
    connection = await pool.take(watch, fresh=fresh)
    reusable = False
    try:
        watch.guard(connection.cut)
        head, body = await _request(running, source, ask, files, threads)
        async with Exchange(connection) as exchange:
            reply = await exchange.begin(head, body)
            if 200 <= reply.status < 300:
                put = reply.status == 204
                result = files.put(length_put(reply)) if put else await read_result(exchange, reply, threads, spool)
            else:
                error = await read_error(exchange, reply)
                reusable = exchange.is_clean
                raise error
            reusable = exchange.is_clean
        if watch.error is not None:  # what came may have ended where it was cut
            result.close()
            reusable = False
            raise watch.error
        return result
    finally:
        watch.guard(None)
        pool.give(connection, reusable=reusable)


async def _request(
    running: Running, source: int, ask: Ask, files: CallFiles, threads: Executor
) -> tuple[bytes, Body | None]:
    """Make what the request needs; return its head, and its body if it has one."""
    file, node_url, body = "", "", None
    if running.direct_file and files.can_be_file:
        file = await files.file()
    elif not is_pulled(running):
        body = Body(source, os.fstat(source).st_size, threads)
    if running.direct_put:
        node_url = put_url(running, ask, files.id)
    if node_url or (is_pulled(running) and not file):
        await files.offer()
    length = body.size if body is not None else None
    return request_head(running, ask, length=length, file=file, node_url=node_url), body

"""Granian's side: serve an ASGI application on a listening socket that the supervisor made.

The only module that knows Granian. Its own supervisor is not used: its workers outlive a killed main process and its
respawn gives up on a second death within seconds. The embedded server runs in this process's loop instead.

ASGI and not RSGI, Granian's own protocol, although RSGI answers small requests about 10 % faster: RSGI ends the
iteration over a body that was cut short exactly as it ends a whole one, so a broken chunked upload would be stored as
a whole object, and it hides the undecoded path. RSGI's file reply is no loss: 100 MB in pieces of 1 MiB, read one
ahead from a held descriptor, took 0.03 to 0.05 s, its file reply 0.06 s, and it opens the path later, on its own.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable
from typing import Any

from granian.constants import HTTPModes, Interfaces
from granian.http import HTTP1Settings
from granian.net import SocketHolder
from granian.server.embed import Server

HEADER_BYTES_MAX = 64 << 10
HEADER_READ_TIMEOUT_MS = 30_000


class _SharedSocketServer(Server):  # type: ignore[misc]  # granian is not typed
    """Granian's embedded server on a socket that exists already."""

    def __init__(self, app: Any, listener: socket.socket, connections_max: int) -> None:
        host, port = listener.getsockname()[:2]
        super().__init__(
            app, address=host, port=port, interface=Interfaces.ASGINL, http=HTTPModes.http1, websockets=False,
            log_enabled=False, backpressure=connections_max,
            http1_settings=HTTP1Settings(header_read_timeout=HEADER_READ_TIMEOUT_MS, max_buffer_size=HEADER_BYTES_MAX),
        )  # fmt: skip
        self._listener = listener

    def _init_shared_socket(self) -> None:
        # A duplicate, because Granian closes the descriptor it is given.
        self._shd = SocketHolder(os.dup(self._listener.fileno()), False, 1024)
        self._sfd = self._shd.get_fd()
        self._ssp = None


async def serve(
    app: Any, listener: socket.socket, stop: asyncio.Event, ready: Callable[[], None], connections_max: int
) -> None:
    """Serve ``app`` until ``stop`` is set, then let running requests end; ``ready`` is called when it begins."""
    listener.setblocking(False)
    server = _SharedSocketServer(app, listener, connections_max)
    serving = asyncio.ensure_future(server.serve())
    stopping = asyncio.ensure_future(stop.wait())
    asyncio.get_running_loop().call_soon(ready)
    await asyncio.wait((serving, stopping), return_when=asyncio.FIRST_COMPLETED)
    if stop.is_set():
        server.interrupt_signal = True
        server.main_loop_interrupt.set()
    stopping.cancel()
    await serving

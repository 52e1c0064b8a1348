"""Granian's side: serve an ASGI application on a listening socket that the supervisor made.

The only module that knows Granian. Its own supervisor is not used: its workers outlive a killed main process and its
respawn gives up on a second death within seconds. The embedded server runs in this process's loop instead.

ASGI and not RSGI, Granian's own protocol, although RSGI answers small requests about 10 % faster: RSGI ends the
iteration over a body that was cut short exactly as it ends a whole one, so a broken chunked upload would be stored as
a whole object, and it hides the undecoded path. RSGI's file reply is no loss: 100 MB in pieces of 1 MiB, read one
ahead from a held descriptor, took 0.03 to 0.05 s, its file reply 0.06 s, and it opens the path later, on its own.

A request passes three threads: Granian's own parses it, a second one makes Python objects of it, the event loop
answers. The way to the event loop and back is a wake-up, a task and a fight for the interpreter lock: with 20 KB
objects 9 of 40 us when nothing else is done, and far more when the answer lets the lock go (a look-up, an open, a read:
each time another thread takes it). So what can be answered without waiting is answered on the second thread
(``at_once``), while the event loop sleeps; whatever has to wait for something goes to the loop. One worker at 16
connections, us of CPU per GET of 20 KB: by the loop 90 to 120, at once 70, and 53 and 35 when the object is kept in
memory (storage/local/hot.py).
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, Protocol

from granian._futures import _cbsched_aioschedule, _future_watcher_wrapper
from granian._granian import ASGIWorker, CallbackScheduler
from granian.asgi import _callback_wrapper
from granian.constants import HTTPModes, Interfaces
from granian.http import HTTP1Settings
from granian.net import SocketHolder
from granian.server.embed import AsyncWorker, Server

from ..fallbacks import lacks
from ..settings import Limits

HEADER_BYTES_MAX = 64 << 10


#: What has the event loop serve a request.
Schedule = Callable[[Any], None]


class Application(Protocol):
    """An ASGI application that can answer some requests on the spot."""

    def __call__(self, scope: Any, receive: Any, send: Any) -> Awaitable[None]:
        """Serve one request, on the event loop."""

    def at_once(self, scope: Mapping[str, Any]) -> Iterable[dict[str, Any]] | None:
        """Return the messages of the whole reply if nothing has to be waited for, else None.

        Called from one thread that is not the event loop's, and for every request: it must be quick and never raise.
        """

    def hand_over(self, watcher: Any, schedule: Schedule) -> bool:
        """Take over a request that is not answered at once; False: the event loop serves it.

        Called from the same thread, and must be quick and never raise. Whoever takes a request over answers it through
        the ``watcher`` (Granian's: ``scope``, ``proto.send``, ``done``, ``err``), or gives it to ``schedule`` later.
        """


class _SharedSocketServer(Server):  # type: ignore[misc]  # granian is not typed
    """Granian's embedded server on a socket that exists already."""

    def __init__(self, app: Application, listener: socket.socket, limits: Limits, connections_max: int) -> None:
        host, port = listener.getsockname()[:2]
        super().__init__(
            app, address=host, port=port, interface=Interfaces.ASGINL, http=HTTPModes.http1, websockets=False,
            log_enabled=False, backpressure=connections_max,
            http1_settings=HTTP1Settings(
                header_read_timeout=round(limits.header_seconds * 1000), max_buffer_size=HEADER_BYTES_MAX
            ),
        )  # fmt: skip
        self._listener = listener

    def _init_shared_socket(self) -> None:
        # A duplicate, because Granian closes the descriptor it is given.
        self._shd = SocketHolder(os.dup(self._listener.fileno()), False, 1024)
        self._sfd = self._shd.get_fd()
        self._ssp = None


class _Scheduler(CallbackScheduler):
    """Granian's way to hand requests to the event loop, with a short cut before it."""

    __slots__ = ()

    def __init__(self, loop: asyncio.AbstractEventLoop, app: Application, *_: None) -> None:
        super().__init__()
        on_loop = _future_watcher_wrapper(_callback_wrapper(app, {}, {}))
        self._schedule_fn = _with_short_cut(app, _cbsched_aioschedule(loop, self._ctx, on_loop))


def _with_short_cut(app: Application, schedule: Schedule) -> Schedule:
    at_once, hand_over = app.at_once, app.hand_over

    def short_cut(watcher: Any) -> None:
        messages = at_once(watcher.scope)
        if messages is None:
            if not hand_over(watcher, schedule):
                schedule(watcher)
            return
        try:
            send = watcher.proto.send
            for message in messages:
                send(message)  # sent when it returns; what could be awaited is done already
        except Exception as error:
            watcher.err(error)
        else:
            watcher.done()

    return short_cut


@AsyncWorker.wrap_target  # type: ignore[untyped-decorator]
async def _worker(
    number: int, shutdown: Any, app: Application, sock: Any, loop: asyncio.AbstractEventLoop, threads: int,
    blocking_threads: Any, python_threads: int, python_threads_idle: int, backpressure: int, task_impl: Any,
    http: Any, http1: Any, http2: Any, websockets: Any, static_path: Any, access_log: Any, ssl: Any, options: Any,
) -> None:  # fmt: skip
    """Do what Granian's own embedded worker does, with our scheduler."""
    stopped = loop.create_future()
    shutdown.add_cb(lambda: loop.call_soon_threadsafe(stopped.set_result, None))
    make: Any = ASGIWorker  # its type stub is of an older version
    worker = make(
        number, sock, None, threads, blocking_threads, python_threads, python_threads_idle, backpressure, http, http1,
        http2, websockets, static_path, *ssl, (None, None),
    )  # fmt: skip
    worker.serve_async(_Scheduler(loop, app, None, None, None), loop, shutdown)
    await stopped


async def serve(
    app: Application, listener: socket.socket, stop: asyncio.Event, ready: Callable[[], None], limits: Limits,
    connections_max: int,
) -> None:  # fmt: skip
    """Serve ``app`` until ``stop`` is set, then let running requests end; ``ready`` is called when it begins.

    Beyond ``connections_max`` connections, others wait in the listening socket's queue.
    """
    listener.setblocking(False)
    # Inherited by its connections: else the second of two replies waits up to 40 ms for the first one's receipt.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    # Inherited too: the HTTP library waits without limit for a client that does not read. The kernel ends such a
    # connection, and then everything that its reply holds is let go.
    if not lacks("user-timeout"):
        stall_ms = round(limits.reply_stall_seconds * 1000)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, stall_ms)
    server = _SharedSocketServer(app, listener, limits, connections_max)
    serving = asyncio.ensure_future(server.serve(_worker))
    stopping = asyncio.ensure_future(stop.wait())
    asyncio.get_running_loop().call_soon(ready)
    await asyncio.wait((serving, stopping), return_when=asyncio.FIRST_COMPLETED)
    if stop.is_set():
        server.interrupt_signal = True
        server.main_loop_interrupt.set()
    stopping.cancel()
    await serving

"""A transform's own calls back to the store: the object that it comes for, the result that it puts.

``GET``, ``HEAD`` and ``PUT`` of ``AIS_TARGET_URL/<UNAME>``, on a socket that only this transform reaches, and of
nothing else. What it may read is the object that it was asked for, while it is asked for it; what it may write is the
result of that call. The secret in the address is all that it has to show. The store's own routes answer the same for
transforms that reach those (server/handlers/etl_objects.py).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from concurrent.futures import Executor
from socket import SHUT_RDWR, socket
from typing import Any
from urllib.parse import parse_qsl, unquote

import h11
import msgspec

from ...errors import AisError, InternalError, MethodNotAllowedError
from ...wire.messages import ErrorBody
from ..running import Running
from .call_files import Offers, PutFile
from .callers import PREFIX, check_secret, unrecognized

#: Connections of one transform at once in one HTTP worker; more wait. Guessed: more than calls of it can be under way.
_CONNECTIONS_MAX = 256
#: Nothing of a request comes, or nothing of a reply is taken, for so long: the connection ends.
_STALL_SECONDS = 60.0
_HEAD_BYTES_MAX = 32 << 10
_RECEIVE_BYTES = 256 << 10
_PIECE_BYTES = 1 << 20
#: So much of a body that nobody wants is read, so that its sender sees why: a connection that ends sooner breaks.
_UNWANTED_BYTES_MAX = 4 << 20
#: Reads up to this size do not go to a thread: the file was written a moment ago.
_INLINE_BYTES_MAX = 256 << 10


class Gateway:
    """Answers the calls of one transform that come in at ``listener``, until it is closed."""

    def __init__(self, running: Running, listener: socket, threads: Executor) -> None:
        self._running = running
        self._listener = listener
        self._threads = threads
        self._loop = asyncio.get_running_loop()
        self._connections: set[asyncio.Task[None]] = set()
        self._accepting = False
        listener.setblocking(False)
        self._accept_more()

    def close(self) -> None:
        """Stop answering."""
        self._accept_no_more()
        self._listener.close()
        for connection in list(self._connections):
            connection.cancel()

    def _accept_more(self) -> None:
        if not self._accepting and self._listener.fileno() >= 0:
            self._accepting = True
            self._loop.add_reader(self._listener.fileno(), self._accept)

    def _accept_no_more(self) -> None:
        if self._accepting:
            self._accepting = False
            self._loop.remove_reader(self._listener.fileno())

    def _accept(self) -> None:
        try:
            accepted, _ = self._listener.accept()
        except OSError:  # another HTTP worker was quicker, or the caller has gone
            return
        accepted.setblocking(False)
        serving = self._loop.create_task(_Caller(self._running, accepted, self._threads).serve())
        self._connections.add(serving)
        serving.add_done_callback(self._ended)
        if len(self._connections) >= _CONNECTIONS_MAX:
            self._accept_no_more()

    def _ended(self, serving: asyncio.Task[None]) -> None:
        self._connections.discard(serving)
        if not serving.cancelled():
            serving.exception()
        self._accept_more()


class _Caller:
    """One connection of a transform."""

    def __init__(self, running: Running, connection: socket, threads: Executor) -> None:
        self._running = running
        self._connection = connection
        self._threads = threads
        self._loop = asyncio.get_running_loop()
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=_HEAD_BYTES_MAX)
        self._stalled = self._loop.call_later(_STALL_SECONDS, self._stall)

    async def serve(self) -> None:
        """Answer request after request."""
        try:
            while await self._serve_one():
                self._http.start_next_cycle()
        except (OSError, h11.RemoteProtocolError):
            pass  # nobody listens any more, or what comes is no HTTP
        finally:
            self._stalled.cancel()
            self._connection.close()

    async def _serve_one(self) -> bool:
        """Answer a request; False after the last."""
        request = await self._next()
        if not isinstance(request, h11.Request):
            return False
        try:
            await self._answer(request)
        except AisError as error:
            await self._refuse(error, request.method == b"HEAD")
        except h11.RemoteProtocolError:
            raise
        except Exception as error:
            await self._refuse(InternalError(f"internal error ({type(error).__name__})"), request.method == b"HEAD")
            raise
        left = _UNWANTED_BYTES_MAX
        while self._http.their_state is h11.SEND_BODY and left > 0:
            left -= len(getattr(await self._next(), "data", b""))
        return self._http.our_state is h11.DONE and self._http.their_state is h11.DONE

    async def _answer(self, request: h11.Request) -> None:
        path, _, query = request.target.decode("latin-1").partition("?")
        call_id = dict(parse_qsl(query)).get("uuid", "")
        offers, name = self._offers(unquote(path), call_id)
        if request.method in (b"GET", b"HEAD"):
            await self._give(offers.open(name), head=request.method == b"HEAD")
        elif request.method == b"PUT":
            await self._take(offers.begin_put(name, call_id))
        else:
            method = request.method.decode("latin-1")
            raise MethodNotAllowedError(f"{method} is not allowed here", allow="GET, HEAD, PUT")

    def _offers(self, path: str, call_id: str) -> tuple[Offers, str]:
        """Return what the caller may have, and the object's unique name."""
        if path.startswith(PREFIX):
            _, _, rest = path[len(PREFIX) :].partition("/")
            secret, _, name = rest.partition("/")
            return check_secret(self._running, secret), name
        if call_id:  # the address in Ais-Node-Url, by those that do not make another of it: the id is a secret too
            return Offers(self._running.calls), path[1:]
        raise unrecognized()

    async def _give(self, descriptor: int, *, head: bool) -> None:
        try:
            size = os.fstat(descriptor).st_size
            headers = [("content-length", str(size)), ("content-type", "application/octet-stream")]
            start = self._http.send(h11.Response(status_code=200, headers=headers)) or b""
            if head or size <= _INLINE_BYTES_MAX:
                data = b"" if head else self._http.send(h11.Data(data=os.pread(descriptor, size, 0))) or b""
                await self._send(start + data + (self._http.send(h11.EndOfMessage()) or b""))
                return
            await self._send(start)
            done = 0
            while done < size:
                piece = await self._in_thread(os.pread, descriptor, _PIECE_BYTES, done)
                done += len(piece)
                await self._send(self._http.send(h11.Data(data=piece)) or b"")
            await self._send(self._http.send(h11.EndOfMessage()) or b"")
        finally:
            os.close(descriptor)

    async def _take(self, put: PutFile) -> None:
        pieces, pending = [], 0
        try:
            while isinstance(event := await self._next(), h11.Data):
                pieces.append(bytes(event.data))
                pending += len(event.data)
                if pending >= _PIECE_BYTES:
                    await self._in_thread(put.write, b"".join(pieces))
                    pieces, pending = [], 0
            if not isinstance(event, h11.EndOfMessage):
                raise h11.RemoteProtocolError("the body ended before it was whole")
            put.write(b"".join(pieces))
            put.commit()
        finally:
            put.abort()
        await self._send(self._whole(200, b""))

    async def _in_thread(self, function: Any, *arguments: Any) -> Any:
        """Run what uses a file in a thread, to its end: the file is closed after this."""
        work = self._loop.run_in_executor(self._threads, function, *arguments)
        try:
            return await asyncio.shield(work)
        except asyncio.CancelledError:
            await asyncio.wait((work,))
            raise

    async def _refuse(self, error: AisError, head: bool) -> None:
        if self._http.our_state is not h11.SEND_RESPONSE:
            raise OSError("the reply has begun already")  # and can only be cut short
        told = ErrorBody(error.code, error.message, status=error.status, hint=error.hint)
        await self._send(self._whole(error.status, msgspec.json.encode(told), head=head))

    def _whole(self, status: int, body: bytes, *, head: bool = False) -> bytes:
        """Return a whole reply; the connection ends after an error."""
        headers = [("content-length", str(len(body))), ("content-type", "application/json")]
        if status >= 400:
            headers.append(("connection", "close"))
        events: list[h11.Event] = [h11.Response(status_code=status, headers=headers)]
        if body and not head:
            events.append(h11.Data(data=body))
        return b"".join(self._http.send(event) or b"" for event in [*events, h11.EndOfMessage()])

    async def _next(self) -> Any:
        """Return the next event of the caller's."""
        while True:
            event = self._http.next_event()
            if event is not h11.NEED_DATA:
                return event
            if self._http.they_are_waiting_for_100_continue:
                await self._send(self._http.send(h11.InformationalResponse(status_code=100, headers=[])) or b"")
            data = await self._loop.sock_recv(self._connection, _RECEIVE_BYTES)
            self._moved()
            self._http.receive_data(data)

    async def _send(self, data: bytes) -> None:
        for start in range(0, len(data), _RECEIVE_BYTES):
            await self._loop.sock_sendall(self._connection, data[start : start + _RECEIVE_BYTES])
            self._moved()

    def _moved(self) -> None:
        self._stalled.cancel()
        self._stalled = self._loop.call_later(_STALL_SECONDS, self._stall)

    def _stall(self) -> None:
        with contextlib.suppress(OSError):
            self._connection.shutdown(SHUT_RDWR)

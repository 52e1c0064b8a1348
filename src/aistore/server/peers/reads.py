"""Reads that another node answers without waiting: on a stream of their own, beside HTTP.

A GET that reaches the wrong node costs the server of HTTP twice, here and there, and most of what it costs is no work
but threads that wake one another. So plain reads of objects go to their home on one connection per process and node:
asks one after the other, answers in the same order. Nothing of this waits for anything: the home answers what
``AtOnce`` answers (at_once.py: what is in memory, what surely needs no disk) and says "not at once" to anything else.
Then, or when the connection fails, or when an answer takes too long, the request goes the ordinary way (forwarding.py),
which has the time-outs, the streaming and the errors. So an answer is right or there is none, and the rules of who may
answer for what are those of ``AtOnce``, because it is what answers.

us of CPU per GET of 20 KB, both nodes together, 16 and 64 connections: 30 at the right node, 200 and 177 through the
wrong one over HTTP, 59 and 54 this way (benchmarks/forward.py).

The stream: the one who connects sends a hello (``_HELLO``, then the cluster's secret and who it is), then asks: a
length of two bytes and the raw path. An answer is ``_ANSWER`` (lengths of headers and body, status), the headers as
msgpack, the body; status 0 means "not at once". A node tells its port at ``/v1/internal/reads``; each HTTP worker has
its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import socket
import struct
from collections import deque
from collections.abc import Callable, Mapping
from time import monotonic, perf_counter_ns
from typing import Any
from urllib.parse import urlsplit

import msgspec

from ...errors import AisError
from ...wire.headers import CLUSTER_SECRET, HOP
from ..replies import Messages
from .calls import Peers

_HELLO = struct.Struct("<4sHH")  # magic, bytes of the secret, bytes of the hop
_MAGIC = b"aisR"
_ASK = struct.Struct("<H")
_ANSWER = struct.Struct("<IIH")
_NOT_AT_ONCE = _ANSWER.pack(0, 0, 0)
_HEADERS = msgspec.msgpack.Decoder(list[tuple[bytes, bytes]])
#: Larger objects go the ordinary way: they would hold up those behind them.
BODY_BYTES_MAX = 256 << 10
_HEAD_BYTES_MAX = 32 << 10
_PATH_BYTES_MAX = 4096
#: Asks of one process that wait for one node; more go the ordinary way. Derived: a few turns of the home's event loop.
_WAITING_MAX = 64
#: Answers are a matter of microseconds; a home that takes so long has stopped or is gone.
_ANSWER_SECONDS = 0.25
#: How long a node without such a stream (gone, or its port out of reach) is not asked for it again.
_RETRY_SECONDS = 2.0
_HELLO_SECONDS = 5.0
_KEEPALIVE_SECONDS = 30
#: Streams that a process takes. Derived: the HTTP workers of a hundred nodes.
_STREAMS_MAX = 1024


class ReadServer:
    """Answers reads of other nodes. ``answer`` is given an ASGI scope and returns a whole reply, or None."""

    def __init__(self, answer: Callable[[Mapping[str, Any]], Messages | None], secret: str) -> None:
        self._answer = answer
        self._secret = secret.encode()
        self._server: asyncio.Server | None = None
        self._streams: set[_Answering] = set()
        #: Where it listens, once it does.
        self.port = 0

    async def start(self, host: str) -> None:
        """Listen on ``host``, on a port that the system chooses."""
        self._server = await asyncio.get_running_loop().create_server(self._accept, host, 0)
        self.port = self._server.sockets[0].getsockname()[1]

    def close(self) -> None:
        """End."""
        if self._server is not None:
            self._server.close()
        for stream in list(self._streams):
            stream.end()

    def _accept(self) -> _Answering:
        return _Answering(self._answer, self._secret, self._streams)


class _Answering(asyncio.Protocol):
    """One stream, on the side that answers."""

    def __init__(
        self, answer: Callable[[Mapping[str, Any]], Messages | None], secret: bytes, streams: set[_Answering]
    ) -> None:
        self._answer = answer
        self._secret = secret
        self._streams = streams
        self._data = b""
        self._scope: dict[str, Any] = {}
        self._hello_timer: asyncio.TimerHandle | None = None
        self._transport: asyncio.Transport = None  # type: ignore[assignment]  # until it is made

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Wait for the hello."""
        self._transport = transport  # type: ignore[assignment]  # uvloop's is no subclass of asyncio's
        if len(self._streams) >= _STREAMS_MAX:
            self.end()
            return
        self._streams.add(self)
        self._hello_timer = asyncio.get_running_loop().call_later(_HELLO_SECONDS, self.end)
        connection = transport.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        if hasattr(socket, "TCP_KEEPIDLE"):  # a node that vanished without a word
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _KEEPALIVE_SECONDS)

    def connection_lost(self, exc: Exception | None) -> None:
        """Take note of the end."""
        self._streams.discard(self)
        if self._hello_timer is not None:
            self._hello_timer.cancel()

    def end(self) -> None:
        """End the stream."""
        self._transport.abort()

    def pause_writing(self) -> None:
        """Take no more asks until the answers are taken."""
        self._transport.pause_reading()

    def resume_writing(self) -> None:
        """Go on."""
        self._transport.resume_reading()

    def data_received(self, data: bytes) -> None:
        """Answer what is asked."""
        data = self._data + data if self._data else data
        at = 0
        if not self._scope:
            at = self._hello(data)
            if not at:
                return
        answers: list[bytes] = []
        scope, size = self._scope, len(data)
        while size - at >= 2:
            (length,) = _ASK.unpack_from(data, at)
            if length > _PATH_BYTES_MAX:
                self.end()
                return
            if size - at - 2 < length:
                break
            scope["raw_path"] = data[at + 2 : at + 2 + length]
            at += 2 + length
            _add_answer(answers, self._answer(scope))
        self._data = data[at:]
        if answers:
            self._transport.writelines(answers)

    def _hello(self, data: bytes) -> int:
        """Take the hello; return where it ends, 0 while it is not whole. Ends the stream of one who is no node."""
        self._data = data
        if len(data) < _HELLO.size:
            return 0
        magic, secret_size, hop_size = _HELLO.unpack_from(data)
        end: int = _HELLO.size + secret_size + hop_size
        if magic != _MAGIC or max(secret_size, hop_size) > _PATH_BYTES_MAX:
            self.end()
            return 0
        if len(data) < end:
            return 0
        secret = data[_HELLO.size : _HELLO.size + secret_size]
        if not hmac.compare_digest(secret, self._secret):
            self.end()
            return 0
        headers = [(b"host", b"node"), (CLUSTER_SECRET.encode(), secret), (HOP.encode(), data[end - hop_size : end])]
        self._scope = {
            "type": "http", "http_version": "1.1", "method": "GET", "query_string": b"", "headers": headers,
            "client": self._transport.get_extra_info("peername"),
        }  # fmt: skip
        if self._hello_timer is not None:
            self._hello_timer.cancel()
        return end


def _add_answer(answers: list[bytes], messages: Messages | None) -> None:
    if messages is None or len(messages[1]["body"]) > BODY_BYTES_MAX:
        answers.append(_NOT_AT_ONCE)
        return
    start, body = messages[0], messages[1]["body"]
    head = msgspec.msgpack.encode(start["headers"])
    answers += (_ANSWER.pack(len(head), len(body), start["status"]), head, body)


class QuickReads:
    """Asks other nodes for reads. ``take`` belongs to the thread that makes requests, the rest to the event loop.

    ``record`` counts a request that was answered: its scope, the reply, when it began.
    """

    def __init__(
        self, peers: Peers, hello: bytes, urls: Callable[[], Mapping[str, str]],
        record: Callable[[Mapping[str, Any], Messages, int], Messages], *, retry_seconds: float = _RETRY_SECONDS,
    ) -> None:  # fmt: skip
        self._retry_seconds = retry_seconds
        self._peers = peers
        self._hello = hello
        self._urls = urls
        self._record = record
        self._loop = asyncio.get_running_loop()
        self._streams: dict[str, _Asking] = {}
        self._retry_at: dict[str, float] = {}
        self._opening: dict[str, asyncio.Task[None]] = {}
        self._closed = False

    def take(self, watcher: Any, node_id: str, schedule: Callable[[Any], None]) -> bool:
        """Take a plain read over (Granian's ``watcher``); False: it has to go the ordinary way.

        What is taken is answered, or given to ``schedule`` later.
        """
        stream = self._streams.get(node_id)
        if stream is not None:
            return stream.ask(watcher, schedule)
        if monotonic() >= self._retry_at.get(node_id, 0.0):
            self._retry_at[node_id] = monotonic() + self._retry_seconds
            with contextlib.suppress(RuntimeError):  # the loop is closed: the process ends
                self._loop.call_soon_threadsafe(self._begin, node_id)
        return False

    def close(self) -> None:
        """End."""
        self._closed = True
        for task in self._opening.values():
            task.cancel()
        for stream in list(self._streams.values()):
            stream.end()

    def _begin(self, node_id: str) -> None:
        if not self._closed and node_id not in self._streams and node_id not in self._opening:
            self._opening[node_id] = self._loop.create_task(self._open(node_id), name=f"reads of {node_id}")

    async def _open(self, node_id: str) -> None:
        connection: socket.socket | None = None
        try:
            told = await self._peers.json(node_id, "GET", "/v1/internal/reads", seconds=_HELLO_SECONDS)
            host = urlsplit(self._urls()[node_id]).hostname or ""
            port = int(told["port"])
            ((family, kind, protocol, _, place), *_) = await self._loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            connection = socket.socket(family, kind, protocol)
            connection.setblocking(False)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await asyncio.wait_for(self._loop.sock_connect(connection, place), _HELLO_SECONDS)
            await self._loop.sock_sendall(connection, self._hello)
        except (AisError, OSError, KeyError, TypeError, ValueError, asyncio.TimeoutError):
            if connection is not None:
                connection.close()
        except BaseException:
            if connection is not None:
                connection.close()
            raise
        else:
            self._streams[node_id] = _Asking(connection, self._record, lambda: self._streams.pop(node_id, None))
        finally:
            self._opening.pop(node_id, None)


class _Asking:
    """One stream, on the side that asks.

    Two threads meet here. One appends to ``_waiting`` and then sends, the event loop takes from its other end. When the
    stream ends, the loop first says so and then empties ``_waiting``; the other looks at what was said after it has
    appended. So each request is found by one of them: either it is still there to be taken back, or it was scheduled.
    """

    def __init__(
        self, connection: socket.socket, record: Callable[[Mapping[str, Any], Messages, int], Messages],
        ended: Callable[[], object],
    ) -> None:  # fmt: skip
        self._connection = connection
        self._record = record
        self._ended = ended
        self._over = False
        self._waiting: deque[tuple[Any, Callable[[Any], None], int]] = deque()
        self._buffer = bytearray(2 * (BODY_BYTES_MAX + _HEAD_BYTES_MAX))
        self._view = memoryview(self._buffer)
        self._filled = 0
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(connection.fileno(), self._readable)
        self._timer = self._loop.call_later(_ANSWER_SECONDS, self._look)

    def ask(self, watcher: Any, schedule: Callable[[Any], None]) -> bool:
        """Ask for what a request wants; False: nothing was done."""
        path = watcher.scope["raw_path"]
        if len(self._waiting) >= _WAITING_MAX or len(path) > _PATH_BYTES_MAX:
            return False
        entry = (watcher, schedule, perf_counter_ns())
        self._waiting.append(entry)
        data = _ASK.pack(len(path)) + path
        try:
            whole = self._connection.send(data) == len(data)
        except OSError:
            whole = False
        if whole and not self._over:
            return True
        with contextlib.suppress(RuntimeError):  # the loop is closed: the process ends
            self._loop.call_soon_threadsafe(self.end)
        try:
            self._waiting.remove(entry)
        except ValueError:  # the loop has scheduled it
            return True
        return False

    def end(self) -> None:
        """End the stream; who waits goes the ordinary way."""
        if not self._over:
            self._over = True
            self._ended()
            self._timer.cancel()
            self._loop.remove_reader(self._connection.fileno())
            self._connection.close()
        while self._waiting:
            with contextlib.suppress(IndexError):
                watcher, schedule, _ = self._waiting.popleft()
                schedule(watcher)

    def _look(self) -> None:
        self._timer = self._loop.call_later(_ANSWER_SECONDS, self._look)
        with contextlib.suppress(IndexError):
            if perf_counter_ns() - self._waiting[0][2] > _ANSWER_SECONDS * 1e9:
                self.end()

    def _readable(self) -> None:
        try:
            count = self._connection.recv_into(self._view[self._filled :])
        except BlockingIOError:
            return
        except OSError:
            count = 0
        self._filled += count
        at = self._answered() if count else -1
        if at < 0:
            self.end()
        elif at == self._filled:
            self._filled = 0
        elif at:
            self._view[: self._filled - at] = self._view[at : self._filled]
            self._filled -= at

    def _answered(self) -> int:
        """Pass on the answers that are whole; return where they end, less than 0 for what can be no answer."""
        buffer, view, at, filled = self._buffer, self._view, 0, self._filled
        while filled - at >= _ANSWER.size:
            head_size, body_size, status = _ANSWER.unpack_from(buffer, at)
            if head_size > _HEAD_BYTES_MAX or body_size > BODY_BYTES_MAX:
                return -1
            head_at = at + _ANSWER.size
            body_at = head_at + head_size
            end = body_at + body_size
            if end > filled:
                break
            at = end
            try:
                headers = _HEADERS.decode(view[head_at:body_at]) if status else []
                watcher, schedule, started_ns = self._waiting.popleft()
            except (msgspec.DecodeError, IndexError):
                return -1
            if status:
                self._reply(watcher, status, headers, bytes(view[body_at:end]), started_ns)
            else:
                schedule(watcher)
        return at

    def _reply(self, watcher: Any, status: int, headers: list[tuple[bytes, bytes]], body: bytes, started: int) -> None:
        try:
            messages: Messages = (
                {"type": "http.response.start", "status": status, "headers": headers},
                {"type": "http.response.body", "body": body, "more_body": False},
            )
            send = watcher.proto.send
            for message in self._record(watcher.scope, messages, started):
                send(message)
        except Exception as error:
            watcher.err(error)
        else:
            watcher.done()


def hello(secret: str, me: str, version: int) -> bytes:
    """Return what opens a stream of reads."""
    given, hop = secret.encode(), f"{me};{version}".encode()
    return _HELLO.pack(_MAGIC, len(given), len(hop)) + given + hop

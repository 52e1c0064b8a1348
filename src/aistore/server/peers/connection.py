"""One connection to another node: idle, or with one request and the reply to it."""

from __future__ import annotations

import asyncio
import socket
from typing import Protocol

from ...errors import PeerUnreachableError
from ...wire.http1 import Chunks, Head, MalformedReplyError, parse_head
from .reply import PeerReply

_NEVER = float("inf")
#: Heads of interim replies (100 Continue and the like) before one reply. Guessed: no node sends any.
_INTERIM_MAX = 8


class Owner(Protocol):
    """What a connection tells the pool that it belongs to."""

    #: No byte for so long, in the middle of a request or a reply, ends it.
    stall_seconds: float
    #: What was sent is not even received for so long: its machine is gone.
    vanished_seconds: float
    #: When anything came from the node last, by the loop's clock.
    heard: float

    def unreachable(self, why: str, *, counts: bool = False, sent: bool = True) -> PeerUnreachableError:
        """Return the error that tells ``why``; ``counts``: the node is taken as one that does not answer."""

    def release(self, connection: Connection) -> None:
        """Take a connection back that another request can use."""

    def forget(self, connection: Connection) -> None:
        """Take note of a connection's end."""


class Connection(asyncio.Protocol):
    """A connection to a node. ``due`` is when its time is up, by the loop's clock; its pool looks (pool.py)."""

    __slots__ = (
        "_bodiless", "_chunks", "_closing", "_data", "_interim", "_late", "_left", "_loop", "_owner",
        "_reading", "_reusable", "_sent", "_transport", "_writable", "began", "due", "idle_since", "lost", "reply",
        "timed_out", "used",
    )  # fmt: skip

    def __init__(self, owner: Owner, loop: asyncio.AbstractEventLoop) -> None:
        self._owner = owner
        self._loop = loop
        self._transport: asyncio.Transport = None  # type: ignore[assignment]  # until it is made
        self._closing = False
        self.reply: PeerReply | None = None
        self.used = self.lost = self.timed_out = False
        self.due, self._late = _NEVER, ""
        self.began = self.idle_since = 0.0
        self._writable: asyncio.Future[None] | None = None
        self._chunks: Chunks | None = None
        self._data = b""
        self._left = self._interim = 0
        self._reading, self._reusable, self._sent, self._bodiless = True, True, False, False

    # What a call does with it.

    def begin(self, *, bodiless: bool) -> PeerReply:
        """Begin a request; ``bodiless``: a HEAD."""
        assert self.reply is None
        self.reply = PeerReply(self)
        self.began = self._loop.time()
        self._bodiless = bodiless
        self._data, self._chunks, self._left, self._interim = b"", None, 0, 0
        self._sent = False
        return self.reply

    def write(self, data: bytes) -> None:
        """Send some of the request."""
        self._transport.write(data)

    async def writable(self) -> None:
        """Wait until the node has taken enough of what was sent, or the connection has ended."""
        if self._writable is not None:
            await asyncio.shield(self._writable)

    def sent(self, seconds: float) -> None:
        """Take note that the request is whole; its reply has to begin within ``seconds``."""
        self._sent = True
        if self.reply is not None and not self.reply.status:
            self._expect(seconds, f"did not answer within {seconds:g} s")

    def read_on(self) -> None:
        """Go on reading if that was stopped."""
        if not self._reading and not self.lost:
            self._reading = True
            self._transport.resume_reading()
            if self.reply is not None:
                self._expect_more()

    def abandon(self) -> None:
        """End the request that is under way, and the connection with it: the node notices, and ends its side."""
        self.fail("was not listened to any longer")

    # What its pool does with it.

    @property
    def descriptor(self) -> int:
        """The socket."""
        number: int = self._transport.get_extra_info("socket").fileno()
        return number

    def alive(self) -> bool:
        """Say whether nothing is known of its end."""
        return not self.lost and not self._closing and not self._transport.is_closing()

    def overdue(self) -> None:
        """End it, because its time is up; a node that said nothing to anybody meanwhile does not answer."""
        self.timed_out = True
        silent = self.reply is not None and not self.reply.status and self._owner.heard < self.began
        self.fail(self._late, counts=silent)

    def fail(self, why: str, *, counts: bool = False) -> None:
        """End it because of ``why``."""
        reply, self.reply = self.reply, None
        if reply is not None:
            reply.end(self._owner.unreachable(why, counts=counts))
        self.close()

    def close(self) -> None:
        """End it, also if it is not there yet."""
        self.due, self._closing = _NEVER, True
        if self._transport is not None and not self.lost:
            self._transport.abort()

    # What the event loop tells.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self._transport = transport  # type: ignore[assignment]  # uvloop's is no subclass of asyncio's
        _notice_vanishing(transport.get_extra_info("socket"), self._owner.vanished_seconds)
        if self._closing:
            self.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """Take note of the end."""
        self.lost, self.due = True, _NEVER
        self._writable_again()
        reply, self.reply = self.reply, None
        if reply is not None:
            when = "in the middle of its reply" if reply.status else "before it answered"
            vanished = isinstance(exc, TimeoutError)
            what = "vanished" if vanished else "closed the connection"
            reply.end(self._owner.unreachable(f"{what} {when}", counts=vanished))
        self._owner.forget(self)

    def pause_writing(self) -> None:
        """Wait for the node to take what was sent."""
        self._writable = self._loop.create_future()
        self._expect(self._owner.stall_seconds, f"took nothing of a request for {self._owner.stall_seconds:g} s")

    def resume_writing(self) -> None:
        """Go on sending."""
        if not self._sent:
            self.due = _NEVER
        self._writable_again()

    def _writable_again(self) -> None:
        waiting, self._writable = self._writable, None
        if waiting is not None and not waiting.done():
            waiting.set_result(None)

    def data_received(self, data: bytes) -> None:
        """Take what came."""
        reply = self.reply
        if reply is None:
            self.close()  # an answer to nothing: whatever came after it could be taken for another's
            return
        reply.heard = True
        self._owner.heard = self._loop.time()
        try:
            if not reply.status:
                rest = self._take_head(reply, data)
                if rest is None:
                    return
                data = rest
            self._take_body(reply, data)
        except MalformedReplyError as error:
            self.fail(f"sent a reply that cannot be used: {error}")

    def _take_head(self, reply: PeerReply, data: bytes) -> bytes | None:
        """Return what follows the head, None if the head is not whole."""
        data = self._data + data if self._data else data
        head: Head | None = None
        while head is None or head.status < 200:
            head = parse_head(data, bodiless=self._bodiless)
            if head is None:
                self._data = data
                return None
            data = data[head.size :]
            self._interim += 1
            if self._interim > _INTERIM_MAX:
                raise MalformedReplyError("it does not come to its end")
        self._data = b""
        self._chunks = Chunks() if head.length is None else None
        self._left = head.length or 0
        self._reusable = head.keep_alive and self._sent  # a node that answers early may never read the rest
        reply.take_head(head)
        return data

    def _take_body(self, reply: PeerReply, data: bytes) -> None:
        chunks = self._chunks
        if chunks is None:
            piece = data[: self._left]
            self._left -= len(piece)
            beyond, whole = len(piece) < len(data), self._left == 0
            more = not piece or reply.take(piece)
        else:
            pieces, rest = chunks.feed(data)
            beyond, whole, more = bool(rest), chunks.ended, True
            for piece in pieces:
                more = reply.take(piece)
        if whole:
            self._finish(reply, reusable=self._reusable and not beyond)
        elif more:
            self._expect_more()
        elif self._reading:
            self._reading, self.due = False, _NEVER
            self._transport.pause_reading()

    def _finish(self, reply: PeerReply, *, reusable: bool) -> None:
        self.reply, self.due = None, _NEVER
        reply.end(None)
        if reusable:
            self.read_on()
            self._owner.release(self)
        else:
            self.close()

    def _expect_more(self) -> None:
        self._expect(self._owner.stall_seconds, f"sent nothing of a reply for {self._owner.stall_seconds:g} s")

    def _expect(self, seconds: float, late: str) -> None:
        self.due, self._late = self._loop.time() + seconds, late


def _notice_vanishing(connection: socket.socket, seconds: float) -> None:
    """Have the system end a connection to a machine that receives nothing any more; one that only hangs receives."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (
        ("TCP_KEEPIDLE", round(seconds)), ("TCP_KEEPINTVL", 1), ("TCP_USER_TIMEOUT", round(seconds * 1000))
    ):  # fmt: skip
        if hasattr(socket, name):  # not on every system
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)

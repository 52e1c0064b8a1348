"""Calls of other nodes.

Every call says whose it is: ``Ais-Cluster-Secret``, and ``Ais-Hop`` with the id of the node that calls and the version
of the root document it goes by. A node that is called checks both (access.py).
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from typing import Any

import msgspec

from ...errors import AisError, BadRequestError, PeerUnreachableError, error_from_code
from ...observe.log import REQUEST_ID, request_id
from ...settings import Secret
from ...wire.headers import CLUSTER_SECRET, HOP
from ...wire.messages import ErrorBody
from .connection import Connection
from .pool import Peer, PeerLimits
from .reply import PeerReply

RawHeaders = Iterable[tuple[bytes, bytes]]
#: Methods that may be sent again when it is not known whether they were heard.
_SAFE = frozenset({"GET", "HEAD"})
_METHOD = re.compile(r"[A-Z]{1,16}")
_SECRET = re.compile(r"[!-~]+")
_TARGET = re.compile(rb"/[!-~\x80-\xff]*")


class Body:
    """A request's body that comes piece by piece; ``length`` in bytes, None if nobody knows."""

    __slots__ = ("chunks", "length")

    def __init__(self, chunks: AsyncIterator[bytes], length: int | None) -> None:
        self.chunks = chunks
        self.length = length


class Peers:
    """Calls other nodes. Belongs to one event loop.

    ``me`` is this node's id. ``urls`` returns where each node is reached, ``version`` the version of the root document
    that this node goes by: both are asked at every call.
    """

    def __init__(
        self, me: str, secret: Secret, urls: Callable[[], Mapping[str, str]], version: Callable[[], int],
        limits: PeerLimits | None = None,
    ) -> None:  # fmt: skip
        self._me = me
        if not _SECRET.fullmatch(secret):
            raise BadRequestError(
                "the cluster's secret cannot be sent as a header", hint="expected letters, digits and signs of ASCII"
            )
        self._secret = secret.encode()
        self._urls = urls
        self._version = version
        self._limits = limits or PeerLimits()
        self._peers: dict[str, Peer] = {}
        self._retired: list[Peer] = []  # of nodes that have moved, while calls of them are under way
        self._sweeper: asyncio.TimerHandle | None = None
        self._closed = False

    async def request(
        self, node_id: str, method: str, path: str | bytes, headers: RawHeaders = (), body: bytes | Body = b"",
        seconds: float = 60.0,
    ) -> PeerReply:  # fmt: skip
        """Call a node and return its reply once the reply has begun, which has to be within ``seconds``.

        ``path`` is the raw target, query included. ``headers`` are sent as they are; those that frame and sign are
        added here. Close the reply. Raises PeerUnreachableError, whose ``sent`` says whether the node may have seen the
        request; and OverloadedError when too many calls of the node are under way.
        """
        target = path.encode("ascii") if isinstance(path, str) else path
        if not _METHOD.fullmatch(method) or not _TARGET.fullmatch(target):
            raise ValueError(f"not a request: {method!r} {target!r}")
        peer = self._peer(node_id)
        head = self._head(peer, method, target, headers, body)
        safe = method in _SAFE and not isinstance(body, Body)
        again = False
        while True:
            connection = await peer.acquire(fresh=again, certain=not safe)
            reply = connection.begin(bodiless=method == "HEAD")
            try:
                await self._exchange(connection, reply, head, body, seconds)
            except PeerUnreachableError:
                # An idle connection may have ended in the moment in which it was used.
                if again or not safe or not connection.used or reply.heard or connection.timed_out:
                    raise
                again = True
            except BaseException:
                reply.close()
                raise
            else:
                return reply

    async def json(
        self, node_id: str, method: str, path: str, value: object = None, *, seconds: float = 60.0,
        limit: int = 16 << 20,
    ) -> Any:  # fmt: skip
        """Call a node with ``value`` as JSON (None: no body) and return what its reply has; None for an empty one.

        Raises what ``request`` raises, and the error that the node replied with.
        """
        data = b"" if value is None else msgspec.json.encode(value)
        headers = [(b"content-type", b"application/json")] if data else []
        async with await self.request(node_id, method, path, headers, data, seconds) as reply:
            answer = await reply.body(limit)
        if reply.status >= 300:
            raise _error(reply.status, answer)
        try:
            return msgspec.json.decode(answer) if answer else None
        except msgspec.DecodeError as error:
            raise self._peer(node_id).unreachable("sent a reply that is not JSON") from error

    def close(self) -> None:
        """End all connections; calls that are under way raise PeerUnreachableError."""
        self._closed = True
        if self._sweeper is not None:
            self._sweeper.cancel()
        for peer in (*self._peers.values(), *self._retired):
            peer.close()

    def connections(self, node_id: str) -> int:
        """Return how many connections to a node there are."""
        peer = self._peers.get(node_id)
        return peer.connections if peer is not None else 0

    def _peer(self, node_id: str) -> Peer:
        url = self._urls().get(node_id, "")
        peer = self._peers.get(node_id)
        if peer is not None and peer.url == url and not self._closed:
            return peer
        if peer is not None:
            del self._peers[node_id]
            peer.retire()
            self._retired.append(peer)
        if not url.startswith("http://") or self._closed:
            what = f"has the address {url!r}" if url else "is not on the map of the cluster"
            error = PeerUnreachableError(f"node {node_id} {what}", hint="expected http://host:port")
            error.sent = False
            raise error
        peer = self._peers[node_id] = Peer(node_id, url, self._limits)
        if self._sweeper is None:
            self._sweep()
        return peer

    def _sweep(self) -> None:
        for peer in (*self._peers.values(), *self._retired):
            peer.sweep()
        self._retired = [peer for peer in self._retired if peer.connections]
        self._sweeper = asyncio.get_running_loop().call_later(self._limits.sweep_seconds, self._sweep)

    def _head(self, peer: Peer, method: str, target: bytes, headers: RawHeaders, body: bytes | Body) -> bytes:
        parts = [method.encode(), b" ", target, b" HTTP/1.1\r\nhost: ", peer.authority.encode(), b"\r\n"]
        for name, value in headers:
            parts += (name, b": ", value, b"\r\n")
        served = request_id.get()
        if served:
            parts += (REQUEST_ID.encode(), b": ", served.encode("latin-1"), b"\r\n")
        if isinstance(body, Body):
            parts.append(
                b"transfer-encoding: chunked\r\n" if body.length is None else b"content-length: %d\r\n" % body.length
            )
        elif body or method not in _SAFE:
            parts.append(b"content-length: %d\r\n" % len(body))
        parts += (
            CLUSTER_SECRET.encode(), b": ", self._secret, b"\r\n",
            b"%s: %s;%d\r\n\r\n" % (HOP.encode(), self._me.encode("latin-1"), self._version()),
        )  # fmt: skip
        return b"".join(parts)

    async def _exchange(
        self, connection: Connection, reply: PeerReply, head: bytes, body: bytes | Body, seconds: float
    ) -> None:
        if not isinstance(body, Body):
            connection.write(head + body if body else head)
            connection.sent(seconds)
            await reply.begun()
            return
        connection.write(head)
        sending = asyncio.ensure_future(_send(connection, body, seconds))
        beginning = asyncio.ensure_future(reply.begun())
        try:
            await asyncio.wait((sending, beginning), return_when=asyncio.FIRST_COMPLETED)
            if sending.done():
                sending.result()  # the client's failure comes first: it is the cause of what follows
            await beginning
        finally:
            for task in (sending, beginning):
                task.cancel()
            await asyncio.gather(sending, beginning, return_exceptions=True)


async def _send(connection: Connection, body: Body, seconds: float) -> None:
    """Send a body as the node takes it."""
    chunked = body.length is None
    left = body.length or 0
    async for chunk in body.chunks:
        if not chunk:
            continue
        left -= len(chunk)
        connection.write(b"%x\r\n%b\r\n" % (len(chunk), chunk) if chunked else chunk)
        await connection.writable()
    if chunked:
        connection.write(b"0\r\n\r\n")
    elif left:
        raise ValueError(f"a body is {-left} bytes longer than it was said to be")
    connection.sent(seconds)


def _error(status: int, answer: bytes) -> AisError:
    try:
        return msgspec.json.decode(answer, type=ErrorBody).to_error()
    except msgspec.DecodeError:
        text = answer[:200].decode("utf-8", "replace")
        return error_from_code("", f"another node answered {status}: {text}", status=status)

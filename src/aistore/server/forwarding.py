"""A client's request passed on to another node, and that node's reply passed back.

The user's token stays here, where it was checked: the cluster's secret stands for it (access.py).

A reply that the other node does not finish is cut short here too, so that nobody takes it for whole; up to 1 MiB it is
waited for before anything is sent, and what fails then is an error that says so. A client that goes away ends the
request at the other node.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable

from ..errors import ClientGoneError
from ..wire.headers import CLUSTER_SECRET, HOP
from ..wire.http1 import HOP_BY_HOP
from .peers import Body, PeerReply, Peers
from .replies import Send
from .request import Request

#: A reply up to this is sent once it is there. As much as a reply of this node's own has in one message (Limits).
_WHOLE_BYTES_MAX = 1 << 20
#: A client is watched once the other node has taken so long to answer: watching costs as much as a quick reply.
_WATCH_AFTER_SECONDS = 0.2

#: Of a request: what frames it, what is for this node, and what only a node may say.
_REQUEST_HEADERS_DROPPED = HOP_BY_HOP | {
    b"host", b"content-length", b"expect", b"authorization", b"x-request-id", CLUSTER_SECRET.encode(), HOP.encode()
}  # fmt: skip
#: Of a reply. Whoever serves the request adds the same request id again (record.py).
_REPLY_HEADERS_DROPPED = HOP_BY_HOP | {b"x-request-id"}


async def forward(peers: Peers, request: Request, node_id: str, seconds: float = 300.0) -> Forwarded:
    """Pass a request on to a node, once, and return the reply, which has to begin within ``seconds``.

    The reply has to be sent. Raises PeerUnreachableError (``sent`` says whether the node may have seen the request),
    OverloadedError, and ClientGoneError.
    """
    headers = _kept(request.raw_headers, _REQUEST_HEADERS_DROPPED)
    watch = _Watch(request)
    try:
        if request.has_body:
            body: Body | bytes = Body(watch.after(request.chunks()), request.content_length)
        else:
            body = b""
            watch.begin()
        return Forwarded(await peers.request(node_id, request.method, request.target, headers, body, seconds))
    except asyncio.CancelledError:
        if not watch.gone:
            raise
        raise ClientGoneError from None
    finally:
        watch.end()


class _Watch:
    """Cancels the task that serves a request when the client goes away while the other node takes its time."""

    __slots__ = ("_request", "_task", "_timer", "gone")

    def __init__(self, request: Request) -> None:
        self._request = request
        self._task: asyncio.Task[object] | None = asyncio.current_task()
        self._timer: asyncio.TimerHandle | None = None
        self.gone = False

    async def after(self, chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """Yield ``chunks``, then begin: the end of a client that still sends shows there."""
        async for chunk in chunks:
            yield chunk
        self.begin()

    def begin(self) -> None:
        """Watch, in a while."""
        self._timer = asyncio.get_running_loop().call_later(_WATCH_AFTER_SECONDS, self._look)

    def _look(self) -> None:
        if self._task is not None:
            self._request.gone.add_done_callback(self._went)

    def _went(self, _: asyncio.Future[None]) -> None:
        if self._task is not None:
            self.gone = True
            self._task.cancel()

    def end(self) -> None:
        """Stop watching. Takes the cancelling back, which was for one call and not for its task."""
        task, self._task = self._task, None
        if self._timer is not None:
            self._timer.cancel()
        if self.gone and task is not None and hasattr(task, "uncancel"):  # Python 3.11
            task.uncancel()


class Forwarded:
    """Another node's reply on its way to the client."""

    __slots__ = ("_reply", "added", "status")

    def __init__(self, reply: PeerReply) -> None:
        self._reply = reply
        #: Headers of this node.
        self.added: list[tuple[bytes, bytes]] = []
        self.status = reply.status

    def close(self) -> None:
        """Drop the reply instead of sending it."""
        self._reply.close()

    async def send(self, send: Send, *, head: bool) -> None:
        """Send what the other node replies, as it comes."""
        reply = self._reply
        start = {
            "type": "http.response.start",
            "status": reply.status,
            "headers": _kept(reply.headers, _REPLY_HEADERS_DROPPED) + self.added,
        }
        try:
            if reply.length is not None and reply.length <= _WHOLE_BYTES_MAX:
                body = await reply.body(_WHOLE_BYTES_MAX)
                await send(start)
            else:
                body = b""
                await send(start)
                async for piece in reply.chunks():
                    await send({"type": "http.response.body", "body": piece, "more_body": True})
            await send({"type": "http.response.body", "body": body, "more_body": False})
        finally:
            reply.close()


def _kept(headers: Iterable[tuple[bytes, bytes]], dropped: frozenset[bytes]) -> list[tuple[bytes, bytes]]:
    """Return the headers that travel on.

    A header that ``Connection`` names is of one connection only, whatever it is (RFC 9110, section 7.6.1).
    """
    headers = list(headers)
    named = [value for name, value in headers if name == b"connection"]
    if named and named not in ([b"close"], [b"keep-alive"]):
        dropped = dropped | {token.strip().lower() for value in named for token in value.split(b",")}
    return [(name, value) for name, value in headers if name not in dropped]

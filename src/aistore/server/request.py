"""One HTTP request as handlers see it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, unquote_to_bytes

from ..errors import BadRequestError, ClientGoneError, TooLargeError

if TYPE_CHECKING:
    from ..etl.dispatch import Early

Receive = Callable[[], Awaitable[Mapping[str, Any]]]

#: Where the scope of a request has its object when that was sent to a transform already (early_transforms.py).
EARLY = "aistore.sent"


class Request:
    """Method, path, query, headers and body of one request.

    ``path`` is percent-decoded exactly once, so an object name may hold any character. Header names are lower case.
    """

    __slots__ = (
        "_gone", "_headers", "_query", "_receive", "_scope", "_sent", "hold", "method", "opened", "path", "stays",
    )  # fmt: skip

    #: Holds memory for so many bytes of the body while the request is under way; see admission.py.
    hold: Callable[[int], None]

    def __init__(self, scope: Mapping[str, Any], receive: Receive) -> None:
        self._scope = scope
        self._receive = receive
        self._sent: Early | None = scope.get(EARLY)
        self._gone: asyncio.Future[None] | None = None
        self._headers: dict[str, str] | None = None
        self._query: dict[str, str] | None = None
        #: Whether this node has to answer, whoever should: another one passed the request on, or cannot answer.
        self.stays = False
        #: The copy of a shared object that this request reads: its bucket and name.
        self.opened: tuple[Any, str] | None = None
        self.method: str = scope["method"]
        raw: bytes = scope["raw_path"]
        try:
            self.path = (unquote_to_bytes(raw) if b"%" in raw else raw).decode()
        except UnicodeDecodeError as error:
            self.path = raw.decode("ascii", "backslashreplace")
            raise BadRequestError(f"path {self.path!r} is not UTF-8 after percent-decoding") from error

    @property
    def http_version(self) -> str:
        """``1.1`` or what came before it."""
        return str(self._scope["http_version"])

    @property
    def client(self) -> str:
        """Address and port of the client."""
        peer = self._scope.get("client")
        return f"{peer[0]}:{peer[1]}" if peer else ""

    @property
    def target(self) -> bytes:
        """Path and query as they came."""
        raw, query = self._scope["raw_path"], self._scope["query_string"]
        return bytes(b"%b?%b" % (raw, query) if query else raw)

    @property
    def raw_headers(self) -> Iterable[tuple[bytes, bytes]]:
        """The headers as they came; names are lower case."""
        headers: Iterable[tuple[bytes, bytes]] = self._scope["headers"]
        return headers

    @property
    def headers(self) -> Mapping[str, str]:
        """The headers; of one that is repeated, the values joined with commas."""
        if self._headers is None:
            headers: dict[str, str] = {}
            for name, value in self._scope["headers"]:
                key, text = name.decode("latin-1"), value.decode("latin-1")
                headers[key] = f"{headers[key]}, {text}" if key in headers else text
            self._headers = headers
        return self._headers

    @property
    def query(self) -> Mapping[str, str]:
        """The query parameters; of one that is repeated, the last value."""
        if self._query is None:
            self._query = parse_query(self._scope["query_string"])
        return self._query

    def flag(self, name: str) -> bool:
        """Return a boolean query parameter; clients write ``true`` and ``True``."""
        return self.query.get(name, "").lower() in ("true", "1", "yes")

    @property
    def content_length(self) -> int | None:
        """Length of the body as announced, None if it is chunked or absent."""
        text = self.headers.get("content-length")
        if text is None:
            return None
        if not text.isdecimal() or len(text) > 19:
            raise BadRequestError(f"content-length {text[:64]!r} is not a length")
        return int(text)

    @property
    def has_body(self) -> bool:
        """Whether the request announces a body (RFC 9112, section 6.3)."""
        return "transfer-encoding" in self.headers or self.headers.get("content-length", "0") != "0"

    def check_framing(self) -> None:
        """Refuse a body whose end another server in between may see elsewhere: the HTTP library takes "chunked" twice.

        Two lengths, or one that is no number, it refuses itself. Of a length beside chunks it drops the length and ends
        the connection (RFC 9112, section 6.3).
        """
        encoding = self.headers.get("transfer-encoding", "chunked")
        if encoding.lower() != "chunked":
            raise BadRequestError(f"transfer-encoding {encoding[:64]!r} is not supported", hint="expected chunked")

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yield the body piece by piece; raises ClientGoneError when it ends before it is whole."""
        length, more = self.content_length, True
        while more:
            message = await self._receive()
            if message["type"] != "http.request":
                raise ClientGoneError
            more = message.get("more_body", False)
            if message["body"]:
                if length is not None:  # the message that says "no more" would cost two changes of threads
                    length -= len(message["body"])
                    more = more and length > 0
                yield message["body"]

    async def body(self, limit: int) -> bytes:
        """Return the whole body; raises TooLargeError beyond ``limit`` bytes, if it can before they are sent."""
        pieces: list[bytes] = []
        size = 0
        length = self.content_length
        if length is not None:
            _check_size(length, limit)
            self.hold(length)
        async for piece in self.chunks():
            size += len(piece)
            if length is None:
                _check_size(size, limit)
                self.hold(len(piece))
            pieces.append(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    @property
    def gone(self) -> asyncio.Future[None]:
        """What is done when the client has gone; asked for only after the body was read.

        One for all who watch: of two who wait for the next message, the server tells one that the client has gone.
        """
        if self._gone is None:
            self._gone = asyncio.ensure_future(self._disconnected())
            self._gone.add_done_callback(_look)
        return self._gone

    async def disconnected(self) -> None:
        """Return when the client has gone. Only after the body was read."""
        await asyncio.shield(self.gone)

    async def _disconnected(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass

    def take_sent(self) -> Early | None:
        """Return the object of this request if it was sent to a transform already; the caller's to end."""
        sent, self._sent = self._sent, None
        return sent

    def end(self) -> None:
        """Stop watching the client: the request is over."""
        if self._gone is not None:
            self._gone.cancel()


def parse_query(text: bytes) -> dict[str, str]:
    """Return the parameters of a query string; of one that is repeated, the last value. Raises BadRequestError."""
    try:
        return dict(parse_qsl(text.decode("ascii"), keep_blank_values=True, errors="strict")) if text else {}
    except (UnicodeDecodeError, ValueError) as error:
        raise BadRequestError(f"query {text[:200]!r} cannot be read: {error}") from error


def _look(gone: asyncio.Future[None]) -> None:
    """Take note of a failure (a body that stalled while its reply was sent), which is the client's end all the same."""
    if not gone.cancelled():
        gone.exception()


def _check_size(size: int, limit: int) -> None:
    if size > limit:
        raise TooLargeError(f"the request body is larger than {limit} bytes")

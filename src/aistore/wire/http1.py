"""Replies in HTTP/1.1, as bytes: where the head ends, where the body ends. No I/O here.

They come from other nodes and from transforms that are servers. Stricter than HTTP allows: a reply whose end could be
taken for another place (two lengths, a length beside chunks) is refused, never guessed at. A body that ends with the
connection, which no node sends, is taken where the caller says so.
"""

from __future__ import annotations

import re
from typing import NamedTuple

#: Longer heads are refused. As much as this server takes of its clients (asgi.py).
HEAD_BYTES_MAX = 64 << 10
#: A line with the size of a chunk, its extensions included; and all trailers together. Guessed: no node sends either.
_SIZE_LINE_BYTES_MAX = 256
_TRAILER_BYTES_MAX = 8 << 10
_LENGTH_DIGITS_MAX = 19

_HEAD = re.compile(
    rb"HTTP/1\.([01]) ([1-9][0-9][0-9])(?: [^\r\n\0]*)?\r\n"
    rb"((?:[!#$%&'*+\-.^_`|~0-9A-Za-z]+:[^\r\n\0]*\r\n)*)\r\n"
)
_CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;[^\r\n\0]*)?")

#: Headers of one connection, which do not travel on (RFC 9110, section 7.6.1), and those that frame a body.
HOP_BY_HOP = frozenset(
    (
        b"connection", b"keep-alive", b"proxy-authenticate", b"proxy-authorization", b"proxy-connection", b"te",
        b"trailer", b"transfer-encoding", b"upgrade",
    )
)  # fmt: skip


class MalformedReplyError(Exception):
    """What came is not a reply that this program takes; the text says why."""


class Head(NamedTuple):
    """The head of a reply. ``length`` is that of the body, None if it comes in chunks or ends with the connection.

    Header names are lower case.
    """

    status: int
    headers: list[tuple[bytes, bytes]]
    length: int | None
    keep_alive: bool
    #: How many bytes the head has.
    size: int
    #: Whether the body has no other end than that of the connection.
    ends_with_connection: bool = False

    def header(self, name: bytes) -> str:
        """Return a header's first value, nothing if there is none; ``name`` in lower case."""
        return next((value.decode("latin-1") for key, value in self.headers if key == name), "")


def parse_head(data: bytes, *, bodiless: bool, until_end: bool = False) -> Head | None:
    """Return the head that ``data`` begins with, None if it is not whole yet; raises MalformedReplyError.

    ``bodiless``: the request was a HEAD, so no body follows whatever the head says. ``until_end``: a body may end with
    the connection. Interim replies (1xx) are heads too, without a body.
    """
    end = data.find(b"\r\n\r\n", 0, HEAD_BYTES_MAX)
    if end < 0:
        if len(data) >= HEAD_BYTES_MAX:
            raise MalformedReplyError(f"its head is longer than {HEAD_BYTES_MAX} bytes")
        if not b"HTTP/1.".startswith(data[:7]):
            raise MalformedReplyError("it does not begin like a reply")
        return None
    match = _HEAD.match(data, 0, end + 4)
    if match is None:
        raise MalformedReplyError("its head cannot be read")
    status = int(match[2])
    headers: list[tuple[bytes, bytes]] = []
    length: int | None = None
    chunked = False
    keep_alive = match[1] == b"1"
    for line in match[3].split(b"\r\n")[:-1]:
        name, _, value = line.partition(b":")
        name, value = name.lower(), value.strip(b" \t")
        headers.append((name, value))
        if name == b"content-length":
            length = _length(value, length)
        elif name == b"transfer-encoding":
            if chunked or value.lower() != b"chunked":
                raise MalformedReplyError("its transfer-encoding is not chunked")
            chunked = True
        elif name == b"connection" and b"close" in value.lower():
            keep_alive = False
    if status == 101:
        raise MalformedReplyError("it changes the protocol")
    if bodiless or status < 200 or status in (204, 304):
        length = 0
    elif chunked:
        if length is not None:
            raise MalformedReplyError("it has both a length and chunks")
    elif length is None:
        if not until_end:
            raise MalformedReplyError("it says nothing about its length")
        return Head(status, headers, None, False, match.end(), ends_with_connection=True)
    return Head(status, headers, length, keep_alive, match.end())


def _length(value: bytes, before: int | None) -> int:
    if not value.isdigit() or len(value) > _LENGTH_DIGITS_MAX:
        raise MalformedReplyError("its content-length is no length")
    length = int(value)
    if before is not None and before != length:
        raise MalformedReplyError("it has two lengths")
    return length


class Chunks:
    """Takes chunked coding off (RFC 9112, section 7.1), piece by piece as bytes come."""

    __slots__ = ("_due", "_rest", "_state", "_trailer_bytes", "ended")

    def __init__(self) -> None:
        self._state = _SIZE
        self._due = 0  # bytes of the chunk that are still to come
        self._rest = b""  # the beginning of a line
        self._trailer_bytes = 0
        self.ended = False

    def feed(self, data: bytes) -> tuple[list[bytes], bytes]:
        """Return the pieces of the body in ``data``, and what follows the body's end; raises MalformedReplyError."""
        pieces: list[bytes] = []
        data = self._rest + data if self._rest else data
        self._rest = b""
        at, size = 0, len(data)
        while at < size and not self.ended:
            if self._state is _DATA:
                piece = data[at : at + self._due]
                pieces.append(piece)
                at += len(piece)
                self._due -= len(piece)
                if not self._due:
                    self._state = _END
                continue
            end = data.find(b"\n", at, at + _SIZE_LINE_BYTES_MAX)
            if end < 0:
                if size - at >= _SIZE_LINE_BYTES_MAX:
                    raise MalformedReplyError("a line between its chunks is too long")
                self._rest = data[at:]
                return pieces, b""
            if end == at or data[end - 1] != 13:
                raise MalformedReplyError("a line between its chunks has no proper end")
            self._line(data[at : end - 1])
            at = end + 1
        return pieces, data[at:]

    def _line(self, line: bytes) -> None:
        if self._state is _SIZE:
            match = _CHUNK_SIZE.fullmatch(line)
            if match is None:
                raise MalformedReplyError("the size of a chunk cannot be read")
            self._due = int(match[1], 16)
            self._state = _DATA if self._due else _TRAILER
        elif self._state is _END:
            if line:
                raise MalformedReplyError("a chunk is longer than it says")
            self._state = _SIZE
        elif line:
            self._trailer_bytes += len(line) + 2
            if self._trailer_bytes > _TRAILER_BYTES_MAX:
                raise MalformedReplyError("its trailers are too long")
        else:
            self.ended = True


#: What comes next of a chunked body: the size of a chunk, its bytes, the end of its line, a trailer or the last line.
_SIZE, _DATA, _END, _TRAILER = object(), object(), object(), object()

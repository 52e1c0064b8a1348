"""Replies of other nodes: what is whole is read whole however it is cut up, and nothing else ever passes for whole."""

from __future__ import annotations

import http.client
import io
import itertools

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from aistore.wire.http1 import HEAD_BYTES_MAX, Chunks, MalformedReplyError, parse_head


class Heard:
    """What a reader has of a reply: the same steps as a connection takes, without one."""

    def __init__(self, *, bodiless: bool = False) -> None:
        self._bodiless = bodiless
        self._data = b""
        self._chunks: Chunks | None = None
        self._left = -1
        self.status = 0
        self.headers: list[tuple[bytes, bytes]] = []
        self.body = b""
        self.whole = False

    def feed(self, data: bytes) -> None:
        if not self.status:
            self._data += data
            head = parse_head(self._data, bodiless=self._bodiless)
            if head is None:
                return
            self.status, self.headers = head.status, head.headers
            data = self._data[head.size :]
            self._chunks = Chunks() if head.length is None else None
            self._left = head.length or 0
        if self._chunks is not None:
            if not self._chunks.ended:
                pieces, _ = self._chunks.feed(data)
                self.body += b"".join(pieces)
            self.whole = self._chunks.ended
        else:
            self.body += data[: self._left]
            self._left -= len(data[: self._left])
            self.whole = self._left == 0


def heard(pieces: list[bytes], *, bodiless: bool = False) -> Heard:
    reply = Heard(bodiless=bodiless)
    for piece in pieces:
        reply.feed(piece)
    return reply


def cut_up(data: bytes, cuts: list[int]) -> list[bytes]:
    places = sorted({cut % (len(data) + 1) for cut in cuts} | {0, len(data)})
    return [data[start:end] for start, end in itertools.pairwise(places)]


_NAMES = st.from_regex(r"x-[a-zA-Z0-9!#$%&'*+.^_`|~-]{1,20}", fullmatch=True)
_VALUES = st.from_regex(r"[!-~]([ -~]{0,30}[!-~])?", fullmatch=True)
_CUTS = st.lists(st.integers(0, 1 << 16), max_size=8)


@st.composite
def replies(draw: st.DrawFn) -> tuple[bytes, bytes]:
    """Return a reply as bytes, and the body in it."""
    pieces = draw(st.lists(st.binary(min_size=1, max_size=50), max_size=5))
    body = b"".join(pieces)
    headers = draw(st.lists(st.tuples(_NAMES, _VALUES), max_size=4))
    if draw(st.booleans()):
        framing, coded = f"Content-Length: {len(body)}\r\n", body
    else:
        framing = "Transfer-Encoding: Chunked\r\n"
        extension = draw(st.sampled_from([b"", b";name=value", b" ; x"]))
        coded = b"".join(b"%x%b\r\n%b\r\n" % (len(piece), extension, piece) for piece in pieces)
        coded += b"0\r\n" + draw(st.sampled_from([b"", b"x-trailer: 1\r\n"])) + b"\r\n"
    reason = draw(st.sampled_from(["", " ", " OK", " Not so good"]))
    head = f"HTTP/1.1 {draw(st.integers(200, 203))}{reason}\r\n{framing}"
    head += "".join(f"{name}:{space}{value}\r\n" for (name, value), space in zip(headers, " " * 9, strict=False))
    return head.encode() + b"\r\n" + coded, body


@given(replies(), _CUTS)
def test_a_reply_is_the_same_however_it_is_cut_up(reply: tuple[bytes, bytes], cuts: list[int]) -> None:
    data, body = reply
    found = heard(cut_up(data, cuts))
    assert (found.whole, found.body) == (True, body)


@given(replies())
def test_a_reply_is_what_another_implementation_reads(reply: tuple[bytes, bytes]) -> None:
    class Socket:
        def makefile(self, mode: str) -> io.BytesIO:
            return io.BytesIO(reply[0])

    other = http.client.HTTPResponse(Socket())  # type: ignore[arg-type]
    other.begin()
    found = heard([reply[0]])
    assert (found.status, found.body) == (other.status, other.read())
    assert [(name.decode(), value.decode()) for name, value in found.headers] == [
        (name.lower(), value) for name, value in other.headers.items()
    ]


@given(replies(), st.integers(0, 1 << 16), _CUTS)
def test_a_reply_cut_short_is_never_whole(reply: tuple[bytes, bytes], length: int, cuts: list[int]) -> None:
    data, _ = reply
    assert not heard(cut_up(data[: length % len(data)], cuts)).whole


@given(replies(), st.lists(st.tuples(st.integers(0, 1 << 16), st.integers(0, 255)), min_size=1, max_size=4), _CUTS)
@example((b"HTTP/1.1 200\r\nContent-Length: 1\r\n\r\nx", b"x"), [(30, 10)], [])
def test_a_reply_with_other_bytes_in_it_is_read_or_refused(
    reply: tuple[bytes, bytes], changes: list[tuple[int, int]], cuts: list[int]
) -> None:
    data = bytearray(reply[0])
    for place, byte in changes:
        data[place % len(data)] = byte

    def outcome(pieces: list[bytes]) -> object:
        try:
            found = heard(pieces)
        except MalformedReplyError:
            return None
        return found.whole, found.body if found.whole else b""

    assert outcome(cut_up(bytes(data), cuts)) == outcome([bytes(data)])


@given(st.binary(max_size=300), st.booleans())
def test_any_bytes_are_read_or_refused(data: bytes, bodiless: bool) -> None:
    try:
        heard([b"HTTP/1.1 200 OK\r\n", data], bodiless=bodiless)
    except MalformedReplyError:
        pass


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/2 200 OK\r\ncontent-length: 1\r\n\r\n",
        b"HTTP/1.1 20 OK\r\ncontent-length: 1\r\n\r\n",
        b"HTTP/1.1 200 OK\ncontent-length: 1\n\n" + bytes(HEAD_BYTES_MAX),
        b"ICY 200 OK\r\ncontent-length: 1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 1, 1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: +1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 0x1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: \xb2\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 99999999999999999999\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length : 1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n content-length: 1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nx: a\rb\r\ncontent-length: 1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nx: a\0b\r\ncontent-length: 1\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nx: " + b"a" * HEAD_BYTES_MAX + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nx: " + b"a" * HEAD_BYTES_MAX,
    ],
    ids=lambda head: head[:60].decode("latin-1"),
)
def test_a_head_that_could_be_read_in_two_ways_is_refused(head: bytes) -> None:
    with pytest.raises(MalformedReplyError):
        heard([head, b"x"])


@pytest.mark.parametrize(
    "body",
    [b"x\r\n", b"-1\r\n", b"0x1\r\n", b"1\n", b"\r\n", b"1\r\nab\r\n", b"1" * 16 + b"\r\n",
     b"1;" + b"a" * 300, b"0\r\n" + b"x: y\r\n" * 2000],
    ids=lambda body: body[:20].decode(),
)  # fmt: skip
def test_chunks_that_could_be_read_in_two_ways_are_refused(body: bytes) -> None:
    head = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
    with pytest.raises(MalformedReplyError):
        heard([head, body])
    with pytest.raises(MalformedReplyError):
        heard([head, *(bytes([byte]) for byte in body)])


def test_what_has_no_body_has_none() -> None:
    for head, bodiless in (
        (b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n", True),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", True),
        (b"HTTP/1.1 304 Not Modified\r\n\r\n", False),
        (b"HTTP/1.1 204 No Content\r\n\r\n", False),
    ):
        assert heard([head], bodiless=bodiless).whole

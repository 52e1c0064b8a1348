"""Whole messages over Unix sockets: as the kernel keeps them, or each after its length where it does not.

A ``SOCK_SEQPACKET`` socket keeps messages apart by itself. Systems without it have ``SOCK_STREAM``; there a message is
four bytes of length, little endian, and its content. Descriptors travel with the first byte of a message.
"""

import array
import socket
import struct
from typing import Any, List, Sequence, Tuple

_LENGTH = struct.Struct("<I")
_SEND_BUFFER_BYTES = 256 << 10  # more than any message; systems without SOCK_SEQPACKET begin with 8 KiB

#: Ancillary data as ``recvmsg`` gives it: level, type, content.
Ancillary = List[Tuple[int, int, bytes]]


def descriptors_of(ancillary: Ancillary) -> List[int]:
    """Return the descriptors that came with a message; they are the caller's to close."""
    descriptors = array.array("i")
    for level, kind, content in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            descriptors.frombytes(content[: len(content) - len(content) % descriptors.itemsize])
    return list(descriptors)


class Messages:
    """The messages of one connected socket, which stays the caller's to close."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._framed = connection.type == socket.SOCK_STREAM
        self.begin()

    def begin(self) -> None:
        """Be at the first message; also of another connection, when the socket's descriptor has become that."""
        self._partial = b""
        self._broken = False
        self._ancillary: Ancillary = []
        if self._framed:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER_BYTES)

    def send(self, data: bytes, descriptors: Sequence[int] = (), flags: int = 0) -> None:
        """Send one message, with descriptors; raises OSError as the socket does.

        Inside the sandbox none can be sent with one.
        """
        framed = _LENGTH.pack(len(data)) + data if self._framed else data
        if descriptors:
            rights: Any = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))]
            sent = self._socket.sendmsg([framed], rights, flags)
        else:
            sent = self._socket.send(framed, flags)
        if sent < len(framed):  # what is begun has to be ended
            self._socket.sendall(framed[sent:])

    def receive(self, limit: int, ancillary_bytes: int = 0) -> Tuple[bytes, Ancillary]:
        """Return the next message and its ancillary data; ``b""`` at the end of the connection.

        Raises OSError as the socket does, BlockingIOError also when a part of a message has come; it is kept.
        A message above ``limit`` bytes is cut; where it has a length, nothing can be read after that.
        """
        if self._broken:
            return b"", []
        if not self._framed:
            data, ancillary, _, _ = self._socket.recvmsg(limit, ancillary_bytes)
            return data, ancillary
        while True:
            wanted = _LENGTH.size
            if len(self._partial) >= _LENGTH.size:
                wanted += _LENGTH.unpack_from(self._partial)[0]
                if wanted == len(self._partial) or wanted > limit + _LENGTH.size:
                    break
            data, ancillary, _, _ = self._socket.recvmsg(wanted - len(self._partial), ancillary_bytes)
            self._ancillary += ancillary
            if not data:
                self._partial = b""
                break
            self._partial += data
        self._broken = wanted > limit + _LENGTH.size
        whole = self._partial if self._broken else self._partial[_LENGTH.size :]
        brought, self._partial, self._ancillary = self._ancillary, b"", []
        return whole, brought

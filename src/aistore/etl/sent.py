"""One object on its way to a warm worker and back: its files, the connection it went on, and what came back there."""

from __future__ import annotations

import os
import socket
from types import TracebackType

from . import exchange
from .peers import CREDENTIALS_ROOM, MESSAGES_KIND, Peer, ask_for_credentials, sender_of
from .running import Running
from .worker.messages import Messages

REPLY_BYTES_MAX = 64 << 10


class Sent:
    """An object's result and standard error, and its connection until somebody takes that; as a context it closes all.

    ``peer`` is the worker that is known to have begun with it, ``answer`` what it said at the end, if that was read.
    """

    __slots__ = ("answer", "connection", "errors", "output", "peer")

    def __init__(self, directory: str) -> None:
        self.connection: socket.socket | None = None
        self.peer: Peer | None = None
        self.answer: bytes | None = None
        self.output = exchange.exchange_file("output", directory)
        try:
            self.errors = exchange.exchange_file("errors", directory)
        except BaseException:
            os.close(self.output)
            raise

    def take_output(self) -> int:
        """Return the descriptor of the result, the caller's to close from now on."""
        output, self.output = self.output, -1
        return output

    def take_connection(self) -> tuple[socket.socket, Peer | None, bytes | None]:
        """Return the connection and the peer, the caller's to close, and the answer. Only of what was sent."""
        assert self.connection is not None
        taken = self.connection, self.peer, self.answer
        self.connection, self.peer, self.answer = None, None, None
        return taken

    def __enter__(self) -> Sent:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close what is here. A worker that has begun goes on, and tells nobody."""
        if self.connection is not None:
            self.connection.close()
            self.connection = None
        if self.peer is not None:
            self.peer.close()
            self.peer = None
        for descriptor in (self.output, self.errors):
            if descriptor >= 0:
                os.close(descriptor)
        self.output = self.errors = -1


class SentEarly(Sent):
    """An object that was sent before anybody waits for it, by a thread that is not the event loop's.

    The thread makes it; from then on it belongs to the event loop. ``source`` is the object's copy.
    """

    __slots__ = ("_messages", "running", "size", "source")

    def __init__(self, running: Running, header: bytes, data: bytes | memoryview, directory: str) -> None:
        """Send ``data``, with the request for it; raises OSError when that cannot be done now."""
        connection = connect(running)  # first: a worker wakes up meanwhile
        try:
            super().__init__(directory)
        except BaseException:
            connection.close()
            raise
        self.connection = connection
        self.running = running
        self.size = len(data)
        self.source = -1
        try:
            self.source = exchange.input_from_bytes(data, directory)
            self._messages = Messages(self.connection)
            self._messages.send(header, [self.source, self.output, self.errors])
        except BaseException:
            self.close()
            raise

    def receive(self) -> None:
        """Read what has come, into ``peer`` and ``answer`` (empty: the worker ended); never waits.

        A quick worker has answered by the time its first message is read. Who it was nobody needs to know then.
        """
        begun: tuple[int, bytes] | None = None
        while self.answer is None:
            try:
                message, ancillary = self._messages.receive(REPLY_BYTES_MAX, CREDENTIALS_ROOM)
            except (BlockingIOError, InterruptedError):
                break
            except OSError:
                message, ancillary = b"", []
            if message[:1] == b"S" and self.peer is None and begun is None:
                begun = sender_of(ancillary), message
            else:
                self.answer = message
        if begun is not None and not self.answer:  # it is at work, or has died
            self.peer = Peer(*begun)

    def take_source(self) -> int:
        """Return the descriptor of the object's copy, the caller's to close from now on."""
        source, self.source = self.source, -1
        return source

    def close(self) -> None:
        """Close what is here."""
        super().close()
        if self.source >= 0:
            os.close(self.source)
            self.source = -1


def connect(running: Running) -> socket.socket:
    """Return a connection to the workers of a transform, non-blocking; raises OSError: EAGAIN when too many wait."""
    connection = socket.socket(socket.AF_UNIX, MESSAGES_KIND)
    try:
        connection.setblocking(False)
        ask_for_credentials(connection)  # before connecting: the worker's first message then has them
        connection.connect(running.socket_path)
    except BaseException:
        connection.close()
        raise
    return connection

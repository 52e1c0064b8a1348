"""A scripted HTTP server for failures that a real store does not produce on demand: one answer per request."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType


@dataclass
class Received:
    """What one request looked like to the server."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    peer: tuple[str, int]


Answer = Callable[[BaseHTTPRequestHandler], None]


def reply(status: int, body: bytes = b"", headers: dict[str, str] | None = None) -> Answer:
    """Answer with a whole reply."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(b"" if handler.command == "HEAD" else body)

    return answer


def broken(
    status: int, body: bytes, sent: int, headers: dict[str, str] | None = None, *, reset: bool = False
) -> Answer:
    """Announce ``body``, send ``sent`` bytes of it, then end or reset the connection."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        reply(status, body[:sent], {"Content-Length": str(len(body)), **(headers or {})})(handler)
        hang_up(handler, reset=reset)

    return answer


def hang_up(handler: BaseHTTPRequestHandler, *, reset: bool = False) -> None:
    """End the connection without another byte, with a reset if asked."""
    handler.wfile.flush()
    handler.close_connection = True
    if reset:
        handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        handler.connection.close()
    else:
        handler.connection.shutdown(socket.SHUT_RDWR)


@dataclass
class Stub:
    """Serves ``answers`` in turn; requests beyond them get 500. ``received`` has what was asked.

    Questions for the cluster map are part of it only if ``smap`` is true: a client asks by itself, now and then.
    """

    answers: Iterable[Answer]
    smap: bool = False
    received: list[Received] = field(default_factory=list)

    def __enter__(self) -> Stub:
        answers, received, smap = iter(self.answers), self.received, self.smap

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self) -> None:
                if "what=smap" in self.path and not smap:
                    self._body()
                    reply(404)(self)
                    return
                received.append(
                    Received(
                        self.command,
                        self.path,
                        {name.lower(): value for name, value in self.headers.items()},
                        self._body(),
                        self.client_address,
                    )
                )
                next(answers, reply(500, b"the script has ended"))(self)

            def _body(self) -> bytes:
                if self.headers.get("Transfer-Encoding") != "chunked":
                    return self.rfile.read(int(self.headers.get("Content-Length") or 0))
                body = b""
                while size := int(self.rfile.readline(), 16):
                    body += self.rfile.read(size + 2)[:-2]
                self.rfile.readline()
                return body

            do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = do_PATCH = answer

            def log_message(self, format: str, *args: object) -> None:
                """Say nothing."""

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, request: object, client_address: object) -> None:
                """A connection that the script has cut is no news."""

        self._server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

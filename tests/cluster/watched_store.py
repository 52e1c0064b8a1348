"""What stands between a node and its object store and watches: what is asked for, held back or refused on demand."""

from __future__ import annotations

import http.client
import http.server
import threading
import urllib.parse
import urllib.request
from typing import NamedTuple

from aistore.laptop.signing import signed_request
from aistore.laptop.weed import Weed

_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))
_PIECE = 64 << 10


class Asked(NamedTuple):
    """A request that a store got."""

    method: str
    path: str
    range: str


class WatchedStore:
    """An HTTP proxy in front of `weed` that passes everything on as it came, so that signatures stay right."""

    def __init__(self, weed: Weed) -> None:
        self._target = weed.endpoint.removeprefix("http://")
        self.asked: list[Asked] = []
        self.sent_bytes = 0
        #: Answered instead of passing requests on: a status and a body.
        self.instead: tuple[int, bytes] | None = None
        self._hold = ""
        #: The first GET of the held key has half of its answer, and waits for ``release``.
        self.holding = threading.Event()
        self._released = threading.Event()
        self.holder = 0
        watched = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _pass_on(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                path = urllib.parse.unquote(self.path)
                watched.asked.append(Asked(self.command, path.partition("?")[0], self.headers.get("Range") or ""))
                if watched.instead is not None:
                    status, text = watched.instead
                    self._begin(status, [("Content-Length", str(len(text)))])
                    if self.command != "HEAD":
                        self.wfile.write(text)
                    return
                upstream = http.client.HTTPConnection(watched._target, timeout=30)
                try:
                    upstream.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
                    for name, value in self.headers.items():
                        upstream.putheader(name, value)
                    upstream.endheaders(body)
                    answer = upstream.getresponse()
                    whole = b"" if answer.length is not None else answer.read()
                    headers = [pair for pair in answer.getheaders() if pair[0].lower() not in _HOP_BY_HOP]
                    if answer.length is None and self.command != "HEAD":
                        headers.append(("Content-Length", str(len(whole))))
                    self._begin(answer.status, headers)
                    self._send(whole, answer)
                finally:
                    upstream.close()

            def _begin(self, status: int, headers: list[tuple[str, str]]) -> None:
                self.send_response_only(status)
                for name, value in headers:
                    self.send_header(name, value)
                self.end_headers()

            def _send(self, whole: bytes, answer: http.client.HTTPResponse) -> None:
                self.wfile.write(whole)
                key = self.path.partition("?")[0]
                if self.command == "GET" and watched._hold and key.endswith(watched._hold):
                    watched._hold, half = "", (answer.length or 0) // 2
                    self.wfile.write(answer.read(half))
                    self.wfile.flush()
                    watched.holder = self.client_address[1]
                    watched.holding.set()
                    watched._released.wait(60)
                while self.command != "HEAD" and (piece := answer.read(_PIECE)):
                    self.wfile.write(piece)
                    watched.sent_bytes += len(piece)

            do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _pass_on

            def handle(self) -> None:
                try:
                    super().handle()
                except OSError:  # who asked has gone, perhaps killed by a test
                    self.close_connection = True

            def finish(self) -> None:
                try:
                    super().finish()
                except OSError:
                    pass

            def log_message(self, *_: object) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def hold(self, key: str) -> None:
        """Give only half of the answer to the next GET of ``key``, until ``release``."""
        self._hold = key

    def release(self) -> None:
        """Let the answer that is held go on."""
        self._released.set()

    def of(self, key: str, method: str = "") -> list[Asked]:
        """Return the requests for ``key``."""
        return [one for one in self.asked if one.path.endswith("/" + key) and method in ("", one.method)]

    def close(self) -> None:
        self.release()
        self._server.shutdown()
        self._server.server_close()


_HOP_BY_HOP = frozenset(("connection", "transfer-encoding", "keep-alive"))


def foreign(weed: Weed, method: str, bucket: str, key: str, body: bytes = b"") -> bytes:
    """Do to the object store what another program would do."""
    request = signed_request(
        method, f"{weed.endpoint}/{bucket}/{urllib.parse.quote(key)}", access_key=weed.access_key,
        secret_key=weed.secret_key, region="us-east-1", body=body,
    )  # fmt: skip
    with _OPENER.open(request, timeout=60) as answer:
        return answer.read()


def process_of(port: int, candidates: list[int]) -> int:
    """Return which process has the local ``port`` of a connection."""
    import os

    inodes = set()
    with open("/proc/net/tcp", encoding="ascii") as table:
        for line in table.readlines()[1:]:
            fields = line.split()
            if int(fields[1].rpartition(":")[2], 16) == port:
                inodes.add(f"socket:[{fields[9]}]")
    for pid in candidates:
        try:
            links = [os.readlink(f"/proc/{pid}/fd/{name}") for name in os.listdir(f"/proc/{pid}/fd")]
        except OSError:
            continue
        if inodes.intersection(links):
            return pid
    raise AssertionError(f"no process of {candidates} has port {port}")

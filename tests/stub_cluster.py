"""Nodes of a cluster that share their objects and answer for all of them, as far as a client can tell.

Real sockets; each node says which requests came to it. A node can be killed, started again at its address, be silent
(it takes connections and never answers), lapsed (503) or foreign (a node of another cluster at that address).
"""

from __future__ import annotations

import json
import socket
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from urllib.parse import unquote, urlsplit

import msgspec

from aistore.errors import ObjectNotFoundError
from aistore.model import rendezvous
from aistore.wire import batch
from aistore.wire.messages import ListEntryMsgpack, ListMsgpack


class Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    allow_reuse_address = True
    request_queue_size = 128

    def __init__(self, node: Node, port: int) -> None:
        self.node = node
        self.open: set[socket.socket] = set()
        super().__init__(("127.0.0.1", port), Handler)

    def process_request(self, request, client_address) -> None:
        self.open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request) -> None:
        self.open.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: object, client_address: object) -> None:
        """A connection that was cut is no news."""


@dataclass
class Node:
    """One node. ``received`` are the paths of requests for objects, ``asked`` counts questions for the map."""

    cluster: StubCluster
    id: str
    port: int = 0
    state: str = "up"
    advertised: str = ""
    received: list[str] = field(default_factory=list)
    asked: int = 0
    server: Server | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        self.server = Server(self, self.port)
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    def kill(self) -> None:
        """End it as a process that is killed does: nothing listens, and its connections are cut."""
        server, self.server = self.server, None
        if server is None:
            return
        server.shutdown()
        server.server_close()
        for connection in list(server.open):
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass  # the client was quicker

    def snode(self) -> dict[str, object]:
        return {
            "daemon_id": self.id,
            "daemon_type": "target",
            "public_net": {"direct_url": self.advertised or self.url},
            "flags": 0,
            "id_digest": rendezvous.digest(self.id),
        }


class StubCluster:
    """``nodes`` by id; the map has those in ``members``. ``tells`` whether replies name the version of the map."""

    def __init__(self, *ids: str, tells: bool = True) -> None:
        self.objects: dict[str, bytes] = {}
        self.nodes = {id_: Node(self, id_) for id_ in ids}
        self.members = list(ids)
        self.version = 1
        self.tells = tells
        self.released = threading.Event()

    def __enter__(self) -> StubCluster:
        for node in self.nodes.values():
            node.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.released.set()
        for node in self.nodes.values():
            node.kill()

    def join(self, id_: str) -> Node:
        node = self.nodes[id_] = Node(self, id_)
        node.start()
        self.change([*self.members, id_])
        return node

    def change(self, members: list[str]) -> None:
        self.members, self.version = members, self.version + 1

    def home(self, name: str, bucket: str = "b") -> Node:
        digests = {id_: rendezvous.digest(id_) for id_ in self.members}
        return self.nodes[rendezvous.home(digests, rendezvous.uname("ais", bucket, name))]

    def smap(self, node: Node) -> bytes:
        uuid = "another" if node.state == "foreign" else "stub"
        tmap = {id_: self.nodes[id_].snode() for id_ in self.members}
        return json.dumps({"uuid": uuid, "version": str(self.version), "tmap": tmap, "pmap": {}}).encode()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: Server

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""

    def answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        node, parts = self.server.node, urlsplit(self.path)
        cluster, path = node.cluster, unquote(parts.path)
        if node.state == "silent":
            cluster.released.wait()
            self.close_connection = True
            return None
        if "what=smap" in parts.query:
            node.asked += 1
            return self.reply(200, cluster.smap(node))
        if path.startswith("/v1/buckets/"):
            wanted = json.loads(body)["value"]
            names = sorted(name for name in cluster.objects if name > wanted["continuation_token"])
            return self.reply(200, msgspec.msgpack.encode(ListMsgpack([ListEntryMsgpack(name) for name in names])))
        node.received.append(path)
        if node.state == "lapsed":
            return self.reply(503, b'{"status":503,"message":"lease lapsed","tcode":"ErrBusy"}', retry_after="0")
        if path.startswith("/v1/batch/"):
            return self.batch(json.loads(body)["entries"])
        name = path.removeprefix("/v1/objects/b/")
        if self.command == "PUT":
            cluster.objects[name] = body
            return self.reply(200)
        if name not in cluster.objects:
            return self.reply(404, error_body(name))
        if self.command == "DELETE":
            del cluster.objects[name]
            return self.reply(200)
        return self.reply(200, cluster.objects[name])

    do_GET = do_HEAD = do_PUT = do_DELETE = do_POST = answer

    def batch(self, entries: list[tuple[str, str]]) -> None:
        """Send entry by entry, so that a node can be killed between two."""
        node, cluster = self.server.node, self.server.node.cluster
        node.received += [name for name, _ in entries]
        self.send_response(200)
        self.send_header("Content-Type", batch.CONTENT_TYPE)
        self.send_header("Transfer-Encoding", "chunked")
        if cluster.tells:
            self.send_header("Ais-Map-Version", str(cluster.version))
        self.end_headers()
        for position, (name, _) in enumerate(entries):
            data = cluster.objects.get(name)
            status, content = (200, data) if data is not None else (404, error_body(name))
            self.chunk(batch.encode_header(status, position, content) + content)
        self.chunk(batch.encode_end(len(entries)))
        self.wfile.write(b"0\r\n\r\n")

    def chunk(self, data: bytes) -> None:
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))

    def reply(self, status: int, body: bytes = b"", retry_after: str = "") -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        if retry_after:
            self.send_header("Retry-After", retry_after)
        if self.server.node.cluster.tells:
            self.send_header("Ais-Map-Version", str(self.server.node.cluster.version))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


def error_body(name: str) -> bytes:
    error = ObjectNotFoundError.of("b", name)
    return json.dumps({"status": 404, "message": error.message, "tcode": error.code}).encode()

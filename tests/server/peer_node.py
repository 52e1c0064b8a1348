"""Nodes with one half of what a node does, so that the way between nodes can be tested and measured on its own.

    python peer_node.py forward URL WORKERS     # has nothing itself: every request goes to the node at URL
    python peer_node.py home DATA WORKERS       # a store on this machine, which takes calls of nodes

Prints its port, then serves until its standard input ends.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
import tempfile
from collections.abc import Mapping
from typing import Any

import uvloop

from aistore.errors import AisError, ClientGoneError
from aistore.observe.log import request_id
from aistore.server import asgi
from aistore.server.app import App
from aistore.server.delivery import Delivery
from aistore.server.error_replies import error_of_request
from aistore.server.forwarding import forward
from aistore.server.peers import PeerLimits, Peers
from aistore.server.peers.reads import QuickReads, ReadServer, hello
from aistore.server.record import Recorder
from aistore.server.replies import Messages
from aistore.server.request import Request
from aistore.server.stalls import Stalls
from aistore.server.store import Store
from aistore.settings import Limits, ProcessSettings, Secret, ServeSettings
from aistore.storage.local.engine import LocalEngine

SECRET = os.environ["AIS_CLUSTER_SECRET"]


class Home:
    """A store that answers other nodes."""

    def __init__(self, data: str) -> None:
        serve = ServeSettings(data=data, cluster_secret=Secret(SECRET))
        runtime = tempfile.mkdtemp(prefix="run-", dir=os.path.dirname(data))
        self.store = Store(ProcessSettings(serve, runtime, "home", 0, 0), LocalEngine(data))
        self.app = App(self.store)
        self.reads = ReadServer(App(self.store).at_once, SECRET)

    async def start(self) -> None:
        await self.reads.start("127.0.0.1")

    def at_once(self, scope: Mapping[str, Any]) -> Any:
        return self.app.at_once(scope)

    def hand_over(self, watcher: Any, schedule: asgi.Schedule) -> bool:
        return False

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["raw_path"] == b"/v1/internal/reads":
            await answer(send, b'{"port":%d}' % self.reads.port)
        else:
            await self.app(scope, receive, send)

    def close(self) -> None:
        self.reads.close()
        self.store.close()


async def answer(send: Any, text: bytes) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(text))]})
    await send({"type": "http.response.body", "body": text, "more_body": False})


class Forwarder:
    """An application that forwards everything."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.stalls = Stalls(30.0)
        self.recorder = Recorder(ServeSettings(data=""))
        self.quick: QuickReads | None = None
        self.quickly = 0

    async def start(self) -> None:
        limits = PeerLimits(stall_seconds=float(os.environ.get("STALL_SECONDS", "30")), sweep_seconds=0.1)
        self.peers = Peers("forwarder", Secret(SECRET), self.urls, lambda: 7, limits)
        if os.environ.get("QUICK"):
            first = hello(SECRET, "forwarder", 7)
            pause = float(os.environ["QUICK"])
            self.quick = QuickReads(self.peers, first, self.urls, self.record, retry_seconds=pause)

    def record(self, scope: Mapping[str, Any], messages: Messages, started_ns: int) -> Messages:
        self.quickly += 1
        return self.recorder.at_once(scope, messages, started_ns)

    def urls(self) -> Mapping[str, str]:
        return {"home": self.url}

    def close(self) -> None:
        if self.quick is not None:
            self.quick.close()
        self.peers.close()

    def at_once(self, scope: Mapping[str, Any]) -> None:
        """Have nothing."""

    def hand_over(self, watcher: Any, schedule: asgi.Schedule) -> bool:
        scope = watcher.scope
        if self.quick is None or scope["method"] != "GET" or not scope["raw_path"].startswith(b"/v1/objects/"):
            return False
        return self.quick.take(watcher, "home", schedule)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Forward a request, with what an application does around it."""
        if scope["raw_path"] == b"/-/connections":
            await answer(send, str(self.peers.connections("home")).encode())
            return
        if scope["raw_path"] == b"/-/quickly":
            await answer(send, str(self.quickly).encode())
            return
        request = Request(scope, self.stalls.watch(receive))
        given = request.headers.get("x-request-id", "made-here")
        context = request_id.set(given)
        started = False

        async def sending(message: Any) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                message["headers"].append((b"x-request-id", given.encode()))
            await send(message)

        try:
            reply = await forward(self.peers, request, "home", float(os.environ.get("ANSWER_SECONDS", "30")))
            await reply.send(Delivery(sending, request), head=request.method == "HEAD")
        except ClientGoneError:
            pass
        except AisError as error:
            if started:
                raise
            await error_of_request(error, request, "forwarder").send(send, head=request.method == "HEAD")
        finally:
            request.end()
            request_id.reset(context)


async def _run(app: Any, listener: socket.socket) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    await app.start()
    try:
        await asgi.serve(app, listener, stop, lambda: None, Limits(), 4096)
    finally:
        app.close()


def main() -> None:
    """Serve in so many processes."""
    kind, where, workers = sys.argv[1:4]
    with socket.create_server(("127.0.0.1", 0), backlog=1024) as listener:
        children = []
        for _ in range(int(workers)):
            child = os.fork()
            if child == 0:
                uvloop.run(_run({"home": Home, "forward": Forwarder}[kind](where), listener))
                os._exit(0)
            children.append(child)
        print(listener.getsockname()[1], flush=True)
        sys.stdin.read()
        for child in children:
            os.kill(child, signal.SIGTERM)
        for child in children:
            os.waitpid(child, 0)


if __name__ == "__main__":
    main()

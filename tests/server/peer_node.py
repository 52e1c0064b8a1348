"""A node that has nothing itself: every request goes to another one. ``python peer_node.py ID URL WORKERS``.

Prints its port, then serves until it is told to end. What a real node does about where an object lives is left out, so
that the way to another node can be tested and measured on its own.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from collections.abc import Mapping
from typing import Any

import uvloop

from aistore.errors import AisError, ClientGoneError
from aistore.observe.log import request_id
from aistore.server import asgi
from aistore.server.delivery import Delivery
from aistore.server.error_replies import error_of_request
from aistore.server.forwarding import forward
from aistore.server.peers import PeerLimits, Peers
from aistore.server.request import Request
from aistore.server.stalls import Stalls
from aistore.settings import Limits, Secret


class Forwarder:
    """An application that forwards everything."""

    def __init__(self, url: str) -> None:
        limits = PeerLimits(stall_seconds=float(os.environ.get("STALL_SECONDS", "30")), sweep_seconds=0.1)
        self.peers = Peers(
            "forwarder", Secret(os.environ["AIS_CLUSTER_SECRET"]), lambda: {"home": url}, lambda: 7, limits
        )
        self.stalls = Stalls(30.0)

    def at_once(self, scope: Mapping[str, Any]) -> None:
        """Leave everything to the event loop."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Forward a request, with what an application does around it."""
        if scope["raw_path"] == b"/-/connections":
            await self._tell(send)
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

    async def _tell(self, send: Any) -> None:
        text = str(self.peers.connections("home")).encode()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(text))]})
        await send({"type": "http.response.body", "body": text, "more_body": False})


async def _run(url: str, listener: socket.socket) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    app = Forwarder(url)
    try:
        await asgi.serve(app, listener, stop, lambda: None, Limits(), 4096)
    finally:
        app.peers.close()


def main() -> None:
    """Serve in so many processes; end with the parent's standard input."""
    _, url, workers = sys.argv[1:4]
    with socket.create_server(("127.0.0.1", 0), backlog=1024) as listener:
        children = []
        for _ in range(int(workers)):
            child = os.fork()
            if child == 0:
                uvloop.run(_run(url, listener))
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

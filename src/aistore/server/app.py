"""What an HTTP worker is made of. Read this first: settings, engine, threads, transforms, guards, routes, errors."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

from ..errors import AisError, BadRequestError, ClientGoneError
from ..etl.dispatch import Dispatcher
from ..settings import ProcessSettings
from ..storage.engine import Engine
from .access import Access
from .error_replies import as_ais_error, error_of_request, error_reply
from .handlers import objects
from .link import ControllerLink
from .replies import Bytes, Empty, Message, Send
from .request import Receive, Request
from .routes import Handler, route

T = TypeVar("T")


class Store:
    """What handlers work with: the engine, threads to wait in, the controller and the transforms."""

    def __init__(self, settings: ProcessSettings, engine: Engine) -> None:
        self.settings = settings
        self.limits = settings.serve.limits
        self.engine = engine
        self.threads = ThreadPoolExecutor(self.limits.io_threads, thread_name_prefix="io")
        self.controller = ControllerLink(settings.controller_socket)
        self.dispatcher = Dispatcher(self.controller, self.threads, self.limits, settings.spool)

    async def in_thread(self, function: Callable[..., T], *arguments: object) -> T:
        """Run a blocking call in the threads that are there for it."""
        return await asyncio.get_running_loop().run_in_executor(self.threads, function, *arguments)

    async def done(self, future: Future[T]) -> T:
        """Wait for an engine's future; a client that goes away meanwhile does not undo the write."""
        return await asyncio.shield(asyncio.wrap_future(future))

    def close(self) -> None:
        """Finish accepted writes and give everything back."""
        self.dispatcher.close()
        self.threads.shutdown(wait=True, cancel_futures=True)
        self.engine.close()


class App:
    """The ASGI application of an HTTP worker."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._access = Access(store.settings.serve)

    async def __call__(self, scope: Mapping[str, Any], receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            return
        started = False

        async def tracked_send(message: dict[str, Any]) -> None:
            nonlocal started
            started = True
            await send(message)

        node = self._store.settings.node_id
        try:
            request = Request(scope, receive)
        except AisError as error:  # the path itself cannot be read
            await error_reply(error, scope["method"], "", "", node, last=True).send(
                send, head=scope["method"] == "HEAD"
            )
            return
        try:
            self._access.check(request)
            handler, rest = route(request)
            reply = await handler(self._store, request, rest)
            await reply.send(tracked_send, head=request.method == "HEAD")
        except ClientGoneError:
            if not started:  # nobody reads this, unless the body was malformed and the client still there
                broken = BadRequestError("the request body ended before it was whole")
                await error_of_request(broken, request, node).send(send, head=request.method == "HEAD")
        except Exception as error:  # the one place where anything becomes a reply
            if started:
                as_ais_error(error)  # logs what is not ours; the reply can only be cut short
                raise
            await error_of_request(error, request, node).send(send, head=request.method == "HEAD")

    def at_once(self, scope: Mapping[str, Any]) -> tuple[Message, Message] | None:
        """Return the messages of the reply if nothing has to be waited for, else None: the event loop will do it.

        Whatever is wrong with a request is found there again, and becomes its error reply.
        """
        try:
            request = Request(scope, _no_body)
            self._access.check(request)
            handler, rest = route(request)
            quick = _AT_ONCE.get(handler)
            reply = quick(self._store, request, rest) if quick is not None else None
            return None if reply is None else reply.messages(head=False)
        except Exception:
            return None


#: The handlers of reads, and what answers the same request when that needs no waiting.
_AT_ONCE: dict[Handler, Callable[[Store, Request, str], Bytes | Empty | None]] = {
    objects.get: objects.get_at_once,
    objects.head: objects.head_at_once,
}


async def _no_body() -> Mapping[str, Any]:
    raise AssertionError("a read that is answered at once has no use for its body")

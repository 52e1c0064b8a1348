"""The application of an HTTP worker: guard, route, handler, reply or error. What handlers work with is store.py."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from ..errors import AisError, BadRequestError, ClientGoneError, ObjectDamagedError, PeerUnreachableError
from ..wire.headers import HOP
from .access import Access
from .asgi import Schedule
from .at_once import AtOnce
from .delivery import Delivery
from .early_transforms import EarlyTransforms, can_be_early
from .error_replies import as_ais_error, error_of_request, error_reply
from .handlers import cluster, metrics
from .node.reads import NodeReads
from .node.worker import AnsweredElsewhere
from .record import Recorder, Recording, operation_of
from .replies import Messages, Reply, Send
from .request import Receive, Request
from .routes import Handler, route
from .store import Store

#: How long a write waits for a home that can be reached, in leases and at most: longer than a dead node is on the map.
_HOME_LEASES, _HOME_SECONDS_MAX = 5 / 3, 50.0
_LOOK_AGAIN_SECONDS = 0.25


class App:
    """The ASGI application of an HTTP worker."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._home_seconds = min(_HOME_LEASES * store.settings.serve.lease_seconds, _HOME_SECONDS_MAX)
        self._access = Access(store.settings.serve)
        self._recorder = Recorder(store.settings.serve)
        self._at_once = AtOnce(store, self._access, self._recorder)
        self._reads: NodeReads | None = None
        self._transforms: EarlyTransforms | None = None

    async def __call__(self, scope: Mapping[str, Any], receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            return
        with Recording(self._recorder, scope, self._store.stalls.watch(receive), send) as recording:
            await self._serve(scope, recording)

    async def _serve(self, scope: Mapping[str, Any], recording: Recording) -> None:
        send, node = recording.send, self._store.settings.node_id
        try:
            request = Request(scope, recording.receive)
        except AisError as error:  # the path itself cannot be read
            await error_reply(error, scope["method"], "", "", node, last=True).send(
                send, head=scope["method"] == "HEAD"
            )
            return
        delivery = Delivery(send, request)
        try:
            self._access.check(request)
            request.check_framing()
            handler, rest = route(request)
            recording.operation = operation_of(handler, request)
            with self._store.admission.request(always=handler in _ALWAYS) as request.hold:
                reply = await self._answer(handler, request, rest)
                await reply.send(delivery, head=request.method == "HEAD")
        except ClientGoneError:
            if recording.started:
                recording.cut = True
            else:  # nobody reads this, unless the body was malformed and the client still there
                broken = BadRequestError("the request body ended before it was whole")
                await error_of_request(broken, request, node).send(send, head=request.method == "HEAD")
        except Exception as error:  # the one place where anything becomes a reply
            if recording.started:
                as_ais_error(error)  # logs what is not ours; the reply can only be cut short
                raise
            await error_of_request(error, request, node).send(send, head=request.method == "HEAD")
        finally:
            request.end()
            sent = request.take_sent()
            if sent is not None:  # it came to an error before it came to that
                self._store.dispatcher.end_early(sent)

    async def _answer(self, handler: Handler, request: Request, rest: str) -> Reply:
        """Return a handler's reply, or that of the node that it says has to answer.

        A read is answered here after all, from the object store, when that node cannot; a write whose body nobody has
        read waits until the map has another home for it.
        """
        shared = self._store.shared
        if shared is None:
            return await handler(self._store, request, rest)
        request.stays = HOP in request.headers
        patience = asyncio.get_running_loop().time() + self._home_seconds
        while True:
            try:
                return await handler(self._store, request, rest)
            except ObjectDamagedError:
                if not await shared.drop_damaged(request):
                    raise
            except AnsweredElsewhere as elsewhere:
                try:
                    return await shared.pass_on(request, elsewhere.home)
                except PeerUnreachableError as error:
                    if request.method in ("GET", "HEAD"):
                        request.stays = True
                    elif getattr(error, "sent", True) or asyncio.get_running_loop().time() > patience:
                        raise
                    else:
                        await asyncio.sleep(_LOOK_AGAIN_SECONDS)

    def at_once(self, scope: Mapping[str, Any]) -> Messages | None:
        """Return the messages of the reply if nothing has to be waited for, else None: the event loop will do it."""
        return self._at_once.reply(scope)

    def hand_over(self, watcher: Any, schedule: Schedule) -> bool:
        """Take over a read through a transform, or one that another node can answer at once.

        False: the event loop serves the request.
        """
        if self._transforms is not None and self._transforms.take(watcher, schedule):
            return True
        return self._reads is not None and self._reads.take(watcher, schedule)

    async def start(self) -> None:
        """Begin to take requests over; take part in the reads between nodes, if this is one."""
        serve, shared = self._store.settings.serve, self._store.shared
        if can_be_early():
            self._transforms = EarlyTransforms(self._store, self._at_once, self._recorder)
        if shared is not None and serve.store and serve.cluster_secret:
            answering = AtOnce(self._store, self._access, self._recorder)
            self._reads = NodeReads(serve, shared, self._at_once, answering, self._recorder)
            await self._reads.start()
            shared.reads_port = self._reads.port

    def close(self) -> None:
        """End that."""
        if self._transforms is not None:
            self._transforms.close()
        if self._reads is not None:
            self._reads.close()


#: The handlers that answer however much is under way.
_ALWAYS: frozenset[Handler] = frozenset({cluster.health, metrics.get})

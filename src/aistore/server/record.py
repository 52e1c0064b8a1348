"""What is counted and logged of a request, from its arrival to the last byte of its reply."""

from __future__ import annotations

import logging
import re
from bisect import bisect_left
from collections.abc import Mapping
from contextvars import Token
from time import perf_counter_ns
from typing import Any
from urllib.parse import unquote_plus

from ..observe import layout
from ..observe.counters import COUNTERS
from ..observe.layout import ERRORS, GET, HEAD, HISTOGRAM, IN_BYTES, LATENCY_NS, NS_TOTAL, OUT_BYTES, STATUS
from ..observe.log import RequestIds, fields, request_id, sane_request_id
from ..settings import ServeSettings
from .handlers import batch, buckets, objects
from .handlers.transform_calls import asks_for_transform
from .replies import Message, Messages, Send
from .request import Receive, Request
from .routes import Handler

_log = logging.getLogger("aistore.server")
_access = logging.getLogger("aistore.access")

_OPERATIONS: dict[Handler, int] = {
    objects.get: layout.GET,
    objects.head: layout.HEAD,
    objects.put: layout.PUT,
    objects.delete: layout.DELETE,
    buckets.get: layout.LIST,
    batch.post: layout.BATCH,
}
#: Query parameters whose values may be in a log; of any other only the name is.
_SHOWN_PARAMETERS = frozenset("what provider etl_name etl_pipeline uuid props severity set-new-custom".split())
_QUERY_SHOWN_MAX = 1024


def operation_of(handler: Handler, request: Request) -> int:
    """Return the first word of what counts a request of this kind."""
    operation = _OPERATIONS.get(handler, layout.OTHER)
    return layout.ETL if operation == layout.GET and asks_for_transform(request.query) else operation


class Recorder:
    """Counts and logs the requests of one process."""

    def __init__(self, settings: ServeSettings) -> None:
        self.ids = RequestIds()
        self.logs_access = settings.access_log
        self.slow_ns = round(settings.limits.slow_request_seconds * 1e9)

    def at_once(self, scope: Mapping[str, Any], messages: Messages, started_ns: int, operation: int = 0) -> Messages:
        """Record a request that is answered on the spot, and return its reply. For every such request: 0.6 us.

        ``operation`` is what it counts as, where its method does not say it.
        """
        status, size = messages[0]["status"], len(messages[1]["body"])
        operation = operation or (GET if scope["method"] == "GET" else HEAD)
        words = COUNTERS.words
        took = perf_counter_ns() - started_ns
        bucket = operation + HISTOGRAM + bisect_left(LATENCY_NS, took)
        words[operation + NS_TOTAL] += took
        words[operation + OUT_BYTES] += size
        words[bucket] += 1
        words[STATUS + status] += 1
        return self.logged(scope, messages, took) if self.logs_access else messages

    def logged(self, scope: Mapping[str, Any], messages: Messages, took: int) -> Messages:
        """Log a request that is answered on the spot; return its reply with its id."""
        start, body = messages
        name = next((value for header, value in start["headers"] if header == b"x-request-id"), b"")
        if not name:  # a new list: this one may be the reply to others too
            name = self.ids.new().encode()
            start = {**start, "headers": [*start["headers"], (b"x-request-id", name)]}
        _log_access(name.decode(), scope, start["status"], 0, len(body["body"]), took)
        return start, body


class Recording:
    """One request on the event loop: used as a context around its serving.

    ``operation`` is what it counts as, set as soon as that is known; ``cut`` says that the client left its reply.
    """

    def __init__(self, recorder: Recorder, scope: Mapping[str, Any], receive: Receive, send: Send) -> None:
        self._recorder = recorder
        self._scope = scope
        self._receive = receive
        self._send = send
        self.operation = layout.OTHER
        self.started = self.cut = False
        self._started_ns = perf_counter_ns()
        self._in_bytes = self._out_bytes = self._status = self._first_ns = 0
        given = next((value for name, value in scope["headers"] if name == b"x-request-id"), b"")
        self.request_id = sane_request_id(given.decode("latin-1")) or recorder.ids.new()
        self._context: Token[str] | None = None

    def __enter__(self) -> Recording:
        self._context = request_id.set(self.request_id)
        COUNTERS.words[layout.INFLIGHT] += 1
        return self

    async def receive(self) -> Mapping[str, Any]:
        """Pass a piece of the request on."""
        message = await self._receive()
        body = message.get("body")
        if body:
            self._in_bytes += len(body)
        return message

    async def send(self, message: Message) -> None:
        """Pass a piece of the reply on; the first one takes the request's id along."""
        if message["type"] == "http.response.start":
            self.started = True
            self._first_ns = perf_counter_ns() - self._started_ns
            self._status = message["status"]
            message["headers"] = [*message["headers"], (b"x-request-id", self.request_id.encode())]
        else:
            self._out_bytes += len(message["body"])
        await self._send(message)

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        took = perf_counter_ns() - self._started_ns
        words, operation = COUNTERS.words, self.operation
        bucket = operation + HISTOGRAM + bisect_left(LATENCY_NS, took)
        status, sent, received = self._status, self._out_bytes, self._in_bytes
        words[operation + NS_TOTAL] += took
        words[operation + IN_BYTES] += received
        words[operation + OUT_BYTES] += sent
        words[bucket] += 1
        if status:
            words[STATUS + status] += 1
        cut = self.cut or kind is not None
        if cut or not 0 < status < 400:
            words[operation + ERRORS] += 1
        if cut and status:
            words[layout.CUT_REPLIES] += 1
        words[layout.INFLIGHT] -= 1
        slow = max(self._first_ns, 0 if self.started else took) >= self._recorder.slow_ns
        if slow:
            words[layout.SLOW] += 1
        if slow or self._recorder.logs_access:
            self._log(took, slow=slow)
        assert self._context is not None
        request_id.reset(self._context)

    def _log(self, took: int, *, slow: bool) -> None:
        scope = self._scope
        if slow:
            _log.warning(
                "slow request",
                extra=fields(
                    **_what(scope), status=self._status, first_byte_ms=round((self._first_ns or took) / 1e6, 1),
                    ms=round(took / 1e6, 1),
                ),
            )  # fmt: skip
        if self._recorder.logs_access:
            _log_access(self.request_id, scope, self._status, self._in_bytes, self._out_bytes, took)


#: Of a transform, in the address at which it calls back.
_SECRET = re.compile(r"^(/v1/etl/_object/[^/]*/)[^/]+")


def _what(scope: Mapping[str, Any]) -> dict[str, str]:
    query = shown_query(scope["query_string"].decode("latin-1"))
    found = {"method": scope["method"], "path": _SECRET.sub(r"\1***", scope["raw_path"].decode("latin-1"))}
    return {**found, "query": query} if query else found


def _log_access(name: str, scope: Mapping[str, Any], status: int, in_bytes: int, out_bytes: int, took: int) -> None:
    peer = scope.get("client")
    context = request_id.set(name)  # where a request is answered at once, it is in no context yet
    try:
        _access.info(
            "request",
            extra=fields(
                **_what(scope), status=status, in_bytes=in_bytes, out_bytes=out_bytes, ms=round(took / 1e6, 3),
                client=f"{peer[0]}:{peer[1]}" if peer else "",
            ),
        )  # fmt: skip
    finally:
        request_id.reset(context)


def shown_query(query: str) -> str:
    """Return a query with the values of all parameters masked that are not known to be harmless: some are secrets."""
    pairs = (pair.partition("=") for pair in query[:_QUERY_SHOWN_MAX].split("&") if pair)
    return "&".join(
        f"{name}={value}" if not value or unquote_plus(name) in _SHOWN_PARAMETERS else f"{name}=***"
        for name, _, value in pairs
    )

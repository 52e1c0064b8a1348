"""The seam to the network: the only module that names the HTTP library.

One `Transport` belongs to one store and is used by any number of threads. It keeps connections open between requests,
sends again what may be sent again, there or to another node, and turns every failure into an error of this project.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar
from urllib.parse import quote, urlencode, urljoin, urlsplit

import msgspec
import urllib3
from urllib3.exceptions import (
    ConnectTimeoutError,
    HTTPError,
    NameResolutionError,
    NewConnectionError,
    ProtocolError,
    ReadTimeoutError,
)

from ..errors import AisError, BackendRefusedError, StoreUnreachableError
from ..wire import headers as wire_headers
from ..wire.messages import decode_error, is_foreign
from .cluster_map import ClusterMap, read_cluster_map
from .endpoint import Endpoint
from .foreign import reading_reply
from .retry import RetryPolicy
from .routing import Place, Routing
from .upload import Upload

T = TypeVar("T")

ERROR_BODY_BYTES_MAX = 1 << 20
REDIRECTS_MAX = 3
_IDEMPOTENT = frozenset(("GET", "HEAD", "PUT", "DELETE"))

#: How long an answer is waited for before the place is asked whether it is there at all, when another place could
#: answer as well (seconds): for most things, and for what takes its time (transforms, and bodies larger than this).
PATIENCE_SECONDS = 10.0
PATIENCE_AT_WORK_SECONDS = 30.0
SMALL_BODY_BYTES_MAX = 4 << 20
#: How often one request follows an object that moved.
MOVES_MAX = 3

#: Pools that a forked child inherited. Their sockets belong to the parent and their locks may be held for ever, so
#: they are neither used nor closed nor collected here.
_INHERITED: list[urllib3.PoolManager] = []


@dataclass(frozen=True, slots=True)
class TransportSettings:
    """How the client talks. The read timeouts bound each wait for more bytes, not the whole reply.

    A transform may wait for a worker before it runs, so reads through one have a longer timeout: it should be the
    store that gives up, as it can say why.
    """

    connect_timeout_seconds: float = 5.0
    read_timeout_seconds: float = 120.0
    transform_timeout_seconds: float = 600.0
    connections_max: int = 64
    retry: RetryPolicy = field(default_factory=RetryPolicy)
    token: str = field(default="", repr=False)
    follow_map: bool = True


@dataclass(frozen=True, slots=True)
class Request:
    """One request; ``path`` is already quoted. ``read_timeout_seconds`` None takes the transport's.

    ``uname`` is the object's that it is for, if it is better sent to the home of that. ``repeatable`` marks a POST that
    changes nothing, so that it may be sent again.
    """

    method: str
    path: str
    query: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | Upload | None = None
    read_timeout_seconds: float | None = None
    uname: str = ""
    repeatable: bool = False

    @property
    def target(self) -> str:
        """Path and query as they go into the request line."""
        return f"{self.path}?{urlencode(self.query, quote_via=quote)}" if self.query else self.path


def quote_name(name: str) -> str:
    """Spell an object's name in a path; slashes stay."""
    return quote(name, safe="/")


class _Address(NamedTuple):
    scheme: str
    host: str
    port: int


class Reply:
    """A successful reply: ``status``, ``headers`` (names in lower case) and a body that streams.

    Reading to the end gives the connection back; ``close`` before that ends it. Failures while reading raise
    StoreUnreachableError.
    """

    def __init__(self, response: urllib3.BaseHTTPResponse, place: Place, routing: Routing) -> None:
        self._response = response
        self._place = place
        self._routing = routing
        self.status = response.status
        self.headers: dict[str, str] = {name.lower(): value for name, value in response.headers.items()}

    def read(self, size: int | None = None) -> bytes:
        """Return exactly ``size`` bytes, fewer at the end of the body; all that is left without a size."""
        with self._watched():
            return self._response.read(size, decode_content=False)

    def lines(self) -> Iterator[bytes]:
        """Yield lines as they arrive."""
        with self._watched():
            while line := self._response.readline():
                yield line

    @contextlib.contextmanager
    def _watched(self) -> Iterator[None]:
        try:
            with _translated(self._place.endpoint):
                yield
        except StoreUnreachableError as error:
            _note_failure(self._routing, self._place, error)
            raise

    def drain(self) -> bytes:
        """Return all that is left of the body and give the connection back."""
        try:
            return self.read()
        finally:
            self.close()

    def close(self) -> None:
        """Give the connection back if the body was read, else end it. May be called twice."""
        if not self._response.closed:
            self._response.close()
        self._response.release_conn()


class _Effort:
    """What one request has been through: where it was sent in vain, how often, since when; and what comes next."""

    def __init__(self, request: Request, routing: Routing, retry: RetryPolicy) -> None:
        self._request, self._routing, self._retry = request, routing, retry
        self._started = time.monotonic()
        self._avoid: set[str] = set()
        self._failures = self._refusals = self._moves = 0
        self._lost = False

    def place(self) -> Place:
        """Return where to send it next."""
        return self._routing.place(self._request.uname, self._avoid)

    def has_removed(self, status: int) -> bool:
        """Whether this 404 means that an earlier DELETE was done and its reply lost."""
        return status == 404 and self._request.method == "DELETE" and self._lost

    def pause_after_failure(self, place: Place, error: StoreUnreachableError) -> float:
        """Return the seconds to wait after no answer came; raises ``error`` if it is not to be sent again."""
        hasty, self._lost = not self._routing.is_waited_for(place), True
        slow = _note_failure(self._routing, place, error)
        if not _may_repeat(self._request, error, hasty=hasty):
            raise error
        if slow:  # it is there, and gets all the time that the caller allows
            return 0.0
        self._avoid.add(place.endpoint.url)
        if self._routing.has_other(self._avoid):
            return 0.0
        self._avoid.clear()
        self._failures += 1
        pause = self._retry.pause_after_failure(self._failures, time.monotonic() - self._started)
        if pause is None:
            raise error
        return pause

    def pause_after_refusal(self, place: Place, status: int, headers: Mapping[str, str], refusal: AisError) -> float:
        """Return the seconds to wait after an error was answered; raises it if it is not to be sent again."""
        lasting = isinstance(refusal, BackendRefusedError)  # until somebody has changed a setting
        if status not in (404, 503) or lasting or not _replayable(self._request):
            raise refusal
        if place.node and self._moves < MOVES_MAX and self._routing.moved(place, self._request.uname):
            self._moves += 1
            return 0.0
        if status == 404:
            raise refusal
        self._refusals += 1
        waited = time.monotonic() - self._started
        pause = self._retry.pause_after_refusal(headers.get("retry-after"), self._refusals, waited)
        if pause is None:
            raise refusal
        # Whoever is said to be the home and is not ready is not asked twice in a row.
        self._avoid = {place.endpoint.url} if place.node and place.endpoint.url not in self._avoid else set()
        return pause


class Transport:
    """Pooled requests to one store. Threads share it, forked children open connections of their own.

    ``endpoints`` are addresses of the store, tried in turn; errors name the first one.
    """

    def __init__(self, endpoints: Endpoint | Sequence[Endpoint], settings: TransportSettings | None = None) -> None:
        self.endpoints = (endpoints,) if isinstance(endpoints, Endpoint) else tuple(endpoints)
        self.endpoint = self.endpoints[0]
        self.settings = settings or TransportSettings()
        self._pid = 0
        self._pools: urllib3.PoolManager | None = None
        self._routing: Routing | None = None

    def __repr__(self) -> str:
        return f"Transport({self.endpoint.url!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        return (Transport, (self.endpoints, self.settings))  # sockets stay, settings travel

    def close(self) -> None:
        """Close idle connections. The transport stays usable."""
        pools, self._pools = self._pools, None
        if pools is not None and self._pid == os.getpid():
            pools.clear()

    def call(self, request: Request) -> bytes:
        """Send ``request`` and return the whole body of its reply; raises the error that the store answers with."""
        return self.send(request).drain()

    def fetch(self, request: Request, kind: type[T]) -> T:
        """Send ``request`` and return the JSON of its reply as ``kind``; raises ForeignReplyError if it is none."""
        body = self.call(request)
        with reading_reply(self.endpoint):
            return msgspec.json.decode(body, type=kind)

    def send(self, request: Request) -> Reply:
        """Send ``request``, again where that is allowed and useful; return a reply below 400.

        Raises StoreUnreachableError when no answer came, else the error that the store answered with.
        """
        effort = _Effort(request, self.routing, self.settings.retry)
        while True:
            place = effort.place()
            try:
                response = self._send_once(request, place)
            except StoreUnreachableError as error:
                pause = effort.pause_after_failure(place, error)
            else:
                self.routing.answered(place, response.headers.get(wire_headers.MAP_VERSION))
                if response.status < 400 or effort.has_removed(response.status):
                    return Reply(response, place, self.routing)
                refusal = self._error_of(request, response, place)
                pause = effort.pause_after_refusal(place, response.status, response.headers, refusal)
            time.sleep(pause)

    @property
    def routing(self) -> Routing:
        """Where requests of this process go."""
        self._pool_manager()
        assert self._routing is not None
        return self._routing

    def _fetch_map(self, endpoint: Endpoint, seconds: float) -> ClusterMap:
        """Ask one place for the cluster map, once; raises AisError."""
        request = Request("GET", "/v1/daemon", query={"what": "smap"}, read_timeout_seconds=seconds)
        place = Place(endpoint)
        response = self._send_once(request, place, connect_seconds=seconds)
        if response.status >= 400:
            raise self._error_of(request, response, place)
        with _translated(endpoint):
            body = response.read(decode_content=False)
            response.release_conn()
        with reading_reply(endpoint):
            return read_cluster_map(msgspec.json.decode(body), endpoint)

    def _send_once(
        self, request: Request, place: Place, connect_seconds: float | None = None
    ) -> urllib3.BaseHTTPResponse:
        """Send ``request`` to ``place`` and wherever that redirects to."""
        endpoint = place.endpoint
        own = _Address(endpoint.scheme, endpoint.host, endpoint.port)
        address, target = own, endpoint.path + request.target
        timeout = urllib3.Timeout(
            connect=connect_seconds or self.settings.connect_timeout_seconds, read=self._read_seconds(request, place)
        )
        for hop in range(REDIRECTS_MAX + 1):
            # Opened outside of what follows: a file that is not there is no failure of the connection.
            content = request.body.open() if isinstance(request.body, Upload) else request.body
            headers = {"User-Agent": "pyaistore", **request.headers}
            if self.settings.token and address == own:  # wherever a redirect leads, the token is none of its business
                headers["Authorization"] = f"Bearer {self.settings.token}"
            with _translated(endpoint):
                response = self._exchange(request, content, headers, address, target, timeout)
            location = response.headers.get("location")
            redirected = response.status in (301, 302, 307, 308) and location and _replayable(request)
            if not redirected or hop == REDIRECTS_MAX:
                break
            response.drain_conn()
            scheme, host, port = address
            parts = urlsplit(urljoin(f"{scheme}://{host}:{port}{target}", location or ""))
            default = 443 if parts.scheme == "https" else 80
            address = _Address(parts.scheme, parts.hostname or host, parts.port or default)
            target = f"{parts.path}?{parts.query}" if parts.query else parts.path
        return response

    def _exchange(
        self,
        request: Request,
        content: Any,
        headers: dict[str, str],
        address: _Address,
        target: str,
        timeout: urllib3.Timeout,
    ) -> urllib3.BaseHTTPResponse:
        body = request.body
        if isinstance(body, Upload) and body.length is not None:
            headers["Content-Length"] = str(body.length)
        pool = self._pool_manager().connection_from_host(address.host, address.port, address.scheme)
        return pool.urlopen(
            request.method,
            target,
            body=content,
            headers=headers,
            timeout=timeout,
            retries=False,
            redirect=False,
            preload_content=False,
            decode_content=False,
            chunked=isinstance(body, Upload) and body.length is None,
        )

    def _error_of(self, request: Request, response: urllib3.BaseHTTPResponse, place: Place) -> AisError:
        """Read the error of a reply; a HEAD has it in a header."""
        endpoint = place.endpoint
        if request.method == "HEAD":
            body = (response.headers.get(wire_headers.ERROR) or "").encode("latin-1", "replace")
            response.drain_conn()
            response.release_conn()
        else:
            reply = Reply(response, place, self.routing)
            body = reply.read(ERROR_BODY_BYTES_MAX)
            reply.close()
        error = decode_error(body, response.status)
        if is_foreign(error) and response.status < 500 and request.method != "HEAD":
            error.message = f"what answers at {endpoint.url} ({endpoint.origin}) is not a store: {error.message}"
            error.hint = endpoint.correction
        return error

    def _read_seconds(self, request: Request, place: Place) -> float:
        """Return how long to wait for the next bytes: not for ever where another place could answer."""
        wanted = request.read_timeout_seconds or self.settings.read_timeout_seconds
        body = request.body
        large = isinstance(body, Upload) and (body.length is None or body.length > SMALL_BODY_BYTES_MAX)
        at_work = large or request.read_timeout_seconds is not None
        patience = PATIENCE_AT_WORK_SECONDS if at_work else PATIENCE_SECONDS
        may_ask_another = bool(request.uname) and _replayable(request) and wanted > patience
        return patience if may_ask_another and not self.routing.is_waited_for(place) else wanted

    def _pool_manager(self) -> urllib3.PoolManager:
        pid = os.getpid()
        pools = self._pools
        if pools is None or self._pid != pid:
            if pools is not None:
                _INHERITED.append(pools)
            if self._routing is None or self._pid != pid:  # an inherited one may be locked for ever
                self._routing = Routing(self.endpoints, self._fetch_map, follow=self.settings.follow_map)
            pools = urllib3.PoolManager(maxsize=self.settings.connections_max)
            self._pools, self._pid = pools, pid
        return pools


def _replayable(request: Request) -> bool:
    return not isinstance(request.body, Upload) or request.body.replayable


def _may_repeat(request: Request, error: StoreUnreachableError, *, hasty: bool) -> bool:
    """Whether a request without an answer may be sent again.

    A refused connection carried nothing; after any other failure the store may have done what it was asked. A wait
    that timed out is not repeated, as the caller's patience is used up, unless it was ours (``hasty``).
    """
    cause = error.__cause__
    if isinstance(cause, NewConnectionError):  # which the library derives from its timeouts
        return _replayable(request) and (hasty or not isinstance(cause, NameResolutionError))
    if isinstance(cause, ConnectTimeoutError):
        return hasty and _replayable(request)
    if isinstance(cause, ReadTimeoutError) and not hasty:
        return False
    return (request.method in _IDEMPOTENT or request.repeatable) and _replayable(request)


def _note_failure(routing: Routing, place: Place, error: StoreUnreachableError) -> bool:
    """Tell the routing why no answer came; return whether the place is there and only slow."""
    if isinstance(error.__cause__, ReadTimeoutError | TimeoutError) and not routing.is_waited_for(place):
        return routing.timed_out(place)
    routing.failed(place)
    return False


@contextlib.contextmanager
def _translated(endpoint: Endpoint) -> Iterator[None]:
    """Turn the library's errors into StoreUnreachableError, cause kept."""
    try:
        yield
    except (HTTPError, OSError) as error:
        cause = getattr(error, "reason", None)
        raise _unreachable(error if not isinstance(cause, HTTPError) else cause, endpoint) from error


def _unreachable(error: BaseException, endpoint: Endpoint) -> StoreUnreachableError:
    where = f"{endpoint.url} ({endpoint.origin})"
    start = f"start a store with `ais serve`, or {endpoint.correction}"
    if isinstance(error, NameResolutionError):
        hint = endpoint.correction.replace(" one ", " a store ")
        return StoreUnreachableError(f"the host of {where} is not known", hint=hint)
    if endpoint.scheme == "https" and "WRONG_VERSION_NUMBER" in str(error):
        hint = f"use http://{endpoint.url.partition('://')[2]}"
        return StoreUnreachableError(f"what answers at {where} does not speak https", hint=hint)
    if isinstance(error, NewConnectionError):
        reason = str(error).rsplit("] ", 1)[-1].lower() if "] " in str(error) else "no connection"
        return StoreUnreachableError(f"no store answers at {where}: {reason}", hint=start)
    if isinstance(error, ConnectTimeoutError):
        return StoreUnreachableError(f"no store answers at {where}: the connection timed out", hint=start)
    if isinstance(error, ReadTimeoutError | TimeoutError):
        return StoreUnreachableError(f"the store at {where} did not answer in time")
    return StoreUnreachableError(f"the connection to {where} broke: {_reason_of(error)}")


def _reason_of(error: BaseException) -> str:
    """Return why a connection broke; the library puts the reason into a tuple, beside a sentence of its own."""
    inner = error.args[-1] if isinstance(error, ProtocolError) and error.args else None
    reason = inner if isinstance(inner, BaseException) else error
    return (isinstance(reason, OSError) and reason.strerror) or str(reason)

"""The seam to the network: the only module that names the HTTP library.

One `Transport` belongs to one endpoint and is used by any number of threads. It keeps connections open between
requests, sends again what may be sent again, and turns every failure into an error of this project.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar
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

from ..errors import AisError, StoreUnreachableError
from ..wire import headers as wire_headers
from ..wire.messages import decode_error, is_foreign
from .endpoint import Endpoint
from .foreign import reading_reply
from .retry import RetryPolicy, parse_retry_after
from .upload import Upload

T = TypeVar("T")

ERROR_BODY_BYTES_MAX = 1 << 20
REDIRECTS_MAX = 3
_IDEMPOTENT = frozenset(("GET", "HEAD", "PUT", "DELETE"))

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


@dataclass(frozen=True, slots=True)
class Request:
    """One request; ``path`` is already quoted. ``read_timeout_seconds`` None takes the transport's."""

    method: str
    path: str
    query: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | Upload | None = None
    read_timeout_seconds: float | None = None

    @property
    def target(self) -> str:
        """Path and query as they go into the request line."""
        return f"{self.path}?{urlencode(self.query, quote_via=quote)}" if self.query else self.path


def quote_name(name: str) -> str:
    """Spell an object's name in a path; slashes stay."""
    return quote(name, safe="/")


class Reply:
    """A successful reply: ``status``, ``headers`` (names in lower case) and a body that streams.

    Reading to the end gives the connection back; ``close`` before that ends it. Failures while reading raise
    StoreUnreachableError.
    """

    def __init__(self, response: urllib3.BaseHTTPResponse, endpoint: Endpoint) -> None:
        self._response = response
        self._endpoint = endpoint
        self.status = response.status
        self.headers: dict[str, str] = {name.lower(): value for name, value in response.headers.items()}

    def read(self, size: int | None = None) -> bytes:
        """Return exactly ``size`` bytes, fewer at the end of the body; all that is left without a size."""
        with _translated(self._endpoint):
            return self._response.read(size, decode_content=False)

    def lines(self) -> Iterator[bytes]:
        """Yield lines as they arrive."""
        with _translated(self._endpoint):
            while line := self._response.readline():
                yield line

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


class Transport:
    """Pooled requests to one endpoint. Threads share it, forked children open connections of their own."""

    def __init__(self, endpoint: Endpoint, settings: TransportSettings | None = None) -> None:
        self.endpoint = endpoint
        self.settings = settings or TransportSettings()
        self._pid = 0
        self._pools: urllib3.PoolManager | None = None

    def __repr__(self) -> str:
        return f"Transport({self.endpoint.url!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        return (Transport, (self.endpoint, self.settings))  # sockets stay, settings travel

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
        retry, started, failures = self.settings.retry, time.monotonic(), 0
        while True:
            try:
                response = self._send_once(request)
            except StoreUnreachableError as error:
                failures += 1
                pause = retry.pause_after_failure(failures)
                if pause is None or not _may_repeat(request, error):
                    raise
            else:
                gone = response.status == 404 and request.method == "DELETE" and failures > 0
                if response.status < 400 or gone:  # gone: an earlier try did it and its reply was lost
                    return Reply(response, self.endpoint)
                refusal = _error_of(request, response, self.endpoint)
                told = parse_retry_after(response.headers.get("retry-after")) if response.status == 503 else None
                waited = time.monotonic() - started
                pause = None if told is None else retry.pause_when_busy(told, waited)
                if pause is None or not _replayable(request):
                    raise refusal
            time.sleep(pause)

    def _send_once(self, request: Request) -> urllib3.BaseHTTPResponse:
        scheme, host, port = self.endpoint.scheme, self.endpoint.host, self.endpoint.port
        target = self.endpoint.path + request.target
        for hop in range(REDIRECTS_MAX + 1):
            # Opened outside of what follows: a file that is not there is no failure of the connection.
            content = request.body.open() if isinstance(request.body, Upload) else request.body
            with _translated(self.endpoint):
                response = self._exchange(request, content, scheme, host, port, target)
            location = response.headers.get("location")
            redirected = response.status in (301, 302, 307, 308) and location and _replayable(request)
            if not redirected or hop == REDIRECTS_MAX:
                break
            response.drain_conn()
            parts = urlsplit(urljoin(f"{scheme}://{host}:{port}{target}", location or ""))
            scheme, host = parts.scheme, parts.hostname or host
            port = parts.port or (443 if scheme == "https" else 80)
            target = f"{parts.path}?{parts.query}" if parts.query else parts.path
        return response

    def _exchange(
        self, request: Request, content: Any, scheme: str, host: str, port: int, target: str
    ) -> urllib3.BaseHTTPResponse:
        settings = self.settings
        headers = {"User-Agent": "pyaistore", **request.headers}
        ours = (scheme, host, port) == (self.endpoint.scheme, self.endpoint.host, self.endpoint.port)
        if settings.token and ours:  # wherever else a redirect leads, the token is none of its business
            headers["Authorization"] = f"Bearer {settings.token}"
        body = request.body
        if isinstance(body, Upload) and body.length is not None:
            headers["Content-Length"] = str(body.length)
        pool = self._pool_manager().connection_from_host(host, port, scheme)
        return pool.urlopen(
            request.method,
            target,
            body=content,
            headers=headers,
            timeout=urllib3.Timeout(
                connect=settings.connect_timeout_seconds,
                read=request.read_timeout_seconds or settings.read_timeout_seconds,
            ),
            retries=False,
            redirect=False,
            preload_content=False,
            decode_content=False,
            chunked=isinstance(body, Upload) and body.length is None,
        )

    def _pool_manager(self) -> urllib3.PoolManager:
        pid = os.getpid()
        pools = self._pools
        if pools is None or self._pid != pid:
            if pools is not None:
                _INHERITED.append(pools)
            pools = urllib3.PoolManager(maxsize=self.settings.connections_max)
            self._pools, self._pid = pools, pid
        return pools


def _replayable(request: Request) -> bool:
    return not isinstance(request.body, Upload) or request.body.replayable


def _may_repeat(request: Request, error: StoreUnreachableError) -> bool:
    """Whether a request without an answer may be sent again.

    A refused connection carried nothing; after any other failure the store may have done what it was asked. A wait
    that timed out is not repeated: the caller's patience is used up.
    """
    cause = error.__cause__
    if isinstance(cause, NameResolutionError):
        return False
    if isinstance(cause, NewConnectionError):  # which the library derives from its timeouts
        return _replayable(request)
    if isinstance(cause, ConnectTimeoutError | ReadTimeoutError):
        return False
    return request.method in _IDEMPOTENT and _replayable(request)


def _error_of(request: Request, response: urllib3.BaseHTTPResponse, endpoint: Endpoint) -> AisError:
    """Read the error of a reply; a HEAD has it in a header."""
    if request.method == "HEAD":
        body = (response.headers.get(wire_headers.ERROR) or "").encode("latin-1", "replace")
        response.drain_conn()
        response.release_conn()
    else:
        reply = Reply(response, endpoint)
        body = reply.read(ERROR_BODY_BYTES_MAX)
        reply.close()
    error = decode_error(body, response.status)
    if is_foreign(error) and response.status < 500 and request.method != "HEAD":
        error.message = f"what answers at {endpoint.url} ({endpoint.origin}) is not a store: {error.message}"
        error.hint = endpoint.correction
    return error


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

"""Who may do what: the token, and the guard against web pages that post to a laptop's store."""

from __future__ import annotations

import functools
import hmac
import ipaddress
from urllib.parse import urlsplit

from ..errors import BadRequestError, ForbiddenError, UnauthorizedError
from ..settings import ServeSettings
from ..wire.headers import CLUSTER_SECRET, HOP
from .request import Request

#: A name has up to 253 letters; what is remembered of hosts is bounded by this.
_HOST_MAX = 300
#: What nodes ask of one another.
_INTERNAL = "/v1/internal"
_READ_ONLY = ("GET", "HEAD", "OPTIONS")
#: A transform shows a secret of its own, which stands for the token and for the checks of hosts and origins.
_OF_TRANSFORMS = "/v1/etl/_object/"
#: The description is of every store of this version alike and gives nothing of this one away.
_WITHOUT_TOKEN = ("/v1/health", "/health", "/openapi.json")


@functools.lru_cache(maxsize=1024)
def is_loopback(host: str) -> bool:
    """Say whether ``host`` (a name or an address, without a port) can only mean this machine."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


@functools.lru_cache(maxsize=1024)
def _host_of(authority: str) -> str:
    """Return the host of a ``Host`` header; raises BadRequestError for text that is none, such as half an address."""
    try:
        return (urlsplit(f"//{authority}").hostname or "").lower()
    except ValueError as error:
        raise BadRequestError(f"host {authority!r} cannot be read: {error}") from error


def _authority_of(origin: str) -> str:
    """Return host and port of an ``Origin`` header; empty for one that names none (``null``, half an address)."""
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return ""


def _refuse_host(request: Request, host: str | None) -> None:
    """Refuse no host, which is right before HTTP/1.1 only, several (RFC 9112, section 3.2), and what can be none.

    The HTTP library makes an empty one of none; of a target with a host and no header, it makes that header.
    """
    if host and "," not in host:
        raise BadRequestError(f"the host is {len(host)} characters long", hint=f"expected {_HOST_MAX} at most")
    if host:
        raise BadRequestError("the request names more than one host", hint="send one Host header")
    if request.http_version == "1.1":
        raise BadRequestError("the request names no host", hint="send a Host header, as HTTP/1.1 wants it")


class Access:
    """Decides whether a request may go on; raises UnauthorizedError or ForbiddenError."""

    def __init__(self, settings: ServeSettings) -> None:
        self._token = settings.token.encode()
        self._secret = settings.cluster_secret.encode()
        self._allowed_hosts = {host.lower() for host in settings.allowed_hosts}
        self._on_loopback = is_loopback(settings.host)

    def check(self, request: Request) -> None:
        """Raise unless ``request`` carries the token (where there is one) and comes from no foreign web page."""
        host = request.headers.get("host")
        if not host or "," in host or len(host) > _HOST_MAX:
            _refuse_host(request, host)
        if self._is_from_a_node(request) or request.path.startswith(_OF_TRANSFORMS):
            return
        if self._token and request.path not in _WITHOUT_TOKEN:
            given = request.headers.get("authorization", "")
            if not hmac.compare_digest(given.encode("latin-1"), b"Bearer " + self._token):
                what = "the token that was sent is not the store's" if given else "token required"
                raise UnauthorizedError(what, hint="set AIS_AUTHN_TOKEN to the store's token")
        if self._on_loopback:
            self._check_host(request)
        if request.method not in _READ_ONLY:
            self._check_browser(request)

    def _is_from_a_node(self, request: Request) -> bool:
        """Say whether the request proves that a node sent it; raises for one that only claims so.

        The secret stands for the token: the node has asked the user for that, and its own calls have no user. It stands
        for the checks of hosts and origins too, because no web page knows it.
        """
        headers = request.headers
        given = headers.get(CLUSTER_SECRET)
        if given is None and HOP not in headers and not request.path.startswith(_INTERNAL):
            return False
        if not self._secret:
            raise ForbiddenError("this store is not a node of a cluster, so no other node may call it")
        if given is None:
            raise UnauthorizedError(
                "only nodes of the cluster may send this: the cluster's secret is missing",
                hint="clients leave the Ais-Hop header and paths below /v1/internal/ alone",
            )
        if not hmac.compare_digest(given.encode("latin-1"), self._secret):
            raise ForbiddenError(
                "the cluster's secret that was sent is not this node's",
                hint="start all nodes of a cluster with the same AIS_CLUSTER_SECRET",
            )
        return True

    def _check_host(self, request: Request) -> None:
        """Refuse a name that is not this machine's, on loopback, for reads too.

        A browser sends the host of the page's address. If that is a foreign name, somebody has pointed it at 127.0.0.1
        so that a page from there may read and write what listens here.
        """
        host = _host_of(request.headers.get("host", ""))
        if host and not is_loopback(host) and host not in self._allowed_hosts:
            raise ForbiddenError(
                f"host {host!r} is not this machine, so this request may come from a web page",
                hint=f"use 127.0.0.1 or localhost, or start the store with --allow-host {host}",
            )

    def _check_browser(self, request: Request) -> None:
        """Refuse changing requests that a web page of another site made a browser send.

        A browser cannot be made to leave these headers out, and programs do not send them.
        """
        headers = request.headers
        if headers.get("sec-fetch-site") in ("cross-site", "same-site"):
            raise ForbiddenError("a web page of another site may not change this store")
        origin = headers.get("origin")
        if origin and (_authority_of(origin) or None) != headers.get("host", "").lower():
            raise ForbiddenError(f"origin {origin!r} may not change this store")

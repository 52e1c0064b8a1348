"""Exceptions to replies, in one place."""

from __future__ import annotations

import logging
import traceback

import msgspec

from ..errors import AisError, InternalError, MethodNotAllowedError, RetryLaterError, UnauthorizedError
from ..wire import headers as names
from ..wire.messages import ErrorBody
from .replies import Bytes, Empty, Reply
from .request import Request

_log = logging.getLogger("aistore.server")


def error_body(error: AisError, *, method: str = "", path: str = "", client: str = "", node: str = "") -> ErrorBody:
    """Return the wire form of ``error``."""
    return ErrorBody(
        tcode=error.code, message=error.message, method=method, url_path=path, remote_addr=client, node=node,
        status=error.status, hint=error.hint,
    )  # fmt: skip


def as_ais_error(error: BaseException) -> AisError:
    """Return ``error`` if it is one of ours, else log it and return an internal error that gives nothing away."""
    if isinstance(error, AisError):
        return error
    _log.error("unexpected %s: %s\n%s", type(error).__name__, error, "".join(traceback.format_exception(error)))
    return InternalError(f"internal error ({type(error).__name__})", hint="the store's log has the details")


def error_reply(error: AisError, method: str, path: str, client: str, node: str) -> Reply:
    """Return the reply for an error; for HEAD the JSON goes into a header, because there is no body."""
    body = msgspec.json.encode(error_body(error, method=method, path=path, client=client, node=node))
    headers = [("x-content-type-options", "nosniff")]
    if isinstance(error, RetryLaterError):
        headers.append(("retry-after", str(error.retry_after_seconds)))
    if isinstance(error, UnauthorizedError):
        headers.append(("www-authenticate", "Bearer"))
    if isinstance(error, MethodNotAllowedError) and error.allow:
        headers.append(("allow", error.allow))
    if method == "HEAD":
        # A header is ASCII and bounded; JSON escapes keep it readable.
        text = body.decode().encode("ascii", "backslashreplace").decode()
        return Empty([*headers, (names.ERROR, text[:4096])], status=error.status)
    return Bytes(body, headers, status=error.status, media_type="application/json")


def error_of_request(error: BaseException, request: Request, node: str) -> Reply:
    """Return the reply for whatever a handler raised."""
    return error_reply(as_ais_error(error), request.method, request.path, request.client, node)

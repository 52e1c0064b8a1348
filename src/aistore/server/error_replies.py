"""Exceptions to replies, in one place."""

from __future__ import annotations

import errno
import json
import logging

import msgspec

from ..errors import (
    AisError,
    InternalError,
    MethodNotAllowedError,
    ObjectDamagedError,
    OverloadedError,
    RetryLaterError,
    TransformError,
    UnauthorizedError,
)
from ..observe.counters import COUNTERS
from ..observe.layout import error_word
from ..observe.log import Flood, fields, request_id
from ..wire import headers as names
from ..wire.messages import ErrorBody
from .replies import Bytes, Empty, Reply
from .request import Request

_log = logging.getLogger("aistore.server")

# Clients can cause as many of these as they like.
_busy = Flood()
_failed = Flood()

_HEADER_ERROR_BYTES_MAX = 4096  # clients take 8 to 64 KiB of headers in all


def error_body(error: AisError, *, method: str = "", path: str = "", client: str = "", node: str = "") -> ErrorBody:
    """Return the wire form of an ``error`` that a client is told now; it is counted, and logged if need be."""
    _record(error)
    return ErrorBody(
        tcode=error.code, message=error.message, method=method, url_path=path, remote_addr=client, node=node,
        status=error.status, hint=error.hint, request_id=request_id.get(),
    )  # fmt: skip


def _record(error: AisError) -> None:
    """Count an error that a client is told of, and log those that somebody has to be able to find.

    Internal errors are logged where they are found (``as_ais_error``), with their traceback.
    """
    word = error_word(error.code)
    COUNTERS.words[word] += 1
    if isinstance(error, ObjectDamagedError):
        if _failed.lets():  # the storage has told of the damage; this tells who met it
            _log.error("a damaged object was asked for%s", _failed.note, extra=_of(error))
        return
    if isinstance(error, InternalError):
        return
    if isinstance(error, RetryLaterError):
        if error.status >= 500 and _busy.lets():
            _log.warning("try again%s", _busy.note, extra=_of(error))
    elif isinstance(error, TransformError):
        if _failed.lets():
            _log.warning("a transform failed%s", _failed.note, extra=_of(error))
    else:
        _log.debug("refused", extra=_of(error))


def _of(error: AisError) -> dict[str, object]:
    lines = error.message.strip().splitlines() or [""]
    first = lines[0].removesuffix("Traceback (most recent call last):")  # the transform's, and so is what follows
    text = first if len(lines) == 1 else f"{first[:500]} … {lines[-1]}"
    return fields(code=error.code, status=error.status, error=text[:1000])


def as_ais_error(error: BaseException) -> AisError:
    """Return ``error`` if it is one of ours, else log it and return an internal error that gives nothing away."""
    if isinstance(error, InternalError) and not isinstance(error, ObjectDamagedError):
        # Ours: somebody has to know. Of damage the storage tells once per object.
        _log.error("%s", error, exc_info=error)
    if isinstance(error, AisError):
        return error
    if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE):
        return OverloadedError("the store has too many open files", hint="raise the limit (ulimit -n)")
    _log.error("unexpected %s: %s", type(error).__name__, error, exc_info=error)
    return InternalError(f"internal error ({type(error).__name__})", hint="the store's log has the details")


def error_reply(error: AisError, method: str, path: str, client: str, node: str, *, last: bool = False) -> Reply:
    """Return the reply for an error, the ``last`` one on its connection or not.

    For HEAD the JSON goes into a header, because there is no body.
    """
    body = error_body(error, method=method, path=path, client=client, node=node)
    headers = [("x-content-type-options", "nosniff")]
    if last:
        headers.append(("connection", "close"))
    if isinstance(error, RetryLaterError) and error.retry_after_seconds is not None:
        headers.append(("retry-after", str(error.retry_after_seconds)))
    if isinstance(error, UnauthorizedError):
        headers.append(("www-authenticate", "Bearer"))
    if isinstance(error, MethodNotAllowedError) and error.allow:
        headers.append(("allow", error.allow))
    if method == "HEAD":
        return Empty([*headers, (names.ERROR, _header_json(body))], status=error.status)
    # The newline is for curl, whose next prompt would follow the last brace.
    return Bytes(msgspec.json.encode(body) + b"\n", headers, status=error.status, media_type="application/json")


def _header_json(body: ErrorBody) -> str:
    """Return ``body`` as JSON that a header can carry: printable ASCII, of bounded size, still whole as JSON."""
    fields = msgspec.to_builtins(body)
    for length in (1024, 256, 64):
        for key in ("message", "url_path", "hint"):
            fields[key] = fields[key][:length]
        text = json.dumps(fields, separators=(",", ":")).replace("\x7f", "\\u007f")
        if len(text) <= _HEADER_ERROR_BYTES_MAX:
            break
    return text


def error_of_request(error: BaseException, request: Request, node: str) -> Reply:
    """Return the reply for whatever a handler raised.

    The connection ends with it if the request has a body: it may be unread, and what is left of it no next request.
    """
    has_body = "transfer-encoding" in request.headers or request.headers.get("content-length", "0") != "0"
    return error_reply(as_ais_error(error), request.method, request.path, request.client, node, last=has_body)

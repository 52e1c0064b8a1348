"""Method and path to handler."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable

import msgspec

from ..errors import MethodNotAllowedError, NotFoundError, NotSupportedError
from .description import OBJECT, Content, operation
from .handlers import batch, buckets, cluster, etl, etl_objects, metrics, mountpaths, objects
from .openapi import describe
from .replies import Bytes, Reply
from .request import Request
from .store import Store

#: A handler gets what stands behind its prefix, undivided.
Handler = Callable[["Store", Request, str], Awaitable[Reply]]


@functools.cache
def _description() -> bytes:
    return msgspec.json.encode(describe(ROUTES))


@operation("/openapi.json", "Return this description.", returns=Content(OBJECT))
async def _openapi(store: Store, request: Request, rest: str) -> Reply:
    """Describe every route."""
    return Bytes(_description(), media_type="application/json")


ROUTES: dict[str, dict[str, Handler]] = {
    "objects": {
        "GET": objects.get,
        "HEAD": objects.head,
        "PUT": objects.put,
        "DELETE": objects.delete,
        "PATCH": objects.patch,
        "POST": objects.post,
    },
    "buckets": {
        "GET": buckets.get,
        "HEAD": buckets.head,
        "POST": buckets.post,
        "DELETE": buckets.delete,
        "PATCH": buckets.patch,
        "PUT": buckets.put,
    },
    "batch": {"POST": batch.post},
    "etl": {"GET": etl.get, "POST": etl.post, "PUT": etl.put, "DELETE": etl.delete},
    etl_objects.KIND: {"GET": etl_objects.get, "HEAD": etl_objects.get, "PUT": etl_objects.put},
    "openapi.json": {"GET": _openapi},
    "health": {"GET": cluster.health, "HEAD": cluster.health},
    "metrics": {"GET": metrics.get},
    "daemon": {
        "GET": cluster.query,
        "PUT": mountpaths.change,
        "POST": mountpaths.change,
        "DELETE": mountpaths.change,
    },
    "cluster": {"GET": cluster.query, "PUT": cluster.action},
    "reverse": {"GET": cluster.reverse},
    "internal": {"GET": cluster.reads, "POST": cluster.internal},
}

_NOT_SUPPORTED = {
    "ml": "GetBatch",
    "sort": "distributed sort",
    "download": "the downloader",
    "tokens": "AuthN tokens",
}


def route(request: Request) -> tuple[Handler, str]:
    """Return the handler of a request and the rest of its path; raises NotFoundError, MethodNotAllowedError."""
    path = request.path
    if path.startswith("/v1/"):
        kind, _, rest = path[4:].partition("/")
        if kind == "etl" and path.startswith(etl_objects.PREFIX):
            kind, rest = etl_objects.KIND, path[len(etl_objects.PREFIX) :]
    elif path.startswith("/ais"):  # the field's "easy" spelling of object and bucket paths
        kind, rest = _easy(path)
    elif path in ("/health", "/metrics", "/openapi.json"):
        kind, rest = path[1:], ""
    else:
        kind, rest = "", path
    methods = ROUTES.get(kind)
    if methods is None:
        if kind in _NOT_SUPPORTED:
            raise NotSupportedError(f"{_NOT_SUPPORTED[kind]} (/v1/{kind}) is not supported by this store")
        raise NotFoundError(f"no such path: {path[:200]}", hint="objects are at /v1/objects/<bucket>/<name>")
    handler = methods.get(request.method)
    if handler is None:
        allow = ", ".join(methods)
        raise MethodNotAllowedError(f"{request.method} is not allowed on {path[:200]}", allow=allow)
    return handler, rest


def _easy(path: str) -> tuple[str, str]:
    if path == "/ais":
        return "buckets", ""
    if not path.startswith("/ais/"):
        return "", path
    rest = path[5:]
    bucket, _, name = rest.partition("/")
    return ("objects", rest) if name else ("buckets", bucket)

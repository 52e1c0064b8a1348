"""The OpenAPI description of the store, made of the table of routes and of what stands beside the handlers."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from .. import __version__
from ..wire.messages import ErrorBody
from .description import Content, Operation, Parameter, operations_of

Routes = Mapping[str, Mapping[str, Callable[..., Any]]]

#: Errors that any request can have, and what each means.
_ANY = (400, 401, 403, 503)
#: Errors of a request with a body: it stalled, it is too large.
_WITH_BODY = (408, 413)

_ERRORS = {
    400: "The request is malformed, or asks for something invalid.",
    401: "The store wants a token, and the request has none or a wrong one.",
    403: "The request may come from a web page of another site.",
    404: "The bucket, object, transform or path does not exist.",
    408: "No byte of the body came for too long; the connection ends.",
    409: "The request conflicts with what is there.",
    412: "The object is not the version that the request is meant for.",
    413: "The body is larger than the store accepts.",
    416: "The range lies outside the object.",
    422: "The transform failed on this object.",
    501: "AIStore has this, and this store does not.",
    503: "Busy or not ready: come again after the seconds in Retry-After.",
    507: "The disk is full; reads go on.",
}

#: The other spellings of paths: what a path begins with, and what that may be replaced with.
_SPELLINGS = (("/v1/objects/", "/ais/"), ("/v1/buckets/", "/ais/"), ("/v1/buckets", "/ais"))
#: Paths that are spelt without the version as well, or only.
_BARE = {"/v1/health": "/health", "/v1/metrics": "/metrics"}

_NAMES = {
    "bucket": "Name of a bucket: letters, digits, dashes, underscores and dots.",
    "name": "Name of the object: any UTF-8, percent-encoded; slashes may stay as they are.",
    "etl": "Name of a transform.",
    "provider": "Whose bucket it is: ais, aws, gcp, azure, ht.",
    "verb": "What another node is asked for.",
    "secret": "The secret of a transform, as it stands in its AIS_TARGET_URL.",
}


def describe(routes: Routes) -> dict[str, Any]:
    """Return the description of all routes as an OpenAPI 3.1 document."""
    paths: dict[str, dict[str, Any]] = {}
    shapes: list[type] = [ErrorBody]
    for kind, methods in routes.items():
        for method, handler in methods.items():
            for one in operations_of(handler):
                if not belongs(one, kind, method):
                    continue
                for path in spellings(one.path):
                    paths.setdefault(path, {})[method.lower()] = _operation(one, method, path, shapes)
    errors = _error_replies(shapes)
    _, schemas = msgspec.json.schema_components(shapes, ref_template=_REFERENCE)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "pyaistore",
            "version": __version__,
            "description": "An object store for training data that runs transforms where the data is.",
        },
        "paths": paths,
        "components": {
            "schemas": schemas,
            "responses": errors,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{}, {"token": []}],
    }


_REFERENCE = "#/components/schemas/{name}"


def belongs(one: Operation, kind: str, method: str) -> bool:
    """Say whether an operation of a handler is meant for this of its routes."""
    begin = re.match(r"(?:/v1)?/(etl/_object|[^/]+)", one.path)
    return begin is not None and begin[1] == kind and (not one.methods or method in one.methods)


def spellings(path: str) -> list[str]:
    """Return every spelling of a path that is served."""
    found = [path]
    for begin, other in _SPELLINGS:
        if path.startswith(begin):
            found.append(other + path[len(begin) :])
            break
    return found + ([_BARE[path]] if path in _BARE else [])


def _error_replies(shapes: list[type]) -> dict[str, Any]:
    """Return the reply for each error, in the body and, for HEAD, which has none, in a header."""
    replies: dict[str, Any] = {}
    for status, text in _ERRORS.items():
        replies[f"Body{status}"] = _reply(text, (Content(ErrorBody),), shapes)
        in_header = {"Hdr-Error": {"description": "The error as JSON.", "schema": {"type": "string"}}}
        replies[f"Header{status}"] = {"description": text, "headers": in_header}
    return replies


def _operation(one: Operation, method: str, path: str, shapes: list[type]) -> dict[str, Any]:
    names = re.findall(r"{(\w+)}", path)
    parameters = [
        {"name": name, "in": "path", "required": True, "description": _NAMES[name], "schema": _name_schema(name)}
        for name in names
    ]
    parameters += [_parameter(parameter) for parameter in one.parameters]
    responses = {str(status): _reply(*reply, shapes) for status, reply in one.replies.items()}
    errors = {*_ANY, *one.errors, *(_WITH_BODY if one.body or method not in ("GET", "HEAD") else ())}
    errors |= {404} if names else set()
    place = "Header" if method == "HEAD" else "Body"
    responses |= {str(status): {"$ref": f"#/components/responses/{place}{status}"} for status in sorted(errors)}
    described: dict[str, Any] = {
        "summary": one.summary,
        "operationId": f"{method.lower()}{re.sub(r'[^a-zA-Z0-9]+', '_', path)}".rstrip("_"),
        "parameters": parameters,
        "responses": responses,
    }
    if one.body is not None:
        described["requestBody"] = {"content": _content((one.body,), shapes)}
    return described


def _name_schema(name: str) -> dict[str, Any]:
    if name == "name":
        return {"type": "string", "minLength": 1, "maxLength": 1024}
    return {"type": "string", "minLength": 1, "maxLength": 64, "pattern": "^[a-zA-Z0-9_.-]+$"}


def _parameter(parameter: Parameter) -> dict[str, Any]:
    return {
        "name": parameter.name, "in": parameter.place, "required": parameter.required, "description": parameter.text,
        "schema": dict(parameter.schema),
    }  # fmt: skip


def _reply(text: str, contents: tuple[Content, ...], shapes: list[type]) -> dict[str, Any]:
    reply: dict[str, Any] = {"description": text}
    if contents:
        reply["content"] = _content(contents, shapes)
    return reply


def _content(contents: tuple[Content, ...], shapes: list[type]) -> dict[str, Any]:
    found = {}
    for content in contents:
        schema: Any = content.shape
        if isinstance(schema, type) or not isinstance(schema, Mapping):
            shapes.append(schema)
            ((schema,), _) = msgspec.json.schema_components([schema], ref_template=_REFERENCE)
        found[content.media_type] = {"schema": dict(schema)}
    return found

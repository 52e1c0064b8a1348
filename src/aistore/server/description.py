"""What a handler's requests and replies look like, declared beside the handler; openapi.py makes a document of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

F = TypeVar("F", bound=Callable[..., Any])

Schema = Mapping[str, Any]

TEXT: Schema = {"type": "string"}
FLAG: Schema = {"type": "string", "enum": ["true", "false"]}
BYTES: Schema = {"type": "string", "format": "binary"}
OBJECT: Schema = {"type": "object"}


@dataclass(frozen=True)
class Content:
    """A body: its media type, and its schema or the msgspec type that has one."""

    shape: Schema | type
    media_type: str = "application/json"


@dataclass(frozen=True)
class Parameter:
    """A query parameter or header that a request may have."""

    name: str
    text: str
    schema: Schema = field(default_factory=lambda: TEXT)
    place: str = "query"
    required: bool = False


def header(name: str, text: str, schema: Schema = TEXT) -> Parameter:
    """Return a header that a request may have."""
    return Parameter(name, text, schema, "header")


PROVIDER = Parameter("provider", "Only ais is served.", {"type": "string", "enum": ["ais"]})


@dataclass(frozen=True)
class Operation:
    """One kind of request: the ``path`` with ``{names}`` in braces, and what may come back.

    ``replies`` are the successes by status, each with what the status means and its contents. ``errors`` are statuses
    beyond those that any request can have.
    """

    path: str
    summary: str
    parameters: tuple[Parameter, ...]
    body: Content | None
    replies: Mapping[int, tuple[str, tuple[Content, ...]]]
    errors: tuple[int, ...]
    methods: tuple[str, ...]


_OPERATIONS: dict[Callable[..., Any], list[Operation]] = {}


def operation(
    path: str, summary: str, *parameters: Parameter, body: Content | None = None, returns: Content | None = None,
    also: Mapping[int, tuple[str, tuple[Content, ...]]] | None = None, errors: tuple[int, ...] = (),
    methods: tuple[str, ...] = (), refused: bool = False,
) -> Callable[[F], F]:  # fmt: skip
    """Declare an operation of the handler that follows: status 200 with what it ``returns``, and ``also`` others.

    ``methods`` limits it to some of those that the handler is routed for. One that is ``refused`` is always 501.
    """
    replies = {} if refused else {200: ("Done.", (returns,) if returns else ())}
    errors = (501,) if refused else errors
    declared = Operation(path, summary, parameters, body, {**replies, **(also or {})}, errors, methods)

    def declare(handler: F) -> F:
        _OPERATIONS.setdefault(handler, []).insert(0, declared)  # decorators run from the last to the first
        return handler

    return declare


def operations_of(handler: Callable[..., Any]) -> list[Operation]:
    """Return what was declared for a handler."""
    return _OPERATIONS.get(handler, [])


def described_handlers() -> list[Callable[..., Any]]:
    """Return every handler for which something was declared."""
    return list(_OPERATIONS)

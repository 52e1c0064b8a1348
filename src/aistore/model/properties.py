"""Properties of a bucket as people write them, ``extra.aws.endpoint=http://s3.example``, and as the wire nests them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ..errors import BadRequestError

#: Where the object store of a backed bucket is reached, by provider: the properties that say so.
AWS_ENDPOINT = "extra.aws.endpoint"
AWS_REGION = "extra.aws.cloud_region"
AWS_PROFILE = "extra.aws.profile"
HTTP_URL = "extra.http.original_url"


def parse_properties(texts: Iterable[str]) -> dict[str, Any]:
    """Return nested properties from texts of ``key=value`` pairs (separated by space), or of JSON.

    A dot in a key is one level. ``true``, ``false`` and whole numbers are what they look like, except below ``extra``,
    where everything is text. Raises BadRequestError for what is neither.
    """
    nested: dict[str, Any] = {}
    for text in texts:
        if text.lstrip().startswith("{"):
            try:
                given = json.loads(text)
            except ValueError as error:
                raise BadRequestError(f"properties are no JSON: {error}") from error
            for key, value in flatten(given):
                _place(nested, key, value)
            continue
        for pair in text.split():
            key, separator, word = pair.partition("=")
            if not separator or not all(key.split(".")):
                raise BadRequestError(f"property {pair!r} is not understood", hint="expected key=value, or JSON")
            _place(nested, key, word if key.startswith("extra.") else _read(word))
    return nested


def flatten(nested: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the properties of a nested mapping with their dotted keys."""
    for key, value in nested.items():
        if isinstance(value, Mapping):
            yield from flatten(value, f"{above}{key}.")
        else:
            yield f"{above}{key}", value


def nest(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Return the nested mapping of properties with dotted keys."""
    nested: dict[str, Any] = {}
    for key, value in flat.items():
        _place(nested, key, value)
    return nested


def _place(nested: dict[str, Any], key: str, value: Any) -> None:
    *groups, last = key.split(".")
    level = nested
    for group in groups:
        level = level.setdefault(group, {})
        if not isinstance(level, dict):
            raise BadRequestError(f"property {key!r} is given both as a value and as a group")
    if last in level:
        raise BadRequestError(f"property {key!r} is given twice")
    level[last] = value


def _read(word: str) -> Any:
    if word.lower() in ("true", "false"):
        return word.lower() == "true"
    return int(word) if word.isascii() and word.isdigit() else word

"""Buckets: identity and properties."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class BucketInfo:
    """A bucket: its name, its unique number, when it was created (Unix nanoseconds) and the properties set on it.

    ``props`` holds only what was set; the wire adds the defaults of every other property.
    """

    name: str
    id: int
    created_ns: int
    props: Mapping[str, Any] = field(default_factory=dict)

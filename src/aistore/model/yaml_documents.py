"""YAML from outside, read within bounds: plain values only, no key twice, no bomb of aliases or of depth."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import yaml

from ..errors import BadRequestError

TEXT_BYTES_MAX = 4 << 20  # the pickle of a class lies in one value, in base64
NODES_MAX = 20_000  # guessed: the largest pod specifications have a few hundred
DEPTH_MAX = 64

_Base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # without libyaml it is the same, ten times slower


class _Loader(_Base):  # type: ignore[misc]
    """The safe loader, which reads text, numbers, lists and mappings, but takes no key twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        """Return the mapping of ``node``; raises an error of YAML's own for a key that is there twice."""
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value != "<<":
                if key.value in seen:
                    raise yaml.constructor.ConstructorError(None, None, f"key {key.value!r} is twice", key.start_mark)
                seen.add(key.value)
        found: dict[Hashable, Any] = super().construct_mapping(node, deep=deep)
        return found


def read_yaml(text: str | bytes, what: str = "the specification") -> list[Any]:
    """Return the documents in ``text``, those that are empty left out. Blocks for a text of some MiB.

    Raises BadRequestError that says where ``text`` stops being YAML, or what of it is out of bounds.
    """
    if len(text) > TEXT_BYTES_MAX:
        raise BadRequestError(f"{what} of {len(text)} bytes is too long", hint=f"expected at most {TEXT_BYTES_MAX}")
    try:
        decoded = text.decode() if isinstance(text, bytes) else text
        _check_bounds(decoded, what)
        return [document for document in yaml.load_all(decoded, _Loader) if document is not None]
    except yaml.YAMLError as error:
        reason = " ".join(str(error).split()).replace('in "<unicode string>", ', "at ")
        raise BadRequestError(f"{what} cannot be read as YAML: {reason[:500]}") from error
    except (UnicodeDecodeError, ValueError) as error:  # ValueError: a date such as 2020-13-45
        raise BadRequestError(f"{what} cannot be read as YAML: {error}") from error


class _Node:
    """A list or mapping under way, or what an anchor stands for: how many nodes it has, and how deep it is."""

    def __init__(self, anchor: str | None = None) -> None:
        self.anchor = anchor
        self.nodes = 1
        self.depth = 1

    def add(self, other: _Node) -> None:
        self.nodes += other.nodes
        self.depth = max(self.depth, other.depth + 1)


def _check_bounds(text: str, what: str) -> None:
    """Read the text event by event, which needs no memory and no stack, and count what aliases would expand to."""
    under_way = [_Node()]
    anchors: dict[str, _Node] = {}
    for event in yaml.parse(text, _Loader):
        if isinstance(event, yaml.CollectionStartEvent):
            under_way.append(_Node(event.anchor))
        elif isinstance(event, yaml.DocumentStartEvent):
            anchors.clear()
        elif isinstance(event, yaml.AliasEvent):
            if event.anchor not in anchors:
                raise BadRequestError(f"{what}: alias *{event.anchor} has no anchor before it, or lies inside of it")
            under_way[-1].add(anchors[event.anchor])
        elif isinstance(event, (yaml.ScalarEvent, yaml.CollectionEndEvent)):
            node = _Node(event.anchor) if isinstance(event, yaml.ScalarEvent) else under_way.pop()
            if node.anchor:
                anchors[node.anchor] = node
            under_way[-1].add(node)
        if len(under_way) > DEPTH_MAX or under_way[-1].depth > DEPTH_MAX:
            raise BadRequestError(f"{what} is nested too deep", hint=f"expected at most {DEPTH_MAX} levels")
        if sum(node.nodes for node in under_way) > NODES_MAX:
            raise BadRequestError(f"{what} has too many values", hint=f"expected at most {NODES_MAX}, aliases included")

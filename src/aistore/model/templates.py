"""Names from templates: shell braces, and the numbered templates of the command line."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterator

from ..errors import BadRequestError

#: Names that one template may stand for, as in the field.
EXPANSION_MAX = 10_000_000

_RANGE = re.compile(r"(-?\d+|[A-Za-z])\.\.(-?\d+|[A-Za-z])(?:\.\.(-?\d+))?")
_NUMBERS = re.compile(r"\{(\d+)\.\.(\d+)(?:\.\.(\d+))?\}")
_AT = re.compile(r"@(\d+)")


def expand_braces(template: str) -> Iterator[str]:
    """Yield what a shell makes of ``template``: ``{000..100}``, ``{a..e}``, ``{0..10..2}``, ``{a,b}``, nested.

    The last brace varies fastest; braces that are no expansion stay as they are.
    """
    opening = template.find("{")
    while opening >= 0:
        closing = _closing(template, opening)
        if closing > 0:
            choices = _choices(template[opening + 1 : closing])
            if choices is not None:
                head, tail = template[:opening], template[closing + 1 :]
                for choice in choices:
                    for rest in expand_braces(tail):
                        yield head + choice + rest
                return
        opening = template.find("{", opening + 1)
    yield template


def _closing(text: str, opening: int) -> int:
    """Return where the brace opened at ``opening`` closes, -1 if it does not."""
    depth = 0
    for index in range(opening, len(text)):
        depth += {"{": 1, "}": -1}.get(text[index], 0)
        if depth == 0:
            return index
    return -1


def _choices(inside: str) -> Iterator[str] | None:
    """Return what a pair of braces with this text stands for, None for plain text."""
    match = _RANGE.fullmatch(inside)
    if match:
        return _range_choices(match[1], match[2], int(match[3] or 1))
    items, depth, start = [], 0, 0
    for index, letter in enumerate(inside):
        depth += {"{": 1, "}": -1}.get(letter, 0)
        if letter == "," and depth == 0:
            items.append(inside[start:index])
            start = index + 1
    if not items:
        return None
    items.append(inside[start:])
    return itertools.chain.from_iterable(map(expand_braces, items))


def _range_choices(first: str, last: str, step: int) -> Iterator[str] | None:
    if first.isalpha() != last.isalpha():
        return None
    step = abs(step) or 1
    if first.isalpha():
        return (chr(code) for code in _span(ord(first), ord(last), step))
    padded = any(len(bound.lstrip("-")) > 1 and bound.lstrip("-").startswith("0") for bound in (first, last))
    width = max(len(first), len(last)) if padded else 0
    return (f"{number:0{width}d}" for number in _span(int(first), int(last), step))


def _span(first: int, last: int, step: int) -> range:
    return range(first, last + 1, step) if first <= last else range(first, last - 1, -step)


def expand_template(template: str) -> Iterator[str] | None:
    """Return the names that a template of the command line stands for; None for plain text, which is a prefix.

    ``{0000..0100}``, ``{1..10..2}``, several of them (the last varies fastest), or ``img-@00100.jpg`` for 00000 to
    00100. Numbers are padded to the width of the shorter bound. Raises BadRequestError for anything else in braces.
    """
    found = _parts_and_ranges(template)
    if found is None:
        return None
    parts, ranges = found
    return (
        parts[0] + "".join(text + part for text, part in zip(texts, parts[1:], strict=True))
        for texts in itertools.product(*ranges)
    )


def count_template(template: str) -> int:
    """Return how many names a template stands for, 0 for plain text; raises as ``expand_template``."""
    found = _parts_and_ranges(template)
    return 0 if found is None else math.prod(map(len, found[1]))


def _parts_and_ranges(template: str) -> tuple[list[str], list[list[str]]] | None:
    """Return the plain parts of a template and the numbers that stand between them, None for plain text."""
    if "{" in template or "}" in template:
        parts, ranges = _numbered(template)
    elif found := _AT.search(template):
        parts = [template[: found.start()], template[found.end() :]]
        ranges = [[f"{number:0{len(found[1])}d}" for number in _bounded(0, int(found[1]), 1, template)]]
    else:
        return None
    total = math.prod(map(len, ranges))
    if total > EXPANSION_MAX:
        raise BadRequestError(f"template {template!r} stands for {total:,} names", hint="the limit is 10,000,000")
    return parts, ranges


def _numbered(template: str) -> tuple[list[str], list[list[str]]]:
    parts, ranges, position = [], [], 0
    for match in _NUMBERS.finditer(template):
        first, last, step = int(match[1]), int(match[2]), int(match[3] or 1)
        width = min(len(match[1]), len(match[2]))
        parts.append(template[position : match.start()])
        ranges.append([f"{number:0{width}d}" for number in _bounded(first, last, step, template)])
        position = match.end()
    parts.append(template[position:])
    if any("{" in part or "}" in part for part in parts):
        raise BadRequestError(
            f"template {template!r} is not understood", hint="expected numbers in braces, for example {0000..0100..2}"
        )
    return parts, ranges


def _bounded(first: int, last: int, step: int, template: str) -> range:
    if first > last or step < 1:
        raise BadRequestError(f"template {template!r} counts backwards or not at all", hint="expected {first..last}")
    numbers = range(first, last + 1, step)
    if last - first > EXPANSION_MAX * step:
        raise BadRequestError(f"template {template!r} stands for too many names", hint="the limit is 10,000,000")
    return numbers

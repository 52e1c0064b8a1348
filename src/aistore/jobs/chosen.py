"""The names that a job was given, one by one or as a template, page by page as a listing would have them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping

import msgspec

from ..errors import BadRequestError
from ..model.names import check_object_name
from ..model.templates import count_template, expand_template
from .document import JobOptions


class NamesPage(msgspec.Struct, frozen=True):
    """A page of a listing: names with their sizes in bytes; ``continuation`` is empty when nothing follows.

    ``facts`` is what it tells of the objects beside, by name (``recipes.py``, `fact_of`).
    """

    entries: list[tuple[str, int]]
    continuation: str = ""
    facts: Mapping[str, str] = {}


class ChosenNames:
    """Pages of ``names`` or ``template`` of a job's options; a continuation is the number of names before it."""

    def __init__(self, options: JobOptions) -> None:
        self._options = options
        self._names = self._begin()
        self._position = 0

    def page(self, after: str, limit: int) -> NamesPage:
        """Return the next names; the last page is empty. Their sizes are not known: 0."""
        start = int(after or "0")
        if start != self._position:
            self._names = self._begin()
            self._position = sum(1 for _ in itertools.islice(self._names, start))
        names = list(itertools.islice(self._names, limit))
        self._position += len(names)
        return NamesPage([(name, 0) for name in names], str(self._position) if names else "")

    def count(self) -> int:
        """Return how many names there are."""
        return len(self._options.names) or count_template(self._options.template)

    def _begin(self) -> Iterator[str]:
        return (
            iter(self._options.names) if self._options.names else (expand_template(self._options.template) or iter(()))
        )


def choose(names: list[str] | None, template: str) -> JobOptions:
    """Return options for the objects that a request chooses; a template that stands for itself is a prefix.

    Raises BadRequestError for names that no object can have, and for a template that cannot be read.
    """
    if names is None:
        return JobOptions(prefix=template) if expand_template(template) is None else JobOptions(template=template)
    if template:
        raise BadRequestError("both names and a template are given", hint="choose one of them")
    if not names:
        raise BadRequestError("the request names no objects", hint='expected names, or {"template": ""} for all')
    return JobOptions(names=tuple(dict.fromkeys(map(check_object_name, names))))

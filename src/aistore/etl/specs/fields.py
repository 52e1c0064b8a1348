"""Mappings from outside, read key by key, so that an error names the key by its whole path."""

from __future__ import annotations

import difflib
from typing import Any, TypeVar

from ...errors import BadRequestError, NotSupportedError

_SHOWN_MAX = 80
_ITEMS_MAX = 4096  # of a list or a mapping: variables, words of a command

_Sized = TypeVar("_Sized", list[Any], dict[Any, Any])


class Fields:
    """A mapping of which each key is asked for by its kind; ``path`` is where it lies, as errors call it.

    Keys are read in any case, as the field's servers do, and ``null`` counts as absent.
    """

    def __init__(self, value: object, path: str) -> None:
        self.path = path
        self._values: dict[str, tuple[str, object]] = {}
        self._asked: dict[str, str] = {}
        if not isinstance(value, dict):
            raise _wrong(path or "the message", value, "a mapping of names to values")
        for key, item in _within_bounds(value, path or "the message").items():
            folded = str(key).lower()
            if folded in self._values:
                raise BadRequestError(f"{self.where(str(key))} is there twice, in different case")
            self._values[folded] = (str(key), item)

    def take(self, key: str) -> Any:
        """Return the value of ``key`` whatever it is, None if there is none."""
        self._asked[key.lower()] = key
        return self._values.get(key.lower(), (key, None))[1]

    def text(self, key: str, default: str = "") -> str:
        """Return a text."""
        value = self.take(key)
        if value is None:
            return default
        if not isinstance(value, str):
            hint = "put it in quotes" if isinstance(value, (bool, int, float)) else ""
            raise _wrong(self.where(key), value, "text", hint)
        if "\0" in value:
            raise BadRequestError(f"{self.where(key)} has a zero byte in it")
        return value

    def texts(self, key: str) -> tuple[str, ...]:
        """Return a list of texts."""
        where = self.where(key)
        items = self._items(key)
        for index, item in enumerate(items):
            if not isinstance(item, str):
                raise _wrong(f"{where}[{index}]", item, "text", "put it in quotes")
            if "\0" in item:
                raise BadRequestError(f"{where}[{index}] has a zero byte in it")
        return tuple(items)

    def flag(self, key: str, default: bool = False) -> bool:
        """Return true or false."""
        value = self.take(key)
        if value is None:
            return default
        if not isinstance(value, bool):
            raise _wrong(self.where(key), value, "true or false")
        return value

    def whole(self, key: str, default: int, low: int, high: int) -> int:
        """Return a whole number from ``low`` to ``high``."""
        value = self.take(key)
        if value is None:
            return default
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise _wrong(self.where(key), value, f"a whole number from {low} to {high}")
        return value

    def fields(self, key: str) -> Fields | None:
        """Return a mapping, None if there is none."""
        value = self.take(key)
        return None if value is None else Fields(value, self.where(key))

    def each(self, key: str) -> list[Fields]:
        """Return a list of mappings."""
        return [Fields(item, f"{self.where(key)}[{index}]") for index, item in enumerate(self._items(key))]

    def strings(self, key: str) -> dict[str, str]:
        """Return a mapping of texts to texts."""
        inner = self.fields(key)
        return {} if inner is None else {name: inner.text(name) for name, _ in inner._values.values()}

    def ignore(self, *keys: str) -> None:
        """Take note of keys that mean nothing here, so that they are not unknown."""
        for key in keys:
            self.take(key)

    def refuse(self, reason: str, *keys: str) -> None:
        """Raise NotSupportedError if one of ``keys`` is there."""
        for key in keys:
            if self.take(key) not in (None, [], {}, ""):
                raise NotSupportedError(f"{self.where(key)} is not supported by this store", hint=reason)

    def finish(self) -> None:
        """Raise BadRequestError for a key that nobody asked for."""
        for folded, (key, _) in self._values.items():
            if folded not in self._asked:
                near = difflib.get_close_matches(folded, list(self._asked), 1)
                hint = f"did you mean {self._asked[near[0]]!r}?" if near else "expected " + ", ".join(self.known())
                raise BadRequestError(f"unknown key {self.where(key)!r}", hint=hint)

    def known(self) -> list[str]:
        """Return the keys that were asked for."""
        return sorted(self._asked.values())

    def where(self, key: str) -> str:
        """Return what errors call the value of ``key``."""
        return f"{self.path}.{key}"[:200] if self.path else key[:200]

    def _items(self, key: str) -> list[Any]:
        value = self.take(key)
        if value is None:
            return []
        if not isinstance(value, list):
            raise _wrong(self.where(key), value, "a list")
        return _within_bounds(value, self.where(key))


def _within_bounds(value: _Sized, where: str) -> _Sized:
    if len(value) > _ITEMS_MAX:
        raise BadRequestError(f"{where} has {len(value)} entries", hint=f"expected at most {_ITEMS_MAX}")
    return value


def shown(value: object) -> str:
    """Return a value as errors show it: not longer than a line."""
    text = "null" if value is None else repr(value)
    return text if len(text) <= _SHOWN_MAX else text[:_SHOWN_MAX] + "…"


def named(where: str, error: BadRequestError) -> BadRequestError:
    """Return ``error`` with the place of the value that it is about."""
    return BadRequestError(f"{where}: {error.message}", hint=error.hint)


def _wrong(where: str, value: object, expected: str, hint: str = "") -> BadRequestError:
    return BadRequestError(f"{where}: {shown(value)} is not {expected}", hint=hint or f"expected {expected}")

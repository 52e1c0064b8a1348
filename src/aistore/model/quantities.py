"""Quantities as Kubernetes spells them: ``1Gi`` of memory, ``500m`` of a core."""

from __future__ import annotations

import re

from ..errors import BadRequestError

_QUANTITY = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(?:[eE]([+-]?\d{1,2})|([A-Za-z]*))", re.ASCII)
_BINARY = {f"{letter}i": 1 << 10 * power for power, letter in enumerate("KMGTPE", 1)}
_DECIMAL = {"m": 1e-3, "": 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "P": 10**15, "E": 10**18}
_LENGTH_MAX = 32


def parse_memory(text: str) -> int:
    """Return the bytes of ``512Mi``, ``1Gi``, ``1.5G`` or ``1048576``; raises BadRequestError."""
    number = _parse(text, "an amount of memory", "512Mi, 1Gi or 2G", {**_DECIMAL, **_BINARY})
    return round(number)


def parse_cpus(text: str) -> float:
    """Return the cores of ``2``, ``0.5`` or ``500m``; raises BadRequestError."""
    return _parse(text, "a number of cores", "2, 0.5 or 500m", {"m": 1e-3, "": 1})


def _parse(text: str, what: str, example: str, units: dict[str, float]) -> float:
    match = _QUANTITY.fullmatch(text) if len(text) <= _LENGTH_MAX else None
    if match is None or (match[3] or "") not in units:
        raise BadRequestError(f"{text[:80]!r} is not {what}", hint=f"expected for example {example}")
    exponent = int(match[2] or 0)
    return float(match[1]) * float(10**exponent) * units[match[3] or ""]

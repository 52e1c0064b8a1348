"""A module beside functions_of_mine.py: of this machine, and of no package."""

from __future__ import annotations


def twice(data: bytes) -> bytes:
    return data * 2

"""What a check found."""

from __future__ import annotations

import enum
from typing import NamedTuple


class Level(str, enum.Enum):
    """How bad it is. ``skip``: the check could not be made."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"
    SKIP = "skip"


class Finding(NamedTuple):
    """One check: its name, how bad it is, what was found, and what to do (empty: nothing)."""

    check: str
    level: Level
    found: str
    advice: str = ""

"""Snapshots: dependency lists that name all that was installed where a transform was written.

The client of 2021 sends such a list, pinned, with every pickled function, whose code it makes from one of two
templates; by these a snapshot is known. The function needs a few of the packages. The others may be what no index has
(a project of one's own, packages of a Linux distribution, builds for another platform) or contradict one another, as
environments do that were installed piece by piece. So of a snapshot, and of no other list, entries that the index does
not have are left out, and it is resolved without looking at what packages say of each other if that is impossible.
What was left out stands in the log of the ETL; whether the function can do without is seen when it is imported.
"""

from __future__ import annotations

import re
from dataclasses import replace

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from .lock import Lock
from .requirements import Requirements, parse_requirements

_TEMPLATE = re.compile(r"^_base64code = base64\.b64decode\('.*'\)\ntransform = pickle\.loads\(_base64code\)$", re.M)
_PINNED = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]*)==(\S+)")
_MISSING = re.compile(r"No matching distribution found for (\S+)")


def is_snapshot(code: str, dependencies: str) -> bool:
    """Return whether an ETL's code and dependencies are what the client of 2021 makes of a function."""
    lines = dependencies.split()
    return _TEMPLATE.search(code) is not None and bool(lines) and all(map(_PINNED.fullmatch, lines))


def parse_snapshot(dependencies: str) -> Requirements:
    """Return the requirements of a snapshot; versions that Python's rules do not know are left out."""
    return parse_requirements("\n".join(filter(_is_requirement, dependencies.split())))


def _is_requirement(text: str) -> bool:
    try:
        Requirement(text)
    except InvalidRequirement:
        return False
    return True


def without_missing(requirements: Requirements, said: str) -> Requirements | None:
    """Return ``requirements`` without the entry that pip ``said`` it cannot find; None if it said nothing like that."""
    missing = _MISSING.search(said)
    rest = tuple(entry for entry in requirements.entries if missing is None or entry.text != missing[1])
    return replace(requirements, entries=rest) if len(rest) < len(requirements.entries) else None


def left_out(dependencies: str, lock: Lock) -> list[str]:
    """Return the entries of a snapshot that are not in its ``lock``."""
    locked = {package.name for package in lock.packages}
    return [line for line in dependencies.split() if canonicalize_name(line.partition("==")[0]) not in locked]

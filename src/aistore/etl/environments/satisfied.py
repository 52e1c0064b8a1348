"""Satisfied: whether the environment that serves the store already has what a transform asks for."""

from __future__ import annotations

import json
from importlib import metadata

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import NormalizedName, canonicalize_name

from .lock import LockedPackage
from .requirements import Requirements


def satisfied_by_serving(requirements: Requirements) -> list[LockedPackage] | None:
    """Return the installed packages that make up all of ``requirements``, or None if anything is missing.

    Follows the dependencies of what is installed, with their markers and extras, and compares every version: an
    environment that was broken by a later install is not a satisfying one. Requirements that only a fresh download can
    meet (a hash, a bare URL) are never satisfied.
    """
    pending: list[Requirement] = []
    for entry in requirements.entries:
        if entry.requirement is None or entry.hashes:
            return None
        pending.append(entry.requirement)
    found: dict[NormalizedName, LockedPackage] = {}
    # Environments have cycles (a package and its plug-ins): each (name, extras) is followed once.
    followed: set[tuple[NormalizedName, frozenset[str]]] = set()
    first = len(pending)  # markers of the list itself know of no extra
    for index, requirement in enumerate(pending):
        if index < first and requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        installed = _installed(requirement)
        if installed is None:
            return None
        name = canonicalize_name(requirement.name)
        found[name] = LockedPackage(name, installed.version)
        key = (name, frozenset(requirement.extras))
        if key in followed:
            continue
        followed.add(key)
        needed = _dependencies(installed, requirement.extras)
        if needed is None:
            return None
        pending.extend(needed)
    return list(found.values())


def _installed(requirement: Requirement) -> metadata.Distribution | None:
    """Return the installed distribution that meets ``requirement``, if there is one."""
    try:
        distribution = metadata.distribution(requirement.name)
        version = distribution.version
    except (metadata.PackageNotFoundError, KeyError, ValueError):
        return None
    if not version or not requirement.specifier.contains(version, prereleases=True):
        return None
    if requirement.url is not None and _installed_url(distribution) != requirement.url:
        return None
    return distribution


def _dependencies(distribution: metadata.Distribution, extras: set[str]) -> list[Requirement] | None:
    """Return what ``distribution`` with ``extras`` needs here, or None if its metadata cannot be read."""
    needed = []
    try:
        for text in distribution.requires or ():
            requirement = Requirement(text)
            if requirement.marker is None or any(
                requirement.marker.evaluate({"extra": extra}) for extra in {"", *extras}
            ):
                needed.append(requirement)
    except InvalidRequirement:
        return None
    return needed


def _installed_url(distribution: metadata.Distribution) -> str | None:
    """Return the URL that ``distribution`` was installed from (PEP 610), if it was."""
    text = distribution.read_text("direct_url.json")
    return str(json.loads(text).get("url")) if text else None

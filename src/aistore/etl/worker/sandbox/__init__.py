"""The sandbox: what of it this kernel has, and how a process enters it."""

import os
import resource
from typing import Any, Dict, Optional

from .. import process


class SandboxError(Exception):
    """The sandbox cannot be entered."""


class Plan:
    """What was decided before the fork; ``uid`` is the ETL's own user, or None."""

    def __init__(self) -> None:
        self.uid: Optional[int] = None


def plan(config: Dict[str, Any]) -> Plan:
    """Decide what can be used."""
    return Plan()


def enter(config: Dict[str, Any], chosen: Plan, guard: int) -> Dict[str, Any]:
    """Enter the sandbox; return its layers and what is missing."""
    limit(config)
    process.die_with_parent()
    os.chdir(config["scratch"])
    return {"layers": ["rlimits"], "missing": []}


def limit(config: Dict[str, Any]) -> None:
    """Bound the size of files, the number of descriptors and core dumps."""
    _lower(resource.RLIMIT_CORE, 0)
    _lower(resource.RLIMIT_NOFILE, 4096)
    if config.get("output_bytes_max") is not None:
        _lower(resource.RLIMIT_FSIZE, config["output_bytes_max"])


def _lower(which: int, value: int) -> None:
    hard = resource.getrlimit(which)[1]
    if hard != resource.RLIM_INFINITY:
        value = min(value, hard)
    resource.setrlimit(which, (value, value))

"""Finding out that another distribution has overwritten this package's files.

NVIDIA's SDK is called ``aistore`` and installs into the same directory: whichever was installed last has overwritten
files of the other, and both are broken in odd ways.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterable

OTHER = "aistore"
OURS = "pyaistore"

MESSAGE = (
    "the distributions 'aistore' (NVIDIA's SDK) and 'pyaistore' are both installed here and overwrite each other's "
    "files. Keep one of them in this environment: `pip uninstall -y aistore pyaistore`, then "
    "`pip install pyaistore` (or `pip install aistore`)"
)


def find_conflict(paths: Iterable[str] | None = None) -> str:
    """Return what is wrong with the installation, empty if nothing is.

    The names of metadata directories are enough for the answer "no", at 0.1 ms; importing importlib.metadata alone
    takes longer than `ais --help` may. It is asked for the answer "yes".
    """
    places = list(sys.path if paths is None else paths)
    if not any(map(_has_metadata_of_other, places)):
        return ""
    from importlib import metadata

    found = {(found.metadata["Name"] or "").lower() for found in metadata.distributions(path=places)}
    return MESSAGE if {OTHER, OURS} <= found else ""


def _has_metadata_of_other(path: str) -> bool:
    try:
        names = os.listdir(path or ".")
    except OSError:
        return False
    return any(name.startswith(f"{OTHER}-") and name.endswith((".dist-info", ".egg-info")) for name in names)


def warn_of_conflict() -> None:
    """Warn once if the installation is broken."""
    problem = find_conflict()
    if problem:
        warnings.warn(problem, RuntimeWarning, stacklevel=3)

"""Package lists as environment variables carry them: ``PACKAGES`` of pip, ``OS_PACKAGES`` of the system."""

from __future__ import annotations

import re

from ...errors import BadRequestError
from ..environments.requirements import parse_requirements
from .fields import shown

#: What a class transform runs on besides its own packages: the SDK that its web server class is of.
CLASS_DEPENDENCIES = "aistore[etl]>=2.0.0,<3\ncloudpickle>=3\n"

_OS_PACKAGE = re.compile(r"[a-z0-9][a-z0-9+._-]{0,63}", re.IGNORECASE)
_OS_PACKAGES_MAX = 64
_PACKAGES_LENGTH_MAX = 8192
#: A part after a comma that goes on with the requirement before it: another bound of its version.
_GOES_ON = re.compile(r"\s*(===?|~=|!=|<=?|>=?)")


def class_dependencies(packages: str) -> str:
    """Return the requirements of a class with the comma list ``PACKAGES``; raises BadRequestError naming the entry.

    Extras and version bounds have commas of their own: ``fastapi[all,standard]>=0.1,<1,numpy`` are two packages.
    """
    if len(packages) > _PACKAGES_LENGTH_MAX:
        raise BadRequestError(
            f"PACKAGES of {len(packages)} characters is too long", hint=f"expected at most {_PACKAGES_LENGTH_MAX}"
        )
    entries = split_packages(packages)
    for entry in entries:
        if "\n" in entry or "\r" in entry or entry.startswith("-"):
            raise BadRequestError(f"PACKAGES: {shown(entry)} is not a package", hint="expected for example pillow>=10")
        try:
            parse_requirements(entry)
        except BadRequestError as error:
            reason = error.message.partition(": ")[2] or error.message
            raise BadRequestError(f"PACKAGES: {shown(entry)}: {reason}", hint=error.hint) from error
    return CLASS_DEPENDENCIES + "".join(f"{entry}\n" for entry in entries)


def split_packages(text: str) -> list[str]:
    """Return the requirements in a comma list."""
    entries: list[str] = []
    for part in text.split(","):
        inside = bool(entries) and entries[-1].count("[") > entries[-1].count("]")
        if entries and (inside or _GOES_ON.match(part)):
            entries[-1] += f",{part}"
        else:
            entries.append(part)
    return [entry.strip() for entry in entries if entry.strip()]


def split_os_packages(text: str) -> tuple[str, ...]:
    """Return the names in a comma list of system packages; raises BadRequestError."""
    names = tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    return check_os_packages(names, "OS_PACKAGES")


def check_os_packages(names: tuple[str, ...], where: str) -> tuple[str, ...]:
    """Return ``names`` if each can be a package of the system; raises BadRequestError that says ``where``."""
    for name in names:
        if not _OS_PACKAGE.fullmatch(name):
            raise BadRequestError(
                f"{where}: {shown(name)} is not the name of a package", hint="expected for example ffmpeg"
            )
    if len(names) > _OS_PACKAGES_MAX:
        raise BadRequestError(
            f"{where}: {len(names)} packages are too many", hint=f"expected {_OS_PACKAGES_MAX} at most"
        )
    return names

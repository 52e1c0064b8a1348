"""A store whose index is lost must not begin a new one: recovery would remove every file that the new one lacks."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from ...errors import ConflictError

if TYPE_CHECKING:
    from .layout import Mountpath


def rebuilding(mountpath: Mountpath) -> str:
    """Return the path of the file that is there while an index is made again; it names the old one."""
    return f"{mountpath.database}.rebuilding"


def put_aside(mountpath: Mountpath) -> str:
    """Return the path of the old index while the new one is being made, else ""."""
    try:
        with open(rebuilding(mountpath), encoding="utf-8") as file:
            return f"{mountpath.directory}/{file.read()}"
    except FileNotFoundError:
        return ""


def refuse(mountpath: Mountpath) -> None:
    """Raise ConflictError when there are files of objects but no index, or one that is only half made."""
    directory = os.path.dirname(mountpath.directory)
    if os.path.exists(rebuilding(mountpath)):
        raise ConflictError(
            f"making the index of {mountpath.directory} again was interrupted",
            hint=f"finish it: ais fsck --rebuild {directory}",
        )
    if not os.path.exists(mountpath.database) and has_files(mountpath):
        raise ConflictError(
            f"{mountpath.database} is gone, but there are files of objects",
            hint=f"put it back from a copy, or make it again from the files: ais fsck --rebuild {directory}",
        )


def has_files(mountpath: Mountpath) -> bool:
    """Say whether there is any generation of files."""
    try:
        with os.scandir(mountpath.data) as entries:
            return next(entries, None) is not None
    except FileNotFoundError:
        return False

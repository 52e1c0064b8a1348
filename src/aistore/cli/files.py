"""Files that downloads become: whole or not at all, and nowhere but where they were asked for."""

from __future__ import annotations

import contextlib
import os
import stat
import tempfile
from collections.abc import Iterator
from typing import BinaryIO

from ..errors import BadRequestError

_NAME_BYTES_MAX = 255  # of every file system in common use


def _read_umask() -> int:
    """Return the process's umask; it can only be read by setting it, so this happens before there are threads."""
    mask = os.umask(0o022)
    os.umask(mask)
    return mask


_UMASK = _read_umask()


def path_inside(directory: str, name: str) -> str:
    """Return where object ``name`` goes below ``directory``.

    Names come from the store and are hostile: raises BadRequestError for one that would leave the directory or that
    cannot be a file's.
    """
    parts = name.split("/")
    if any(part in ("", ".", "..") or "\0" in part for part in parts):
        raise BadRequestError(f"object name {name!r} cannot be the path of a file", hint="get it alone, naming a file")
    try:
        too_long = any(len(os.fsencode(part)) > _NAME_BYTES_MAX for part in parts)
    except UnicodeEncodeError:
        too_long = True
    if too_long:
        raise BadRequestError(f"object name {name!r} cannot be the path of a file here", hint="get it alone")
    return os.path.join(directory, *parts)


def base_name(name: str) -> str:
    """Return the last part of an object's name, checked as in `path_inside`."""
    last = name.rsplit("/", 1)[-1]
    path_inside("", last)
    return last


@contextlib.contextmanager
def write_aside(path: str) -> Iterator[BinaryIO]:
    """Give a file to write; it appears at ``path`` when the block ends well, and not at all otherwise.

    What is no regular file (a pipe, a device) is written directly. Parent directories are made.
    """
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISREG(os.stat(path).st_mode) and not os.path.isdir(path):
            with open(path, "wb") as file:
                yield file
            return
    if os.path.isdir(path):
        raise BadRequestError(f"{path} is a directory", hint="name a file")
    parent = os.path.dirname(path) or "."
    try:
        os.makedirs(parent, exist_ok=True)
        descriptor, aside = tempfile.mkstemp(prefix=".ais-", suffix=".part", dir=parent)
    except OSError as error:  # which has a name that nobody has given
        raise BadRequestError(f"{path} cannot be written: {error.strerror}", hint="name another place") from error
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
        os.chmod(aside, 0o666 & ~_UMASK)  # mkstemp made it private
        os.replace(aside, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(aside)
        raise

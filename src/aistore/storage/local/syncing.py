"""Bringing what was written to the disk: one file, one directory, or all of a file system at once."""

from __future__ import annotations

import ctypes
import os
import platform

from ...fallbacks import lacks

sync_data = os.fsync if lacks("fdatasync") else os.fdatasync

# Linux alone has syncfs, and says since 5.8 whether the writing failed.
_syncfs = getattr(ctypes.CDLL(None, use_errno=True), "syncfs", None)


def _reports_errors(release: str) -> bool:
    major, _, rest = release.partition(".")
    minor = rest.split(".")[0]
    return major.isdecimal() and minor.isdecimal() and (int(major), int(minor)) >= (5, 8)


#: Whether ``sync_file_system`` of a descriptor fails when any write since the descriptor was opened did.
CAN_SYNC_ALL = _syncfs is not None and _reports_errors(platform.release())


def sync_file_system(descriptor: int) -> None:
    """Bring everything written so far to the disk that has the file of ``descriptor``; raises OSError."""
    if _syncfs is None:  # macOS
        os.sync()
    elif _syncfs(descriptor) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"syncfs: {os.strerror(number)}")


def replace_file(path: str, data: bytes) -> None:
    """Put a file there whose content is ``data``, on the disk before anybody can see it; raises OSError.

    Whatever happens meanwhile, the file of before or this one is there, never half of one.
    """
    with open(f"{path}.new", "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.replace(f"{path}.new", path)
    sync_directory(os.path.dirname(path))


def sync_directory(path: str) -> None:
    """Bring the entries of a directory to the disk; raises OSError."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

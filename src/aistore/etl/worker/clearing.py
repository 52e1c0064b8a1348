"""Removing what foreign code left in a directory: however deep it is, and whatever modes it has.

``shutil.rmtree`` calls itself for each directory in a directory and holds each one open, so a thousand of them, one
inside the other, end it. Here what lies deeper is moved up first.
"""

import itertools
import os
from typing import Iterator

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | getattr(os, "O_CLOEXEC", 0)


def remove_tree(path: str) -> None:
    """Remove the directory ``path`` as far as this user may; no error says that something stays."""
    clear(path)
    try:
        os.rmdir(path)
    except OSError:
        pass


def clear(path: str) -> None:
    """Remove everything in the directory ``path`` as far as this user may; no error says that something stays."""
    try:
        top = os.open(path, _DIRECTORY)
    except OSError:
        return
    try:
        numbers = itertools.count()
        # Until nothing is left, or nothing that we may.
        while sum(_remove(name, top) or _move_up(name, top, numbers) for name in os.listdir(top)):
            pass
    except OSError:
        pass
    finally:
        os.close(top)


def _remove(name: str, directory: int) -> bool:
    """Remove a file or an empty directory."""
    for remove in (os.unlink, os.rmdir):
        try:
            remove(name, dir_fd=directory)
            return True
        except OSError:
            pass
    return False


def _move_up(name: str, top: int, numbers: Iterator[int]) -> bool:
    """Remove the directory ``name`` of ``top``, whose files are removed and whose directories come to ``top``.

    Return whether anything of that was possible.
    """
    try:
        inner = _open(name, top)
    except OSError:
        return False
    done = 0
    try:
        for child in os.listdir(inner):
            done += _remove(child, inner) or _move(child, inner, top, ".removed-{}".format(next(numbers)))
    finally:
        os.close(inner)
    return _remove(name, top) or done > 0


def _move(name: str, inner: int, top: int, new: str) -> bool:
    try:
        os.chmod(name, 0o700, dir_fd=inner)  # to move a directory is to write into it
    except OSError:
        pass
    try:
        os.rename(name, new, src_dir_fd=inner, dst_dir_fd=top)
        return True
    except OSError:
        return False


def _open(name: str, directory: int) -> int:
    try:
        return os.open(name, _DIRECTORY, dir_fd=directory)
    except PermissionError:
        os.chmod(name, 0o700, dir_fd=directory)
        return os.open(name, _DIRECTORY, dir_fd=directory)

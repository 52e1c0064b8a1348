"""Listing a directory tree as an object store lists its keys: in byte order, in pages, in little memory."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

from .contract import StoredInfo, StoredPage
from .names import unnamable

#: The library writes an object to a file with such an end, then renames it.
_UNFINISHED = re.compile(r"#\d+$")


def list_directory(root: str, prefix: str, start_after: str, limit: int) -> StoredPage:
    """Return the page of the files below ``root`` whose names begin with ``prefix`` and follow ``start_after``.

    Directories that lie wholly outside are not read. ``foreign`` counts files that have no name as a key.
    """
    entries: list[StoredInfo] = []
    foreign = 0
    for name, entry in _walk(root, "", prefix, start_after):
        if len(entries) == limit:
            return StoredPage(entries, entries[-1].key, foreign)
        if unnamable(name):
            foreign += 1
            continue
        try:
            found = entry.stat()
        except FileNotFoundError:
            continue  # removed meanwhile
        etag = f'"{found.st_ino:x}-{found.st_mtime_ns // 1000:x}-{found.st_size:x}"'
        entries.append(StoredInfo(name, found.st_size, etag, found.st_mtime_ns // 1000 * 1000))
    return StoredPage(entries, "", foreign)


def _walk(root: str, level: str, prefix: str, start_after: str) -> Iterator[tuple[str, os.DirEntry[str]]]:
    """Yield names of files and what the directory says of them, in byte order: ``a-`` before ``a/b``."""
    try:
        with os.scandir(os.path.join(root, level) if level else root) as scan:
            found = [(f"{each.name}/" if each.is_dir() else each.name, each) for each in scan]
    except (FileNotFoundError, NotADirectoryError):
        return
    found.sort(key=lambda pair: os.fsencode(pair[0]))
    after = os.fsencode(start_after)
    for name, entry in found:
        key = level + name
        if name.endswith("/"):
            inside = key.startswith(prefix) or prefix.startswith(key)
            if inside and (not after or start_after.startswith(key) or os.fsencode(key) > after):
                yield from _walk(root, key, prefix, start_after)
        elif key.startswith(prefix) and os.fsencode(key) > after and not _UNFINISHED.search(name):
            yield key, entry

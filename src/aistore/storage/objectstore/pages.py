"""Pages of a listing through the library: any text as a prefix, a start anywhere, no more read than is needed."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from typing import Any

import obstore
from obstore import exceptions

from ...errors import NotSupportedError
from .clients import Clients
from .contract import StoredInfo, StoredPage
from .names import unnamable

_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
_MICROSECOND = timedelta(microseconds=1)
_LAST = "\U0010ffff"


class PrefixReader:
    """Reads pages of the keys below ``base``.

    The library lists below whole segments only (``a/b`` is no prefix of ``a/bc``). So the segments before the last
    slash are its prefix, the listing starts just before the rest, and ends at the first key behind it.
    """

    def __init__(self, url: str, base: str, clients: Clients, *, folders: bool) -> None:
        self._url = url
        self._base = base
        self._clients = clients
        self._folders = folders  # whether there may be keys that end in a slash

    def read(self, prefix: str, start_after: str, limit: int, byte_order: bool) -> StoredPage:
        """Return a page, ``foreign`` being what no key of ours can be; raises what the library raises."""
        cut = len(self._base)
        whole = self._base + prefix
        level, _, part = whole.rpartition("/")
        if (level and unnamable(level)) or (part and unnamable(part)):
            return StoredPage([], "")  # nothing that can be named begins like that
        offset = self._offset(level, part, self._base + start_after if start_after else "", byte_order)
        entries: list[StoredInfo] = []
        foreign = 0
        depth = len(whole) - len(part)
        # One more than wanted says whether there is more, but not where it takes another request.
        for meta in self._stream(level, offset, limit + 1 if limit % 1000 else limit):
            path = meta["path"]
            if not path.startswith(whole):
                if _behind(path[depth:], part, byte_order):
                    break
                continue
            if len(entries) == limit:
                return StoredPage(entries, entries[-1].key, foreign)
            if meta["size"] == 0 and self._folders and not self._is_there(path):
                foreign += 1
                continue
            entries.append(StoredInfo(path[cut:], meta["size"], meta["e_tag"] or "", unix_ns(meta["last_modified"])))
            if len(entries) == limit and limit % 1000 == 0:
                return StoredPage(entries, entries[-1].key, foreign)
        return StoredPage(entries, "", foreign)

    def close(self) -> None:
        """Do nothing: the clients are the store's."""

    def _stream(self, level: str, offset: str | None, limit: int) -> Iterator[Any]:
        try:
            for chunk in obstore.list(self._clients.reading(), level or None, offset=offset, chunk_size=limit):
                yield from chunk
        except exceptions.InvalidPathError as error:
            raise NotSupportedError(
                f"LIST {self._url}/{level}: another program wrote a key that cannot be listed ({str(error)[:200]})",
                hint="remove or rename that key, or put the data under a prefix of its own",
            ) from error

    def _is_there(self, path: str) -> bool:
        """Say whether an empty key is one: ``dir/``, which consoles write for a folder, is listed as ``dir``."""
        try:
            obstore.head(self._clients.reading(), path)
        except FileNotFoundError:
            return False
        return True

    def _offset(self, level: str, part: str, start: str, byte_order: bool) -> str | None:
        """Return where the library shall start: at ``start`` or just before the first key with the prefix."""
        first = f"{level}/{_before(part)}" if level and part else _before(part)
        if start and not byte_order:
            # A store over a file system, which takes a start at ``a`` for the end of all that lies below ``a/``. No
            # segment is nearer to its beginning than a space.
            return start + "/ "
        if not part:
            return start or None
        if not start:
            return first
        return max(start, first, key=str.encode)


def _before(part: str) -> str:
    """Return a text that sorts before all that begin with ``part``, and behind nearly all else that sorts before."""
    if not part:
        return ""
    code = ord(part[-1]) - 1
    while unnamable(f"x{chr(code)}") or chr(code) == "/":
        if code < 0x21:
            return part[:-1]
        code -= 1
    return part[:-1] + chr(code) + _LAST


def _behind(rest: str, part: str, byte_order: bool) -> bool:
    if not byte_order:
        rest = rest.partition("/")[0]
    return rest.encode()[: len(part.encode())] > part.encode()


def unix_ns(moment: datetime) -> int:
    """Return Unix nanoseconds of a time that the library tells, exact to its microsecond."""
    return (moment - _EPOCH) // _MICROSECOND * 1000

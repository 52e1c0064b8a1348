"""Which keys can be named: those that come back from every store, and through every library, as they were sent.

Object stores take nearly any text, but file systems behind them fold ``//`` and ``..``, XML listings cannot hold
control characters, and the library used here drops a slash at the end. A key that would become another one is refused
before anything is sent; keys of that kind that other programs wrote are counted in listings.
"""

from __future__ import annotations

import re

from ...errors import BadRequestError
from .contract import Capabilities

# Control characters, the two code points that XML cannot hold, and halves of surrogate pairs.
_UNWRITABLE = re.compile("[\x00-\x1f\x7f-\x9f\ufffe\uffff\ud800-\udfff]")
# An empty segment (also a slash at either end) or one that file systems resolve.
_FOLDED = re.compile(r"(?:^|/)(?:\.{0,2})(?:/|$)")
_FINISHING = re.compile(r"#\d+$")


def unnamable(key: str) -> str:
    """Return what about ``key`` no store here can name, empty if it can be."""
    if not key:
        return "it is empty"
    if _FOLDED.search(key):
        return "it has a segment that is empty, '.' or '..', or a slash at an end"
    found = _UNWRITABLE.search(key)
    return f"it has the character {found[0]!r}" if found else ""


def check_key(key: str, capabilities: Capabilities, url: str) -> str:
    """Return ``key`` if it can be a key of the store, else raise BadRequestError."""
    problem = unnamable(key)
    if (not problem and not key.isascii()) or (not problem and len(key) > capabilities.segment_bytes_max):
        problem = _too_long(key, capabilities)
    if not problem and capabilities.forbidden:
        problem = _forbidden(key, capabilities)
    if problem:
        raise BadRequestError(
            f"{key[:128]!r} cannot be a key in {url}: {problem}", hint="it would become another name there; rename it"
        )
    return key


def _too_long(key: str, capabilities: Capabilities) -> str:
    size = len(key.encode())
    if size > capabilities.key_bytes_max:
        return f"it has {size} bytes, at most {capabilities.key_bytes_max} are possible"
    longest = max(len(segment.encode()) for segment in key.split("/"))
    if longest > capabilities.segment_bytes_max:
        return f"it has a segment of {longest} bytes, at most {capabilities.segment_bytes_max} are possible"
    return ""


def _forbidden(key: str, capabilities: Capabilities) -> str:
    found = [character for character in capabilities.forbidden if character in key]
    if "#" in found:  # only as the mark of a file that is being written: name#17
        found.remove("#")
        if _FINISHING.search(key):
            return "it ends like the files that the library is writing, in '#' and digits"
    return f"it has the character {found[0]!r}" if found else ""

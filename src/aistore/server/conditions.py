"""Reads that are meant only for one version of an object, or for any but that (RFC 9110, section 13)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from email.utils import parsedate_to_datetime

from ..errors import PreconditionFailedError
from ..model.objects import ObjectInfo

#: An entity tag as another store may give it that can stand in a list of them.
_PLAIN = re.compile(r"[!#-+\--~]+")

#: A request with one of these asks for more than the object.
CONDITIONS = ("if-match", "if-none-match", "if-modified-since", "if-unmodified-since")


def etag(info: ObjectInfo) -> str:
    """Return the entity tag of an object: that of the object store which has it, whether a copy of it is here or not.

    Else its checksum, so the same bytes have the same one; else its size and time.
    """
    given = info.etag.removeprefix("W/").strip('"')
    if not _PLAIN.fullmatch(given):
        given = info.checksum.value or f"{info.size:x}-{info.created_ns:x}"
    return f'"{given}"'


def is_unchanged(headers: Mapping[str, str], info: ObjectInfo) -> bool:
    """Say whether the client has this version already, so that 304 is the answer.

    Raises PreconditionFailedError when the request is for another version. A date counts only where no tag is given,
    and one that cannot be read is none. Times are whole seconds on the wire.
    """
    tag, seconds = etag(info), info.created_ns // 1_000_000_000
    match, none_match = headers.get("if-match"), headers.get("if-none-match")
    if match is not None:
        if not _names(match, tag, weak=False):
            raise _changed(info, f"its entity tag is {tag}, not {match[:200]}")
    elif (limit := _seconds(headers.get("if-unmodified-since"))) is not None and seconds > limit:
        raise _changed(info, f"it was written after {headers['if-unmodified-since']}")
    if none_match is not None:
        return _names(none_match, tag, weak=True)
    since = _seconds(headers.get("if-modified-since"))
    return since is not None and seconds <= since


def _changed(info: ObjectInfo, why: str) -> PreconditionFailedError:
    return PreconditionFailedError(
        f"ais://{info.bucket}/{info.name} is not the version asked for: {why}", hint="read it again from its start"
    )


def _names(tags: str, tag: str, *, weak: bool) -> bool:
    """Say whether a list of entity tags has ``tag``; our tags hold no comma. ``weak`` takes ``W/"…"`` for the same."""
    given = (one.strip() for one in tags.split(","))
    return any(one in ("*", tag) or (weak and one == f"W/{tag}") for one in given)


def _seconds(date: str | None) -> float | None:
    if not date:
        return None
    try:
        return parsedate_to_datetime(date).timestamp()
    except (ValueError, OverflowError, OSError):
        return None

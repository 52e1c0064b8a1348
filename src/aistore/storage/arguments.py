"""What every engine accepts: names, custom metadata, versions and pages, checked in one place."""

from __future__ import annotations

from collections.abc import Mapping

from ..errors import BadRequestError, ConflictError, TooLargeError
from ..model.names import OBJECT_NAME_BYTES_MAX
from ..model.objects import ListOptions, ObjectInfo, Only

#: Keys and values of one object's custom metadata together, in bytes of UTF-8. It travels in one header of a reply, of
#: which many clients accept 16 KiB in all.
CUSTOM_BYTES_MAX = 8 << 10


def encode_name(name: str) -> bytes:
    """Return the UTF-8 of an object's name; raises BadRequestError when it has none, or is empty or too long."""
    key = encode_text(name)
    if not 0 < len(key) <= OBJECT_NAME_BYTES_MAX:
        raise BadRequestError(
            f"object name of {len(key)} bytes is not valid", hint=f"expected 1 to {OBJECT_NAME_BYTES_MAX} bytes"
        )
    return key


def encode_text(text: str) -> bytes:
    """Return the UTF-8 of ``text``; raises BadRequestError for lone surrogates, which have none."""
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise BadRequestError(f"{text!r} cannot be written in UTF-8") from error


def check_custom(custom: Mapping[str, str], bytes_max: int = CUSTOM_BYTES_MAX) -> dict[str, str]:
    """Return a copy of ``custom`` if it can be stored; raises BadRequestError, TooLargeError."""
    size = 0
    for key, value in custom.items():
        if not isinstance(key, str) or not isinstance(value, str):
            raise BadRequestError(f"custom metadata {key!r}: {value!r} is not text")
        size += len(encode_text(key)) + len(encode_text(value))
    if size > bytes_max:
        raise TooLargeError(
            f"custom metadata of {size} bytes is too large", hint=f"expected at most {bytes_max} bytes in all"
        )
    return dict(custom)


def check_version(bucket: str, name: str, current: int, expected: int | None) -> None:
    """Raise ConflictError unless ``current`` (0: absent) meets the precondition ``expected`` (None: none)."""
    if expected is None or expected == current:
        return
    actual = f"is at version {current}" if current else "does not exist"
    wanted = f"version {expected}" if expected else "no such object"
    raise ConflictError(
        f"ais://{bucket}/{name} {actual}, the precondition was {wanted}", hint="read it again, then repeat the change"
    )


def check_only(info: ObjectInfo, only: Only | None) -> None:
    """Raise ConflictError unless an object is the one that is meant."""
    if only is not None and not only(info):
        raise ConflictError(
            f"{info.bucket}/{info.name} is another object by now (version {info.version})", hint="look at it again"
        )


def listing_bounds(options: ListOptions) -> tuple[bytes, bytes | None]:
    """Return the half-open interval of names ``[first, end)`` that a page is taken from; ``end`` None is open.

    Names strictly after ``start_after`` begin with that name and a zero byte, the smallest longer name.
    """
    if options.limit < 1:
        raise BadRequestError(f"a page of {options.limit} names is not possible", hint="expected a limit of 1 or more")
    prefix = encode_text(options.prefix)
    after = encode_text(options.start_after)
    first = max(prefix, after + b"\0") if after else prefix
    # UTF-8 has no byte 0xFF, so the last byte of a prefix can always be incremented.
    end = prefix[:-1] + bytes((prefix[-1] + 1,)) if prefix else None
    return first, end

"""Returns the MD5 of an object, in hex digits."""

import hashlib


def transform(data: bytes) -> bytes:
    """Return the MD5 of ``data``."""
    return hashlib.md5(data, usedforsecurity=False).hexdigest().encode()

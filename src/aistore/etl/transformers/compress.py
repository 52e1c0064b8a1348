"""Compresses or decompresses an object.

The variable ``COMPRESS_OPTIONS`` is JSON: ``mode`` is ``compress`` or ``decompress``, ``compression`` is ``gzip`` or
``bz2``. Equal bytes are compressed to equal bytes: no time stands in them.
"""

import bz2
import gzip
import json
import os
from collections.abc import Callable

_TOOLS: dict[tuple[str, str], Callable[[bytes], bytes]] = {
    ("compress", "gzip"): lambda data: gzip.compress(data, mtime=0),
    ("decompress", "gzip"): gzip.decompress,
    ("compress", "bz2"): bz2.compress,
    ("decompress", "bz2"): bz2.decompress,
}


def _tool() -> Callable[[bytes], bytes]:
    text = os.environ.get("COMPRESS_OPTIONS", "") or "{}"
    try:
        options = json.loads(text)
        mode, compression = options.pop("mode", "compress"), options.pop("compression", "gzip")
    except (ValueError, AttributeError, TypeError) as error:
        raise ValueError(f"COMPRESS_OPTIONS={text!r} is no mapping in JSON: {error}") from None
    if options or (mode, compression) not in _TOOLS:
        raise ValueError(
            f"COMPRESS_OPTIONS={text!r}: expected mode (compress, decompress) and compression (gzip, bz2), only these"
        )
    return _TOOLS[mode, compression]


_run = _tool()


def transform(data: bytes) -> bytes:
    """Return ``data`` with the tool of COMPRESS_OPTIONS applied."""
    return _run(data)

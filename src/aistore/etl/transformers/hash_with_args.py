"""Returns the xxHash64 of an object in hex digits, seeded by the arguments of the request.

Without arguments, or with ones that are no whole number, the seed is the variable ``SEED_DEFAULT``, else 0.
"""

import os

import xxhash

_SEED_MASK = (1 << 64) - 1


def _seed(text: str, default: int) -> int:
    try:
        return int(text) & _SEED_MASK
    except ValueError:
        return default


SEED_DEFAULT = _seed(os.environ.get("SEED_DEFAULT", ""), 0)


def transform(data: bytes, etl_args: str) -> bytes:
    """Return the hash of ``data`` with the seed ``etl_args``."""
    return xxhash.xxh64(data, seed=_seed(etl_args, SEED_DEFAULT)).hexdigest().encode()

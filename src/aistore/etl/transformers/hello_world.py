"""Greets, whatever it gets."""


def transform(data: bytes) -> bytes:
    """Return a greeting."""
    return b"Hello World!"

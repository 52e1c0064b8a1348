"""Names: what is a valid bucket, object and ETL name, and how they are written as URIs."""

from __future__ import annotations

import re
from typing import NamedTuple

from ..errors import BadRequestError, NotSupportedError

OBJECT_NAME_BYTES_MAX = 1024

#: Spellings of a provider, by the name used on the wire.
PROVIDERS = {"ais": "ais", "aws": "aws", "s3": "aws", "gcp": "gcp", "gs": "gcp", "azure": "azure", "az": "azure",
             "oci": "oci", "oc": "oci", "ht": "ht"}  # fmt: skip

_BUCKET = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}")
# The 2021 clients allow capitals and underscores and up to 31 characters, the current ones 6 to 32 of [a-z0-9-].
# The union of both is accepted.
_ETL = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,30}[A-Za-z0-9]")


def check_bucket_name(name: str) -> str:
    """Return ``name`` if it can name a bucket, else raise BadRequestError.

    Letters, digits, ``.``, ``-`` and ``_``; at most 64; no ``..``; not starting with a dot (system buckets do).
    """
    if not _BUCKET.fullmatch(name) or ".." in name:
        raise BadRequestError(
            f"bucket name {name!r} is not valid",
            hint="expected 1 to 64 letters, digits, '.', '-' or '_', not starting with '.' and without '..'",
        )
    return name


def check_object_name(name: str) -> str:
    """Return ``name`` if clients may use it for an object, else raise BadRequestError.

    Any text of at most 1,024 bytes in UTF-8, but not empty, not ending in ``/``, without ``.`` or ``..`` as a path
    component and not starting with ``~/``: other tools would turn such names into different ones.
    """
    try:
        length = len(name.encode())
    except UnicodeEncodeError as error:
        raise BadRequestError(f"object name {name!r} is not valid UTF-8") from error
    if not name:
        raise BadRequestError("object name is empty")
    if length > OBJECT_NAME_BYTES_MAX:
        raise BadRequestError(f"object name of {length} bytes is too long", hint="expected at most 1,024 bytes")
    if name.endswith("/"):
        raise BadRequestError(f"object name {name!r} ends in '/'", hint="a virtual directory cannot hold bytes")
    if name.startswith("~/") or ("." in name and any(part in (".", "..") for part in name.split("/"))):
        raise BadRequestError(f"object name {name!r} has '.', '..' or a leading '~/' as a path component")
    return name


def check_etl_name(name: str) -> str:
    """Return ``name`` if it can name an ETL, else raise BadRequestError."""
    if not 6 <= len(name) <= 32 or not _ETL.fullmatch(name):
        raise BadRequestError(
            f"etl name {name!r} is not valid",
            hint="expected 6 to 32 letters, digits, '-' or '_', starting and ending with a letter or digit",
        )
    return name


def check_provider(provider: str) -> str:
    """Return the canonical provider for ``provider`` (empty means ``ais``); only ``ais`` buckets exist today."""
    canonical = PROVIDERS.get(provider.lower() or "ais")
    if canonical is None:
        raise BadRequestError(f"unknown provider {provider!r}", hint="expected one of: " + ", ".join(PROVIDERS))
    if canonical != "ais":
        raise NotSupportedError(f"provider {provider!r} is not supported by this store", hint="use ais:// buckets")
    return canonical


class Uri(NamedTuple):
    """A bucket (``name`` empty) or an object, as a person writes it: ``ais://bucket/dir/name``."""

    bucket: str
    name: str = ""

    def __str__(self) -> str:
        return f"ais://{self.bucket}/{self.name}" if self.name else f"ais://{self.bucket}"


def parse_uri(text: str) -> Uri:
    """Parse ``ais://bucket[/name]``; a text without a scheme is a bucket of the ``ais`` provider.

    The name is not validated (it may be a prefix). Raises BadRequestError or NotSupportedError (other providers).
    """
    scheme, separator, rest = text.partition("://")
    if not separator:
        scheme, rest = "ais", text
        provider, colon, name = text.partition(":")
        if colon and provider.lower() in PROVIDERS:
            raise BadRequestError(f"{text!r} is no bucket", hint=f"did you mean {provider}://{name.lstrip('/')}?")
    check_provider(scheme)
    if rest.startswith("@"):
        raise NotSupportedError(f"{text!r} names a remote cluster or a namespace, which this store does not have")
    bucket, _, name = rest.partition("/")
    return Uri(check_bucket_name(bucket), name)

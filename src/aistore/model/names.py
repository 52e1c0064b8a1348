"""Names: what is a valid bucket, object and ETL name, and how they are written as URIs."""

from __future__ import annotations

import re
from typing import NamedTuple

from ..errors import BadRequestError, NotSupportedError

OBJECT_NAME_BYTES_MAX = 1024

#: Spellings of a provider, by the name used on the wire.
PROVIDERS = {"ais": "ais", "aws": "aws", "s3": "aws", "gcp": "gcp", "gs": "gcp", "azure": "azure", "az": "azure",
             "oci": "oci", "oc": "oci", "ht": "ht"}  # fmt: skip

#: How a URI begins, by provider; those that a store of ours can have buckets of.
SCHEMES = {"ais": "ais", "aws": "s3", "gcp": "gs", "azure": "az", "ht": "ht"}

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


def canonical_provider(provider: str) -> str:
    """Return the wire's name of a provider as people spell it: ``s3`` is ``aws``; empty is ``ais``.

    Raises BadRequestError for one that does not exist, NotSupportedError for one that no store of ours has (``oci``).
    """
    canonical = PROVIDERS.get(provider.lower() or "ais")
    if canonical is None:
        raise BadRequestError(f"unknown provider {provider!r}", hint="expected one of: " + ", ".join(PROVIDERS))
    if canonical not in SCHEMES:
        hint = "use " + ", ".join(f"{scheme}://" for scheme in SCHEMES.values())
        raise NotSupportedError(f"provider {provider!r} is not supported", hint=hint)
    return canonical


def check_provider(provider: str) -> str:
    """Return the canonical provider for ``provider`` where only ``ais`` buckets are served."""
    canonical = canonical_provider(provider)
    if canonical != "ais":
        raise NotSupportedError(
            f"provider {SCHEMES[canonical]!r} is not supported by this store", hint="use ais:// buckets"
        )
    return canonical


class BucketRef(NamedTuple):
    """Which bucket: the provider as the wire names it (``aws``, not ``s3``), and the name."""

    provider: str
    name: str

    def __str__(self) -> str:
        return f"{SCHEMES[self.provider]}://{self.name}"

    @property
    def uname(self) -> str:
        """The bucket's unique name, as ``bck_to=`` has it: ``ais/@#/bucket/``."""
        return f"{self.provider}/@#/{self.name}/"

    @property
    def is_backed(self) -> bool:
        """Whether the objects are in a bucket that exists without this store (S3, GCS, Azure, the web)."""
        return self.provider != "ais"


def bucket_ref(bucket: str | BucketRef, provider: str = "") -> BucketRef:
    """Return the bucket of that name, checked; the name may be a URI such as ``s3://lake`` if it is alone."""
    if isinstance(bucket, BucketRef):
        return bucket
    if "://" in bucket and not provider:
        return parse_bucket_uri(bucket)
    return BucketRef(canonical_provider(provider), check_bucket_name(bucket))


def parse_bucket_uri(text: str) -> BucketRef:
    """Parse ``ais://bucket``, ``s3://bucket`` or ``bucket``; raises BadRequestError for an object's URI."""
    place = parse_uri(text)
    if place.name.strip("/"):
        raise BadRequestError(f"{text!r} names an object", hint=f"expected a bucket: {place.bucket}")
    return place.bucket


def parse_bucket_uname(text: str) -> BucketRef:
    """Read ``ais/@#/bucket/``, what ``bck_to=`` names a bucket by; the 2021 form ``ais//bucket/`` is the same.

    Raises BadRequestError, and NotSupportedError for a namespace other than the global one.
    """
    parts = text.rstrip("/").split("/")
    if len(parts) != 3:
        raise BadRequestError(f"{text!r} names no bucket", hint="expected for example ais/@#/bucket/")
    if parts[1] not in ("", "@#"):
        raise NotSupportedError(f"{text!r} names a remote cluster or a namespace, which this store does not have")
    return BucketRef(canonical_provider(parts[0]), check_bucket_name(parts[2]))


def parse_object_uname(text: str, name: str) -> tuple[BucketRef, str]:
    """Read ``ais/@#/bucket/dir/name``, what ``object_to=`` names an object by; of a bucket alone the name is ``name``.

    Raises BadRequestError and NotSupportedError as ``parse_bucket_uname``.
    """
    parts = text.split("/", 3)
    bucket = parse_bucket_uname("/".join(parts[:3]))
    return bucket, check_object_name("".join(parts[3:]) or name)


class Uri(NamedTuple):
    """A bucket (``name`` empty) or an object, as a person writes it: ``ais://bucket/dir/name``."""

    bucket: BucketRef
    name: str = ""

    def __str__(self) -> str:
        return f"{self.bucket}/{self.name}" if self.name else str(self.bucket)


def parse_uri(text: str) -> Uri:
    """Parse ``ais://bucket[/name]``, ``s3://bucket[/name]``; a text without a scheme is an ``ais`` bucket.

    The name is not validated (it may be a prefix). Raises BadRequestError or NotSupportedError.
    """
    scheme, separator, rest = text.partition("://")
    if not separator:
        scheme, rest = "ais", text
        provider, colon, name = text.partition(":")
        if colon and provider.lower() in PROVIDERS:
            raise BadRequestError(f"{text!r} is no bucket", hint=f"did you mean {provider}://{name.lstrip('/')}?")
    provider = canonical_provider(scheme)
    if rest.startswith("@"):
        raise NotSupportedError(f"{text!r} names a remote cluster or a namespace, which this store does not have")
    bucket, _, name = rest.partition("/")
    return Uri(BucketRef(provider, check_bucket_name(bucket)), name)

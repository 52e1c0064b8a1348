"""Header names of the wire, and the spelling of what they carry."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from email.utils import formatdate

from ..errors import BadRequestError
from ..model.objects import Checksum, ObjectInfo, can_be_told

CHECKSUM_TYPE = "ais-checksum-type"
CHECKSUM_VALUE = "ais-checksum-value"
VERSION = "ais-version"
ATIME = "ais-atime"
CUSTOM = "ais-custom-md"
NAME = "ais-name"
BUCKET_NAME = "ais-bucket-name"
BUCKET_PROVIDER = "ais-bucket-provider"
BUCKET_PROPS = "ais-bucket-props"
LOCATION = "ais-location"
PRESENT = "ais-present"
UNNAMABLE = "ais-unnamable-keys"
ERROR = "hdr-error"
MAP_VERSION = "ais-map-version"
NODE_ID = "ais-node-id"
CLUSTER_UPTIME = "ais-cluster-uptime"
NODE_UPTIME = "ais-node-uptime"
#: Whether the result of a transform was kept and is given out again (``hit``), or was made and kept now (``miss``).
ETL_CACHE = "ais-etl-cache"
#: Between nodes: that the sender is one, and which one, with the version of the root document that it goes by.
CLUSTER_SECRET = "ais-cluster-secret"  # noqa: S105  # the header's name
HOP = "ais-hop"
#: On what another node answered: the version of the cluster's map, for clients that keep one.
MAP_VERSION = "ais-map-version"


def check_custom_spelling(custom: Mapping[str, str]) -> dict[str, str]:
    """Return custom metadata that survives the header's spelling, else raise BadRequestError.

    Pairs travel as ``key=value, key=value``: printable ASCII, no comma, no ``=`` in a key, no space around. How much
    there may be in all is the engine's to say.
    """
    for key, value in custom.items():
        if not isinstance(value, str) or not can_be_told(key, value):
            hint = "expected key=value of printable ASCII, without commas"
            raise BadRequestError(f"custom metadata {key!r} cannot be kept", hint=hint)
    return dict(custom)


def encode_custom(custom: Mapping[str, str]) -> str:
    """Spell custom metadata as one header value."""
    return ", ".join(f"{key}={value}" for key, value in custom.items())


def decode_custom(values: Iterable[str]) -> dict[str, str]:
    """Read custom metadata from any number of header values; raises BadRequestError for what is no pair."""
    custom: dict[str, str] = {}
    for value in values:
        for pair in filter(None, (piece.strip() for piece in value.split(","))):
            key, separator, text = pair.partition("=")
            if not separator:
                raise BadRequestError(f"{CUSTOM} header has {pair!r}", hint="expected key=value, key=value")
            custom[key] = text
    return custom


def http_date(ns: int) -> str:
    """Return Unix nanoseconds as an HTTP date (RFC 9110, section 5.6.7)."""
    return formatdate(ns / 1e9, usegmt=True)


def info_headers(info: ObjectInfo) -> list[tuple[str, str]]:
    """Return the headers that describe an object on GET and HEAD."""
    headers = [
        (CHECKSUM_TYPE, info.checksum.type),
        (CHECKSUM_VALUE, info.checksum.value),
        (VERSION, str(info.version)),
        (ATIME, str(info.created_ns)),
    ]
    if info.custom:
        headers.append((CUSTOM, encode_custom(info.custom)))
    return headers


def info_from_headers(bucket: str, name: str, headers: Mapping[str, str]) -> ObjectInfo:
    """Read an object's description back from a reply to GET or HEAD."""
    return ObjectInfo(
        bucket=bucket,
        name=name,
        size=int(headers.get("content-length") or 0),
        version=int(headers.get(VERSION) or 0),
        checksum=Checksum(headers.get(CHECKSUM_TYPE, ""), headers.get(CHECKSUM_VALUE, "")),
        created_ns=int(headers.get(ATIME) or 0),
        custom=decode_custom([headers.get(CUSTOM, "")]),
    )

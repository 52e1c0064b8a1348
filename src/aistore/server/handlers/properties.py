"""Properties of buckets whose objects are in an object store: which can be set, and how the wire shows them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...cluster.documents import PINNED, BucketRecord
from ...errors import BadRequestError
from ...model.buckets import BucketInfo
from ...model.properties import AWS_ENDPOINT, AWS_PROFILE, AWS_REGION, HTTP_URL, flatten, nest
from ..destinations import check_destination
from .bucket_props import bucket_props

#: Properties that can be set, by what their values have to be.
_KINDS: Mapping[str, type] = {
    "immutable": bool,
    "versioning.validate_warm_get": bool,
    PINNED: str,
    AWS_ENDPOINT: str,
    AWS_REGION: str,
    AWS_PROFILE: str,
    HTTP_URL: str,
    "extra.anonymous": bool,
}
_OF_AWS = (AWS_ENDPOINT, AWS_REGION, AWS_PROFILE)
#: What says where a bucket is; another place is another bucket.
_FIXED = (AWS_ENDPOINT, HTTP_URL)


def checked_properties(provider: str, value: Any, *, changed: bool = False) -> dict[str, Any]:
    """Return the properties in a message by their dotted keys; raises BadRequestError.

    ``changed``: they are for a bucket that exists, whose place is fixed.
    """
    if not isinstance(value, Mapping):
        raise BadRequestError("bucket properties must be a JSON object", hint='for example {"immutable": true}')
    props: dict[str, Any] = {}
    for key, given in flatten(value):
        kind = _KINDS.get(key)
        if kind is None or (key in _OF_AWS and provider != "aws") or (key == HTTP_URL and provider != "ht"):
            known = [name for name in _KINDS if not (name in _OF_AWS and provider != "aws")]
            raise BadRequestError(
                f"unknown property {key!r} of {provider} buckets", hint="expected: " + ", ".join(known)
            )
        if changed and key in _FIXED:
            raise BadRequestError(f"{key} cannot be changed", hint="evict the bucket and create it again")
        if kind is bool and isinstance(given, str) and given.lower() in ("true", "false"):
            given = given.lower() == "true"
        if not isinstance(given, kind):
            raise BadRequestError(f"property {key} is {given!r}", hint=f"expected a {kind.__name__}")
        if key in _FIXED and given:
            check_destination(str(given), key)
        props[key] = given
    if provider == "ht" and not changed and not props.get(HTTP_URL):
        raise BadRequestError(
            "an ht:// bucket needs the URL of its objects", hint="`ais create ht://name --url https://host/path`"
        )
    return props


def shared_props(record: BucketRecord) -> dict[str, Any]:
    """Return a bucket's properties by the field's keys."""
    props = bucket_props(BucketInfo(record.name, int(record.id or "0", 16), record.created_ns))
    props["provider"] = record.provider
    props["immutable"] = record.immutable
    _merge(props, nest(record.props))
    return props


def _merge(into: dict[str, Any], other: Mapping[str, Any]) -> None:
    for key, value in other.items():
        found = into.get(key)
        if isinstance(found, dict) and isinstance(value, Mapping):
            _merge(found, value)
        else:
            into[key] = value

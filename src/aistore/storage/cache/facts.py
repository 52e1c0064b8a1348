"""What a cache knows of an object beside its bytes, and how that is kept in the row of the bytes.

The row's custom metadata holds all of it: one entry under a key of ours, and the user's own entries under keys with a
letter in front, so neither can be taken for the other. Bytes and facts change in one transaction, because they are one
row: nobody sees facts of other bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

import msgspec

from ...errors import BadRequestError, InternalError
from ...model.objects import ObjectInfo
from ..engine import Reading

#: An ETag that is longer is no ETag of any store. Guessed; they have 34 bytes, or 40 for parts.
ETAG_BYTES_MAX = 1024
_SCHEMES = {"aws": "s3", "gcp": "gs", "azure": "az"}  # others are their own
_FACTS = "f"
_USERS = "u"


class CachedFacts(msgspec.Struct, frozen=True, gc=False):
    """What the store says of an object: its ETag, version, time (Unix nanoseconds) and custom metadata.

    ``stamp`` is the epoch at which the copy was last known to equal the object; 0 says that nothing is known, as after
    a boot of the machine, when the last second's changes to the cache may be lost: ask the store before use.
    """

    etag: str
    version: int
    modified_ns: int
    stamp: int
    custom: Mapping[str, str] = {}


class CachedReading(Reading, Protocol):
    """An opened copy. Its ``info`` is the store's, with the checksum of the bytes; ``path`` is always None.

    When a read raises ObjectDamagedError, forget the copy and read the store.
    """

    facts: CachedFacts


class CachedKept(CachedReading, Protocol):
    """A copy that is in memory, as KeptReading."""

    replies: dict[str, Any]


class CacheBucket(NamedTuple):
    """A bucket of the store: ``id`` is of this bucket and not of its name, so one made again finds nothing old."""

    provider: str
    name: str
    id: str

    @property
    def key(self) -> str:
        """The name that the bucket has inside of the cache."""
        return f"{self.provider}:{self.id}:{self.name}"

    @property
    def url(self) -> str:
        """The bucket's address, for messages."""
        return f"{_SCHEMES.get(self.provider, self.provider)}://{self.name}"

    @classmethod
    def from_key(cls, key: str) -> CacheBucket:
        """Return the bucket of a ``key``."""
        provider, id_, name = key.split(":", 2)
        return cls(provider, name, id_)

    def checked(self) -> CacheBucket:
        """Return it; raises InternalError when its parts cannot be told apart again."""
        if ":" in self.provider or ":" in self.id:
            raise InternalError(f"bucket {self.provider}://{self.name} with id {self.id!r}: a colon was not expected")
        return self


class _Kept(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """The entry under our key. May only grow, at its end."""

    etag: str
    version: int
    modified_ns: int
    stamp: int
    boot: str


_decode = msgspec.json.Decoder(_Kept).decode
_encode = msgspec.json.Encoder().encode


def encode_facts(facts: CachedFacts, boot: str) -> dict[str, str]:
    """Return facts as a row's custom metadata; ``boot`` is the name of the machine's run. Raises BadRequestError."""
    if len(facts.etag) > ETAG_BYTES_MAX:
        raise BadRequestError(f"an ETag of {len(facts.etag)} bytes", hint=f"expected at most {ETAG_BYTES_MAX}")
    kept = _Kept(facts.etag, facts.version, facts.modified_ns, facts.stamp, boot)
    return {_FACTS: _encode(kept).decode(), **{_USERS + key: value for key, value in facts.custom.items()}}


def decode_facts(custom: Mapping[str, str], boot: str) -> CachedFacts:
    """Return the facts of a row; raises DecodeError of msgspec, KeyError when there are none.

    What was written in another run of the machine has no stamp any more.
    """
    kept = _decode(custom[_FACTS])
    users = {key[1:]: value for key, value in custom.items() if key[0] == _USERS} if len(custom) > 1 else {}
    return CachedFacts(kept.etag, kept.version, kept.modified_ns, kept.stamp if kept.boot == boot else 0, users)


def info_of(bucket: CacheBucket, found: ObjectInfo, facts: CachedFacts) -> ObjectInfo:
    """Return what clients are told of a copy whose row is ``found``."""
    return ObjectInfo(
        bucket.name, found.name, found.size, facts.version, found.checksum, facts.modified_ns, facts.custom,
        facts.etag,
    )  # fmt: skip

"""What a result is made of, as a digest, from which come the seeds of generators and the names of kept results.

The object counts with its name and its content. Not with its version or its time: those of an upload that is repeated,
of a copy in another bucket and of another store differ, and their results should not. The name counts because objects
of equal content are often meant to be augmented differently (a rare class put in several times).

The content is the checksum that every stored object has, XXH64 of its bytes, with its size. It is no cryptographic one:
who may write an object may make two contents of it that count as one.
"""

from __future__ import annotations

import hashlib
from typing import NamedTuple

#: Goes into every digest. Raised whenever the same seed shall give other numbers than before.
_PERSON = b"aistore recipe 1"


class Recipe(NamedTuple):
    """A source and the transforms that it has gone through so far."""

    digest: bytes

    @classmethod
    def of(cls, name: str, size: int, checksum: str, args: str, seed: str | None) -> Recipe:
        """Return the recipe of an object before the first transform."""
        return cls(_digest(b"source", name, str(size), checksum, args, "" if seed is None else f"={seed}"))

    def then(self, transform: str) -> Recipe:
        """Return the recipe after one more transform, whose digest (of specification and lock) is given."""
        return Recipe(_digest(self.digest, "then", transform))

    def seed(self) -> str:
        """Return what the generators of the last transform are seeded with, 64 hex digits."""
        return _digest(self.digest, "seed").hex()

    def result(self, bucket: str, environment: str) -> str:
        """Return what the result is kept as, 64 hex digits.

        ``bucket`` counts because transforms are told it. ``environment`` is what the store itself is installed with:
        a transform that names no dependencies has that of it which it finds.
        """
        return _digest(self.digest, "result", bucket, environment).hex()


def _digest(first: bytes, *parts: str) -> bytes:
    digest = hashlib.blake2b(first, digest_size=32, person=_PERSON)
    for part in parts:
        encoded = part.encode("utf-8", "surrogatepass")
        digest.update(b"%d:" % len(encoded))
        digest.update(encoded)
    return digest.digest()

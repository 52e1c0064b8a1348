"""How a derived object was made, as it says itself in its custom metadata: of which source, by what, with what.

A recipe is one entry, ``ais-recipe``, spelled as a query: ``from=ais://imagenet&name=1.jpg&version=1&sum=…&etl=resize:…``.
The field's tools show it, and it fits into the 1,800 bytes that object stores keep with an object: a source's name or
arguments that are long are recorded by a digest. The checksum of the result is the object's own.

Equal recipes make equal objects, unless a transform is not deterministic; so what has the recipe that a job would give
it is left alone (``batch.py``), and what a recipe makes can be compared with what is there (``verify.py``).
"""

from __future__ import annotations

import functools
import hashlib
import re
from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import parse_qsl, quote

import msgspec

from ..model.etl import TransformCall
from ..model.objects import ObjectInfo
from ..storage.checksums import STORED_TYPE

#: The key of an object's custom metadata that says how it was made.
RECIPE = "ais-recipe"
#: The key that says which job wrote an object, of what: by it a job finds its own work again.
TAG = "ais-job"

#: Bytes of a name, and of arguments with a seed, as they are spelled in a recipe. Derived: with the rest, they leave
#: half of what object stores keep to the user's own metadata.
NAME_BYTES_MAX = 480
ARGS_BYTES_MAX = 300

#: What may stand in a recipe as it is; no comma, which separates entries in a header.
_SAFE = "/:@!*()"
_PLAIN = re.compile(r"[\w.~/:@!*()-]*", re.ASCII).fullmatch


class Stage(NamedTuple):
    """A transform, and the digest of all that can change what it makes."""

    etl: str
    digest: str


class Way(msgspec.Struct, frozen=True):
    """How a job derives objects of one bucket; without ``stages`` they are copied.

    ``told`` is a digest of arguments and seed that are too long to be recorded, instead of both.
    """

    bucket: str
    stages: tuple[Stage, ...] = ()
    args: str = ""
    seed: str = ""
    told: str = ""

    @property
    def digests(self) -> tuple[str, ...]:
        """The digests of the transforms in their order."""
        return tuple(stage.digest for stage in self.stages)

    @property
    def makes(self) -> tuple[object, ...]:
        """What can change a result; a transform's name is none of it."""
        return self.bucket, self.digests, self.args, self.seed, self.told


class Recipe(msgspec.Struct, frozen=True):
    """Of what an object was made, and how. ``name`` is empty where only ``name_digest`` is known.

    ``checksum`` is empty for a source whose writer noted none; ``etag`` is how an object store told its version.
    """

    way: Way
    name: str
    name_digest: str
    version: int
    checksum: str
    etag: str

    def is_of(self, name: str) -> bool:
        """Say whether the source has this name."""
        return name == self.name if self.name else digest_of(name) == self.name_digest

    def is_of_listed(self, fact: str) -> bool:
        """Say whether what a listing tells (`fact_of`) is surely of this source."""
        return bool(fact) and fact in (self.etag, self.checksum)

    def is_of_same(self, source: ObjectInfo) -> bool:
        """Say whether a source has the bytes that it had; written again with the same ones, it has."""
        checksum = checksum_of(source)
        if self.checksum and checksum:
            return self.checksum == checksum
        return bool(self.etag) and self.etag == source.etag


@functools.lru_cache(maxsize=64)
def way_of(bucket: str, call: TransformCall | None, digests: tuple[str, ...]) -> Way:
    """Return how objects of ``bucket`` (a URI) are derived; ``digests`` are those of the stages of ``call``."""
    if call is None:
        return Way(bucket)
    args, seed, told = call.args, call.seed or "", ""
    if len(_quoted(args)) + len(_quoted(seed)) > ARGS_BYTES_MAX:
        args, seed, told = "", "", digest_of(f"{seed}\0{args}")
    stages = tuple(Stage(etl, digest) for etl, digest in zip(call.stages, digests, strict=True))
    return Way(bucket, stages, args, seed, told)


def recipe_of(way: Way, source: ObjectInfo) -> Recipe:
    """Return how an object is derived of ``source``."""
    name, name_digest = source.name, ""
    if len(_quoted(name)) > NAME_BYTES_MAX:
        name, name_digest = "", digest_of(name)
    return Recipe(way, name, name_digest, source.version, checksum_of(source), source.etag)


def spell(recipe: Recipe) -> str:
    """Return a recipe as custom metadata has it."""
    fields = {
        "name": recipe.name, "name-digest": recipe.name_digest, "version": str(recipe.version),
        "sum": recipe.checksum, "etag": recipe.etag,
    }  # fmt: skip
    of = "".join(f"&{key}={_quoted(value)}" for key, value in fields.items() if value)
    return f"from={_quoted(recipe.way.bucket)}{of}{_spell_way(recipe.way)}"


def _quoted(text: str) -> str:
    """Return ``quote(text, _SAFE)``, which takes twenty times as long where there is nothing to quote."""
    return text if _PLAIN(text) else quote(text, _SAFE)


@functools.lru_cache(maxsize=64)
def _spell_way(way: Way) -> str:
    fields = [("etl", f"{stage.etl}:{stage.digest}") for stage in way.stages]
    fields += [("args", way.args), ("seed", way.seed), ("told", way.told)]
    return "".join(f"&{key}={_quoted(value)}" for key, value in fields if value)


def parse(text: str) -> Recipe | None:
    """Return the recipe that `spell` wrote, None for what is none."""
    try:
        pairs = parse_qsl(text, strict_parsing=True, errors="strict")
        found = dict(pairs)
        stages = tuple(Stage(*value.split(":", 1)) for key, value in pairs if key == "etl")
        way = Way(found["from"], stages, found.get("args", ""), found.get("seed", ""), found.get("told", ""))
        return Recipe(
            way, found.get("name", ""), found.get("name-digest", ""), int(found["version"]), found.get("sum", ""),
            found.get("etag", ""),
        )  # fmt: skip
    except (KeyError, TypeError, ValueError):
        return None


def recipe_in(custom: Mapping[str, str]) -> Recipe | None:
    """Return the recipe among an object's custom metadata; None where there is none."""
    text = custom.get(RECIPE)
    return None if text is None else parse(text)


def users_own(custom: Mapping[str, str]) -> dict[str, str]:
    """Return custom metadata without what jobs note: what goes along to a derived object."""
    return {key: value for key, value in custom.items() if key not in (RECIPE, TAG)}


def fact_of(listed: ObjectInfo) -> str:
    """Return what a listing tells of an object's bytes: an ETag, or a checksum; empty for nothing."""
    return listed.etag or checksum_of(listed)


def checksum_of(info: ObjectInfo) -> str:
    """Return an object's checksum; empty for one whose writer noted none."""
    return info.checksum.value if info.checksum.type == STORED_TYPE else ""


def digest_of(text: str) -> str:
    """Return what is recorded of a text that may be long."""
    return hashlib.blake2b(text.encode(), digest_size=12).hexdigest()

"""Several transforms, one after the other, and how requests name what an object goes through."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, TypeAlias

from ..errors import BadRequestError
from ..model.etl import check_seed, check_stages, parse_stages

if TYPE_CHECKING:
    from .etl import Etl

#: Arguments of transforms for one read: text as it is, or a mapping that travels as JSON.
EtlArgs = str | Mapping[str, object]
#: What fixes the random numbers of transforms: 42, or any text. As text 42 and 042 are two seeds.
Seed = int | str


class Pipeline:
    """Transforms that an object goes through one after the other: ``client.etl("resize") >> client.etl("gray")``.

    As text ``resize >> gray``, which is taken wherever the name of a transform is.
    """

    def __init__(self, *stages: str) -> None:
        self.stages = check_stages(stages)

    def __rshift__(self, following: Transforms) -> Pipeline:
        return Pipeline(*self.stages, *stages_of(following))

    def __rrshift__(self, before: str) -> Pipeline:
        return Pipeline(*stages_of(before), *self.stages)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Pipeline) and self.stages == other.stages

    def __hash__(self) -> int:
        return hash(self.stages)

    def __str__(self) -> str:
        return " >> ".join(self.stages)

    def __repr__(self) -> str:
        return f"Pipeline({', '.join(map(repr, self.stages))})"


#: What an object can go through: the name of a transform, ``resize >> gray``, or what `Client.etl` returns.
Transforms: TypeAlias = "str | Etl | Pipeline"


def stages_of(transforms: Transforms) -> tuple[str, ...]:
    """Return the names of transforms; raises BadRequestError for an empty name, and for one that is there twice."""
    return transforms.stages if isinstance(transforms, Pipeline) else parse_stages(str(transforms))


def spell_args(etl_args: EtlArgs | None, args: EtlArgs | None) -> str | None:
    """Return the arguments of a transform as they travel, by whichever of their two names they were given."""
    if etl_args is not None and args is not None:
        raise BadRequestError("etl_args and args are two names of one thing", hint="pass etl_args")
    given = args if etl_args is None else etl_args
    return given if given is None or isinstance(given, str) else json.dumps(given, separators=(",", ":"))


def spell_seed(seed: Seed | None) -> str | None:
    """Return a seed as it travels; raises BadRequestError."""
    return None if seed is None else check_seed(str(seed))


def transform_query(
    etl: Transforms | None, etl_args: EtlArgs | None = None, args: EtlArgs | None = None, seed: Seed | None = None
) -> dict[str, str]:
    """Return the query parameters of a request whose object goes through ``etl``; raises BadRequestError."""
    spelled, spelled_seed = spell_args(etl_args, args), spell_seed(seed)
    if etl is None:
        for what, given in (("etl_args are", spelled), ("a seed is", spelled_seed)):
            if given is not None:
                raise BadRequestError(f"{what} for a transform", hint="name it with etl=")
        return {}
    stages = stages_of(etl)
    if not stages:
        raise BadRequestError("the name of the transform is empty", hint="pass etl=None for the object itself")
    query = {"etl_name": stages[0]}
    if stages[1:]:
        query["etl_pipeline"] = ",".join(stages[1:])
    if spelled is not None:
        query["etl_args"] = spelled
    if spelled_seed is not None:
        query["seed"] = spelled_seed
    return query

"""Which transforms a request's object goes through: between query parameters and the call that all of the store passes.

AIStore's spelling today is ``etl_name=A&etl_pipeline=B,C&etl_args=...``, that of 2021 ``uuid=A``. Arguments are text,
or JSON as text; every stage gets them. ``seed=`` is ours.
"""

from __future__ import annotations

from collections.abc import Mapping

from ...errors import BadRequestError
from ...model.etl import TransformCall, check_args, check_seed, check_stages, parse_stages
from ..description import Parameter

ETL_NAME, ETL_NAME_2021, ETL_PIPELINE, ETL_ARGS, SEED = "etl_name", "uuid", "etl_pipeline", "etl_args", "seed"

#: What they look like, for the descriptions of handlers.
PARAMETERS = (
    Parameter(ETL_NAME, "The transform that the object goes through."),
    Parameter(ETL_NAME_2021, "The same, as it was spelt in 2021."),
    Parameter(ETL_PIPELINE, "Transforms that follow, with commas between."),
    Parameter(ETL_ARGS, "What the transforms get with the object."),
    Parameter(SEED, "Fixes what the transforms draw at random. Without it every call differs."),
)


def asks_for_transform(query: Mapping[str, str]) -> bool:
    """Say whether a request's object goes through a transform."""
    return bool(query and (query.get(ETL_NAME) or query.get(ETL_NAME_2021) or query.get(ETL_PIPELINE)))


def call_of_query(query: Mapping[str, str]) -> TransformCall | None:
    """Return which transforms a request names, None if it names none; raises BadRequestError, TooLargeError."""
    if not asks_for_transform(query):
        return None
    first, following = query.get(ETL_NAME) or query.get(ETL_NAME_2021) or "", query.get(ETL_PIPELINE, "")
    if not first:
        raise BadRequestError(
            f"{ETL_PIPELINE}={following} has no transform before it", hint=f"{ETL_NAME} names the first one"
        )
    stages = check_stages([first, *following.split(",")] if following else [first])
    seed = check_seed(query[SEED]) if SEED in query else None
    return TransformCall(stages[0], check_args(query.get(ETL_ARGS, "")), stages[1:], seed=seed)


def call_of_text(text: str, args: str, seed: str | None = None) -> TransformCall | None:
    """Return the call for ``resize``, ``resize >> gray`` or ``resize,gray``; None for an empty text.

    Raises BadRequestError, TooLargeError.
    """
    stages = parse_stages(text)
    if not stages:
        return None
    return TransformCall(stages[0], check_args(args), stages[1:], seed=None if seed is None else check_seed(seed))


def query_of_call(call: TransformCall | None) -> dict[str, str]:
    """Return the query parameters that ``call_of_query`` makes the call from."""
    if call is None:
        return {}
    said = {ETL_NAME: call.etl, ETL_PIPELINE: ",".join(call.then), ETL_ARGS: call.args, SEED: call.seed or ""}
    return {name: value for name, value in said.items() if value}

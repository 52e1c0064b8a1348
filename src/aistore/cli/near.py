"""What may be meant by a name that does not exist: asked of the store once a command has failed."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

from ..errors import AisError, BucketNotFoundError, EtlNotFoundError, ObjectNotFoundError
from ..model.names import BucketRef, Uri, bucket_ref
from .session import Session

_NAMES_MAX = 2000  # of the directory that the missing object would be in

_BUCKET = re.compile(r'bucket "([^"]+://[^"]+)" does not exist')
_OBJECT = re.compile(r"([a-z]+://[^/]+)/(.+) does not exist", re.DOTALL)
_ETL = re.compile(r"etl job (\S+) does not exist")


def hint_for(error: AisError, session: Session | None) -> str:
    """Return the hint of an error, with the names that are nearly the one that does not exist."""
    if session is None:
        return error.hint
    try:
        if isinstance(error, BucketNotFoundError) and (found := _BUCKET.fullmatch(error.message)):
            missing = bucket_ref(found[1])
            known = [bucket.ref for bucket in session.client.buckets() if bucket.ref.provider == missing.provider]
            near = _near(missing.name, (ref.name for ref in known))
            make = f"`ais create {missing}` makes it, `ais ls` lists those there are"
            return _meant(str(BucketRef(missing.provider, name)) for name in near) or make
        if isinstance(error, ObjectNotFoundError) and (found := _OBJECT.fullmatch(error.message)):
            directory = found[2].rpartition("/")[0]
            bucket = session.client.bucket(found[1])
            listing = bucket.list(f"{directory}/" if directory else "", limit=_NAMES_MAX)
            return _meant(str(Uri(bucket.ref, name)) for name in _near(found[2], (entry.name for entry in listing)))
        if isinstance(error, EtlNotFoundError) and (found := _ETL.fullmatch(error.message)):
            return _meant(_near(found[1], (etl.id for etl in session.client.etls()))) or error.hint
    except AisError:
        pass  # the store that could tell has gone; the error itself is what matters
    return error.hint


def _near(name: str, names: Iterable[str]) -> list[str]:
    # Another number is another thing, not a mistake: 0002.jpg is not 0001.jpg written wrong.
    known = {other.lower(): other for other in names if _digits(other) == _digits(name)}
    return [known[close] for close in difflib.get_close_matches(name.lower(), known, n=2, cutoff=0.75)]


def _digits(name: str) -> str:
    return "".join(filter(str.isdigit, name))


def _meant(names: Iterable[str]) -> str:
    meant = " or ".join(names)
    return f"did you mean {meant}?" if meant else ""

"""One object copied to another name or bucket, as it is or through transforms: ``PUT ...?object_to=<uname>``.

It is done where what is written lives, as a job does it: there it is written under the object's own lock.
"""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any

from ...errors import BadRequestError, NotSupportedError
from ...jobs.recipes import RECIPE, recipe_of, spell, users_own, way_of
from ...model.etl import TransformCall
from ...model.names import BucketRef, Uri, canonical_provider, parse_object_uname
from ...model.objects import ObjectInfo, PutOptions
from ...storage.engine import Reading
from ...wire import headers as names
from ..description import FLAG, Parameter
from ..job_objects import StoreObjects
from ..node.lapsed import read_while_leased, write_while_leased
from ..node.worker import asks_for_latest
from ..replies import Empty, Reply
from ..request import Request
from ..store import Store
from .jobs import head_bucket, is_shared
from .transform_calls import PARAMETERS, call_of_query

OBJECT_TO = "object_to"

DESCRIBED = (
    Parameter(OBJECT_TO, "Copy the object to this one instead: ais/@#/<bucket>/<name>. The body is empty then."),
    *PARAMETERS,
    Parameter("latest-ver", "With object_to: look first at where the object comes from.", FLAG),
)


async def copy(store: Store, request: Request, bucket: str, name: str) -> Reply:
    """Copy an object; raises AnsweredElsewhere where the destination lives at another node."""
    source = Uri(BucketRef(canonical_provider(request.query.get("provider", "")), bucket), name)
    destination = _destination(request, source)
    call = call_of_query(request.query)
    head_bucket(store, destination.bucket)
    if is_shared(store, destination.bucket):
        assert store.shared is not None
        store.shared.check_home(request, store.shared.bucket(*destination.bucket), destination.name)
    head_bucket(store, source.bucket)
    if request.has_body and await request.body(store.limits.control_body_bytes_max):
        raise BadRequestError("a copy has no body", hint=f"leave {OBJECT_TO}= out to write the body")
    with await _open(store, request, source) as reading:
        written = await _write(store, request, call, reading, str(source.bucket), destination)
    return Empty(names.info_headers(written))


def _destination(request: Request, source: Uri) -> Uri:
    """Return the object that is to be written; raises BadRequestError, NotSupportedError."""
    bucket, name = parse_object_uname(request.query[OBJECT_TO], source.name)
    if request.flag("synchronize"):
        raise NotSupportedError("synchronize is not supported for copies of single objects")
    for condition in ("if-match", "if-unmodified-since", "if-none-match", names.CHECKSUM_TYPE):
        if condition in request.headers:
            raise NotSupportedError(f"copies with the header {condition!r} are not supported by this store")
    if Uri(bucket, name) == source:
        raise BadRequestError(f"{source} is both the source and the destination", hint="choose another name or bucket")
    return Uri(bucket, name)


async def _open(store: Store, request: Request, source: Uri) -> Reading:
    """Open the source here, wherever it lives; raises ObjectNotFoundError."""
    work = StoreObjects(store).open(str(source.bucket), source.name, latest=asks_for_latest(request))
    if store.shared is None or not is_shared(store, source.bucket):
        return await work
    return await read_while_leased(work, store.shared.coherence.is_leased)


async def _write(
    store: Store, request: Request, call: TransformCall | None, reading: Reading, source: str, destination: Uri
) -> ObjectInfo:
    """Write an opened object of the bucket ``source``, or what transforms make of it, with its recipe."""
    objects, bucket, name = StoreObjects(store), str(destination.bucket), destination.name
    custom = users_own(reading.info.custom)
    if call is None:
        custom[RECIPE] = spell(recipe_of(way_of(source, None, ()), reading.info))
        options = PutOptions(custom=custom, size=reading.info.size)
        work = objects.copy(reading, bucket, name, options)
        return await _written(store, destination, work)
    digests = await objects.digests(call)
    made = await store.dispatcher.transform(call, reading, gone=request.disconnected)
    try:
        if await objects.digests(call) == digests:  # else nobody knows which of them has made it
            custom[RECIPE] = spell(recipe_of(way_of(source, call, digests), reading.info))
        return await _written(store, destination, objects.put(made, bucket, name, PutOptions(custom=custom)))
    finally:
        made.close()


async def _written(store: Store, destination: Uri, work: Coroutine[Any, Any, ObjectInfo]) -> ObjectInfo:
    if store.shared is None or not is_shared(store, destination.bucket):
        return await work
    return await write_while_leased(work, store.shared.coherence.is_leased)

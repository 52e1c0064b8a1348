"""Objects: GET, HEAD, PUT, DELETE, PATCH of ``/v1/objects/<bucket>/<name>``."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable

from ...errors import BadRequestError, BucketNotFoundError, ClientGoneError, NotSupportedError, ObjectNotFoundError
from ...model.etl import TransformCall
from ...model.names import check_bucket_name, check_object_name
from ...model.objects import ByteRange, Checksum, ObjectInfo, PutOptions, parse_range
from ...storage import verified
from ...storage.engine import Reading
from ...wire import headers as names
from ...wire.messages import Action, decode_action
from ..conditions import etag, is_unchanged
from ..description import BYTES, FLAG, PROVIDER, Content, Parameter, header, operation
from ..replies import Bytes, Empty, Headers, Pieces, Reply
from ..request import Request
from ..store import Store
from . import object_copy, shared
from .bodies import write_body
from .transform_calls import PARAMETERS, asks_for_transform, call_of_query

#: Query parameters that ask for something this store does not do; silently ignoring one would answer wrongly.
_NOT_SUPPORTED_GET = ("archpath", "archregx", "archmime")
_NOT_SUPPORTED_PUT = ("append_type", "append_handle", "archpath", "uploadId", "partNumber")

_HEAD_PROPS = frozenset(
    "name size checksum atime version copies ec custom location chunked last-modified etag cached status".split()
)


def split_path(rest: str) -> tuple[str, str]:
    """Return bucket and object name of ``<bucket>/<name>``; raises BadRequestError where there is no name."""
    bucket, separator, name = rest.partition("/")
    if not separator or not name:
        raise BadRequestError(
            f"the path names no object: {rest[:200]!r}", hint="expected /v1/objects/<bucket>/<object>"
        )
    return bucket, name


def _checked_path(rest: str) -> tuple[str, str]:
    bucket, name = split_path(rest)
    return check_bucket_name(bucket), check_object_name(name)


def _refuse(request: Request, parameters: tuple[str, ...]) -> None:
    for parameter in parameters:
        if request.query.get(parameter):
            raise NotSupportedError(f"the parameter {parameter!r} is not supported by this store")


_OBJECT_PATH = "/v1/objects/{bucket}/{name}"
_OBJECT = Content(BYTES, "application/octet-stream")
_CONDITIONS = (
    header("If-Match", "Entity tags of the versions that are meant; another one is 412."),
    header("If-None-Match", "Entity tags of the versions that the client has: 304, and no bytes."),
)
_UNCHANGED: dict[int, tuple[str, tuple[Content, ...]]] = {304: ("The client has this version.", ())}


@operation(
    _OBJECT_PATH,
    "Read an object, or a range of it, or what a transform makes of it.",
    PROVIDER,
    *PARAMETERS,
    header("Range", "One range of bytes: bytes=<first>-<last>, or bytes=-<count>."),
    header("Cache-Control", "With no-cache a transform computes its result anew, whether it is kept or not."),
    header("If-Range", "The range is meant for this entity tag only; else all is sent."),
    *_CONDITIONS,
    returns=_OBJECT,
    also={206: ("The range.", (_OBJECT,)), **_UNCHANGED},
    errors=(408, 412, 413, 416, 422, 501),
)
async def get(store: Store, request: Request, rest: str) -> Reply:
    """Read an object, or a range of it, or what a transform makes of it."""
    bucket, name = split_path(rest)
    if request.query:
        _refuse(request, _NOT_SUPPORTED_GET)
        call = call_of_query(request.query)
        if call is not None:
            return await _get_transformed(store, request, call, bucket, name)
    reading = await _open(store, request, bucket, name)
    try:
        if is_unchanged(request.headers, reading.info):
            reading.close()
            return _unchanged(reading.info)
        return await _send_part(store, reading, *_wanted(request, reading.info))
    except BaseException:
        reading.close()
        raise


def get_at_once(store: Store, request: Request, rest: str) -> Bytes | None:
    """Do what ``get`` does, if that is quick and surely needs no disk; else return None."""
    if request.query:
        return None
    reading = store.open_quickly(*split_path(rest))
    if reading is None:
        return None
    with reading:
        if is_unchanged(request.headers, reading.info):
            return None
        part, headers, status = _wanted(request, reading.info)
        if part.length < reading.info.size and reading.suspected():
            return None
        data = reading.read_cached(part.start, part.length) if part.length <= store.limits.piece_bytes else None
        return None if data is None else Bytes(data, headers, status=status)


def _unchanged(info: ObjectInfo) -> Empty:
    return Empty([*names.info_headers(info), ("etag", etag(info))], status=304, length=None)


def describing(info: ObjectInfo) -> list[tuple[str, str]]:
    """Return the headers of a reply that has an object's bytes."""
    headers = names.info_headers(info)
    headers += (("accept-ranges", "bytes"), ("etag", etag(info)))
    return headers


def _wanted(request: Request, info: ObjectInfo) -> tuple[ByteRange, list[tuple[str, str]], int]:
    """Return which part of an object a GET asks for, the headers that describe it, and the status."""
    headers, tag = describing(info), etag(info)
    wanted = request.headers.get("range")
    if wanted is None or request.headers.get("if-range", tag) != tag:
        return ByteRange(0, info.size), headers, 200
    part = parse_range(wanted, info.size)
    headers.append(("content-range", f"bytes {part.start}-{part.start + part.length - 1}/{info.size}"))
    return part, headers, 206


async def _open(store: Store, request: Request, bucket: str, name: str) -> Reading:
    """Open an object, wherever its bytes are; raises AnsweredElsewhere."""
    record = store.shared_bucket(request, bucket)
    if record is None:
        return open_object(store, bucket, name)
    assert store.shared is not None
    return await store.shared.open(request, record, name)


def open_object(store: Store, bucket: str, name: str) -> Reading:
    """Open an object of this machine; a name that no object can have is a bad request rather than a missing object."""
    try:
        return store.engine.get(bucket, name)
    except ObjectNotFoundError:
        check_object_name(name)
        raise
    except BucketNotFoundError:
        check_bucket_name(bucket)
        raise


async def _send_part(store: Store, reading: Reading, part: ByteRange, headers: Headers, status: int) -> Reply:
    """Return a small part as bytes (read at once if it is cached, else in a thread), a large one in pieces.

    A whole object is verified on the way. What is known to be damaged is verified before the first byte: a clear error
    instead of a reply cut short, and no part of it for a client that goes on after the cut.
    """
    large, whole = part.length > store.limits.piece_bytes, part.length == reading.info.size
    if (large or not whole) and reading.suspected():
        await store.in_thread(verified.verify, reading)
    if large:
        read = verified.VerifiedRead(reading) if whole else reading.read
        return _in_pieces(store, read, reading.close, part, headers, status)
    data = reading.read_cached(part.start, part.length)
    if data is None:
        data = await store.in_thread(reading.read, part.start, part.length)
    reading.close()
    return Bytes(data, headers, status=status)


def _in_pieces(
    store: Store, read: Callable[[int, int], bytes], close: Callable[[], None], part: ByteRange, headers: Headers,
    status: int,
) -> Pieces:  # fmt: skip
    """Return a reply that calls ``close`` when it has been sent, in pieces as large as there is memory for."""
    piece = store.admission.take_piece()

    def end() -> None:
        store.admission.give_piece(piece)
        close()

    return Pieces(
        read,
        part.start,
        part.length,
        headers,
        threads=store.threads,
        close=end,
        piece_bytes=piece,
        status=status,
    )


async def _get_transformed(store: Store, request: Request, call: TransformCall, bucket: str, name: str) -> Reply:
    if request.headers.get("range"):
        raise BadRequestError("a range of a transformed object cannot be read", hint="leave the Range header out")
    _refuse_conditions(request, "transformed reads")
    if request.has_body:
        await request.body(store.limits.control_body_bytes_max)
    if "no-cache" in request.headers.get("cache-control", ""):
        call = dataclasses.replace(call, fresh=True)
    reading = await _open(store, request, bucket, name)
    result = await store.dispatcher.transform(call, reading, gone=request.disconnected, sent=request.take_sent())
    headers = [(names.ETL_CACHE, result.cache)] if result.cache else []
    if result.data is not None:
        return Bytes(result.data, headers)
    return _in_pieces(store, result.read, result.close, ByteRange(0, result.size), headers, 200)


@operation(
    _OBJECT_PATH,
    "Describe an object in headers.",
    PROVIDER,
    *_CONDITIONS,
    Parameter("props", "Which properties, separated by commas: " + ",".join(sorted(_HEAD_PROPS)) + ". Default: all."),
    also=_UNCHANGED,
    errors=(412,),
)
async def head(store: Store, request: Request, rest: str) -> Reply:
    """Describe an object. Without ``props=`` everything (the older form), with it only what was asked for."""
    bucket, name = split_path(rest)
    record = store.shared_bucket(request, bucket)
    if record is None:
        return _describe(store, request, *_known(store, request, bucket, name))
    assert store.shared is not None
    info, present = await store.shared.head(request, record, name)
    return _describe(store, request, info, record.provider, present=present)


def head_at_once(store: Store, request: Request, rest: str) -> Empty | None:
    """Do what ``head`` does for objects of this machine: it never waits for one."""
    bucket, name = split_path(rest)
    if store.is_node or (request.query and request.query.get("provider")):
        return None
    return _describe(store, request, *_known(store, request, bucket, name))


def _known(store: Store, request: Request, bucket: str, name: str) -> tuple[ObjectInfo, str]:
    try:
        return store.engine.head(bucket, name), "ais"
    except (ObjectNotFoundError, BucketNotFoundError):
        check_object_name(name)
        raise


def _describe(store: Store, request: Request, info: ObjectInfo, provider: str, *, present: bool = True) -> Empty:
    if asks_for_transform(request.query):
        raise BadRequestError("HEAD of a transformed object is not possible", hint="GET it, or HEAD it without the ETL")
    if is_unchanged(request.headers, info):
        return _unchanged(info)
    props = request.query.get("props")
    if props is None:
        headers = _all_props(store, info, provider, present=present)
    else:
        headers = _some_props(store, info, props, provider, present=present)
    return Empty(headers, length=info.size)


def _location(store: Store) -> str:
    return f"t[{store.settings.node_id}]:mp[{store.settings.serve.data}]"


def _all_props(store: Store, info: ObjectInfo, provider: str, *, present: bool) -> list[tuple[str, str]]:
    return [
        *names.info_headers(info),
        (names.NAME, _header_text(info.name)),
        (names.BUCKET_NAME, info.bucket),
        (names.BUCKET_PROVIDER, provider),
        (names.LOCATION, _header_text(_location(store))),
        (names.PRESENT, str(present).lower()),
        ("accept-ranges", "bytes"),
        ("etag", etag(info)),
        ("content-type", "application/octet-stream"),
    ]


def _some_props(store: Store, info: ObjectInfo, props: str, provider: str, *, present: bool) -> list[tuple[str, str]]:
    wanted = {prop for prop in props.split(",") if prop}
    unknown = wanted - _HEAD_PROPS
    if unknown:
        raise BadRequestError(
            f"unknown props {sorted(unknown)}", hint="expected some of: " + ",".join(sorted(_HEAD_PROPS))
        )
    headers = [(names.PRESENT, str(present).lower())]
    if "name" in wanted:
        headers += [
            (names.NAME, _header_text(info.name)),
            (names.BUCKET_NAME, info.bucket),
            (names.BUCKET_PROVIDER, provider),
        ]
    if "checksum" in wanted:
        headers += [(names.CHECKSUM_TYPE, info.checksum.type), (names.CHECKSUM_VALUE, info.checksum.value)]
    if "atime" in wanted:
        headers.append((names.ATIME, str(info.created_ns)))
    if "version" in wanted:
        headers.append((names.VERSION, str(info.version)))
    if "custom" in wanted and info.custom:
        headers.append((names.CUSTOM, names.encode_custom(info.custom)))
    if "location" in wanted:
        headers.append((names.LOCATION, _header_text(_location(store))))
    if "last-modified" in wanted:
        headers.append(("last-modified", names.http_date(info.created_ns)))
    if "etag" in wanted:
        headers.append(("etag", etag(info)))
    return headers


def _header_text(text: str) -> str:
    """Return ``text`` as a header can carry it: UTF-8 bytes as Latin-1, control characters escaped."""
    if not text.isprintable():
        text = text.encode("unicode_escape").decode()
    return text.encode().decode("latin-1")


@operation(
    _OBJECT_PATH,
    "Write an object, or copy it to another one, as it is or through transforms.",
    PROVIDER,
    *object_copy.DESCRIBED,
    header(names.CHECKSUM_TYPE, "Kind of the checksum that the bytes must have.", {"type": "string"}),
    header(names.CHECKSUM_VALUE, "That checksum, in hexadecimal digits."),
    header(names.CUSTOM, "Metadata to keep with the object: k=v, k=v."),
    header("If-None-Match", "Write only if there is no such object.", {"type": "string", "enum": ["*"]}),
    body=_OBJECT,
    errors=(409, 413, 422, 501, 507),
)
async def put(store: Store, request: Request, rest: str) -> Reply:
    """Write an object from the body: whole in one step when it is small, staged piece by piece when it is not."""
    _refuse(request, _NOT_SUPPORTED_PUT)
    bucket, name = _checked_path(rest)
    if request.query:
        if request.query.get(object_copy.OBJECT_TO):
            return await object_copy.copy(store, request, bucket, name)
        if asks_for_transform(request.query):
            raise NotSupportedError("PUT through an ETL is not supported by this store")
    record = store.shared_bucket(request, bucket)
    if record is not None:
        return await shared.put(store, request, record, name, put_options(request))
    options = put_options(request)
    length = request.content_length
    if length is not None and length <= store.limits.piece_bytes:
        # The commit finds out whether the bucket exists: a look-up here cost a fifth of the event loop's time.
        if "expect" in request.headers:  # the client waits to hear whether it may send
            store.engine.head_bucket(bucket)
        data = await request.body(length)
        if len(data) != length:
            raise ClientGoneError
        info = await store.done(store.engine.put(bucket, name, data, options))
    else:
        info = await _put_staged(store, request, bucket, name, options)
    return Empty(names.info_headers(info))


async def _put_staged(store: Store, request: Request, bucket: str, name: str, options: PutOptions) -> ObjectInfo:
    request.hold(store.limits.piece_bytes)
    staging = await store.in_thread(functools.partial(store.engine.stage, bucket, name, options))
    try:
        await write_body(store, request, staging)
        return await store.done(staging.commit())
    except BaseException:
        await store.in_thread(staging.abort)
        raise


def _refuse_conditions(request: Request, what: str) -> None:
    for condition in ("if-match", "if-unmodified-since"):
        if condition in request.headers:
            raise NotSupportedError(f"{what} with the condition {condition!r} are not supported by this store")


def put_options(request: Request) -> PutOptions:
    """Read what a PUT says about its bytes from its headers."""
    headers = request.headers
    _refuse_conditions(request, "writes")
    kind, value = headers.get(names.CHECKSUM_TYPE, ""), headers.get(names.CHECKSUM_VALUE, "")
    if bool(kind) != bool(value) and kind != "none":
        raise BadRequestError(f"{names.CHECKSUM_TYPE} and {names.CHECKSUM_VALUE} must come together")
    expected = (Checksum(kind.lower(), value.lower()),) if kind and kind != "none" else ()
    custom = (
        names.check_custom_spelling(names.decode_custom([headers[names.CUSTOM]])) if names.CUSTOM in headers else {}
    )
    if_version = None
    if "if-none-match" in headers:
        if headers["if-none-match"].strip() != "*":
            raise BadRequestError("if-none-match of a PUT can only be *")
        if_version = 0
    return PutOptions(custom=custom, expected=expected, if_version=if_version, size=request.content_length)


@operation(_OBJECT_PATH, "Delete an object.", PROVIDER, body=Content(Action), errors=(501, 507))
async def delete(store: Store, request: Request, rest: str) -> Reply:
    """Delete an object."""
    _refuse_conditions(request, "writes")
    bucket, name = _checked_path(rest)
    record = store.shared_bucket(request, bucket)
    if record is not None:
        return await shared.delete(store, request, record, name)
    body = await request.body(store.limits.control_body_bytes_max)
    if body.strip() and decode_action(body).verb.startswith("evict"):
        raise NotSupportedError("evict is for remote buckets, which this store does not have")
    await store.done(store.engine.delete(bucket, name))
    return Empty()


@operation(
    _OBJECT_PATH,
    "Merge custom metadata into an object's, or replace it.",
    PROVIDER,
    Parameter("set-new-custom", "Replace instead of merge.", FLAG),
    body=Content(Action),
    errors=(507,),
)
async def patch(store: Store, request: Request, rest: str) -> Reply:
    """Set custom metadata: merged into what is there, or replacing it with ``set-new-custom=true``."""
    bucket, name = _checked_path(rest)
    record = store.shared_bucket(request, bucket)
    if record is not None:
        assert store.shared is not None
        store.shared.check_home(request, record, name)
    value = decode_action(await request.body(store.limits.control_body_bytes_max), action_optional=True).value
    if not isinstance(value, dict):
        raise BadRequestError("custom metadata must be a JSON object of strings")
    custom = names.check_custom_spelling(value)
    replace = request.flag("set-new-custom")
    if record is None:
        await store.done(store.engine.set_custom(bucket, name, custom, replace=replace))
    else:
        assert store.shared is not None
        await store.shared.set_custom(request, record, name, custom, replace=replace)
    return Empty()


@operation(_OBJECT_PATH, "Object actions of the field: none is here yet.", body=Content(Action), refused=True)
async def post(store: Store, request: Request, rest: str) -> Reply:
    """Answer the object actions of the field, none of which this store has yet."""
    body = await request.body(store.limits.control_body_bytes_max)
    raise NotSupportedError(f"object action {decode_action(body).action!r} is not supported by this store")

"""The suite that every engine must pass: plain asserts, nothing but the contract, no test framework.

``checks()`` lists the checks, each a function of one fresh engine; ``run`` does all of them. Engine authors call
``run`` from their own tests, or hand ``checks()`` to a parametrizing test runner.

An engine over something that cannot do all of it has an attribute ``lacks``, a set of the words below. Each check that
meets one of them sees to it that the engine says so, instead of doing something else:

- ``any name``: some names are BadRequestError, and nothing is stored or found under them
- ``nesting``: ``a`` and ``a/b`` cannot both be there; the later one is BadRequestError
- ``metadata``: custom metadata is NotSupportedError; checksums are not kept (type ``none``), and versions stay 1
- ``versions``: a write that requires a version other than 0 is NotSupportedError
- ``byte order``: listings have an order of their own, the same for each page size
- ``listed facts``: entries of a listing have name and size; version, checksum and custom metadata only ``head`` tells
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import xxhash

from ..errors import (
    AisError,
    BadRequestError,
    BucketExistsError,
    BucketNotFoundError,
    ChecksumMismatchError,
    ConflictError,
    InternalError,
    NotSupportedError,
    ObjectNotFoundError,
    TooLargeError,
)
from ..model.objects import Checksum, ListOptions, ObjectInfo, PutOptions
from .engine import Engine

Check = Callable[[Engine], None]

#: Sizes around every boundary an engine may have: empty, tiny, inline limits, pages, several chunks.
SIZES = (0, 1, 3, 255, 256, 257, 4095, 4096, 4097, 20_000, 1 << 20, (1 << 20) + 1)

#: Names that have hurt some store: separators, prefixes of one another, controls, every width of UTF-8.
NAMES = (
    "a", "a/b", "a/b/c", "a b", "a.b", "ab", "A", "/leading", "double//slash", "trailing/", ".", "..", "../up", "~/x",
    "\0", "a\0", "a\0b", "\n", "\x7f", "\x80", "ÿ", "é", "e\u0301", "\u07ff", "\u0800", "\uffff", "\U00010000",
    "\U0010ffff", "%2F", "a%00", "?q=1", "#", "*", "\\", "'", '"', ";--", "x" * 1024, "é" * 512,
)  # fmt: skip

_TIMEOUT_SECONDS = 60.0  # guessed: nothing here takes more than a second; a hang must fail, not hang


def run(make_engine: Callable[[], Engine]) -> None:
    """Run every check on an engine of its own; the first failure raises, with the name of its check."""
    for check in checks():
        engine = make_engine()
        try:
            check(engine)
        except Exception as error:
            raise AssertionError(f"conformance check {check.__name__!r} failed: {error}") from error
        finally:
            engine.close()


def checks() -> list[Check]:
    """Return every check, in the order of this file."""
    return list(_CHECKS)


_CHECKS: list[Check] = []


def _check(function: Check) -> Check:
    _CHECKS.append(function)
    return function


@contextmanager
def _raises(kind: type[AisError], *mentions: str) -> Iterator[None]:
    caught: AisError | None = None
    try:
        yield
    except kind as error:
        caught = error
    assert caught is not None, f"{kind.__name__} was not raised"
    for text in mentions:
        assert text in str(caught), f"{caught!s} does not name {text!r}"


def _lacks(engine: Engine, what: str) -> bool:
    return what in getattr(engine, "lacks", ())


def _in_order(engine: Engine, names: list[str]) -> list[str]:
    """Return ``names`` as they were listed, sorted for an engine that may list them in any order."""
    return sorted(names, key=str.encode) if _lacks(engine, "byte order") else names


def _version(engine: Engine, version: int) -> int:
    """Return what the engine says of version ``version``."""
    return 1 if _lacks(engine, "metadata") else version


def _checksum(engine: Engine, checksum: Checksum) -> Checksum:
    return Checksum("none", "") if _lacks(engine, "metadata") else checksum


def _content(size: int, seed: int = 0) -> bytes:
    block = hashlib.sha256(f"{size}/{seed}".encode()).digest()
    return (block * (size // len(block) + 1))[:size]


def _put(engine: Engine, bucket: str, name: str, data: bytes, options: PutOptions | None = None) -> ObjectInfo:
    return engine.put(bucket, name, data, options or PutOptions()).result(_TIMEOUT_SECONDS)


def _stage(engine: Engine, bucket: str, name: str, *chunks: bytes, options: PutOptions | None = None) -> ObjectInfo:
    staging = engine.stage(bucket, name, options or PutOptions())
    for chunk in chunks:
        staging.write(chunk)
    return staging.commit().result(_TIMEOUT_SECONDS)


def _read(engine: Engine, bucket: str, name: str) -> bytes:
    with engine.get(bucket, name) as reading:
        return reading.read(0, reading.info.size)


def _delete(engine: Engine, bucket: str, name: str) -> ObjectInfo:
    return engine.delete(bucket, name).result(_TIMEOUT_SECONDS)


def _set_custom(engine: Engine, name: str, custom: dict[str, str], *, replace: bool) -> ObjectInfo:
    return engine.set_custom("b", name, custom, replace=replace).result(_TIMEOUT_SECONDS)


def _names(engine: Engine, bucket: str, **options: object) -> list[str]:
    names: list[str] = []
    after = str(options.pop("start_after", ""))
    while True:
        page = engine.list(bucket, ListOptions(start_after=after, **options))  # type: ignore[arg-type]
        names += [entry.name for entry in page.entries]
        if not page.continuation:
            return names
        assert page.continuation == names[-1], "the continuation is the last name of its page"
        after = page.continuation


@_check
def buckets_come_and_go(engine: Engine) -> None:
    """Buckets are created once, listed by name, kept with their properties, and removed."""
    assert engine.list_buckets() == []
    created = engine.create_bucket("zoo", {"versioning": {"enabled": True}, "n": 3})
    engine.create_bucket("Ant", {})
    with _raises(BucketExistsError, "zoo"):
        engine.create_bucket("zoo", {})
    assert engine.head_bucket("zoo") == created
    assert created.name == "zoo"
    assert created.created_ns > 10**18
    assert created.props == {"versioning": {"enabled": True}, "n": 3}
    assert [bucket.name for bucket in engine.list_buckets()] == ["Ant", "zoo"]
    engine.delete_bucket("zoo")
    with _raises(BucketNotFoundError, "zoo"):
        engine.head_bucket("zoo")
    with _raises(BucketNotFoundError, "zoo"):
        engine.delete_bucket("zoo")
    assert [bucket.name for bucket in engine.list_buckets()] == ["Ant"]


@_check
def every_verb_names_a_missing_bucket(engine: Engine) -> None:
    """A bucket that does not exist is BucketNotFoundError for each verb, not a missing object."""
    with _raises(BucketNotFoundError, "none"):
        engine.get("none", "o")
    with _raises(BucketNotFoundError, "none"):
        engine.head("none", "o")
    with _raises(BucketNotFoundError, "none"):
        engine.list("none", ListOptions())
    with _raises(BucketNotFoundError, "none"):
        engine.stage("none", "o", PutOptions())
    for data in (b"", b"x" * 1000):
        with _raises(BucketNotFoundError, "none"):
            _put(engine, "none", "o", data)
    with _raises(BucketNotFoundError, "none"):
        _delete(engine, "none", "o")
    with _raises(BucketNotFoundError, "none"):
        engine.set_custom("none", "o", {}, replace=True).result(_TIMEOUT_SECONDS)


@_check
def every_verb_names_a_missing_object(engine: Engine) -> None:
    """An object that does not exist is ObjectNotFoundError, with bucket and name in it."""
    engine.create_bucket("b", {})
    _put(engine, "b", "there", b"1")
    with _raises(ObjectNotFoundError, "b/missing"):
        engine.get("b", "missing")
    with _raises(ObjectNotFoundError, "b/missing"):
        engine.head("b", "missing")
    with _raises(ObjectNotFoundError, "b/missing"):
        _delete(engine, "b", "missing")
    with _raises(ObjectNotFoundError, "b/missing"):
        _set_custom(engine, "missing", {"k": "v"}, replace=False)


@_check
def objects_of_every_size_come_back(engine: Engine) -> None:
    """What was put or staged is read back whole and in parts, with its checksum."""
    engine.create_bucket("b", {})
    for size in SIZES:
        data = _content(size)
        checksum = Checksum("xxhash2", xxhash.xxh64_hexdigest(data))
        cut = size // 3
        infos = (
            _put(engine, "b", f"put/{size}", data),
            _stage(engine, "b", f"stage/{size}", data[:cut], b"", data[cut:]),
        )
        for info in infos:
            assert info.size == size
            assert info.version == 1
            assert info.checksum == _checksum(engine, checksum)
            assert info.custom == {}
            assert engine.head("b", info.name) == info
            with engine.get("b", info.name) as reading:
                assert reading.info == info
                assert reading.read(0, size) == data
                assert reading.read(cut, size - cut) == data[cut:]
                assert reading.read(size, 0) == b""
                assert reading.read_cached(0, size) in (data, None)
                assert reading.read_cached(cut, size - cut) in (data[cut:], None)
                with _raises(InternalError):
                    reading.read(0, size + 1)


@_check
def a_path_holds_the_bytes(engine: Engine) -> None:
    """If a Reading has a path, the first ``size`` bytes of that file are the object, also after a replacement."""
    engine.create_bucket("b", {})
    data = _content(100_000)
    _put(engine, "b", "o", data)
    with engine.get("b", "o") as reading:
        path = reading.path
    _put(engine, "b", "o", b"new" * 1000)
    _delete(engine, "b", "o")
    if path is not None:
        with open(path, "rb") as file:
            assert file.read(len(data)) == data


@_check
def a_reading_keeps_what_it_opened(engine: Engine) -> None:
    """An opened object does not change or vanish when its name is overwritten, deleted, or its bucket removed."""
    engine.create_bucket("b", {})
    for size in (10, 50_000):
        old = _content(size, 1)
        _put(engine, "b", "o", old)
        with engine.get("b", "o") as reading:
            _put(engine, "b", "o", _content(size, 2))
            assert reading.read(0, size) == old
            _delete(engine, "b", "o")
            assert reading.read(0, size) == old
    _put(engine, "b", "o", old)
    with engine.get("b", "o") as reading:
        engine.delete_bucket("b")
        assert reading.read(0, len(old)) == old
        reading.close()


@_check
def versions_count_from_one(engine: Engine) -> None:
    """Versions of a name go up by one with each write and start again after a delete."""
    engine.create_bucket("b", {})
    for version in (1, 2, 3):
        assert _put(engine, "b", "o", b"x" * version * 200).version == _version(engine, version)
    assert _stage(engine, "b", "o", b"y").version == _version(engine, 4)
    assert _put(engine, "b", "other", b"").version == 1
    removed = _delete(engine, "b", "o")
    assert (removed.version, removed.size) == (_version(engine, 4), 1)
    assert _put(engine, "b", "o", b"x").version == 1


@_check
def a_removal_may_be_of_one_object_only(engine: Engine) -> None:
    """What is not the object that was meant stays, and nothing of it changes."""
    engine.create_bucket("b", {})
    _put(engine, "b", "o", b"kept")
    with _raises(ConflictError, "o"):
        engine.delete("b", "o", only=lambda info: info.size == 5).result(_TIMEOUT_SECONDS)
    assert engine.delete("b", "o", only=lambda info: info.size == 4).result(_TIMEOUT_SECONDS).name == "o"


@_check
def any_name_is_its_own(engine: Engine) -> None:
    """Every name of NAMES is a separate object, found under exactly itself and listed in byte order."""
    engine.create_bucket("b", {})
    assert len(set(NAMES)) == len(NAMES)
    stored = [name for number, name in enumerate(NAMES) if _put_or_refused(engine, name, number)]
    for number, name in enumerate(NAMES):
        if name not in stored:
            continue
        assert _read(engine, "b", name) == f"{number}".encode() * (1 if number % 2 else 300)
        assert engine.head("b", name).name == name
    in_order = sorted(stored, key=str.encode)
    assert _in_order(engine, _names(engine, "b")) == in_order
    assert _in_order(engine, _names(engine, "b", limit=1)) == in_order
    for name in stored[::3]:
        _delete(engine, "b", name)
    assert _in_order(engine, _names(engine, "b", limit=7)) == sorted(set(stored) - set(stored[::3]), key=str.encode)


def _put_or_refused(engine: Engine, name: str, number: int) -> bool:
    """Write an object; False if the engine rightly says that it cannot have this name."""
    try:
        _put(engine, "b", name, f"{number}".encode() * (1 if number % 2 else 300))
    except BadRequestError:
        if _lacks(engine, "nesting") and name in ("a/b", "a/b/c"):
            return False
        assert _lacks(engine, "any name"), f"{name!r} was refused"
        for verb in (engine.get, engine.head):
            with _raises(BadRequestError):
                verb("b", name)
        return False
    return True


@_check
def impossible_names_are_refused(engine: Engine) -> None:
    """Names that are empty, longer than 1,024 bytes or not UTF-8 are BadRequestError, and nothing is stored."""
    engine.create_bucket("b", {})
    for name in ("", "x" * 1025, "é" * 512 + "x", "\ud800", "a\udfff"):
        for data in (b"", b"x" * 1000):
            with _raises(BadRequestError):
                _put(engine, "b", name, data)
            with _raises(BadRequestError):
                _stage(engine, "b", name, data)
    with _raises(BadRequestError):
        engine.head("b", "\ud800")
    with _raises(BadRequestError):
        engine.get("b", "\ud800")
    with _raises(BadRequestError):
        engine.list("b", ListOptions(prefix="\ud800"))
    assert _names(engine, "b") == []


@_check
def pages_cover_a_listing(engine: Engine) -> None:
    """Prefix, start and limit select names; a full last page has no continuation; entries are complete."""
    engine.create_bucket("b", {})
    engine.create_bucket("c", {})
    _put(engine, "c", "train/5", b"other bucket")
    custom = not _lacks(engine, "metadata")
    names = [f"{part}/{number}" for part in ("test", "train", "val") for number in range(10)]
    options = [PutOptions(custom={"n": name} if custom else {}) for name in names]
    infos = [_put(engine, "b", name, _content(len(name) * 40), each) for name, each in zip(names, options, strict=True)]
    page = engine.list("b", ListOptions())
    if _lacks(engine, "listed facts"):
        assert [(entry.name, entry.size) for entry in page.entries] == [(info.name, info.size) for info in infos]
        assert {(entry.version, entry.checksum.type, len(entry.custom)) for entry in page.entries} == {(1, "none", 0)}
    else:
        assert page.entries == infos
    assert page.continuation == ""
    assert engine.list("b", ListOptions(limit=30)).continuation == ""
    assert engine.list("b", ListOptions(limit=29)).continuation == "val/8"
    assert _names(engine, "b", prefix="train/", limit=3) == names[10:20]
    assert _names(engine, "b", prefix="train/", start_after="train/7") == names[18:20]
    assert _names(engine, "b", prefix="train/", start_after="a") == names[10:20]
    assert _names(engine, "b", prefix="train/", start_after="val/3") == []
    assert _names(engine, "b", start_after="train/3x") == names[14:]
    assert _names(engine, "b", prefix="t") == names[:20]
    assert _names(engine, "b", prefix="x") == []
    for limit in (0, -1):
        with _raises(BadRequestError):
            engine.list("b", ListOptions(limit=limit))


@_check
def prefixes_end_at_any_character(engine: Engine) -> None:
    """A prefix may end in any character, the last one of Unicode included."""
    engine.create_bucket("b", {})
    every = sorted(("p", "p\0", "p\x7f", "pé", "p\uffff", "p\U0010ffff", "p\U0010ffffz", "q"), key=str.encode)
    names = [name for name in every if _put_or_refused(engine, name, 1)]
    for prefix in [*names, ""]:
        assert _names(engine, "b", prefix=prefix) == [name for name in names if name.startswith(prefix)]
        assert _names(engine, "b", start_after=prefix) == [name for name in names if name > prefix]


@_check
def custom_metadata_is_kept(engine: Engine) -> None:
    """Custom metadata is stored with the object, merged or replaced later, and gone with an overwrite."""
    engine.create_bucket("b", {})
    if _lacks(engine, "metadata"):
        with _raises(NotSupportedError, "metadata"):
            _put(engine, "b", "o", b"1", PutOptions(custom={"k": "v"}))
        _put(engine, "b", "o", b"1")
        with _raises(NotSupportedError, "metadata"):
            _set_custom(engine, "o", {"k": "v"}, replace=False)
        assert engine.head("b", "o").custom == {}
        return
    for name, size in (("small", 3), ("large", 30_000)):
        data = _content(size)
        first = _put(engine, "b", name, data, PutOptions(custom={"k": "v", "ü": "\n\0"}))
        assert first.custom == {"k": "v", "ü": "\n\0"}
        merged = _set_custom(engine, name, {"k": "w", "new": ""}, replace=False)
        assert merged.custom == {"k": "w", "ü": "\n\0", "new": ""}
        assert (merged.version, merged.checksum, merged.size) == (1, first.checksum, size)
        assert engine.head("b", name) == merged
        assert _set_custom(engine, name, {"only": "1"}, replace=True).custom == {"only": "1"}
        assert _read(engine, "b", name) == data
        if not _lacks(engine, "listed facts"):
            assert engine.list("b", ListOptions(prefix=name)).entries[0].custom == {"only": "1"}
        assert _delete(engine, "b", name).custom == {"only": "1"}
        assert _put(engine, "b", name, data).custom == {}
    with _raises(BadRequestError):
        _set_custom(engine, "small", {"k": "\ud800"}, replace=False)
    with _raises(TooLargeError):
        _put(engine, "b", "small", b"", PutOptions(custom={"k": "v" * 40_000}))


@_check
def announced_checksums_are_verified(engine: Engine) -> None:
    """A wrong announced checksum stores nothing; a type that cannot be computed is refused, never ignored."""
    engine.create_bucket("b", {})
    for size in (5, 5_000):
        data = _content(size)
        xxh = xxhash.xxh64_hexdigest(data)
        right = (
            Checksum("md5", hashlib.md5(data, usedforsecurity=False).hexdigest()),
            Checksum("sha256", hashlib.sha256(data).hexdigest().upper()),
            Checksum("sha512", hashlib.sha512(data).hexdigest()),
            Checksum("xxhash2", xxh),
            Checksum("xxhash", xxh),
            Checksum("xxh64", xxh),
        )
        stored = _put(engine, "b", "o", data, PutOptions(expected=right)).checksum
        assert stored == _checksum(engine, Checksum("xxhash2", xxh))
        for checksum in right:
            wrong = PutOptions(expected=(*right, Checksum(checksum.type, "0" * len(checksum.value))))
            with _raises(ChecksumMismatchError, "b/o"):
                _put(engine, "b", "o", b"other", wrong)
            with _raises(ChecksumMismatchError, "b/o"):
                _stage(engine, "b", "o", data, options=wrong)
        assert _read(engine, "b", "o") == data
        assert engine.head("b", "o").version == 1
        _delete(engine, "b", "o")
    with _raises(BadRequestError, "crc32c", "sha256"):
        _put(engine, "b", "o", data, PutOptions(expected=(Checksum("crc32c", "00000000"),)))


@_check
def preconditions_decide(engine: Engine) -> None:
    """``if_version`` lets a write through only at that version, 0 being "must not exist"."""
    engine.create_bucket("b", {})
    _put(engine, "b", "o", b"1" * 1000, PutOptions(if_version=0))
    with _raises(ConflictError, "b/o", "version 1"):
        _put(engine, "b", "o", b"2", PutOptions(if_version=0))
    if _lacks(engine, "versions"):
        with _raises(NotSupportedError, "version"):
            _put(engine, "b", "o", b"2", PutOptions(if_version=1))
        assert _read(engine, "b", "o") == b"1" * 1000
        return
    with _raises(ConflictError, "b/absent"):
        _put(engine, "b", "absent", b"1", PutOptions(if_version=1))
    with _raises(ConflictError, "b/o"):
        _stage(engine, "b", "o", b"2" * 1000, options=PutOptions(if_version=2))
    assert _read(engine, "b", "o") == b"1" * 1000
    assert _stage(engine, "b", "o", b"2", options=PutOptions(if_version=1)).version == 2


@_check
def racing_creates_have_one_winner(engine: Engine) -> None:
    """Of eight writers that all require "must not exist", exactly one succeeds, and its bytes are there."""
    engine.create_bucket("b", {})
    for size in (4, 4_000):
        winners = _race(engine, f"race/{size}", size)
        assert len(winners) == 1
        assert _read(engine, "b", f"race/{size}") == bytes(winners) * size


def _race(engine: Engine, name: str, size: int) -> list[int]:
    start = threading.Barrier(8)
    outcomes: dict[int, bool] = {}

    def create(number: int) -> None:
        start.wait(_TIMEOUT_SECONDS)
        try:
            _put(engine, "b", name, bytes([number]) * size, PutOptions(if_version=0))
            outcomes[number] = True
        except ConflictError:
            outcomes[number] = False

    threads = [threading.Thread(target=create, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(_TIMEOUT_SECONDS)
    assert len(outcomes) == 8, "a racing create ended neither well nor in a conflict"
    return [number for number, won in outcomes.items() if won]


@_check
def a_staging_shows_nothing_until_committed(engine: Engine) -> None:
    """A write in progress cannot be seen; an aborted one never; abort may be repeated and follow a commit."""
    engine.create_bucket("b", {})
    custom = {} if _lacks(engine, "metadata") else {"k": "v"}
    staging = engine.stage("b", "o", PutOptions(custom=custom))
    staging.write(b"x" * 10_000)
    assert _names(engine, "b") == []
    with _raises(ObjectNotFoundError):
        engine.head("b", "o")
    staging.abort()
    staging.abort()
    assert _names(engine, "b") == []
    staging = engine.stage("b", "o", PutOptions(custom=custom))
    staging.write(b"x" * 10_000)
    assert staging.commit().result(_TIMEOUT_SECONDS).custom == custom
    staging.abort()
    assert _read(engine, "b", "o") == b"x" * 10_000


@_check
def a_bucket_that_vanishes_takes_no_write(engine: Engine) -> None:
    """A staging outlived by its bucket fails, also when a bucket of the same name was created since."""
    engine.create_bucket("b", {})
    small, large, late = (engine.stage("b", name, PutOptions()) for name in ("small", "large", "late"))
    small.write(b"x")
    large.write(b"x" * 10_000)
    late.write(b"x" * 10_000)
    engine.delete_bucket("b")
    with _raises(BucketNotFoundError, "b"):
        small.commit().result(_TIMEOUT_SECONDS)
    with _raises(BucketNotFoundError, "b"):
        large.commit().result(_TIMEOUT_SECONDS)
    engine.create_bucket("b", {})
    with _raises(BucketNotFoundError, "b"):
        late.commit().result(_TIMEOUT_SECONDS)
    assert _names(engine, "b") == []


@_check
def a_recreated_bucket_is_empty(engine: Engine) -> None:
    """Nothing of a removed bucket shows in a later one of the same name, and versions start again."""
    first = engine.create_bucket("b", {"old": 1})
    for number in range(50):
        _put(engine, "b", f"o{number}", _content(number * 20))
    engine.delete_bucket("b")
    second = engine.create_bucket("b", {})
    assert second.id != first.id
    assert second.props == {}
    assert _names(engine, "b") == []
    with _raises(ObjectNotFoundError):
        engine.get("b", "o30")
    assert _put(engine, "b", "o30", b"new").version == 1
    assert _names(engine, "b") == ["o30"]


@_check
def writers_and_readers_together(engine: Engine) -> None:
    """Under overwrites from several threads every read is one whole version, and listings miss nothing kept."""
    engine.create_bucket("b", {})
    kept = [f"kept/{number:03}" for number in range(40)]
    for name in kept:
        _put(engine, "b", name, b"k")
    _put(engine, "b", "hot", b"\0" * 5_000)
    failures: list[BaseException] = []
    done = threading.Event()

    def guarded(action: Callable[[], None]) -> Callable[[], None]:
        def run_it() -> None:
            try:
                action()
            except BaseException as error:  # reported by the checking thread
                failures.append(error)

        return run_it

    def write(number: int) -> None:
        for turn in range(40):
            _put(engine, "b", "hot", bytes([number]) * (5_000 if turn % 2 else 100))
            _put(engine, "b", f"new/{number}/{turn}", b"n")

    def read() -> None:
        while not done.is_set():
            data = _read(engine, "b", "hot")
            assert len(data) in (100, 5_000), "a torn object was read"
            assert len(set(data)) == 1, "a mixed object was read"
            assert _names(engine, "b", prefix="kept/", limit=7) == kept

    readers = [threading.Thread(target=guarded(read)) for _ in range(2)]
    writers = [threading.Thread(target=guarded(lambda number=number: write(number))) for number in (1, 2, 3)]  # type: ignore[misc]
    for thread in (*readers, *writers):
        thread.start()
    for thread in (*writers, *readers):
        if thread is readers[0]:
            done.set()
        thread.join(_TIMEOUT_SECONDS)
    assert not failures, failures[0]
    assert engine.head("b", "hot").version == _version(engine, 121)
    assert len(_names(engine, "b", prefix="new/")) == 120

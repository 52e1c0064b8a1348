"""Recipes, what is left over, and samples, as pure values."""

from __future__ import annotations

import asyncio
import collections
from collections.abc import Callable

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aistore.jobs.batch import Batch
from aistore.jobs.document import FORMAT, Job, JobKind, JobOptions
from aistore.jobs.recipes import (
    ARGS_BYTES_MAX,
    NAME_BYTES_MAX,
    RECIPE,
    TAG,
    fact_of,
    parse,
    recipe_in,
    recipe_of,
    spell,
    users_own,
    way_of,
)
from aistore.jobs.sync import Expected, remove_left_over, source_of
from aistore.jobs.targets import target_name
from aistore.jobs.verify import Draw, bound_of, is_drawn
from aistore.model.etl import TransformCall
from aistore.model.objects import Checksum, ObjectInfo, Only, PutOptions, can_be_told
from aistore.storage.memory import MemoryEngine
from aistore.storage.objectstore.metadata import CUSTOM_BYTES_MAX, UNKNOWN, encode

TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=40)
NAMES = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=300).filter(
    lambda name: len(name.encode()) <= 1024
)
DIGESTS = st.text("0123456789abcdef", min_size=16, max_size=16)


def info(name: str, *, version: int = 1, checksum: str = "0" * 16, etag: str = "", **custom: str) -> ObjectInfo:
    known = Checksum("xxhash2", checksum) if checksum else UNKNOWN
    return ObjectInfo(
        "b", name, 10, version, known, 1, {key.replace("_", "-"): value for key, value in custom.items()}, etag
    )


@given(
    NAMES, st.lists(st.tuples(TEXT.filter(bool), DIGESTS), max_size=4), TEXT, TEXT, st.sampled_from(["", '"a,b=-2"'])
)
def test_a_recipe_is_read_as_it_was_written(
    name: str, stages: list[tuple[str, str]], args: str, seed: str, etag: str
) -> None:
    names, digests = [f"etl-{number}" for number, _ in enumerate(stages)], tuple(digest for _, digest in stages)
    call = TransformCall(names[0], args, tuple(names[1:]), seed=seed or None) if names else None
    recipe = recipe_of(way_of("s3://some-bucket", call, digests), info(name, etag=etag))
    text = spell(recipe)
    assert parse(text) == recipe
    assert can_be_told(RECIPE, text), "it does not survive a header"
    assert recipe_in({RECIPE: text}) == recipe
    assert recipe.is_of(name)
    assert not recipe.is_of(f"{name}x")
    assert fact_of(info(name, etag=etag)) in (recipe.etag, recipe.checksum)


@pytest.mark.parametrize(
    "text", ["", "from", "from=ais://b", "from=ais://b&version=x", "version=1", "from=b&version=1&etl=x", "%ff"]
)
def test_what_is_no_recipe(text: str) -> None:
    assert parse(text) is None
    assert recipe_in({RECIPE: text}) is None


def test_the_longest_recipe_leaves_room_in_an_object_store() -> None:
    worst = "é" * 512
    call = TransformCall("e" * 32, worst, ("f" * 32, "g" * 32), seed="s" * 256)
    recipe = recipe_of(way_of("s3://" + "b" * 63, call, ("0" * 16,) * 3), info(worst, etag='"' + "f" * 40 + '"'))
    assert recipe.name_digest
    assert recipe.way.told
    assert not recipe.name + recipe.way.args + recipe.way.seed
    fits = recipe_of(
        way_of("s3://" + "b" * 63, TransformCall("e" * 32, "a" * ARGS_BYTES_MAX, ("f" * 32,)), ("0" * 16,) * 2),
        info("n" * NAME_BYTES_MAX, etag='"' + "f" * 40 + '"'),
    )  # fmt: skip
    custom = {RECIPE: spell(fits), TAG: f"{'j' * 11} {'0' * 24}"}
    assert len(msgspec.json.encode(custom)) < 0.65 * CUSTOM_BYTES_MAX
    encode(1, "0" * 16, "0" * 16, {**custom, "mine": "m" * 600})


def test_what_changes_what_is_made() -> None:
    base = TransformCall("one", "args", ("two",), seed="7")
    way = way_of("ais://a", base, ("1", "2"))
    same = way_of("ais://a", TransformCall("renamed", "args", ("two",), 9.0, seed="7"), ("1", "2"))
    assert way.makes == same.makes
    others = [
        way_of("ais://b", base, ("1", "2")), way_of("ais://a", base, ("2", "1")), way_of("ais://a", base, ("1", "3")),
        way_of("ais://a", TransformCall("one", "other", ("two",), seed="7"), ("1", "2")),
        way_of("ais://a", TransformCall("one", "args", ("two",), seed="8"), ("1", "2")),
        way_of("ais://a", TransformCall("one", "args", ("two",)), ("1", "2")),
        way_of("ais://a", TransformCall("one", "args", seed="7"), ("1",)), way_of("ais://a", None, ()),
    ]  # fmt: skip
    assert all(other.makes != way.makes for other in others)


def test_when_a_source_is_the_same() -> None:
    way = way_of("ais://a", None, ())
    written = recipe_of(way, info("n", version=3, checksum="a" * 16, etag="e1"))
    assert written.is_of_same(info("n", version=4, checksum="a" * 16, etag="e2")), "the same bytes, written again"
    assert not written.is_of_same(info("n", version=3, checksum="b" * 16, etag="e1"))
    assert written.is_of_same(info("n", checksum="", etag="e1"))
    assert not written.is_of_same(info("n", checksum="", etag="e2"))
    unknown = recipe_of(way, info("n", checksum="", etag="e1"))
    assert unknown.is_of_same(info("n", checksum="b" * 16, etag="e1"))
    assert not unknown.is_of_same(info("n", checksum="b" * 16))
    nothing = recipe_of(way, info("n", checksum=""))
    assert not nothing.is_of_same(info("n", checksum="")), "what nobody can tell apart has changed"
    assert not nothing.is_of_listed("")


def test_the_users_own_metadata() -> None:
    assert users_own({"k": "v", RECIPE: "x", TAG: "y"}) == {"k": "v"}


EXTENSIONS = st.sampled_from("abc")
OPTIONS = st.builds(
    JobOptions, prefix=st.sampled_from(["", "d/", "x.a"]), prepend=st.sampled_from(["", "p/"]),
    ext=st.dictionaries(EXTENSIONS, EXTENSIONS, max_size=2), etl=st.sampled_from(["", "some-etl"]),
)  # fmt: skip
SOURCES = st.builds("{}{}{}".format, st.sampled_from(["x", "d/x", "é" * 400]), st.sampled_from(["", "."]), EXTENSIONS)


@given(OPTIONS, OPTIONS, SOURCES)
def test_an_object_is_left_over_only_of_the_name_that_leads_to_it(
    made_by: JobOptions, run: JobOptions, name: str
) -> None:
    """Whatever job has made it: it belongs to this one if this one would make it of the same source at this place."""
    way = way_of("ais://a", made_by.call, ("0" * 16,) if made_by.call else ())
    target = target_name(name, made_by)
    there = info(target, ais_recipe=spell(recipe_of(way, info(name))))
    batch = Batch("j", "ais://a", "ais://b", [target], run)
    mine = bool(run.etl) == bool(made_by.etl) and name.startswith(run.prefix) and target_name(name, run) == target
    assert source_of(target, there, batch) == (name if mine else None)
    assert source_of(target, there, msgspec.structs.replace(batch, source="ais://other")) is None
    assert source_of(target, info(target), batch) is None


@given(OPTIONS, st.sets(SOURCES, max_size=6), st.sets(SOURCES, max_size=6))
def test_names_that_no_source_leads_to(run: JobOptions, sources: set[str], targets: set[str]) -> None:
    with Expected(run) as expected:
        expected.add(sources)
        expected.add(sources)
        leading = {target_name(name, run) for name in sources}
        assert set(expected.unexpected([*targets, *leading])) == targets - leading


class Here:
    """Two buckets, of which somebody else uses one at a bad moment."""

    def __init__(self) -> None:
        self.engine = MemoryEngine()
        for bucket in "ab":
            self.engine.create_bucket(bucket, {})
        self.meanwhile: Callable[[], object] = lambda: None

    def put(self, bucket: str, name: str, data: bytes, custom: dict[str, str]) -> ObjectInfo:
        return self.engine.put(bucket, name, data, PutOptions(custom=custom)).result()

    async def head(self, bucket: str, name: str, *, latest: bool = False) -> ObjectInfo:
        return self.engine.head(bucket.removeprefix("ais://"), name)

    async def remove(self, bucket: str, name: str, only: Only) -> None:
        self.meanwhile()
        self.engine.delete(bucket.removeprefix("ais://"), name, only=only).result()


def test_what_was_replaced_just_before_its_removal_stays() -> None:
    here, batch = Here(), Batch("j", "ais://a", "ais://b", ["x"], JobOptions())
    source = here.put("a", "x", b"1", {})
    custom = {RECIPE: spell(recipe_of(way_of("ais://a", None, ()), source)), TAG: "job 1"}
    here.put("b", "x", b"1", custom)

    def removed() -> int:
        return asyncio.run(remove_left_over(here, batch, "x")).removed  # type: ignore[arg-type]

    assert removed() == 0, "its source is there"
    here.engine.delete("a", "x").result()

    def replace() -> None:
        here.engine.delete("b", "x").result()
        here.put("b", "x", b"1", {"mine": "1"})  # the same bytes, and version 1 again

    here.meanwhile = replace
    assert removed() == 0
    assert here.engine.head("b", "x").custom == {"mine": "1"}
    here.put("b", "x", b"1", {**custom, TAG: "job 2"})
    here.meanwhile = lambda: here.put("b", "x", b"1", {**custom, TAG: "job 3"})
    assert removed() == 0, "another job has written it since"
    here.meanwhile = lambda: None
    assert removed() == 1
    assert removed() == 0


def a_job(job_id: str, below: int) -> Job:
    return Job(FORMAT, job_id, JobKind.VERIFY, "ais://a", "ais://a", "n", 1, below=below)


@given(st.integers(0, 60), st.integers(1, 70))
def test_a_sample_has_as_many_as_were_asked_for(names: int, count: int) -> None:
    listed = [f"{number:03}" for number in range(names)]
    draw = Draw("job", count)
    for start in range(0, names, 7):
        draw.add(listed[start : start + 7])
    job = a_job("job", draw.below)
    assert sum(is_drawn(job, name) for name in listed) == min(names, count)


def test_samples_are_even_and_differ() -> None:
    listed = [f"train/{number:05}.jpg" for number in range(2000)]
    often: collections.Counter[str] = collections.Counter()
    for number in range(40):
        job = a_job(f"job{number}", bound_of(25.0))
        drawn = [name for name in listed if is_drawn(job, name)]
        assert 400 < len(drawn) < 600
        often.update(drawn)
    assert len(often) > 1990
    assert max(often.values()) < 30
    assert all(is_drawn(a_job("any", bound_of(100.0)), name) for name in listed)
    assert all(is_drawn(a_job("any", 0), name) for name in listed)

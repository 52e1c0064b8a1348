"""The rules of jobs as pure logic: names, records, who takes over when; with time passed in."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aistore.errors import BadRequestError, ConflictError, InternalError, JobNotFoundError, StaleJobError
from aistore.jobs.document import (
    ERRORS_MAX,
    FORMAT,
    Counts,
    Job,
    JobKind,
    JobOptions,
    JobState,
    ObjectError,
    check_options,
    decode,
    encode,
    new_job_id,
)
from aistore.jobs.records import FileJobRecords, JobRecords
from aistore.jobs.shared_records import SharedJobRecords
from aistore.jobs.takeover import LEASE_SECONDS, MARGIN, Lease, Observer
from aistore.jobs.targets import Collisions, ambiguous_extensions, target_name
from aistore.storage.objectstore.urls import open_object_store


def a_job(**fields: object) -> Job:
    known = {"format": FORMAT, "id": new_job_id(), "kind": JobKind.COPY, "source": "ais://a", "destination": "ais://b"}
    return Job(**{**known, "owner": "n1", "started_ns": 1, **fields})  # type: ignore[arg-type]


# --- names

EXTENSIONS = st.sampled_from("abcd")
MAPS = st.dictionaries(EXTENSIONS, EXTENSIONS, max_size=4)
NAMES = st.builds(
    "{}{}{}".format, st.sampled_from(["x", "x.a", "d/x", "d.a/x", ""]), st.sampled_from([".", ""]), EXTENSIONS
)


@given(MAPS, st.sets(NAMES, max_size=12), st.integers(1, 5))
def test_two_names_for_one_are_found_whatever_the_pages(ext: dict[str, str], names: set[str], page: int) -> None:
    options, listed = JobOptions(ext=ext), sorted(names)
    twice = len({target_name(name, options) for name in listed}) < len(listed)
    assert not twice or ambiguous_extensions(ext), "extensions that are not looked at made two names one"
    found = False
    with Collisions(options) as collisions:
        for start in range(0, len(listed), page):
            try:
                collisions.add(listed[start : start + page])
            except ConflictError:
                found = True
                break
    assert found == twice


def test_names_at_the_destination() -> None:
    options = JobOptions(prepend="p/", ext={"jpg": "txt", "gz": "z"})
    expected = {"a.jpg": "p/a.txt", "a.png": "p/a.png", "a.tar.gz": "p/a.tar.z", "jpg": "p/jpg", "a.jpg/b": "p/a.jpg/b"}
    assert {name: target_name(name, options) for name in expected} == expected


def test_the_error_names_both() -> None:
    with Collisions(JobOptions(ext={"jpg": "txt"})) as collisions, pytest.raises(ConflictError) as raised:
        collisions.add(["a.jpg", "b.jpg", "b.txt"])
    assert "'b.jpg' and 'b.txt'" in raised.value.message


def test_options_that_cannot_be() -> None:
    assert check_options(JobOptions(ext={".jpg": ".txt"})).ext == {"jpg": "txt"}
    for options in (JobOptions(ext={"": "a"}), JobOptions(ext={"a": "b/c"}), JobOptions(workers=-1)):
        with pytest.raises(BadRequestError):
            check_options(options)


# --- records


def test_a_record_is_read_back_and_grows() -> None:
    options, counts = JobOptions(prefix="p", ext={"a": "b"}), Counts(1, 2, 1)
    job = a_job(options=options, errors=(ObjectError("x", "no"),), counts=counts)
    assert decode(encode(job)) == job
    assert decode(b'{"unknown": 1,' + encode(job)[1:]) == job
    for data in (b"", b"{}", encode(a_job(format=FORMAT + 1))):
        with pytest.raises(InternalError):
            decode(data)


def test_errors_are_bounded_and_counted() -> None:
    job = a_job()
    for number in range(10):
        errors = [ObjectError(f"{number}/{n}", "no", 422) for n in range(100)]
        job = job.advance(f"{number}", Counts(5, 50, 100), errors)
    assert (job.counts, len(job.errors), job.done) == (Counts(50, 500, 1000), ERRORS_MAX, "9")
    assert job.finish(7).error.startswith("1000 objects failed, the first of them: no")
    aborted = job.abort(7, "stopped", Counts(1, 1), [])
    assert (aborted.error, aborted.state, aborted.counts.objects) == ("stopped", JobState.ABORTED, 51)


@pytest.fixture(params=["files", "store"])
def records(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[JobRecords]:
    if request.param == "files":
        yield FileJobRecords(str(tmp_path))
    else:
        store = open_object_store("memory://jobs")
        yield SharedJobRecords(store)
        store.close()


def test_a_record_is_replaced_only_by_who_has_seen_it(records: JobRecords) -> None:
    job = a_job()
    tag = records.create(job)
    newer = records.replace(job.renewed(), tag)
    with pytest.raises(StaleJobError):
        records.create(job)
    with pytest.raises(StaleJobError):
        records.replace(job.taken_over("n2"), tag)
    assert records.load(job.id) == (job.renewed(), newer)
    assert records.list() == [records.load(job.id)]
    records.delete(job.id)
    records.delete(job.id)
    assert records.list() == []
    for missing in (job.id, "../etc/passwd", ""):
        with pytest.raises(JobNotFoundError):
            records.load(missing)
    with pytest.raises(JobNotFoundError):
        records.replace(job, newer)


def test_of_many_who_replace_a_record_one_wins(records: JobRecords) -> None:
    job = a_job()
    tag = records.create(job)
    won: list[str] = []

    def attempt(node: str) -> None:
        try:
            records.replace(job.taken_over(node), tag)
            won.append(node)
        except StaleJobError:
            pass

    threads = [threading.Thread(target=attempt, args=(f"n{number}",)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [records.load(job.id).job.owner] == won


def test_a_record_that_cannot_be_read_is_left_alone(tmp_path: Path) -> None:
    records, job = FileJobRecords(str(tmp_path)), a_job()
    records.create(job)
    (tmp_path / "broken.json").write_text("{")
    assert [kept.job for kept in records.list()] == [job]
    assert (tmp_path / "broken.json").exists()


# --- taking over


def test_an_owner_that_writes_is_never_taken_for_lost() -> None:
    observer, job = Observer("n2"), a_job()
    for step in range(100):
        now = step * LEASE_SECONDS / 3
        job = job.renewed()
        assert observer.lapsed([job], now, now) == []


def test_an_owner_that_is_silent_is_lost_after_its_lease() -> None:
    observer, job = Observer("n2"), a_job(counter=7)
    assert observer.lapsed([job], 100.0, 101.0) == []
    assert observer.lapsed([job], 101.0 + LEASE_SECONDS - 0.1, 131.0) == []
    assert observer.lapsed([job], 101.0 + LEASE_SECONDS, 132.0) == [job]
    taken = job.taken_over("n3")
    assert observer.lapsed([taken], 132.0, 132.0) == [], "a new owner has its whole lease before it"


def test_what_is_not_watched() -> None:
    observer = Observer("n2")
    jobs = [a_job(owner="n2"), a_job(state=JobState.FINISHED)]
    for now in (0.0, 1000.0):
        assert observer.lapsed(jobs, now, now) == []


def test_an_owner_stops_before_anybody_counts_it_as_lost() -> None:
    """Whatever the delays: when an observer counts the owner as lost, the owner may not act any more.

    Both clocks run, from different zeros and a little differently fast; requests and answers take their time, answers
    are lost, and the owner falls silent at some moment.
    """
    chance = random.Random(20261122)
    for _ in range(2000):
        zero, pace = chance.uniform(-1e6, 1e6), 1 + chance.uniform(-0.04, 0.04)
        job, lease, observer = a_job(), Lease(0.0), Observer("n2")
        written, time, silent_from = [(0.0, job)], 0.0, chance.uniform(0, 60)
        while time < silent_from:
            sent = time + chance.uniform(0, 15)
            applied = sent + chance.uniform(0, 5)
            job = job.renewed()
            written.append((applied, job))
            if chance.random() < 0.8:
                lease.renewed(sent)
            time = applied + chance.uniform(0, 5)
        look = 0.0
        while look < 300:
            read = look + chance.uniform(0, 3)
            answered = read + chance.uniform(0, 3)
            seen = [one for at, one in written if at <= read][-1]
            if observer.lapsed([seen], zero + pace * look, zero + pace * answered):
                assert look >= written[-1][0], "it was counted as lost although it wrote again"
                assert not lease.may_act(look), "it may still act"
                break
            look = answered + chance.uniform(0, 8)
        else:
            raise AssertionError("the silent owner was never found")


def test_the_margin_is_what_it_says() -> None:
    lease, seconds = Lease(10.0), LEASE_SECONDS * (1 - MARGIN)
    assert lease.may_act(10.0 + seconds - 0.1)
    assert not lease.may_act(10.0 + seconds)
    lease.renewed(5.0)
    assert not lease.may_act(10.0 + seconds), "an old answer shortens nothing and lengthens nothing"

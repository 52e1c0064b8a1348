"""How long a batch tries an object again that fails for a reason which passes."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from aistore.errors import AisError, EtlNotRunningError, OverloadedError
from aistore.jobs import batch as batches
from aistore.jobs.batch import Batch, BatchResult, run_batch
from aistore.jobs.document import JobKind, JobOptions


class Failing:
    """Objects of which a prefetch fails with one error after the other, and then does not."""

    def __init__(self, *errors: AisError) -> None:
        self.errors = list(errors)

    def lane(self, batch: Batch) -> None:
        return None

    async def prefetch(self, bucket: str, name: str, *, latest: bool) -> int:
        if self.errors:
            raise self.errors.pop(0)
        return 7


def result_of(*errors: AisError) -> BatchResult:
    objects: Any = Failing(*errors)
    job = Batch("job", "s3://source", "", ["name"], JobOptions(), kind=JobKind.PREFETCH)
    return asyncio.run(run_batch(objects, job))


@pytest.fixture(autouse=True)
def impatience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "_PATIENCE_SECONDS", 0.0)
    monkeypatch.setattr(batches, "_PAUSE_SECONDS", 0.001)


def test_a_queue_is_waited_for_however_long_it_is() -> None:
    result = result_of(*[OverloadedError("full")] * 6)
    assert (result.counts.objects, result.counts.failed) == (1, 0)


def test_what_does_not_pass_is_told() -> None:
    result = result_of(OverloadedError("full"), EtlNotRunningError("ended"))
    assert (result.counts.objects, result.counts.failed) == (0, 1)
    assert result.errors[0].message == "ended"

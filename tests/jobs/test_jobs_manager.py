"""What the controller of a node does about jobs while it watches the records of all nodes."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

import msgspec

from aistore.jobs.batch import Batch, BatchResult
from aistore.jobs.chosen import NamesPage
from aistore.jobs.document import Job, JobKind, JobOptions
from aistore.jobs.manager import Manager
from aistore.jobs.shared_records import SharedJobRecords
from aistore.storage.objectstore.urls import open_object_store


class EmptyBucket:
    """Workers whose source has no objects."""

    async def names(self, source: str, prefix: str, after: str, limit: int, *, cached: bool = False) -> NamesPage:
        return NamesPage([], "")

    def home(self, job: Job, name: str) -> str:
        return "n1"

    async def run(self, node: str, batch: Batch) -> BatchResult:
        raise AssertionError("there is nothing to do")


class SlowToAnswer(SharedJobRecords):
    """Records of a store that has a new one, and says so when it may."""

    def __init__(self) -> None:
        super().__init__(open_object_store("memory://"))
        self.may_answer = threading.Event()
        self.looks_since = threading.Semaphore(0)
        self.created = False
        self.replaced = 0

    def create(self, job: Job) -> str:
        tag = super().create(job)
        self.created = True
        self.may_answer.wait(30)
        return tag

    def replace(self, job: Job, tag: str) -> str:
        self.replaced += 1
        return super().replace(job, tag)

    def list(self) -> list[Any]:
        created = self.created
        found = super().list()
        if created:
            self.looks_since.release()
        return found


async def _say(kind: str, text: str) -> None:
    return


def test_a_job_that_is_being_started_is_not_taken_for_one_that_was_left() -> None:
    async def story() -> None:
        records = SlowToAnswer()
        manager = Manager("n1", records, EmptyBucket(), time.monotonic, alone=False, lease_seconds=0.6)
        await manager.load()
        try:
            arguments = {
                "options": msgspec.to_builtins(JobOptions()), "kind": JobKind.COPY.value,
                "source": "ais://a", "destination": "ais://b",
            }  # fmt: skip
            starting = asyncio.ensure_future(manager.verbs()["job_start"](arguments, _say))
            for _ in range(3):  # each look has acted on what the one before has seen
                assert await asyncio.to_thread(records.looks_since.acquire, timeout=30)
            assert records.replaced == 0
            records.may_answer.set()
            job_id = await starting
            while (await asyncio.to_thread(records.load, job_id)).job.runs:
                assert await asyncio.to_thread(records.looks_since.acquire, timeout=30)
        finally:
            records.may_answer.set()
            await manager.close()

    asyncio.run(asyncio.wait_for(story(), 60))

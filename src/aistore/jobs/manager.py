"""All jobs that this node knows, in the controller: those it owns and runs, and those of others that it watches."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from ..errors import AisError, JobNotFoundError, StaleJobError
from .document import FORMAT, Job, JobKind, JobOptions, check_options, new_job_id
from .records import JobRecords, KeptJob
from .run import JobRun, LostError, Workers
from .takeover import LEASE_SECONDS, Observer

_log = logging.getLogger("aistore.jobs")

#: Ended jobs that are remembered. Guessed: weeks of them, in records of some KB.
ENDED_MAX = 500
#: How often in a lease the records of other nodes' jobs are looked at.
_LOOKS = 6

ReportProgress = Callable[[str, str], Awaitable[None]]


class Manager:
    """The controller's verbs on jobs. ``now`` is a clock in seconds that counts suspension.

    ``alone`` says that no other node keeps its records at the same place, so nothing has to be watched.
    """

    def __init__(
        self, node: str, records: JobRecords, workers: Workers, now: Callable[[], float], *, alone: bool = True,
        lease_seconds: float = LEASE_SECONDS,
    ) -> None:  # fmt: skip
        self._node = node
        self._records = records
        self._workers = workers
        self._now = now
        self._alone = alone
        self._lease_seconds = lease_seconds
        self._observer = Observer(node, lease_seconds)
        self._runs: dict[str, tuple[JobRun, asyncio.Task[None]]] = {}
        self._starting: set[str] = set()
        self._ended: dict[str, Job] = {}
        self._watch: asyncio.Task[None] | None = None

    def verbs(self) -> dict[str, Callable[[dict[str, Any], ReportProgress], Awaitable[Any]]]:
        """Return the verbs by name, as the link serves them."""
        return {"job_start": self._start, "job_stop": self._stop, "job_list": self._list}

    async def load(self) -> None:
        """Take up the jobs that this node owns: those that ran go on."""
        await self._look()
        if not self._alone:
            self._watch = asyncio.ensure_future(self._watch_others())

    async def close(self) -> None:
        """Stop working; the records stay as they are, and this node or another goes on from there."""
        tasks = [task for _, task in self._runs.values()] + ([self._watch] if self._watch else [])
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # --- verbs

    async def _start(self, arguments: dict[str, Any], report: ReportProgress) -> str:
        options = check_options(msgspec.convert(arguments["options"], JobOptions))
        job = Job(
            format=FORMAT, id=new_job_id(), kind=JobKind(arguments["kind"]), source=str(arguments["source"]),
            destination=str(arguments["destination"]), owner=self._node, started_ns=time.time_ns(), options=options,
        )  # fmt: skip
        sent_at = self._now()
        self._starting.add(job.id)  # else who looks at the records meanwhile would run it too
        try:
            tag = await asyncio.to_thread(self._records.create, job)
            self._run(KeptJob(job, tag), sent_at)
        finally:
            self._starting.discard(job.id)
        return job.id

    async def _stop(self, arguments: dict[str, Any], report: ReportProgress) -> list[str]:
        """Have jobs end, by id or by kind, and return the ids of those that ran; raises JobNotFoundError."""
        wanted, kind, reason = str(arguments["id"]), str(arguments["kind"]), str(arguments["reason"])
        jobs = await self._all(wanted)
        if wanted and wanted not in jobs:
            raise JobNotFoundError.of(wanted)
        stopped = []
        for job in jobs.values():
            if job.runs and wanted in ("", job.id) and kind in ("", job.kind.value):
                await self._stop_one(job.id, reason)
                stopped.append(job.id)
        return stopped

    async def _stop_one(self, job_id: str, reason: str) -> None:
        if job_id in self._runs:
            run, task = self._runs[job_id]
            run.stop(reason)
            await asyncio.wait((task,))
            return
        while True:  # another node's: it finds the wish when it writes next
            kept = await asyncio.to_thread(self._records.load, job_id)
            try:
                await asyncio.to_thread(self._records.replace, kept.job.ask_to_stop(reason), kept.tag)
                return
            except StaleJobError:
                continue

    async def _list(self, arguments: dict[str, Any], report: ReportProgress) -> list[dict[str, Any]]:
        """Return the records of all jobs, or of one, with all that is known by now; the newest first.

        Without ``errors`` their errors are left out: only the first is told. ``wait`` is how many seconds to wait for
        the end of that one, if it runs here.
        """
        wanted = str(arguments["id"])
        if arguments["wait"] and wanted in self._runs:
            await asyncio.wait((self._runs[wanted][1],), timeout=float(arguments["wait"]))
        jobs = await self._all(wanted)
        found = [job for job in jobs.values() if wanted in ("", job.id)]
        found.sort(key=lambda job: job.started_ns, reverse=True)
        if not arguments["errors"]:
            found = [msgspec.structs.replace(job.shortened(), errors=job.errors[:1]) for job in found]
        return [msgspec.to_builtins(job) for job in found]

    async def _all(self, wanted: str = "") -> dict[str, Job]:
        """Return all jobs by id; on one node they are all known, in a cluster the records are read."""
        jobs = dict(self._ended)
        if not self._alone and wanted not in self._runs and wanted not in jobs:
            if wanted:
                with contextlib.suppress(JobNotFoundError):
                    jobs[wanted] = (await asyncio.to_thread(self._records.load, wanted)).job
            else:
                jobs |= {kept.job.id: kept.job for kept in await asyncio.to_thread(self._records.list)}
        for job_id, (run, _) in self._runs.items():
            job, counts, errors = run.progress
            jobs[job_id] = msgspec.structs.replace(job, counts=counts, errors=errors)
        return jobs

    # --- running and watching

    def _run(self, kept: KeptJob, sent_at: float) -> None:
        run = JobRun(kept, self._records, self._workers, self._now, sent_at, self._lease_seconds)
        self._runs[kept.job.id] = run, asyncio.ensure_future(self._follow(kept.job.id, run))

    async def _follow(self, job_id: str, run: JobRun) -> None:
        """See a job to its end."""
        try:
            job = await run.run()
        except LostError:
            _log.warning("job %s is another node's now", job_id)
        else:
            self._ended[job_id] = job
            said = f"{job.state.value}: {job.counts.objects} objects, {job.counts.bytes} bytes"
            _log.info("job %s %s%s", job_id, said, f", {job.error}" if job.error else "")
            await self._forget_old()
        finally:
            del self._runs[job_id]

    async def _forget_old(self) -> None:
        """Forget the oldest ended jobs beyond the bound."""
        beyond = sorted(self._ended.values(), key=lambda job: job.ended_ns)[: max(0, len(self._ended) - ENDED_MAX)]
        for job in beyond:
            del self._ended[job.id]
            await asyncio.to_thread(self._records.delete, job.id)

    async def _watch_others(self) -> None:
        while True:
            await asyncio.sleep(self._lease_seconds / _LOOKS)
            try:
                await self._look()
            except AisError as error:
                _log.warning("the records of jobs cannot be read: %s", error)

    async def _look(self) -> None:
        """Read all records: note what has ended, go on with our own, take over what has lost its owner."""
        asked_at = self._now()
        kept = {one.job.id: one for one in await asyncio.to_thread(self._records.list)}
        self._ended = {job_id: one.job for job_id, one in kept.items() if not one.job.runs}
        ours = [one.job for one in kept.values() if one.job.runs and one.job.owner == self._node]
        lost = self._observer.lapsed((one.job for one in kept.values()), asked_at, self._now())
        for job in (*ours, *lost):
            if job.id in self._runs or job.id in self._starting:
                continue
            sent_at = self._now()
            taken = job.taken_over(self._node)
            try:
                tag = await asyncio.to_thread(self._records.replace, taken, kept[job.id].tag)
            except (StaleJobError, JobNotFoundError):
                continue  # somebody was quicker
            _log.info("job %s goes on here", job.id)
            self._run(KeptJob(taken, tag), sent_at)

"""Jobs that copy a bucket again and again while things happen, and what is in their destinations."""

from __future__ import annotations

import threading
import time

from aistore.client import Bucket, Client, RetryPolicy
from aistore.errors import AisError, JobNotFoundError
from aistore.testing import LocalCluster

from . import content
from .sending import BUDGET_SECONDS

OBJECTS = 100
#: Between two jobs.
_PAUSE_SECONDS = 2.0
_JOB_SECONDS = 120.0


class CopyingJobs:
    """Copies ``OBJECTS`` objects to one new bucket after the other until ``stop``."""

    def __init__(self, cluster: LocalCluster) -> None:
        self._cluster = cluster
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="jobs")
        self._made: list[str] = []
        #: Jobs that did all their work, and starts whose answer was lost.
        self.finished = self.unanswered = 0
        self.problems: list[str] = []

    def start(self) -> None:
        """Fill the source, begin."""
        with self._client() as client:
            source = client.bucket("job-source").create()
            for number in range(OBJECTS):
                source.object(f"{number:04}").put(content.make(f"s{number}", 2000))
        self._thread.start()

    def stop(self) -> None:
        """Wait for the job that runs, then compare all destinations with the source."""
        self._stopping.set()
        self._thread.join()
        with self._client() as client:
            for name in self._made:
                self._compare(client.bucket(name))

    def _client(self) -> Client:
        endpoints = ",".join(node.endpoint for node in list(self._cluster.nodes.values()) if node.endpoint)
        return Client(endpoints, connect_timeout_seconds=2.0, retry=RetryPolicy(budget_seconds=BUDGET_SECONDS))

    def _run(self) -> None:
        number = 0
        while not self._stopping.is_set():
            number += 1
            name = f"job-{number}"
            with self._client() as client:
                try:
                    job = client.bucket("job-source").copy(name).id
                except AisError:  # it may have begun: its bucket is left alone
                    self.unanswered += 1
                    continue
                self._follow(client, job, name)
            self._stopping.wait(_PAUSE_SECONDS)

    def _follow(self, client: Client, job: str, name: str) -> None:
        deadline = time.monotonic() + _JOB_SECONDS
        why = "it runs"
        while time.monotonic() < deadline:
            try:
                info = client.job(job).info()
            except (AisError, JobNotFoundError) as error:
                why = repr(error)
            else:
                if not info.runs:
                    if info.error or info.aborted or info.objects != OBJECTS:
                        self.problems.append(f"job {job} to {name}: {info}")
                    self.finished += 1
                    self._made.append(name)
                    return
            time.sleep(0.1)
        self.problems.append(f"job {job} to {name} did not end in {_JOB_SECONDS:.0f} s: {why}")

    def _compare(self, bucket: Bucket) -> None:
        names = [entry.name for entry in bucket.list()]
        expected = [f"{number:04}" for number in range(OBJECTS)]
        if names != expected:
            missing, more = set(expected) - set(names), set(names) - set(expected)
            self.problems.append(f"{bucket}: {sorted(missing)[:5]} are missing, {sorted(more)[:5]} are too many")
        for name, data in zip(names, bucket.batch(names), strict=True):
            if data != content.make(f"s{int(name)}", 2000):
                self.problems.append(f"{bucket}/{name} has other bytes than its source")
            if bucket.object(name).head().version != 1:
                self.problems.append(f"{bucket}/{name} was written twice")

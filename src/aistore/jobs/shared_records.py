"""Records of jobs in the object store that a cluster shares: one object each, replaced under a condition."""

from __future__ import annotations

import logging

from ..errors import (
    AisError,
    AmbiguousWriteError,
    JobNotFoundError,
    StaleConditionError,
    StaleJobError,
    StoredNotFoundError,
)
from ..storage.objectstore.contract import ABSENT, Absent, ObjectStore
from .document import Job, decode, encode
from .records import KeptJob

_log = logging.getLogger("aistore.jobs")

PREFIX = ".ais/jobs/"


class SharedJobRecords:
    """Records below ``.ais/jobs/`` of a store whose conditions hold. The verbs block."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self._read: dict[str, KeptJob] = {}  # by key: what has not changed is not read again

    def create(self, job: Job) -> str:
        """Keep a new record and return its tag; raises StaleJobError if there is one of that id."""
        return self._put(job, ABSENT)

    def load(self, job_id: str) -> KeptJob:
        """Return a record; raises JobNotFoundError."""
        if not job_id.isalnum() or len(job_id) > 64:  # it comes from a request
            raise JobNotFoundError.of(job_id)
        return self._get(f"{PREFIX}{job_id}", job_id)

    def replace(self, job: Job, tag: str) -> str:
        """Put a record in the place of the one with ``tag``; raises StaleJobError, JobNotFoundError."""
        return self._put(job, tag)

    def list(self) -> list[KeptJob]:
        """Return all records that can be read; others are logged and left alone."""
        found, read, after = [], dict[str, KeptJob](), ""
        while True:
            page = self._store.list(PREFIX, after)
            for entry in page.entries:
                known = self._read.get(entry.key)
                try:
                    if known is None or known.tag != entry.etag:
                        known = self._get(entry.key, entry.key.removeprefix(PREFIX))
                except JobNotFoundError:
                    continue  # deleted meanwhile
                except AisError as error:
                    _log.error("%s, leaving it out: %s", entry.key, error)
                    continue
                read[entry.key] = known
                found.append(known)
            after = page.continuation
            if not after:
                self._read = read
                return found

    def delete(self, job_id: str) -> None:
        """Forget a record; one that is not there is forgotten."""
        self._store.delete(f"{PREFIX}{job_id}")

    def _get(self, key: str, job_id: str) -> KeptJob:
        try:
            body = self._store.get(key)
        except StoredNotFoundError:
            raise JobNotFoundError.of(job_id) from None
        assert body is not None
        with body:
            return KeptJob(decode(bytes(body.read())), body.info.etag)

    def _put(self, job: Job, condition: Absent | str) -> str:
        """Write a record under a condition; what cannot be told of the outcome is read back.

        No two writers write the same bytes: an owner raises the counter each time, and its id is in the record.
        """
        key, data = f"{PREFIX}{job.id}", encode(job)
        try:
            return self._store.put(key, data, {}, condition).etag
        except (StaleConditionError, AmbiguousWriteError) as error:
            found = self._get(key, job.id)
            if encode(found.job) == data:
                return found.tag
            if isinstance(error, AmbiguousWriteError) and found.tag == condition:
                raise  # not applied, or not yet: the next attempt has the same condition
            raise StaleJobError(f"the record of job {job.id} has changed", hint="read it again") from error

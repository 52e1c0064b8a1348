"""Where records of jobs are kept: a contract, and the implementation for one node.

In a cluster each record is an object of the store that all nodes share, replaced under a condition; here it is a file.
The verbs block.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import os
from collections.abc import Iterator
from typing import NamedTuple, Protocol

import xxhash

from ..errors import AisError, JobNotFoundError, OutOfSpaceError, RetryLaterError, StaleJobError
from .document import Job, decode, encode

_log = logging.getLogger("aistore.jobs")


class KeptJob(NamedTuple):
    """A record and the tag of what was read: who replaces it names the tag, and fails if somebody was quicker."""

    job: Job
    tag: str


class JobRecords(Protocol):
    """Keeps the records of jobs. May raise RetryLaterError: whoever keeps them cannot be reached."""

    def create(self, job: Job) -> str:
        """Keep a new record and return its tag; raises StaleJobError if there is one of that id."""

    def load(self, job_id: str) -> KeptJob:
        """Return a record; raises JobNotFoundError."""

    def replace(self, job: Job, tag: str) -> str:
        """Put a record in the place of the one with ``tag`` and return the new tag.

        Raises StaleJobError if that is not the one that is there, JobNotFoundError if there is none.
        """

    def list(self) -> list[KeptJob]:
        """Return all records."""

    def delete(self, job_id: str) -> None:
        """Forget a record; one that is not there is forgotten."""


class FileJobRecords:
    """Records as files of one directory, each written aside, synced and put in place: a crash leaves old or new."""

    def __init__(self, directory: str) -> None:
        self._directory = directory
        os.makedirs(directory, exist_ok=True)

    def create(self, job: Job) -> str:
        """Keep a new record and return its tag; raises StaleJobError if there is one of that id."""
        with self._turn():
            if os.path.exists(self._path(job.id)):
                raise StaleJobError(f"there is a job {job.id} already")
            return self._write(job)

    def load(self, job_id: str) -> KeptJob:
        """Return a record; raises JobNotFoundError."""
        data = self._read(job_id)
        return KeptJob(decode(data), _tag(data))

    def replace(self, job: Job, tag: str) -> str:
        """Put a record in the place of the one with ``tag``; raises StaleJobError, JobNotFoundError."""
        with self._turn():
            if _tag(self._read(job.id)) != tag:
                raise StaleJobError(f"the record of job {job.id} has changed", hint="read it again")
            return self._write(job)

    def list(self) -> list[KeptJob]:
        """Return all records that can be read; others are logged and left alone."""
        found = []
        for entry in sorted(os.listdir(self._directory)):
            if entry.endswith(".json"):
                try:
                    found.append(self.load(entry.removesuffix(".json")))
                except JobNotFoundError:
                    continue  # deleted meanwhile
                except AisError as error:
                    _log.error("%s, leaving it out: %s", os.path.join(self._directory, entry), error)
        return found

    def delete(self, job_id: str) -> None:
        """Forget a record; one that is not there is forgotten."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._path(job_id))

    def _path(self, job_id: str) -> str:
        if not job_id.isalnum() or len(job_id) > 64:  # it comes from a request
            raise JobNotFoundError.of(job_id)
        return os.path.join(self._directory, f"{job_id}.json")

    def _read(self, job_id: str) -> bytes:
        try:
            with open(self._path(job_id), "rb") as file:
                return file.read()
        except FileNotFoundError:
            raise JobNotFoundError.of(job_id) from None

    @contextlib.contextmanager
    def _turn(self) -> Iterator[None]:
        """Hold off other writers; a lock of a process that was killed is gone with it."""
        with open(os.path.join(self._directory, "lock"), "w", encoding="ascii") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def _write(self, job: Job) -> str:
        path, data = self._path(job.id), encode(job)
        try:
            with open(path + ".new", "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(path + ".new", path)
        except OSError as error:
            kind = OutOfSpaceError if error.errno in (errno.ENOSPC, errno.EDQUOT) else RetryLaterError
            raise kind(f"the record of job {job.id} cannot be written: {error.strerror}") from error
        return _tag(data)


def _tag(data: bytes) -> str:
    return xxhash.xxh3_128_hexdigest(data)

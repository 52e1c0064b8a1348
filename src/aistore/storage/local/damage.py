"""What is known to be damaged: a small file per object in ``damaged/``, written by whichever process finds it first.

The name of a file is a hash of what identifies one version of an object, so an object that is put again is not
suspected any more. The file is removed when the object is found whole again (the fault was in memory), or overwritten,
or deleted.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import threading
import time

import msgspec
import xxhash

from ...errors import ObjectDamagedError
from ...model.objects import ObjectInfo
from ...observe.counters import COUNTERS
from ...observe.layout import READ_DAMAGE

_log = logging.getLogger("aistore.storage")

#: Records kept at most; more is a lost disk, which nobody needs to be told object by object. Guessed.
RECORDS_MAX = 10_000

_HARMLESS = "-harmless"
_IDENTITY = "SELECT version, created_ns FROM objects WHERE bucket = ? AND name = ?"

#: What to do about a damaged object, in every message about one.
REMEDY = "put it again from its source, or delete it"


class DamageRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One damaged object: which version of it, where its bytes are ("" in the index), what is wrong. May only grow.

    ``harmless`` is damage of the trailer alone: the bytes are good and are given out.
    """

    bucket: str
    name: str
    version: int
    size: int
    created_ns: int
    file: str
    problem: str
    found_ns: int
    harmless: bool = False

    @property
    def key(self) -> str:
        """The name of the record's file."""
        key = _key(self.bucket, self.name, self.version, self.created_ns)
        return key + _HARMLESS if self.harmless else key

    def error(self) -> ObjectDamagedError:
        """Return the error that a read raises."""
        where = f"its file {self.file}" if self.file else "its row in the index"
        return ObjectDamagedError(f"ais://{self.bucket}/{self.name} is damaged: {where} {self.problem}", hint=REMEDY)


class DamageLog:
    """The records of one mountpath, as one process sees them. Its methods may be called from different threads.

    ``found`` is the word that counts what this process is the first to find.
    """

    def __init__(self, directory: str, *, found: int = READ_DAMAGE) -> None:
        self._directory = directory
        self._found = found
        self._seen_ns = -1
        self._keys: frozenset[str] = frozenset()

    def note(self, info: ObjectInfo, file: str, problem: str, *, harmless: bool = False) -> ObjectDamagedError:
        """Record damage, log it if nobody has yet, and return the error to raise."""
        record = DamageRecord(
            bucket=info.bucket, name=info.name, version=info.version, size=info.size, created_ns=info.created_ns,
            file=file, problem=problem, found_ns=time.time_ns(), harmless=harmless,
        )  # fmt: skip
        error = record.error()
        if not self.suspects(info) and self._write(record):
            word = self._found
            COUNTERS.words[word] += 1
            _log.error("%s", error.message)
        return error

    def suspects(self, info: ObjectInfo) -> bool:
        """Say whether this version of the object is recorded as damaged; costs a call of ``stat``."""
        try:
            changed_ns = os.stat(self._directory).st_mtime_ns
        except FileNotFoundError:
            return False
        if changed_ns != self._seen_ns:
            self._keys = frozenset(os.listdir(self._directory))
            # A record may be added within the resolution of the directory's time: look again until that has passed.
            self._seen_ns = changed_ns if time.time_ns() - changed_ns > 1_000_000_000 else -1
        return _key_of(info) in self._keys

    def forget(self, info: ObjectInfo) -> None:
        """Remove the record of an object that was found whole after all."""
        key = _key_of(info)
        for name in (key, key + _HARMLESS):
            if os.path.exists(f"{self._directory}/{name}"):
                self._remove(name)

    def current(self, connection: sqlite3.Connection, catalog: sqlite3.Connection) -> list[DamageRecord]:
        """Return the records, by bucket and name, and drop those of objects overwritten or deleted since.

        ``catalog`` is a connection to the index that knows the buckets.
        """
        records = []
        for key in self._list():
            record = self._read(key)
            if record is None:
                continue
            bucket = catalog.execute("SELECT id FROM buckets WHERE name = ?", (record.bucket,)).fetchone()
            row = bucket and connection.execute(_IDENTITY, (*bucket, record.name.encode())).fetchone()
            if row != (record.version, record.created_ns):
                self._remove(key)
            else:
                records.append(record)
        return sorted(records, key=lambda record: (record.bucket, record.name))

    def _list(self) -> list[str]:
        try:
            return [key for key in os.listdir(self._directory) if not key.endswith(".new")]
        except FileNotFoundError:
            return []

    def _read(self, key: str) -> DamageRecord | None:
        try:
            with open(f"{self._directory}/{key}", "rb") as file:
                return msgspec.json.decode(file.read(), type=DamageRecord)
        except (FileNotFoundError, msgspec.DecodeError):
            return None

    def _write(self, record: DamageRecord) -> bool:
        """Write the record; return whether it is news. A disk that takes nothing any more is news every time."""
        path = f"{self._directory}/{record.key}"
        try:
            os.makedirs(self._directory, mode=0o700, exist_ok=True)
            if os.path.exists(path) or len(os.listdir(self._directory)) >= RECORDS_MAX:
                return False
            aside = f"{path}.{os.getpid()}-{threading.get_ident()}.new"
            with open(aside, "wb") as file:
                file.write(msgspec.json.encode(record))
            try:
                os.link(aside, path)  # unlike a rename, it tells who was first
            finally:
                os.unlink(aside)
        except FileExistsError:
            return False
        except OSError:
            pass
        return True

    def _remove(self, key: str) -> None:
        try:
            os.unlink(f"{self._directory}/{key}")
        except FileNotFoundError:
            pass


def _key_of(info: ObjectInfo) -> str:
    return _key(info.bucket, info.name, info.version, info.created_ns)


def _key(bucket: str, name: str, version: int, created_ns: int) -> str:
    return xxhash.xxh128_hexdigest(f"{bucket}/{name}\0{version}\0{created_ns}".encode())

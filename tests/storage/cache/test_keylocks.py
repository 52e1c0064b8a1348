"""Locks of keys: between threads, instances and processes, and when a holder is killed."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from collections.abc import Iterator

import lock_actor
import pytest
from lock_actor import KEY

from aistore.errors import InternalError
from aistore.fallbacks import lacks
from aistore.storage.cache.keylocks import KeyLocks, open_key_locks
from aistore.storage.cache.layout import open_cache_directory

PROCESSES, THREADS, TIMES = 8, 4, 25


@pytest.fixture(params=["", "range-locks"])
def without(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setenv("AIS_WITHOUT", request.param)
    lacks.cache_clear()
    yield request.param
    monkeypatch.undo()
    lacks.cache_clear()


@pytest.fixture
def table(directory: str, without: str) -> Iterator[KeyLocks]:
    made = open_key_locks(open_cache_directory(directory))
    assert type(made).__name__ == ("_FileLocks" if without else "_RangeLocks")
    yield made
    made.close()


def start(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, lock_actor.__file__, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def test_a_key_is_locked_once(table: KeyLocks, directory: str) -> None:
    lock, second, other = table.lock(KEY, "n"), table.lock(KEY, "n"), table.lock(KEY, "m")
    assert lock.try_acquire()
    assert not second.try_acquire()
    assert other.try_acquire()
    with pytest.raises(InternalError):
        lock.try_acquire()
    second.release()  # it holds nothing
    assert not table.lock(KEY, "n").try_acquire()
    lock.release()
    lock.release()
    assert second.try_acquire()
    assert second.held
    assert not lock.held


def test_two_instances_in_one_process_exclude_each_other(table: KeyLocks, directory: str) -> None:
    lock = table.lock(KEY, "n")
    assert lock.try_acquire()
    another = open_key_locks(open_cache_directory(directory))
    assert not another.lock(KEY, "n").try_acquire()
    another.close()  # which frees nothing of the first one's
    another = open_key_locks(open_cache_directory(directory))
    assert not another.lock(KEY, "n").try_acquire()
    table.close()
    assert another.lock(KEY, "n").try_acquire()
    another.close()
    lock = another.lock(KEY, "n")
    with pytest.raises(InternalError, match="closed"):
        lock.try_acquire()


def test_a_lock_that_is_lost_sight_of_is_free(table: KeyLocks) -> None:
    lock = table.lock(KEY, "n")
    assert lock.try_acquire()
    del lock
    gc.collect()
    assert table.lock(KEY, "n").try_acquire()


def test_the_lock_of_a_killed_holder_is_free(table: KeyLocks, directory: str) -> None:
    for _ in range(3):
        holder = start("hold", directory)
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        lock = table.lock(KEY, "n")
        assert not lock.try_acquire()
        holder.kill()
        holder.communicate()
        assert lock.try_acquire()
        lock.release()


def test_a_forked_child_frees_nothing(without: str, directory: str) -> None:
    done = start("fork", directory)
    done.communicate()
    assert done.returncode == 0


def test_many_processes_and_threads_count_without_a_mistake(table: KeyLocks, directory: str, tmp_path: object) -> None:
    path = f"{tmp_path}/number"
    with open(path, "w", encoding="ascii") as file:
        file.write("0")
    running = [start("count", directory, path, str(THREADS), str(TIMES)) for _ in range(PROCESSES)]
    for process in running:
        process.communicate()
        assert process.returncode == 0
    with open(path, encoding="ascii") as file:
        assert int(file.read()) == PROCESSES * THREADS * TIMES
    assert os.listdir(f"{directory}/keys") == []


def test_names_of_all_kinds_have_locks(table: KeyLocks) -> None:
    taken = [table.lock(KEY, name) for name in ("", "a", "a/b", "ü", "\udc80", "\0", "x" * 1024)]
    assert all(lock.try_acquire() for lock in taken)
    for lock in taken:
        lock.release()

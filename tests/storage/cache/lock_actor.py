"""A process that locks keys of a cache.

``hold DIR`` holds one until it is killed; ``count DIR FILE THREADS TIMES`` counts up a number in a file under the lock;
``fork DIR`` shows that a forked child frees nothing of its parent's.
"""

from __future__ import annotations

import os
import sys
import threading
import time

from aistore.storage.cache.facts import CacheBucket
from aistore.storage.cache.keylocks import KeyLocks, open_key_locks
from aistore.storage.cache.layout import open_cache_directory

KEY = CacheBucket("ais", "b", "1").key


def hold(table: KeyLocks) -> None:
    lock = table.lock(KEY, "n")
    assert lock.try_acquire()
    print("held", flush=True)
    sys.stdin.read()


def count(table: KeyLocks, path: str, threads: int, times: int) -> None:
    def run() -> None:
        for _ in range(times):
            with table.lock(KEY, "n") as lock:
                while not lock.try_acquire():
                    time.sleep(0.0005)
                with open(path, "r+", encoding="ascii") as file:
                    number = int(file.read())
                    time.sleep(0)
                    file.seek(0)
                    file.write(str(number + 1))

    running = [threading.Thread(target=run) for _ in range(threads)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()


def fork(table: KeyLocks, directory: str) -> None:
    lock = table.lock(KEY, "n")
    assert lock.try_acquire()
    pid = os.fork()
    if not pid:
        lock.release()
        other = open_key_locks(open_cache_directory(directory))
        os._exit(int(other.lock(KEY, "n").try_acquire()))
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 0, "the child got or freed the lock"
    other = open_key_locks(open_cache_directory(directory))
    assert not other.lock(KEY, "n").try_acquire()
    lock.release()
    assert other.lock(KEY, "n").try_acquire()


def main() -> None:
    verb, directory = sys.argv[1:3]
    table = open_key_locks(open_cache_directory(directory))
    if verb == "hold":
        hold(table)
    elif verb == "count":
        count(table, sys.argv[3], int(sys.argv[4]), int(sys.argv[5]))
    else:
        fork(table, directory)


if __name__ == "__main__":
    main()

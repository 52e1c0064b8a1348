"""A process that makes an index again and kills itself before its n-th change of the file system or the index."""

from __future__ import annotations

import os
import signal
import sqlite3
import sys

from aistore.storage.local.fsck import rebuild_all

#: What changes something: audit events of the interpreter, and statements.
_CHANGES = {"os.rename", "os.remove", "open", "sqlite3.connect"}


def main() -> None:
    directory, steps = sys.argv[1], int(sys.argv[2])
    left = steps

    def count(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal left
        if event not in _CHANGES or not any(isinstance(one, str) and "index.db" in one for one in arguments):
            return
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(count)
    rebuild_all(directory)
    print(f"only {steps - left} steps", file=sys.stderr)
    os.kill(os.getpid(), signal.SIGKILL)  # a kill right after the end is a kill as well


if __name__ == "__main__":
    assert sqlite3.threadsafety
    main()

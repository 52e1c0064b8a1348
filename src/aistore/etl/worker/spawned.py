"""Workers that are started instead of forked: for systems whose libraries do not survive a fork without an exec.

Such a worker imports by itself what its parent has imported already, so it starts as slowly as a program does. All
else is as with forked ones: one slot of shared memory each, one listening socket, a process group of its own.
"""

import json
import mmap
import os
import sys
import tempfile
import traceback
from typing import Any, Dict, List, NoReturn


class Spawner:
    """Starts workers from what a parent knows before it has run anything foreign."""

    def __init__(self, config: Dict[str, Any], slots_bytes: int) -> None:
        self._python, self._environ = sys.executable, dict(os.environ)
        self._config = tempfile.TemporaryFile()  # noqa: SIM115 - as long as this object
        self._config.write(json.dumps(config).encode("utf-8"))
        self._config.flush()
        self._file = tempfile.TemporaryFile()  # noqa: SIM115
        self._file.truncate(slots_bytes)
        self.memory = mmap.mmap(self._file.fileno(), slots_bytes)

    def spawn(self, control: int, listener: int, life: int, slot: int) -> int:
        """Start a worker and return its pid. ``control`` is for its first message only."""
        given = [control, listener, life, self._config.fileno(), self._file.fileno()]
        main = os.path.join(os.path.dirname(os.path.abspath(__file__)), "main.py")
        numbers = map(str, [*given, slot, os.getpid()])
        kept = [(fd, os.get_inheritable(fd)) for fd in given if fd >= 0]
        for fd, _ in kept:
            os.set_inheritable(fd, True)
        try:
            # The group is there before anybody can want to kill it.
            return os.posix_spawn(
                self._python, [self._python, "-s", "-B", main, "worker", *numbers], self._environ, setpgroup=0
            )
        finally:
            for fd, inheritable in kept:
                os.set_inheritable(fd, inheritable)


def run(numbers: List[int]) -> NoReturn:
    """Be a worker: say so, import the program, take objects."""
    control_fd, listener, life, config_fd, memory, number, parent_pid = numbers
    from . import control, harness, lacking, process, program, slots

    try:
        for fd in (listener, life, config_fd, memory):
            if fd >= 0:
                os.set_inheritable(fd, False)
        size = os.fstat(config_fd).st_size
        config = json.loads(os.pread(config_fd, size, 0).decode("utf-8"))
        os.close(config_fd)
        lacking.declare(config.get("lacking", ()))
        process.die_with_parent(parent_pid)
        process.become_subreaper()
        harness.prepare_process()
        connection = control.Control(control_fd)
        connection.send("worker", pid=os.getpid())
        os.close(connection.fileno())
        shared = mmap.mmap(memory, os.fstat(memory).st_size)
        os.close(memory)
        settings = harness.Settings(config)
        harness.Worker(program.load(config), settings, listener, slots.Slot(shared, number), life).serve()
    except BaseException:
        os.write(2, traceback.format_exc().encode("utf-8", "replace"))
    finally:
        os._exit(70)  # EX_SOFTWARE: our own mistake

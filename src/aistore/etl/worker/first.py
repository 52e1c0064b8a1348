"""The first process of a transform that serves: starts its server, buries what it leaves, and can be killed.

Servers are not made to be the first process of a pid namespace: nobody would wait for orphans, and a signal without a
handler would do nothing. A transform that asks "its container" to end, by SIGTERM to process 1, asks this process: it
then ends, and with it the namespace. Without a namespace it ends its process group.
"""

import os
import signal
import time
from typing import Any, Dict, List, NoReturn

from . import process

_GRACE_SECONDS = 2.0
_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE = 1, 4
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)


def run(command: List[str], env: Dict[str, str], *, alone: bool) -> NoReturn:
    """Run ``command`` until it ends, and exit as it did, or as 128 + the signal that ended it or this process.

    ``alone``: this is the first process of a namespace, and with it all others end.
    """
    guard = os.getppid()
    if not alone:
        _ask_for_notice()
    # Its user changed, and it became no other program, so the kernel hides it; but the guard has to look at it.
    process.prctl(_PR_SET_DUMPABLE, 1)
    server = os.fork()
    if server == 0:
        process.die_with_parent()
        try:
            os.execvpe(command[0], command, env)
        except OSError as error:
            os.write(2, "{}: {}\n".format(command[0], error.strerror).encode("utf-8", "replace"))
        finally:
            os._exit(127)

    def end(number: int, _frame: Any) -> None:
        if not alone:
            _end_group(server, guard)
        os._exit(128 + number)

    for number in _SIGNALS:
        signal.signal(number, end)
    while True:
        pid, status = os.wait()
        if pid == server:
            break
    os._exit(os.WEXITSTATUS(status) if os.WIFEXITED(status) else 128 + os.WTERMSIG(status))


def _ask_for_notice() -> None:
    """Hear of the guard's end, instead of ending without a word: there are others that have to end."""
    process.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _end_group(server: int, guard: int) -> None:
    """End the server; and whatever was started by it, if the guard has gone, which else does that."""
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    if os.getppid() != guard:
        os.kill(0, signal.SIGKILL)
    os.kill(0, signal.SIGTERM)
    deadline = time.monotonic() + _GRACE_SECONDS
    while time.monotonic() < deadline and os.waitpid(server, os.WNOHANG)[0] == 0:
        time.sleep(0.01)

"""Runs one command and ends it when whoever asked for it is gone, however that ended. Run by path, alone.

    python guard.py LIFELINE REPORT GRACE_SECONDS COMMAND...

LIFELINE is the read end of a pipe: each byte is a signal for the command, 0 or end of file ends it: SIGTERM, and after
GRACE_SECONDS SIGKILL for its process group. REPORT takes one line, the command's process id or why it did not start,
and is closed when the guard ends. The guard's exit status is the command's, 128 + N if signal N ended it.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def _end_with_guard() -> None:
    """Let the kernel end the command if the guard itself is killed; only Linux can."""
    try:
        import ctypes

        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    except (ImportError, OSError, AttributeError):
        pass


def _obey(lifeline: int, command: subprocess.Popen[bytes], grace_seconds: float) -> None:
    """Pass signals on until the lifeline says or means the end."""
    while True:
        said = os.read(lifeline, 1)
        if said in (b"", b"\0"):
            break
        command.send_signal(said[0])  # nothing if it has ended
    command.send_signal(signal.SIGCONT)  # a stopped process would sleep through SIGTERM
    command.send_signal(signal.SIGTERM)
    try:
        command.wait(grace_seconds)
    except subprocess.TimeoutExpired:
        os.killpg(command.pid, signal.SIGKILL)  # its id is not free before this process waited for it


def main() -> None:
    """Start the command, watch over it, exit with its status."""
    lifeline, report, grace_seconds = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
    # Whatever this was started from may ignore or block them; who ends it is the lifeline.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    try:
        command = subprocess.Popen(
            sys.argv[4:], stdin=subprocess.DEVNULL, start_new_session=True, preexec_fn=_start_afresh
        )
    except OSError as error:
        os.write(report, f"{error.strerror}: {sys.argv[4]}\n".encode())
        os._exit(127)
    os.write(report, f"{command.pid}\n".encode())
    threading.Thread(target=_obey, args=(lifeline, command, grace_seconds), daemon=True).start()
    status = command.wait()
    os._exit(status if status >= 0 else 128 - status)


def _start_afresh() -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    _end_with_guard()


if __name__ == "__main__":
    main()

"""Which sandbox a transform gets on this machine, found out by entering it."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from typing import Any

from ..errors import AisError
from ..fallbacks import lacking
from . import confinement
from .peers import MESSAGES_KIND
from .worker.messages import Messages

_SECONDS = 20.0
_MESSAGE_BYTES_MAX = 64 << 10


@dataclass(frozen=True, slots=True)
class SandboxFound:
    """What the sandbox is made of here; ``error`` says why there is none."""

    layers: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    error: str = ""

    @property
    def profile(self) -> str:
        """The host's profile in a word or two: ``full``, ``landlock and seccomp`` or ``none``."""
        if self.error:
            return "none"
        return "full" if any(layer.startswith("namespaces") for layer in self.layers) else "landlock and seccomp"


def probe_sandbox() -> SandboxFound:
    """Enter the sandbox with a process that does nothing. Blocks for a moment, 20 s at most."""
    scratch = tempfile.mkdtemp(prefix="ais-probe-")
    ours, theirs = socket.socketpair(socket.AF_UNIX, MESSAGES_KIND)
    uid: int | None = None
    try:
        uid = confinement.reserve_uid() if os.geteuid() == 0 else None
        interpreter = confinement.inspect_interpreter(sys.executable)
        config: dict[str, Any] = {
            "mode": "on", "uid": uid, "gid": uid, "read": confinement.readable_paths(interpreter), "write": [scratch],
            "scratch": scratch, "scratch_bytes_max": 1 << 20, "network": False, "report_fd": theirs.fileno(),
            "must_reach": [sys.executable, confinement.WORKER_DIRECTORY], "lacking": lacking(),
        }  # fmt: skip
        return _enter(config, ours, theirs)
    except (AisError, OSError, subprocess.SubprocessError) as error:
        return SandboxFound(error=str(error))
    finally:
        for end in (ours, theirs):
            end.close()
        confinement.release_uid(uid)
        shutil.rmtree(scratch, ignore_errors=True)


def _enter(config: dict[str, Any], ours: socket.socket, theirs: socket.socket) -> SandboxFound:
    command = [*confinement.confine_command(config), sys.executable, "-I", "-S", "-c", "pass"]
    done = subprocess.run(
        command, pass_fds=(theirs.fileno(),),
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, timeout=_SECONDS, check=False,
        env={"PATH": confinement.SYSTEM_PATH, "LANG": "C.UTF-8"}, cwd="/",
    )  # fmt: skip
    theirs.close()
    ours.settimeout(_SECONDS)
    said = b""
    with contextlib.suppress(OSError):
        said, _ = Messages(ours).receive(_MESSAGE_BYTES_MAX)
    event = json.loads(said) if said else {}
    if event.get("event") == "failed":
        return SandboxFound(error=str(event.get("message", "")).partition(";")[0])
    if event.get("event") != "sandbox" or done.returncode != 0:
        words = done.stderr.decode(errors="replace").strip()[-300:]
        return SandboxFound(error=words or f"the sandbox ended with status {done.returncode}")
    return SandboxFound(tuple(event["layers"]), tuple(event["missing"]))

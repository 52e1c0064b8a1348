"""What is started for a transform that is a server and no image: its arguments, its variables, its files."""

from __future__ import annotations

import base64
import os
from collections.abc import Mapping
from dataclasses import dataclass, field

from ...errors import NotSupportedError
from ...fallbacks import cores_for
from ...model.etl import EtlSpec, Source
from ..confinement import SYSTEM_PATH, WORKER_DIRECTORY
from .os_packages import check_installed, programs_for

#: The program that unpickles a class inside the sandbox and serves it.
RUNNER = os.path.join(WORKER_DIRECTORY, "serve_class.py")

_PAYLOAD_FILE, _PROGRAMS = "class.pickle", "programs"


@dataclass(frozen=True, slots=True)
class ServerProgram:
    """A program that serves HTTP at a port of 127.0.0.1, to be started inside the sandbox in the scratch directory.

    ``env`` is added to what every transform has, and to what the store tells a transformer. ``files`` and ``links``
    (with what they lead to) are by path relative to the scratch directory, and lie there before the start.
    """

    argv: tuple[str, ...]
    env: Mapping[str, str]
    files: Mapping[str, bytes] = field(default_factory=dict)
    links: Mapping[str, str] = field(default_factory=dict)

    def write(self, scratch: str) -> None:
        """Put files and links into the scratch directory, in place of what is there."""
        for path, content in self.files.items():
            with open(_place(scratch, path), "wb") as file:
                file.write(content)
        for path, target in self.links.items():
            os.symlink(target, _place(scratch, path))


def _place(scratch: str, path: str) -> str:
    place = os.path.join(scratch, path)
    os.makedirs(os.path.dirname(place), exist_ok=True)
    if os.path.lexists(place):
        os.unlink(place)
    return place


def server_program(spec: EtlSpec, python: str, scratch: str, port: str) -> ServerProgram:
    """Return what to start for a class or a command, with the interpreter ``python`` of its environment.

    ``port`` is the one to listen at, or what the launcher replaces by it where that is all of an argument or variable.
    Blocks shortly. Raises EtlInitError if this machine lacks a package of the system that the
    transform lists, NotSupportedError for an image.
    """
    if spec.source is Source.IMAGE:
        raise NotSupportedError(
            f"etl job {spec.name} is the image {spec.image!r}, which needs a container engine",
            hint="make it from a command (runtime.command, with its dependencies), a class or code, which need none",
        )
    own = {"PYTHONUNBUFFERED": "1", **dict(spec.env), "PORT": port}
    if spec.direct_file:
        own["ETL_DIRECT_FQN"] = "true"
    programs = os.path.dirname(python)
    if spec.source is Source.CLASS:
        found = programs_for(spec.os_packages)
        argv = (
            python, "-s", "-B", RUNNER, "--class", os.path.join(scratch, _PAYLOAD_FILE), "--port", port,
            "--workers", str(spec.workers or cores_for(spec.cpus)),
        )  # fmt: skip
        return ServerProgram(
            argv,
            {"PATH": f"{programs}:{os.path.join(scratch, _PROGRAMS)}", **own},
            {_PAYLOAD_FILE: base64.b64decode(spec.class_payload)},
            {f"{_PROGRAMS}/{name}": path for name, path in found.items()},
        )
    check_installed(spec.os_packages)
    files = {spec.filename: spec.code.encode()} if spec.code else {}
    return ServerProgram(spec.command, {"PATH": f"{programs}:{SYSTEM_PATH}", **own}, files)

"""Starts a transform that is a server, in the sandbox: its process tree, its network, its environment.

The contract of its environment is that of AIStore's containers: it listens at a port, is asked for ``/health`` there,
and finds the store at ``AIS_TARGET_URL``.
"""

from __future__ import annotations

import base64
import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass

from ...fallbacks import lacking
from ...model.etl import OUTPUT_BYTES_MAX, EtlSpec, Network, Sandbox, Source
from .. import confinement, launcher
from ..specs.server_program import ServerProgram, server_program

#: Where a transform with a network of its own finds the store. AIStore's targets listen there in a cluster.
CALLS_PORT = 51080
#: What stands for the port in arguments and variables until it is known (worker/confine.py).
PORT = "{port}"


@dataclass(frozen=True, slots=True)
class ServerOptions:
    """What to start: ``spec``'s server with the interpreter ``python``, which is in ``environment`` if not its own.

    ``base_python``, ``scratch`` and ``hidden`` as in ``LaunchOptions``. ``files`` is a directory that it can read.
    ``target_url`` may have ``{calls_port}`` in it. ``workers`` is how many processes it is advised to have.
    """

    spec: EtlSpec
    python: str
    base_python: str
    scratch: str
    files: str
    target_url: str
    environment: str | None = None
    workers: int = 1
    hidden: Sequence[str] = ()
    namespaces: bool = True


def launch_server(
    options: ServerOptions, sockets: socket.socket, calls: socket.socket, log_fd: int
) -> launcher.Launched:
    """Start it; its events tell how that goes, the first of them at which port it listens. Blocks shortly.

    ``sockets`` and ``calls`` are the listening Unix sockets of its doors (worker/doors.py). Raises EtlInitError when it
    cannot be started at all.
    """
    spec, scratch = options.spec, os.path.abspath(options.scratch)
    interpreter = confinement.inspect_interpreter(options.base_python or options.python)
    network = spec.network is Network.FULL
    more = [*confinement.OWN_HOST_PATHS, options.files, *([options.environment] if options.environment else [])]
    read = confinement.readable_paths(interpreter, *more, network=network)
    program = server_program(spec, options.python, scratch, PORT)
    confined = spec.sandbox is Sandbox.ON
    if confined:
        confinement.check_hidden(read, options.hidden)
    uid = confinement.reserve_uid() if confined and os.geteuid() == 0 else None
    config = {
        "mode": "on" if confined else "off", "uid": uid, "gid": uid, "read": read, "write": [scratch],
        "scratch": scratch, "scratch_bytes_max": launcher.SCRATCH_BYTES_MAX, "output_bytes_max": OUTPUT_BYTES_MAX,
        "network": network, "namespaces": options.namespaces, "must_reach": [options.python, options.files],
        "lacking": lacking(), "serves": True, "sockets_fd": sockets.fileno(), "calls_fd": calls.fileno(),
        "cpus": spec.cpus,
        "port": spec.port, "shared_port": spec.port if spec.source is Source.COMMAND else 0,
        "calls_port": CALLS_PORT, "env": _variables(options, program),
        "files": {path: base64.b64encode(content).decode() for path, content in program.files.items()},
        "links": dict(program.links), "processes_max": launcher.PROCESSES_MAX,
        "memory_bytes_max": spec.memory_bytes or confinement.memory_bytes_default(),
    }  # fmt: skip
    doors = [sockets.fileno(), calls.fileno()]
    return launcher.start_confined(spec.name, config, lambda _control: list(program.argv), doors, log_fd)


def _variables(options: ServerOptions, program: ServerProgram) -> dict[str, str]:
    """Return its environment: nothing of the store's own but what every process needs, and what it is to be told."""
    scratch = os.path.abspath(options.scratch)
    return {
        "HOME": scratch, "TMPDIR": scratch, "LANG": "C.UTF-8", "USER": "etl", "LOGNAME": "etl",
        "PYTHONHASHSEED": "0",  # as for code: sets are iterated in the same order everywhere
        **dict.fromkeys(launcher.ONE_THREAD, "1"), "NUM_WORKERS": str(options.workers),
        **contract_variables(options.spec), **program.env, "AIS_TARGET_URL": options.target_url,
    }  # fmt: skip


def contract_variables(spec: EtlSpec) -> dict[str, str]:
    """Return what AIStore tells a transform's container, addresses aside. Both spellings of direct put are in use."""
    direct_put = "true" if spec.direct_put else "false"
    return {
        "DIRECT_PUT": direct_put, "direct_put": direct_put, "ARG_TYPE": "fqn" if spec.direct_file else "",
        "COMMUNICATION_TYPE": spec.communication, **({"ETL_DIRECT_FQN": "true"} if spec.direct_file else {}),
    }  # fmt: skip

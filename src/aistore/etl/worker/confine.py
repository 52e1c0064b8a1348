"""Run a command inside the sandbox: ``<python> confine.py <configuration> -- <command> [argument ...]``.

The configuration is JSON, or ``@<fd>`` to read the JSON from a descriptor (which then shows in no process list):

``mode``          ``on`` or ``off`` (limits only)
``uid``, ``gid``  become this user where the caller is root; null: stay
``namespaces``    false: do without, as on a system that refuses them
``must_reach``    what the command has to reach as that user: if it cannot, it stays the caller
``read``          what may be read and executed: absolute paths of files and directories
``write``         what may be written as well
``scratch``       directory for temporary files, the working directory of the command
``scratch_bytes_max``   how much it may hold; null: no limit
``tmp``           ``cwd``: /tmp and /dev/shm are the working directory of each process; else the scratch directory
``memory_bytes_max``, ``processes_max``   of all that runs here together (watch.py); null: no limit
``cpus``          how many cores it has, rounded up; 0: all
``output_bytes_max``    size of one file or result; null: no limit
``network``       true: sockets, name resolution and certificates are allowed
``installs``      true: modes, times and owners of files may be changed
``env``           environment of the command
``report_fd``     a socket for the ``sandbox`` event, given on to the command
``life_fd``       a pipe; at its end of file everything that runs here is killed
``serves``        true: the command listens at TCP ports; the keys of SERVING below are there as well
``lacking``       what this host lacks, in the words of aistore/fallbacks.py

For a command that serves:

``sockets_fd``, ``calls_fd``   listening Unix sockets: the guard's doors (doors.py)
``port``          where it listens if it has a network of its own
``shared_port``   the same where it has none; 0: at a port that is free
``calls_port``    where it finds the store, in a network of its own
``files``         base64 of content by path, written to ``scratch`` before it starts
``links``         targets of symbolic links there, by path

An argument or a variable that is ``{port}`` becomes the port, and so does ``{calls_port}`` in ``AIS_TARGET_URL``.

It is not told ``report_fd``: the guard keeps that, and says at the end how it ended.

This process stays outside as the guard: it waits for the command, kills what it leaves behind, and exits as it did.
"""

import base64
import importlib.util
import json
import os
import signal
import socket
import sys
from typing import Any, Dict, List, NoReturn

_PORT, _CALLS_PORT = "{port}", "{calls_port}"


def _package() -> Any:
    """Return this directory as the package ``_aistore_worker``; see main.py."""
    directory = os.path.dirname(os.path.abspath(__file__))
    spec = importlib.util.spec_from_file_location(
        "_aistore_worker", os.path.join(directory, "__init__.py"), submodule_search_locations=[directory]
    )
    assert spec is not None
    assert spec.loader is not None
    package = importlib.util.module_from_spec(spec)
    sys.modules["_aistore_worker"] = package
    spec.loader.exec_module(package)
    return importlib


def _configuration(text: str) -> Dict[str, Any]:
    if text.startswith("@"):
        with open(int(text[1:]), "rb") as file:
            text = file.read().decode("utf-8")
    config: Dict[str, Any] = json.loads(text)
    return config


class _Report:
    """The socket for what the store is told, if there is one."""

    def __init__(self, fd: int, messages: Any) -> None:
        self._fd = fd
        self._messages = messages

    def send(self, event: Dict[str, Any]) -> None:
        """Send an event, if anybody wants it."""
        if self._fd >= 0:
            connection = socket.socket(fileno=self._fd)
            self._messages.Messages(connection).send(json.dumps(event).encode())
            connection.detach()

    def fail(self, message: str) -> NoReturn:
        """Say why the command cannot be run, and end."""
        if self._fd >= 0:
            self.send({"event": "failed", "reason": "sandbox", "message": message, "traceback": ""})
            os._exit(1)
        sys.stderr.write("{}\n".format(message))
        sys.stderr.flush()
        os._exit(125)  # as timeout(1) and docker-run(1): the wrapper failed, not the command

    def hand_on(self) -> None:
        """Have the command get the socket."""
        if self._fd >= 0:
            os.set_inheritable(self._fd, True)

    def close(self) -> None:
        """Keep it from the command."""
        os.close(self._fd)


def _doors(modules: Any, config: Dict[str, Any], plan: Any, report: _Report) -> Any:
    """Return the doors into the network of a command that serves, and note its ports in ``plan``."""
    doors = modules.import_module("_aistore_worker.doors")
    try:
        made = doors.Doors(config, plan.own_network)
    except doors.PortTakenError as error:
        report.send({"event": "failed", "reason": "port", "message": str(error), "traceback": ""})
        os._exit(1)
    landlock = modules.import_module("_aistore_worker.sandbox.landlock")
    plan.ports = landlock.Ports(made.port, made.calls_port)
    return made


def _write_files(files: Dict[str, str], links: Dict[str, str]) -> None:
    """Put what the command needs into the working directory."""
    for path in [*files, *links]:
        os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
        if os.path.lexists(path):  # of an earlier start, where the directory is not made anew
            os.unlink(path)
    for path, content in files.items():
        with open(path, "wb") as file:
            file.write(base64.b64decode(content))
    for path, target in links.items():
        os.symlink(target, path)


def main(arguments: List[str]) -> NoReturn:
    """Enter the sandbox and run the command."""
    if len(arguments) < 3 or arguments[1] != "--":
        sys.exit("usage: confine.py <configuration as JSON, or @fd> -- <command> [argument ...]")
    modules = _package()
    guard = modules.import_module("_aistore_worker.guard")
    sandbox = modules.import_module("_aistore_worker.sandbox")
    messages = modules.import_module("_aistore_worker.messages")
    config = _configuration(arguments[0])
    modules.import_module("_aistore_worker.lacking").declare(config.get("lacking", ()))
    plan = sandbox.plan(config)
    report = _Report(config.get("report_fd", -1), messages)
    doors = _doors(modules, config, plan, report) if config.get("serves") else None
    child = os.fork()
    if child:
        guard.watch(child, config, plan, doors)
    if config.get("life_fd", -1) >= 0:
        os.setsid()  # whoever has no life pipe kills our process group instead
        os.close(config["life_fd"])
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        found = sandbox.enter(config, plan)
    except sandbox.SandboxError as error:
        report.fail(str(error))
    command = arguments[2:]
    if doors is not None:
        calls = sandbox.can_call_back(plan)
        report.send(dict(found, event="sandbox", port=doors.port, calls_port=doors.calls_port if calls else 0))
        report.close()
        port = str(doors.port)
        env = {name: port if value == _PORT else value for name, value in config["env"].items()}
        env["AIS_TARGET_URL"] = env["AIS_TARGET_URL"].replace(_CALLS_PORT, str(doors.calls_port))
        doors.close()
        _write_files(config["files"], config["links"])
        command = [port if argument == _PORT else argument for argument in command]
        modules.import_module("_aistore_worker.first").run(command, env, alone=plan.namespaces)
    report.send(dict(found, event="sandbox"))
    report.hand_on()
    try:
        os.execve(command[0], command, config.get("env") or dict(os.environ))
    except OSError as error:
        os.write(2, "{}: {}\n".format(command[0], error.strerror).encode())
        os._exit(127)


if __name__ == "__main__":
    main(sys.argv[1:])

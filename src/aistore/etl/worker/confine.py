"""Run a command inside the sandbox: ``<python> confine.py <configuration> -- <command> [argument ...]``.

The configuration is JSON, or ``@<fd>`` to read the JSON from a descriptor (which then shows in no process list):

``mode``          ``on`` or ``off`` (limits only)
``uid``, ``gid``  become this user where the caller is root; null: stay
``namespaces``    false: do without, as on a system that refuses them
``must_reach``    what the command has to reach as that user: if it cannot, it stays the caller
``read``          what may be read and executed: absolute paths of files and directories
``write``         what may be written as well
``scratch``       directory for temporary files, the working directory of the command
``scratch_bytes_max``   its size, where it can be limited
``output_bytes_max``    size of one file or result; null: no limit
``network``       true: sockets, name resolution and certificates are allowed
``env``           environment of the command
``report_fd``     a socket for the ``sandbox`` event, given on to the command
``life_fd``       a pipe; at its end of file everything that runs here is killed
``lacking``       what this host lacks, in the words of aistore/fallbacks.py

This process stays outside as the guard: it waits for the command, kills what it leaves behind, and exits as it did.
"""

import importlib.util
import json
import os
import signal
import socket
import sys
from typing import Any, Dict, List, NoReturn


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
    child = os.fork()
    if child:
        guard.watch(child, config, plan)
    if config.get("life_fd", -1) >= 0:
        os.setsid()  # whoever has no life pipe kills our process group instead
        os.close(config["life_fd"])
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    report_fd = config.get("report_fd", -1)
    try:
        report = sandbox.enter(config, plan)
    except sandbox.SandboxError as error:
        message = {"event": "failed", "reason": "sandbox", "message": str(error), "traceback": ""}
        if report_fd >= 0:
            messages.Messages(socket.socket(fileno=report_fd)).send(json.dumps(message).encode())
            os._exit(1)
        sys.stderr.write("{}\n".format(error))
        sys.stderr.flush()
        os._exit(125)  # as timeout(1) and docker-run(1): the wrapper failed, not the command
    if report_fd >= 0:
        connection = socket.socket(fileno=report_fd)
        messages.Messages(connection).send(json.dumps(dict(report, event="sandbox")).encode())
        connection.detach()
        os.set_inheritable(report_fd, True)
    command = arguments[2:]
    try:
        os.execve(command[0], command, config.get("env") or dict(os.environ))
    except OSError as error:
        os.write(2, "{}: {}\n".format(command[0], error.strerror).encode())
        os._exit(127)


if __name__ == "__main__":
    main(sys.argv[1:])

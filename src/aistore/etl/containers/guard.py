"""The guard of a container: ``<python> guard.py @<configuration fd>``. A trusted process outside of it.

It runs the engine's command, in the foreground, so what the container prints goes where the guard's own output goes and
its exit status is the container's. It enters the container's network with a child of its own, which gives out sockets
of it (worker/doors.py); and at the end of its life pipe, however the store ended, it removes the container.

The configuration is JSON: ``engine`` (its program), ``name`` of the container, ``run`` (arguments after ``run``),
``env`` to add for the engine, ``enters`` (false: the port is published on loopback), ``report_fd``, ``life_fd`` and
what doors.py needs. It reports as confine.py does for a command that serves.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from typing import Any, NoReturn

_POLL_SECONDS, _POLL_SECONDS_MAX = 0.03, 0.5
_ENGINE_SECONDS = 10.0  # less than the controller waits for a guard
_ENGINE_FAILED = 125  # docker-run(1): the engine itself failed


def _worker(name: str) -> Any:
    """Return a module of ``etl/worker``, which this process runs without the rest of the package."""
    if "_aistore_worker" not in sys.modules:
        directory = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "worker")
        spec = importlib.util.spec_from_file_location(
            "_aistore_worker", os.path.join(directory, "__init__.py"), submodule_search_locations=[directory]
        )
        assert spec is not None
        assert spec.loader is not None
        package = importlib.util.module_from_spec(spec)
        sys.modules["_aistore_worker"] = package
        spec.loader.exec_module(package)
    return importlib.import_module(f"_aistore_worker.{name}")


class ContainerGuard:
    """One container, from its start to its removal."""

    def __init__(self, config: dict[str, Any]) -> None:
        self._config = config
        self._engine = str(config["engine"])
        self._name = str(config["name"])
        self._report = socket.socket(fileno=config["report_fd"])
        self._messages = _worker("messages").Messages(self._report)
        self._life = int(config["life_fd"])
        self._giver = 0

    def run(self) -> NoReturn:
        """Run the container until it ends or the store does."""
        wake_read, wake_write = os.pipe()
        os.set_blocking(wake_write, False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, lambda *_: None)  # the life pipe is what ends it; what it starts must not ignore them
        command = [self._engine, "run", *self._config["run"]]
        running = subprocess.Popen(command, stdin=subprocess.DEVNULL, env={**os.environ, **self._config["env"]})
        poll = select.poll()
        poll.register(wake_read, select.POLLIN)
        poll.register(self._life, select.POLLIN | select.POLLHUP)
        pause, entered = _POLL_SECONDS, False
        code: int | None = None
        while code is None:
            ready = dict(poll.poll(None if entered else pause * 1000))
            if wake_read in ready:
                os.read(wake_read, 4096)
            if self._life in ready:
                break
            code = running.poll()
            if code is None and not entered:
                entered = self._enter()
                pause = min(pause * 1.5, _POLL_SECONDS_MAX)
        if code is not None:
            self._tell_end(code, entered)
        running.kill()
        running.wait()
        self._remove()
        os._exit(0)

    def _enter(self) -> bool:
        """Give out sockets to the container if it runs by now, and say so; return whether it does."""
        printed = self._call("inspect", "--format", "{{.State.Running}} {{.State.Pid}}", self._name)
        running, _, pid = printed.partition(" ")
        if running != "true" or not pid.isdigit() or int(pid) == 0:
            return False
        if self._config["enters"]:
            self._give(int(pid), int(self._config["port"]))
        else:
            address = self._call("port", self._name, f"{self._config['port']}/tcp").splitlines()
            if not address or not address[0].rpartition(":")[2].isdigit():
                return False
            self._give(0, int(address[0].rpartition(":")[2]))
        return True

    def _give(self, pid: int, port: int) -> None:
        """Have a child answer at the doors, from inside the network of process ``pid`` unless that is 0."""
        reading, writing = os.pipe()
        self._giver = os.fork()
        if self._giver == 0:
            os.close(reading)
            self._be_giver(pid, writing)
        os.close(writing)
        with open(reading, encoding="utf-8") as file:
            said = file.read(1000)
        if said != "ok":
            self._send(event="failed", reason="network", message=said or "its network cannot be entered", traceback="")
            return
        calls_port = int(self._config["calls_port"]) if pid else 0
        self._send(
            event="sandbox", layers=self._config["layers"], missing=self._config["missing"], port=port,
            calls_port=calls_port,
        )  # fmt: skip

    def _be_giver(self, pid: int, writing: int) -> NoReturn:
        try:
            signal.set_wakeup_fd(-1)
            process, doors = _worker("process"), _worker("doors")
            process.die_with_parent()
            if pid:
                _worker("sandbox.namespaces").enter_network_of(pid)
            made = doors.Doors({**self._config, "shared_port": 0}, bool(pid))
            poll = select.poll()
            for fd in made.filenos():
                poll.register(fd, select.POLLIN)
            os.write(writing, b"ok")
            os.close(writing)
            while True:
                for fd, _ in poll.poll():
                    made.answer(fd)
        except OSError as error:
            os.write(writing, f"the container's network cannot be entered: {error}".encode()[:900])
        finally:
            os._exit(1)

    def _tell_end(self, code: int, entered: bool) -> None:
        if code == _ENGINE_FAILED and not entered:
            message = f"the container engine cannot run {self._config['image']}"
            self._send(event="failed", reason="engine", message=message, traceback="")
        else:
            self._send(event="ended", status=code if code >= 0 else 128 - code)

    def _send(self, **event: Any) -> None:
        try:
            self._messages.send(json.dumps(event).encode())
        except OSError:  # the store has ended, or ends it
            pass

    def _remove(self) -> None:
        if self._giver:
            os.kill(self._giver, signal.SIGKILL)
        deadline = time.monotonic() + _ENGINE_SECONDS
        while time.monotonic() < deadline:
            self._call("kill", self._name)
            self._call("rm", "-f", self._name)
            if not self._call("ps", "-a", "-q", "--filter", f"name=^{self._name}$"):
                return

    def _call(self, *arguments: str) -> str:
        """Return what a command of the engine prints; nothing if it fails."""
        try:
            done = subprocess.run(
                [self._engine, *arguments], stdin=subprocess.DEVNULL, capture_output=True, timeout=_ENGINE_SECONDS,
                check=False,
            )  # fmt: skip
        except (OSError, subprocess.TimeoutExpired):
            return ""
        return done.stdout.decode(errors="replace").strip() if done.returncode == 0 else ""


def main() -> None:
    """Guard the container of the configuration."""
    with open(int(sys.argv[1].lstrip("@")), "rb") as file:
        config = json.loads(file.read())
    _worker("lacking").declare(config["lacking"])
    ContainerGuard(config).run()


if __name__ == "__main__":
    main()

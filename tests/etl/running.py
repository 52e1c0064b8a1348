"""A running ETL for tests, and the HTTP worker's side of the protocol (worker/PROTOCOL.md) in its plainest form."""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import signal
import socket
import sys
import tempfile
from dataclasses import dataclass
from typing import Any

from aistore.etl import exchange, launcher, peers
from aistore.etl.worker.messages import Messages
from aistore.fallbacks import lacks

DEADLINE_SECONDS = 60.0


@dataclass
class Outcome:
    """What became of one object; ``reply`` is None when the worker died."""

    reply: dict[str, Any] | None
    output: bytes
    errors: str
    pid: int

    @property
    def ok(self) -> bool:
        return bool(self.reply and self.reply["ok"])

    def failed(self) -> dict[str, Any]:
        assert self.reply is not None, self
        assert not self.reply["ok"], self
        return self.reply


class RunningEtl:
    """An ETL from start to ready (or failed), as a context manager."""

    def __init__(self, code: str, *, kind: str = "script", sandbox: bool = False, **options: Any) -> None:
        self.directory = tempfile.mkdtemp(prefix="etl-test-")
        os.chmod(self.directory, 0o755)
        self.scratch = os.path.join(self.directory, "scratch")
        os.mkdir(self.scratch)
        self.address = os.path.join(self.directory, "objects.sock")
        self.listener = socket.socket(socket.AF_UNIX, peers.MESSAGES_KIND)
        self.listener.bind(self.address)
        self.listener.listen(64)
        self._log_path = os.path.join(self.directory, "log")
        log = os.open(self._log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        self.events: list[dict[str, Any]] = []
        options.setdefault("python", sys.executable)
        try:
            self.launched = launcher.launch(
                launcher.LaunchOptions("test-etl", kind, code, scratch=self.scratch, sandbox=sandbox, **options),
                self.listener,
                log,
            )
        except BaseException:
            self.listener.close()
            shutil.rmtree(self.directory)
            raise
        finally:
            os.close(log)

    def __enter__(self) -> RunningEtl:
        try:
            self.wait_for("ready", "failed")
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self.launched.close()
        self.listener.close()
        shutil.rmtree(self.directory)

    @property
    def log(self) -> str:
        with open(self._log_path, encoding="utf-8", errors="replace") as file:
            return file.read()

    def wait_for(self, *kinds: str) -> dict[str, Any]:
        """Return the next event of one of these kinds; fails when the ETL ends instead."""
        while True:
            event = self.launched.receive(DEADLINE_SECONDS)
            assert event is not None, f"the ETL ended: {self.events} {self.log}"
            self.events.append(event)
            if event["event"] in kinds:
                return event

    def wait_for_end(self) -> None:
        """Read events until the parent has gone."""
        while (event := self.launched.receive(DEADLINE_SECONDS)) is not None:
            self.events.append(event)

    @property
    def layers(self) -> list[str]:
        return next(event["layers"] for event in self.events if event["event"] == "sandbox")

    def begin(self, data: bytes = b"", args: str = "", name: str = "object", **options: Any) -> Pending:
        return Pending(self.address, data, args, name, **options)

    def run(self, data: bytes = b"", args: str = "", name: str = "object", **options: Any) -> Outcome:
        return self.begin(data, args, name, **options).finish()


class Pending:
    """One object on its way."""

    def __init__(
        self, address: str, data: bytes, args: str, name: str, *, source: int | None = None, seed: str = ""
    ) -> None:
        self.connection = socket.socket(socket.AF_UNIX, peers.MESSAGES_KIND)
        self.connection.settimeout(DEADLINE_SECONDS)
        self.messages = Messages(self.connection)
        peers.ask_for_credentials(self.connection)
        self.connection.connect(address)
        if source is None:
            source = exchange.input_from_bytes(data, os.path.dirname(address))
        self.output, self.errors = (exchange.exchange_file(n, os.path.dirname(address)) for n in ("output", "errors"))
        header = json.dumps({"bucket": "bucket", "object": name, "args": args, "seed": seed}).encode()
        self.messages.send(header, [source, self.output, self.errors])
        os.close(source)
        self.pid = 0

    def started(self) -> int:
        """Wait until a worker has it; return the worker's pid, from the kernel."""
        if not self.pid:
            message, ancillary = self.messages.receive(64, peers.CREDENTIALS_ROOM)
            assert message == b"S" or lacks("credentials")
            peer = peers.Peer(peers.sender_of(ancillary), message)
            self.pid = peer.pid
            peer.close()
        return self.pid

    def kill(self) -> None:
        os.killpg(self.started(), signal.SIGKILL)

    def finish(self) -> Outcome:
        """Wait for the reply or the worker's death, seal and read the result."""
        self.started()
        try:
            message, _ = self.messages.receive(40_000)
        except ConnectionResetError:
            message = b""
        assert len(message) <= 32 << 10
        self.connection.close()
        if not lacks("memfd"):
            exchange.seal_result(self.output)
        output = os.pread(self.output, 1 << 30, 0)
        errors = os.pread(self.errors, 1 << 20, 0).decode(errors="replace")
        os.close(self.output)
        os.close(self.errors)
        return Outcome(json.loads(message) if message else None, output, errors, self.pid)


class Held:
    """Objects whose worker waits for the rest of the input, until ``let_go``."""

    def __init__(self, etl: RunningEtl, count: int) -> None:
        self._pipes = [os.pipe() for _ in range(count)]
        self.pending = [etl.begin(source=reading) for reading, _ in self._pipes]

    def let_go(self, number: int) -> Pending:
        os.close(self._pipes[number][1])
        return self.pending[number]


def wait_for_exit(pid: int) -> None:
    """Wait until process ``pid`` of somebody else has gone."""
    with contextlib.suppress(ProcessLookupError):
        descriptor = os.pidfd_open(pid)
        try:
            assert select.select([descriptor], [], [], DEADLINE_SECONDS)[0], f"process {pid} still runs"
        finally:
            os.close(descriptor)

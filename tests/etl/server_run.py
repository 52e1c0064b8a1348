"""Runs a transform that is a server on one profile of host and prints as JSON what it can do: ``with|without|off``.

The argument says whether the sandbox has namespaces. A program of its own so that tests can run it as another user.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from typing import Any

from server_program import SERVER

from aistore.etl.launcher import Launched
from aistore.etl.servers.launch import ServerOptions, launch_server
from aistore.etl.worker.messages import descriptors_of
from aistore.model.etl import EtlSpec, Sandbox

_SECONDS = 30.0

#: What a server may try, as Python that raises if it fails. ``STORE``: a port that somebody listens at, ``ABSTRACT``,
#: ``DATA``, ``SUPERVISOR`` likewise.
ATTEMPTS = {
    "call back to the store": "urllib.request.urlopen(os.environ['AIS_TARGET_URL'] + '/ais%2Fx', timeout=5).read()",
    "connect to the store": "socket.create_connection(('127.0.0.1', STORE), 5)",
    "connect to the store, unseen": "s = socket.socket(); s.sendto(b'x', 0x20000000, ('127.0.0.1', STORE))",
    "connect to the store, otherwise": "s = socket.socket(socket.AF_INET, socket.SOCK_STREAM, 262)\n"
                                       "s.connect(('127.0.0.1', STORE))",
    "datagram to the store": "s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.connect(('127.0.0.1', STORE))\n"
                             "s.send(b'x'); time.sleep(0.05); s.send(b'x')",
    "connect outward": "socket.create_connection(('192.0.2.1', 80), 1)",
    "abstract socket": "socket.socket(socket.AF_UNIX).connect(ABSTRACT)",
    "listen elsewhere": "socket.create_server(('127.0.0.1', STORE + 1 if STORE < 65535 else STORE - 1))",
    "read the store's data": "open(DATA).read()",
    "kill the supervisor": "os.kill(SUPERVISOR, 0)",
    "processes of its own": "assert subprocess.run(['sh', '-c', 'exit 7']).returncode == 7",
    "times of its own files": "f = open('own', 'w'); os.fchmod(f.fileno(), 0o600); os.utime(f.fileno(), (1, 1))",
    "change a file that it may read": "os.utime(os.open(READABLE, os.O_RDONLY), (1, 1))",
}  # fmt: skip


class Server:
    """A server from its start to its end."""

    def __init__(self, mode: str) -> None:
        self.directory = tempfile.mkdtemp(prefix="server-test-")
        os.chmod(self.directory, 0o755)
        self.data = os.path.join(self.directory, "data")
        scratch, files = os.path.join(self.directory, "scratch"), os.path.join(self.directory, "files")
        for path in (self.data, scratch, files):
            os.mkdir(path)
        self.readable = os.path.join(files, "object")
        for path in (os.path.join(self.data, "index"), self.readable):
            with open(path, "w") as file:
                file.write("stored")
            os.chmod(path, 0o666)
        spec = EtlSpec(
            "test-server", code=SERVER, filename="server.py", command=("python3", "server.py"), port=_free_port(),
            sandbox=Sandbox.OFF if mode == "off" else Sandbox.ON,
        )  # fmt: skip
        options = ServerOptions(
            spec=spec, python=sys.executable, base_python=sys.executable, scratch=scratch, files=files,
            target_url="http://127.0.0.1:{calls_port}/v1/etl/_object/test-server/secret", hidden=(self.data,),
            namespaces=mode == "with",
        )  # fmt: skip
        self._doors = [os.path.join(self.directory, name) for name in ("sockets", "calls")]
        listening = [_listening(path) for path in self._doors]
        self.launched: Launched = launch_server(options, listening[0], listening[1], 2)
        for each in listening:
            each.close()
        self.event = self.launched.receive(_SECONDS)
        assert self.event is not None
        assert self.event["event"] == "sandbox", self.event
        deadline = time.monotonic() + _SECONDS
        while not self._is_up():
            assert time.monotonic() < deadline
            time.sleep(0.02)
        self.calls = self.given_out(1)
        threading.Thread(target=_answer_calls, args=(self.calls,), daemon=True).start()

    def given_out(self, door: int) -> socket.socket:
        with socket.socket(socket.AF_UNIX) as asker:
            asker.settimeout(_SECONDS)
            asker.connect(self._doors[door])
            _, ancillary, _, _ = asker.recvmsg(1, socket.CMSG_SPACE(16))
            given = socket.socket(fileno=descriptors_of(ancillary)[0])
            given.settimeout(_SECONDS)
            return given

    def _is_up(self) -> bool:
        with self.given_out(0) as connection:
            assert self.event is not None
            return connection.connect_ex(("127.0.0.1", self.event["port"])) == 0

    def run(self, code: str) -> str:
        """Run Python inside the server; return what it raised, or nothing."""
        assert self.event is not None
        data = code.encode()
        with self.given_out(0) as connection:
            connection.connect(("127.0.0.1", self.event["port"]))
            connection.sendall(b"PUT / HTTP/1.0\r\nContent-Length: %d\r\n\r\n%b" % (len(data), data))
            with connection.makefile("rb") as reply:
                head, _, body = reply.read().partition(b"\r\n\r\n")
        return "" if b" 200 " in head.splitlines()[0] else body.decode()

    def close(self) -> None:
        self.launched.close()
        self.calls.close()
        shutil.rmtree(self.directory)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
        return port


def _listening(path: str) -> socket.socket:
    made = socket.socket(socket.AF_UNIX)
    made.bind(path)
    made.listen(16)
    return made


def _answer_calls(calls: socket.socket) -> None:
    calls.settimeout(None)
    while True:
        try:
            connection, _ = calls.accept()
        except OSError:
            return
        with connection:
            connection.recv(4096)
            connection.sendall(b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok")


def _attempts(server: Server) -> dict[str, str]:
    with socket.create_server(("127.0.0.1", 0)) as store, socket.socket(socket.AF_UNIX) as abstract:
        datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        datagrams.bind(store.getsockname())
        abstract.bind("\0" + os.path.basename(server.directory))
        abstract.listen()
        names: dict[str, Callable[[], Any]] = {
            "STORE": lambda: store.getsockname()[1], "ABSTRACT": lambda: "\0" + os.path.basename(server.directory),
            "DATA": lambda: os.path.join(server.data, "index"), "SUPERVISOR": os.getpid,
            "READABLE": lambda: server.readable,
        }  # fmt: skip
        prelude = "".join(f"{name} = {value()!r}\n" for name, value in names.items())
        found = {name: server.run(prelude + code) for name, code in ATTEMPTS.items()}
        datagrams.close()
        return found


def main() -> None:
    server = Server(sys.argv[1])
    try:
        found = _attempts(server)
    finally:
        server.close()
    print(json.dumps({"found": found, "event": server.event}))


if __name__ == "__main__":
    main()

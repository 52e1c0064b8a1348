"""Runs every attack against one ETL and prints what happened as JSON: ``attack_run.py with|without|off``.

The argument says whether the sandbox has namespaces. A program of its own so that tests can run it as another user.
What the attacks are after is set up here: a store's data directory, a listening store, another ETL with a secret in
its environment, this process as its supervisor.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import sys
import sysconfig
import tempfile

from running import RunningEtl

from aistore.etl import confinement

HERE = os.path.dirname(os.path.abspath(__file__))
SECRET = "a-secret-of-another-etl"
OUTPUT_BYTES_MAX = 4 << 20

#: What succeeds, and harms nobody else, when the sandbox is off and an ordinary user owns all of it: without these
#: that an attack fails would say nothing.
CONTROLS = (
    "another object's file", "the objects' directory", "the index, read", "another ETL's environment",
    "another ETL's scratch", "connect to the store", "datagram to the store", "abstract socket", "socket by path",
    "datagram from a pair", "limit the supervisor", "renice the supervisor", "renice the whole user",
    "pin the supervisor", "change the input",
)  # fmt: skip


class Surroundings:
    """What is worth attacking."""

    def __init__(self) -> None:
        self.data = tempfile.mkdtemp(prefix="store-data-")
        self.index = os.path.join(self.data, "index.db")
        self.object = os.path.join(self.data, "objects", "1")
        os.mkdir(os.path.dirname(self.object))
        for path in (self.index, self.object):
            with open(path, "w") as file:
                file.write("stored")
            os.chmod(path, 0o666)  # no help from the mode bits
        for path in (self.data, os.path.dirname(self.object)):
            os.chmod(path, 0o777)
        self.store = socket.create_server(("127.0.0.1", 0))
        self.store.setblocking(False)
        self.abstract = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.abstract.bind("\0attack-" + os.path.basename(self.data))
        self.abstract.listen()
        self.by_path = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.by_path.bind(os.path.join(self.data, "control.sock"))
        self.by_path.listen()
        os.chmod(self.by_path.getsockname(), 0o777)
        self.datagrams = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.datagrams.bind("\0datagram-" + os.path.basename(self.data))
        self.signals: list[int] = []
        signal.signal(signal.SIGTERM, lambda number, _: self.signals.append(number))

    def close(self) -> None:
        for each in (self.store, self.abstract, self.by_path, self.datagrams):
            each.close()
        shutil.rmtree(self.data)

    def harm(self) -> list[str]:
        """Return what the attacks did, seen from outside."""
        done = [f"signal {number}" for number in self.signals]
        for path in (self.index, self.object):
            with open(path) as file:
                done += [f"{path} changed"] if file.read() != "stored" else []
        for name in ("store", "abstract", "by_path", "datagrams"):
            each: socket.socket = getattr(self, name)
            each.setblocking(False)
            try:
                each.recv(1) if name == "datagrams" else each.accept()
                done.append(f"{name} was reached")
            except BlockingIOError:
                pass
        return done


def attacks(around: Surroundings, victim: RunningEtl, victim_pid: int) -> dict[str, dict[str, object]]:
    """Return the attacks by name: what each is called with."""
    pids = [os.getpid(), victim_pid, victim.launched.guard_pid]
    store = list(around.store.getsockname())
    paths = sysconfig.get_paths()
    packages = [confinement.WORKER_DIRECTORY, paths["purelib"], paths["stdlib"], "/usr/lib"]
    return {
        "another object's file": {"attack": "read_file", "path": around.object},
        "the objects' directory": {"attack": "list_directory", "path": os.path.dirname(around.object)},
        "the index, read": {"attack": "read_file", "path": around.index},
        "the index, written": {"attack": "write_file", "path": around.index},
        "/etc/shadow": {"attack": "read_file", "path": "/etc/shadow"},
        "/etc/passwd": {"attack": "read_file", "path": "/etc/passwd"},
        "another ETL's environment": {"attack": "other_environment", "secret": SECRET, "pids": pids},
        "another ETL's scratch": {"attack": "list_directory", "path": victim.scratch},
        "connect to the store": {"attack": "connect", "address": store},
        "sockets that are open": {"attack": "open_sockets", "path": victim.address},
        "connect outward": {"attack": "connect", "address": ["192.0.2.1", 80]},
        "datagram outward": {"attack": "send_datagram", "address": ["192.0.2.1", 53]},
        "datagram to the store": {"attack": "send_datagram", "address": store},
        "abstract socket": {"attack": "unix_socket", "address": around.abstract.getsockname().decode()},
        "socket by path": {"attack": "unix_socket", "address": around.by_path.getsockname()},
        "datagram from a pair": {"attack": "unix_datagram_pair", "address": around.datagrams.getsockname().decode()},
        "ptrace": {"attack": "ptrace", "pids": pids},
        "kill the supervisor": {"attack": "kill", "pids": pids},
        "limit the supervisor": {"attack": "limit_other", "pids": pids},
        "signal by a descriptor": {"attack": "signal_by_descriptor", "pids": pids},
        "renice the supervisor": {"attack": "renice_other", "pids": pids},
        "renice the whole user": {"attack": "renice_user"},
        "pin the supervisor": {"attack": "pin_other", "pids": pids},
        "write the environment": {"attack": "write_environment", "paths": packages},
        "10 GB of output": {"attack": "huge_output", "size": 10 << 30},
        "10 GB of sparse output": {"attack": "huge_output_sparse", "size": 10 << 30},
        "change the input": {"attack": "change_descriptors"},
        "kernel doors": {"attack": "kernel_doors"},
        "terminal input": {"attack": "terminal_input"},
        "gain by exec": {"attack": "gain_by_exec"},
    }


def unlinked_input(directory: str) -> int:
    """Return a large object's input: an unlinked file, opened read-only."""
    writing, path = tempfile.mkstemp(dir=directory)
    os.write(writing, b"the object")
    os.fchmod(writing, 0o400)
    reading = os.open(path, os.O_RDONLY)
    os.unlink(path)
    os.close(writing)
    return reading


def main(mode: str) -> dict[str, object]:
    namespaces = mode == "with"
    around = Surroundings()
    with open(os.path.join(HERE, "attacks.py"), encoding="utf-8") as file:
        code = file.read()
    options = {"sandbox": mode != "off", "namespaces": namespaces, "python": sys.executable}
    results: dict[str, object] = {}
    try:
        with RunningEtl("import sys", env={"SECRET": SECRET}, **options) as victim:
            victim_pid = victim.run().pid
            with RunningEtl(code, output_bytes_max=OUTPUT_BYTES_MAX, hidden=[around.data], **options) as etl:
                for name, arguments in attacks(around, victim, victim_pid).items():
                    if mode == "off" and name not in CONTROLS:
                        continue
                    source = unlinked_input(around.data) if name == "change the input" else None
                    outcome = etl.run(args=json.dumps(arguments), source=source)
                    results[name] = _result(outcome, arguments)
                if namespaces:
                    results["privileges"] = _result(etl.run(args='{"attack": "privileges"}'), {})
                if any("pid" in layer for layer in etl.layers):  # else this would ask the machine's own init to end
                    etl.run(args=json.dumps({"attack": "kill_init"}))
                    etl.wait_for_end()
                layers, missing = etl.layers, etl.events[0]["missing"]
        return {"results": results, "harm": around.harm(), "layers": layers, "missing": missing}
    finally:
        around.close()


def _result(outcome: object, arguments: dict[str, object]) -> object:
    try:
        told = json.loads(outcome.output[outcome.output.rfind(b"{") :])
    except ValueError:
        told = None
    if told is None and len(outcome.output) <= OUTPUT_BYTES_MAX and outcome.reply and outcome.reply["kind"] == "output":
        return {"happened": None, "error": outcome.reply["message"]}
    return told if told is not None else {"happened": "no answer", "error": repr(outcome)[:2000]}


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1])))

"""The trusted side: what a transform may read, what runs outside of the sandbox, other interpreters, installers."""

from __future__ import annotations

import glob
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator

import pytest
from hosts import needs
from profiles import reachable_python
from running import RunningEtl

from aistore.errors import EtlInitError
from aistore.etl import confinement, peers
from aistore.etl.environments.commands import CommandSpec
from aistore.etl.launcher import Launched
from aistore.etl.worker.messages import Messages

linux_only = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the sandbox is for Linux")


@pytest.fixture
def directory() -> Iterator[str]:
    """A directory that every user may enter."""
    path = tempfile.mkdtemp(prefix="launcher-test-")
    os.chmod(path, 0o755)
    yield path
    shutil.rmtree(path)


def interpreters() -> list[str]:
    home = os.environ.get("PYENV_ROOT") or os.path.expanduser("~/.pyenv")
    found = {}
    for version in ("3.8", "3.9", "3.10", "3.11", "3.12", "3.13", "3.14"):
        paths = [*glob.glob(f"{home}/versions/{version}.*/bin/python"), shutil.which(f"python{version}")]
        if paths[0]:
            found[version] = paths[0]
    return list(found.values()) or [sys.executable]


@pytest.mark.parametrize("python", interpreters(), ids=lambda path: path.split("/")[-3])
@pytest.mark.parametrize("kind", ["script", "function"])
def test_interpreter(python: str, kind: str) -> None:
    code = {
        "script": "import sys\nif len(sys.argv) > 1:\n    1 / 0\nsys.stdout.write('%d.%d' % sys.version_info[:2])",
        "function": (
            "import sys\ndef transform(data, etl_args):\n    1 / (etl_args == '')\n"
            "    return b'%d.%d' % sys.version_info[:2]"
        ),
    }[kind]
    with RunningEtl(code, kind=kind, python=python, sandbox=sys.platform == "linux", workers=2) as etl:
        outputs = {etl.run().output for _ in range(5)}
        assert "ZeroDivisionError" in etl.run(args="fail").failed()["message"]
    assert len(outputs) == 1
    assert outputs.pop().startswith(b"3.")


def test_interpreter_that_is_too_old(directory: str) -> None:
    fake = os.path.join(directory, "python")
    with open(fake, "w") as file:
        file.write('#!/bin/sh\necho \'{"version": [3, 7, 1], "executable": "x", "paths": [], "path": []}\'\n')
    os.chmod(fake, 0o755)
    with pytest.raises(EtlInitError, match=r"3\.7\.1"):
        confinement.inspect_interpreter(fake)


def test_read_list_has_no_neighbours_of_a_venv(directory: str) -> None:
    venv = os.path.join(directory, "venv")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", venv], check=True)
    python = os.path.join(venv, "bin", "python")
    read = confinement.readable_paths(confinement.inspect_interpreter(python))
    assert venv in read
    assert directory not in read
    assert not [path for path in read if path in ("/", "/etc", "/root", "/home", "/tmp", os.path.expanduser("~"))]
    assert os.path.realpath(python).startswith(tuple(read))


def test_data_below_what_transforms_read_is_refused(directory: str) -> None:
    with pytest.raises(EtlInitError, match="lies inside"):
        RunningEtl("", sandbox=True, hidden=[os.path.join(sys.prefix, "lib")])


@linux_only
def test_nothing_of_an_environment_runs_outside_the_sandbox(directory: str) -> None:
    """A package can leave a .pth file, or replace the interpreter of its environment."""
    environment = os.path.join(directory, "environment")
    python = os.path.join(environment, "bin", "python")
    marker = os.path.join(directory, "marker")
    os.mkdir(marker, 0o777)
    os.chmod(marker, 0o777)
    base = os.path.realpath(sys.executable)
    subprocess.run([base, "-m", "venv", "--without-pip", environment], check=True)
    packages = glob.glob(f"{environment}/lib/python*/site-packages")[0]
    with open(os.path.join(packages, "evil.pth"), "w") as file:
        file.write(f"import os, sys; sys.evil = 1; open({marker!r} + '/pth', 'w').close()\n")
    options = {"python": python, "base_python": base, "environment": environment, "sandbox": True}
    with RunningEtl("import sys\nprint(sys.evil)", env={"LD_PRELOAD": f"{marker}/x.so"}, **options) as etl:
        assert etl.run().output == b"1\n"  # it ran, inside
    assert os.listdir(marker) == []
    os.unlink(python)
    with open(python, "w") as file:
        file.write(f'#!/bin/sh\ntouch {marker}/python\nexec {base} "$@"\n')
    os.chmod(python, 0o755)
    with RunningEtl("print('ran')", **options) as etl:
        assert etl.run().output == b"ran\n"
    assert os.listdir(marker) == []


@linux_only
def test_scratch_is_private_and_bounded() -> None:
    code = (
        "import os, sys\nopen(os.environ['TMPDIR'] + '/f', 'wb').write(bytes(int(sys.argv[1])))\n"
        "print(os.getcwd() == os.environ['TMPDIR'])"
    )
    with RunningEtl(code, sandbox=True, scratch_bytes_max=1 << 20) as etl:
        assert etl.run(args="1000").output == b"True\n"
        if any("namespaces" in layer for layer in etl.layers):
            assert "No space left" in etl.run(args=str(4 << 20)).failed()["message"]
            assert etl.run(args="1000").ok  # what the failed one wrote is gone


@linux_only
def test_large_input_and_multiprocessing_inside() -> None:
    code = (
        "import multiprocessing, os, sys\n"
        "def size(x):\n    return os.fstat(0).st_size\n"
        "with multiprocessing.get_context('fork').Pool(2) as pool:\n    print(pool.map(size, [1, 2]))\n"
    )
    with RunningEtl(code, sandbox=True) as etl, tempfile.TemporaryFile() as file:
        file.write(bytes(5 << 20))
        file.flush()
        reading = os.open(f"/proc/self/fd/{file.fileno()}", os.O_RDONLY)
        outcome = etl.run(source=reading)
        if any("namespaces" in layer for layer in etl.layers):  # else there is no shared memory of its own
            assert outcome.output == b"[5242880, 5242880]\n"


@linux_only
def test_two_etls_have_different_users() -> None:
    if os.getuid() != 0:
        pytest.skip("needs root")
    code = "import os\nprint(os.getuid())"
    with RunningEtl(code, sandbox=True) as one, RunningEtl(code, sandbox=True) as two:
        uids = {int(etl.run().output) for etl in (one, two)}
    assert len(uids) == 2
    assert all(confinement.UID_FIRST <= uid <= confinement.UID_LAST for uid in uids)


@linux_only
def test_every_process_of_the_user_ends_without_namespaces() -> None:
    python = reachable_python()
    if os.getuid() != 0 or python is None:
        pytest.skip("needs root and a Python that other users can reach")
    code = (
        "import os, time\nif os.fork() == 0:\n    os.setsid()\n    if os.fork() == 0:\n        time.sleep(1000)\n"
        "    os._exit(0)\nos.wait()\nprint(os.getuid())"
    )
    with RunningEtl(code, sandbox=True, namespaces=False, python=python) as etl:
        uid = int(etl.run().output)
        assert uid >= confinement.UID_FIRST
        etl.launched.close()
        assert uid not in confinement._uids_of_processes()


# ---------------------------------------------------------------------------------------------------------- installers


def confined(argv: list[str], write: str, *, network: bool, namespaces: bool = True) -> tuple[int, str]:
    lines: list[str] = []
    env = {"PATH": os.defpath, "TMPDIR": write}
    python = reachable_python() or sys.executable
    interpreter = confinement.inspect_interpreter(python)
    spec = CommandSpec((python, *argv), env, interpreter.read, write, network)
    run = confinement.confined_run(namespaces=namespaces)
    status = run(spec, lines.append, time.monotonic() + 60, None)
    return status, "\n".join(lines)


@linux_only
@pytest.mark.parametrize("namespaces", [True, False])
@pytest.mark.parametrize("network", [True, False])
def test_installer_has_its_directory_and_what_it_was_given(directory: str, network: bool, namespaces: bool) -> None:
    write = os.path.join(directory, "env")
    os.mkdir(write)
    secret = os.path.join(directory, "secret")
    with open(secret, "w") as file:
        file.write("x")
    with socket.create_server(("127.0.0.1", 0)) as server:
        code = f"""
import json, os, socket
def attempt(action):
    try:
        action()
        return True
    except OSError:
        return False
print(json.dumps([
    attempt(lambda: open({write!r} + "/made", "w").close()), attempt(lambda: os.chmod({write!r} + "/made", 0o755)),
    attempt(lambda: open({secret!r}).close()), attempt(lambda: open({directory!r} + "/other", "w").close()),
    attempt(lambda: open("/etc/shadow").close()),
    attempt(lambda: socket.create_connection(("127.0.0.1", {server.getsockname()[1]}), 2).close()),
    attempt(lambda: socket.socket(socket.AF_UNIX)), attempt(lambda: os.kill({os.getpid()}, 0)),
    os.path.exists("/etc/resolv.conf"),
]))
"""
        status, text = confined(["-c", code], write, network=network, namespaces=namespaces)
    assert status == 0, text
    *found, resolver = json.loads(text)
    assert resolver == os.path.exists("/etc/resolv.conf") or not namespaces
    assert found == [True, network or os.getuid() == 0, False, False, False, network, False, False]


@linux_only
def test_installer_exit_status(directory: str) -> None:
    assert confined(["-c", "raise SystemExit(7)"], directory, network=False)[0] == 7
    assert confined(["-c", "import ctypes; ctypes.string_at(0)"], directory, network=False)[0] == 128 + 11


@linux_only
def test_cancelled_installer_leaves_no_process(directory: str) -> None:
    from aistore.etl.environments.commands import CommandCancelled

    python = reachable_python() or sys.executable
    spec = CommandSpec(
        (python, "-c", "import subprocess; print('up', flush=True); subprocess.run(['sleep', '1000'])"),
        {"PATH": os.defpath, "TMPDIR": directory}, confinement.inspect_interpreter(python).read, directory, True,
    )  # fmt: skip
    cancel = threading.Event()
    with pytest.raises(CommandCancelled):
        confinement.confined_run()(spec, lambda line: cancel.set(), time.monotonic() + 60, cancel)
    if os.getuid() == 0:
        assert not any(uid >= confinement.UID_FIRST and uid <= confinement.UID_LAST and uid in confinement._uids
                       for uid in confinement._uids_of_processes())  # fmt: skip


@needs("credentials")
@linux_only
def test_hang_in_the_sandbox_is_killed_by_the_pid_that_the_kernel_told() -> None:
    with RunningEtl("import sys\nsys.stdin.read()\nprint('fine')", sandbox=True) as etl:
        reading, writing = os.pipe()
        pending = etl.begin(source=reading)
        pid = pending.started()
        pending.kill()
        assert pending.finish().reply is None
        event = etl.wait_for("exited")
        assert (event["pid"], event["status"], event["reason"]) == (pid, 9, "crashed")
        os.close(writing)
        assert etl.run().output == b"fine\n"


@pytest.mark.parametrize("message", [b"no JSON", b"[" * 60_000, b'"text"', b'{"event": "worker"}'])
@linux_only
def test_descriptors_that_come_with_nonsense_are_closed(directory: str, message: bytes) -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, peers.MESSAGES_KIND)
    peers.ask_for_credentials(ours)
    process = subprocess.Popen(["true"])
    life_read, life = os.pipe()
    launched = Launched(process, ours, life, None, directory)
    with theirs, open(os.path.join(directory, "sent"), "wb") as sent:
        Messages(theirs).send(message, [sent.fileno()] * 3)
        assert launched.receive(10) is None
    links = [f"/proc/self/fd/{number}" for number in os.listdir("/proc/self/fd")]
    assert [link for link in links if os.path.islink(link) and os.readlink(link) == sent.name] == []
    launched.close()
    os.close(life_read)

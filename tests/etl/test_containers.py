"""Transforms that are images: against an engine of the test's own that starts real processes, and against podman."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hosts import needs
from server_program import SERVER
from servers_running import (
    DEADLINE_SECONDS,
    ask,
    found,
    free_port,
    managing,
    no_report,
    run_inside,
    runner_of,
    until,
)

from aistore.errors import EtlInitError, EtlNotRunningError
from aistore.etl.containers.engine import Engine
from aistore.etl.containers.starter import remove_those_left
from aistore.etl.managed import ManagedEtl
from aistore.etl.manager import Manager
from aistore.etl.servers.connect import listen
from aistore.fallbacks import lacks
from aistore.model.etl import Stage

FAKE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "fake_engine.py")
Test = Callable[[Manager], Awaitable[None]]

root_on_linux = pytest.mark.skipif(
    not sys.platform.startswith("linux") or os.geteuid() != 0, reason="entering a container's network needs root"
)


def run(directory: Path, engine: str, test: Test) -> None:
    async def whole() -> None:
        async with managing(directory, container_engine=engine) as manager:
            await test(manager)

    asyncio.run(whole())


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Engine:
    """An engine that has the image ``some/server``."""
    state = tmp_path / "engine"
    (state / "images").mkdir(parents=True)
    monkeypatch.setenv("FAKE_ENGINE", str(state))
    program = tmp_path / "fake"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -I -S -B {FAKE} "$@"\n')
    program.chmod(0o755)
    (state / "images" / "some_server").write_text(json.dumps({"command": [sys.executable, "-c", SERVER]}))
    return Engine(str(program))


async def new(manager: Manager, name: str = "some-image", image: str = "some/server", **fields: Any) -> ManagedEtl:
    spec = {"name": name, "image": image, **fields}
    await asyncio.wait_for(manager.verbs()["etl_init"]({"spec": spec}, no_report), DEADLINE_SECONDS)
    return manager.get(name)


@root_on_linux
@needs("namespaces")
def test_a_container_without_a_network_is_reached(tmp_path: Path, engine: Engine) -> None:
    async def test(manager: Manager) -> None:
        env = [["GIVEN", "by its user"], ["PATH", os.environ["PATH"]], ["TWO", "lines\nof text"]]
        etl = await new(manager, env=env, memory_bytes=1 << 28, cpus=1.5, direct_put=True)
        told = await run_inside(etl, "answer = dict(os.environ)")
        assert (told["GIVEN"], told["TWO"], told["AIS_TARGET_URL"]) == ("by its user", env[2][1], found(etl).target_url)
        assert told["DIRECT_PUT"] == "true"
        (name,) = engine.containers()
        given = json.loads((tmp_path / "engine" / name).read_text())["given"]
        expected = {
            "--network": ["none"], "--cap-drop": ["ALL"], "--security-opt": ["no-new-privileges"],
            "--read-only": ["true"], "--memory": [f"{1 << 28}b"], "--cpus": ["1.5"], "--log-driver": ["none"],
            "--volume": [f"{found(etl).files}:{found(etl).files}:ro"],
        }  # fmt: skip
        assert {option: given[option] for option in expected} == expected
        assert "the server begins" in etl.log.tail(1000)
        assert etl.details()["engine"] == engine.program
        with await listen(found(etl)) as listener:
            assert listener.getsockname() == ("127.0.0.1", 51080)
        await manager.verbs()["etl_delete"]({"name": "some-image"}, no_report)
        assert engine.containers() == {}

    run(tmp_path, engine.program, test)


def test_one_with_a_network_publishes_its_port_or_is_entered(tmp_path: Path, engine: Engine) -> None:
    async def test(manager: Manager) -> None:
        etl = await new(manager, network="full", port=free_port(), command=[sys.executable, "-c", SERVER, "argument"])
        assert await run_inside(etl, "answer = sys.argv") == ["-c", "argument"]
        (name,) = engine.containers()
        given = json.loads((tmp_path / "engine" / name).read_text())["given"]
        assert "--network" not in given
        assert "--read-only" not in given
        assert ("--publish" in given) == (os.geteuid() != 0 or lacks("namespaces"))

    run(tmp_path, engine.program, test)


def test_who_cannot_enter_publishes(tmp_path: Path, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "tcp://elsewhere:2375")

    async def test(manager: Manager) -> None:
        with pytest.raises(EtlInitError, match="without a network can be reached only where") as caught:
            await new(manager)
        assert "network: full" in caught.value.hint
        etl = await new(manager, network="full", port=free_port(), direct_put=True)
        assert not found(etl).gateway
        assert not found(etl).direct_put
        assert await run_inside(etl, "answer = os.environ['DIRECT_PUT']") == "false"
        with pytest.raises(EtlInitError, match="comes to the store for its objects"):
            await new(manager, "one-that-pulls", network="full", port=free_port(), communication="hpull://")
        assert await ask(found(etl), b"GET /health HTTP/1.1\r\nHost: etl\r\n\r\n") == (200, b"Running")

    run(tmp_path, engine.program, test)


def test_no_engine_is_an_error_that_names_the_ways_without_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    silent = tmp_path / "podman"
    silent.write_text("#!/bin/sh\necho 'cannot connect to it' >&2\nexit 125\n")
    silent.chmod(0o755)

    async def test(manager: Manager) -> None:
        with pytest.raises(EtlInitError, match=r"no container engine that works \(.*") as caught:
            await new(manager)
        for way in ("podman", "runtime.command", "init code", "init_class", "transformer_echo"):
            assert way in caught.value.hint
        assert manager.etls() == {}

    run(tmp_path, "/nowhere/podman", test)
    run(tmp_path, str(silent), test)
    monkeypatch.setenv("PATH", str(tmp_path))
    run(tmp_path, "", test)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"image": "no/such"}, r"container engine cannot run no/such\n.*access to the resource is denied"),
        ({"command": ["sh", "-c", "echo no GPU; exit 3"]}, r"ended with exit status 3\nno GPU"),
    ],
)
def test_what_does_not_come_up_says_why(tmp_path: Path, engine: Engine, fields: dict[str, Any], expected: str) -> None:
    async def test(manager: Manager) -> None:
        with pytest.raises(EtlInitError, match=expected):
            await new(manager, network="full", **fields)
        assert engine.containers() == {}
        assert os.listdir(tmp_path / "runtime") == []

    run(tmp_path, engine.program, test)


def test_it_crashes_is_started_again_and_ends_for_good(tmp_path: Path, engine: Engine) -> None:
    async def test(manager: Manager) -> None:
        etl = await new(manager, network="full", port=free_port())
        before = found(etl).socket_path
        with pytest.raises((EtlNotRunningError, OSError, EOFError)):
            await run_inside(etl, "os._exit(7)")
        await until(etl, lambda: etl.runs and found(etl).socket_path != before)
        assert len(engine.containers()) == 1
        with pytest.raises((EtlNotRunningError, OSError, EOFError)):
            await run_inside(etl, "os.kill(os.getpid(), signal.SIGTERM); time.sleep(60)")
        await until(etl, lambda: etl.life.stage is Stage.ABORTED)
        assert "ended by SIGTERM" in etl.life.message
        await manager.verbs()["etl_stop"]({"name": "some-image"}, no_report)  # done when it has been removed
        assert engine.containers() == {}

    run(tmp_path, engine.program, test)


def test_the_guard_is_killed(tmp_path: Path, engine: Engine) -> None:
    async def test(manager: Manager) -> None:
        etl = await new(manager, network="full", port=free_port())
        before, (name,) = found(etl).socket_path, engine.containers()
        launched = runner_of(etl).launched
        assert launched is not None
        os.kill(launched.guard_pid, signal.SIGKILL)
        await until(etl, lambda: etl.runs and found(etl).socket_path != before)
        assert name not in engine.containers()
        assert etl.life.restarts == ()

    run(tmp_path, engine.program, test)


#: Makes a transform and is then killed with all that it has started but containers.
LEAVES = """
import asyncio, os, signal, sys
sys.path.insert(0, {here!r})
from pathlib import Path
from servers_running import managing, runner_of
from test_containers import new
async def main():
    async with managing(Path({directory!r}), container_engine={engine!r}) as manager:
        etl = await new(manager, network="full", port={port})
        guard = runner_of(etl).launched.guard_pid
        if {guard_too!r}:
            os.kill(guard, signal.SIGKILL)
        os.kill(os.getpid(), signal.SIGKILL)
asyncio.run(main())
"""


@pytest.mark.parametrize("guard_too", [False, True])
def test_a_killed_controller_leaves_no_container(tmp_path: Path, engine: Engine, guard_too: bool) -> None:
    """Its guard removes it; and if that was killed too, the next controller does."""
    here = os.path.dirname(os.path.abspath(__file__))
    code = LEAVES.format(
        here=here, directory=str(tmp_path), engine=engine.program, port=free_port(), guard_too=guard_too
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=DEADLINE_SECONDS,
        env={**os.environ, "PYTHONPATH": os.path.dirname(here)},
    )  # fmt: skip
    assert done.returncode == -signal.SIGKILL, done.stderr

    async def test(manager: Manager) -> None:
        if guard_too:
            assert len(engine.containers()) == 1
            await remove_those_left(manager._places)
        else:
            while engine.containers():  # until its guard has seen the end
                await asyncio.sleep(0.05)
        assert engine.containers() == {}

    run(tmp_path, engine.program, test)


@pytest.fixture(scope="module")
def podman_image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """podman, and an image made of this machine's own Python as a directory tree."""
    podman, python = shutil.which("podman"), "/usr/bin/python3"
    if podman is None or os.geteuid() != 0 or not os.path.exists(python):
        pytest.skip("needs podman, root and the system's Python")
    directory = tmp_path_factory.mktemp("podman")
    storage = ["--root", str(directory / "root"), "--runroot", str(directory / "run"), "--storage-driver", "vfs"]
    runtime = ["--runtime", "runc"] if shutil.which("runc") else []
    program = directory / "podman"
    program.write_text(f'#!/bin/sh\nexec {podman} {" ".join([*storage, *runtime])} "$@"\n')
    program.chmod(0o755)
    tree = _tree_of(python, directory / "tree")
    archive = directory / "tree.tar"
    subprocess.run(["tar", "-C", str(tree), "-cf", str(archive), "."], check=True)
    image = "localhost/etl-test"
    engine = Engine(str(program))
    try:
        subprocess.run([program, "import", str(archive), image], check=True, capture_output=True, timeout=120)
        limits = ["--ulimit=nofile=64:64", "--ulimit=nproc=64:64"]
        tried = subprocess.run(
            [program, "run", "--rm", "--network=none", *limits, image, "/usr/bin/python3", "-c", ""],
            capture_output=True, text=True, timeout=120,
        )  # fmt: skip
        if tried.returncode != 0:
            pytest.skip(f"podman does not run containers here: {tried.stderr.strip()[-300:]}")
        yield str(program), image
        assert engine.containers() == {}
    finally:
        for name in engine.containers():
            engine.remove(name)
        shutil.rmtree(directory, ignore_errors=True)


def _tree_of(python: str, tree: Path) -> Path:
    """Return a directory with this Python, the libraries it needs, and a server."""
    query = "import sys, sysconfig; print(sys.executable, sysconfig.get_path('stdlib'), sep='\\n')"
    executable, library = subprocess.run(
        [python, "-I", "-c", query], check=True, capture_output=True, text=True
    ).stdout.split()
    needed = [os.path.realpath(executable)]
    modules = [str(path) for path in Path(library, "lib-dynload").glob("*.so")]
    for binary in [*needed, *modules]:
        printed = subprocess.run(["ldd", binary], capture_output=True, text=True).stdout
        needed += [word for word in printed.split() if word.startswith("/")]
    for path in dict.fromkeys(needed):
        target = tree / path.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    shutil.copytree(
        library, tree / library.lstrip("/"), ignore=shutil.ignore_patterns("__pycache__", "test", "idlelib")
    )
    if not (tree / "usr/bin/python3").exists():
        shutil.copy(os.path.realpath(executable), tree / "usr/bin/python3")
    for name in ("tmp", "proc", "sys", "dev", "etc"):
        (tree / name).mkdir(exist_ok=True)
    (tree / "server.py").write_text(SERVER)
    return tree


@needs("namespaces")
def test_podman(tmp_path: Path, podman_image: tuple[str, str]) -> None:
    program, image = podman_image

    async def test(manager: Manager) -> None:
        command = ["/usr/bin/python3", "/server.py"]
        etl = await new(manager, image=image, command=command, env=[["GIVEN", "by its user"]])
        assert await run_inside(etl, "answer = os.environ['GIVEN']") == "by its user"
        assert await run_inside(etl, "answer = os.listdir('/sys/class/net')") == ["lo"]
        Path(found(etl).files, "object.bin").write_bytes(b"an object")
        assert await run_inside(etl, f"answer = open('{found(etl).files}/object.bin').read()") == "an object"
        with pytest.raises(AssertionError, match="Read-only"):
            await run_inside(etl, "open('/file', 'w')")
        status = await run_inside(etl, "answer = open('/proc/self/status').read()")
        fields = dict(line.split(":\t", 1) for line in status.splitlines())
        assert int(fields["CapEff"], 16) == int(fields["CapBnd"], 16) == 0
        assert fields["NoNewPrivs"] == "1"
        listener = await listen(found(etl))
        assert await run_inside(etl, "socket.create_connection(('127.0.0.1', 51080), 5)") is None
        listener.accept()[0].close()
        listener.close()
        before = found(etl).socket_path
        with pytest.raises((EtlNotRunningError, OSError, EOFError)):
            await run_inside(etl, "os._exit(7)")
        await until(etl, lambda: etl.runs and found(etl).socket_path != before)
        await manager.verbs()["etl_stop"]({"name": "some-image"}, no_report)
        assert Engine(program).containers() == {}
        assert msgspec.convert(etl.details()["sandbox_layers"], list[str])[0] == "container (podman)"

    run(tmp_path, program, test)

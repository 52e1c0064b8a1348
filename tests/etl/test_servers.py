"""A transform that is a server: its start, its network, its life and its end, with real processes."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from hosts import needs
from server_program import SERVER
from servers_running import ask, found, free_port, managing, new, no_report, run_inside, runner_of, until

from aistore.errors import EtlInitError, EtlNotRunningError
from aistore.etl.machine import RESTARTS_MAX
from aistore.etl.manager import Manager
from aistore.etl.servers.connect import connect, listen
from aistore.fallbacks import lacks
from aistore.model.etl import Stage

Test = Callable[[Manager], Awaitable[None]]


def run(directory: Path, test: Test) -> None:
    async def whole() -> None:
        async with managing(directory) as manager:
            await test(manager)

    asyncio.run(whole())


def test_it_is_reached_and_told_what_transformers_are_told(tmp_path: Path) -> None:
    async def test(manager: Manager) -> None:
        etl = await new(manager, env=[("GIVEN", "by its user")], direct_file=True, direct_put=True, workers=3)
        env = await run_inside(etl, "answer = dict(os.environ)")
        assert env["AIS_TARGET_URL"] == found(etl).target_url
        assert f"/v1/etl/_object/{etl.spec.name}/{found(etl).secret}" in env["AIS_TARGET_URL"]
        expected = {
            "GIVEN": "by its user", "DIRECT_PUT": "true", "direct_put": "true", "ETL_DIRECT_FQN": "true",
            "ARG_TYPE": "fqn", "COMMUNICATION_TYPE": "hpush://", "NUM_WORKERS": "3", "PORT": str(found(etl).port),
        }  # fmt: skip
        assert {name: env[name] for name in expected} == expected
        assert await run_inside(etl, "answer = os.getcwd()") == env["TMPDIR"]
        assert "the server begins" in etl.log.tail(1000)

    run(tmp_path, test)


@needs("namespaces")
def test_two_have_the_same_port_and_nothing_else_is_in_their_network(tmp_path: Path) -> None:
    async def test(manager: Manager) -> None:
        first, second = await new(manager, "first-one"), await new(manager, "second-one")
        assert found(first).port == found(second).port == 8000
        outside = socket.create_server(("127.0.0.1", 0))
        outside.setblocking(False)
        port = outside.getsockname()[1]
        for address in ("127.0.0.1", "10.255.255.1"):
            with pytest.raises(AssertionError, match=r"OSError|refused|unreachable"):
                await run_inside(first, f"socket.create_connection(({address!r}, {port}), 5)")
        with pytest.raises(BlockingIOError):
            outside.accept()
        outside.close()

    run(tmp_path, test)


def test_it_calls_back_to_whoever_listens(tmp_path: Path) -> None:
    async def test(manager: Manager) -> None:
        etl = await new(manager)
        running = found(etl)
        assert running.gateway
        listener, other = await listen(running), await listen(running)
        assert listener.getsockname() == other.getsockname()
        other.close()

        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            head = await reader.readuntil(b"\r\n\r\n")
            body = head.split(b"\r\n")[0]
            writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
            writer.close()
            await writer.wait_closed()

        async with await asyncio.start_server(answer, sock=listener):
            said = await run_inside(
                etl, "answer = urllib.request.urlopen(os.environ['AIS_TARGET_URL'] + '/ais%2Fx').read().decode()"
            )
        assert said == f"GET /v1/etl/_object/some-server/{running.secret}/ais%2Fx HTTP/1.1"

    run(tmp_path, test)


def test_it_reads_files_of_calls_and_not_the_stores_own(tmp_path: Path) -> None:
    async def test(manager: Manager) -> None:
        etl = await new(manager)
        running = found(etl)
        for directory in (running.files, running.calls):
            Path(directory, "object.bin").write_bytes(b"an object")
        read = "answer = open({!r}).read()"
        assert await run_inside(etl, read.format(f"{running.files}/object.bin")) == "an object"
        with pytest.raises(AssertionError, match=r"NotFound|Permission"):
            await run_inside(etl, read.format(f"{running.calls}/object.bin"))
        with pytest.raises(AssertionError, match=r"Read-only|Permission"):
            await run_inside(etl, f"open({running.files!r} + '/object.bin', 'a')")
        await manager.verbs()["etl_stop"]({"name": etl.spec.name}, no_report)
        assert not os.path.exists(running.files)
        assert not os.path.exists(running.calls)

    run(tmp_path, test)


def test_stop_and_start_leave_nothing_behind(tmp_path: Path) -> None:
    async def test(manager: Manager) -> None:
        etl = await new(manager)
        before = found(etl)
        child = await run_inside(etl, "answer = subprocess.Popen(['sleep', '1000']).pid")
        assert child
        launched = runner_of(etl).launched
        assert launched is not None
        descriptors = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
        for _ in range(3):
            await manager.verbs()["etl_stop"]({"name": etl.spec.name}, no_report)
            assert not launched.running()
            with pytest.raises(EtlNotRunningError):
                await connect(before)
            assert not [name for name in os.listdir(tmp_path / "runtime") if name.startswith("etl-")]
            await manager.verbs()["etl_start"]({"name": etl.spec.name}, no_report)
            assert await run_inside(etl, "answer = 7") == 7
            assert found(etl).socket_path != before.socket_path
            assert found(etl).secret == before.secret
        if descriptors:
            assert len(os.listdir("/proc/self/fd")) == descriptors
        await manager.verbs()["etl_delete"]({"name": etl.spec.name}, no_report)
        assert os.listdir(tmp_path / "runtime") == []

    run(tmp_path, test)


def test_a_crash_is_started_again_and_then_given_up(tmp_path: Path) -> None:
    async def test(manager: Manager) -> None:
        etl = await new(manager)
        for number in range(RESTARTS_MAX + 1):
            before = found(etl).socket_path
            with pytest.raises((EtlNotRunningError, OSError, EOFError)):
                await run_inside(etl, "print('about to go', flush=True); os._exit(7)")
            if number < RESTARTS_MAX:
                await until(etl, lambda before=before: etl.runs and found(etl).socket_path != before)  # type: ignore[misc]
        await until(etl, lambda: etl.life.stage is Stage.ABORTED)
        assert "ended with exit status 7" in etl.life.message
        assert "about to go" in etl.life.message

    run(tmp_path, test)


@needs("namespaces")
def test_a_transform_that_signals_process_1_ends_itself_for_good(tmp_path: Path) -> None:
    async def test(manager: Manager) -> None:
        etl, other = await new(manager), await new(manager, "another-one")
        with pytest.raises((EtlNotRunningError, OSError, EOFError)):
            await run_inside(etl, "os.kill(1, signal.SIGTERM); time.sleep(60)")
        await until(etl, lambda: etl.life.stage is Stage.ABORTED)
        assert etl.life.message.startswith("the transform's server was ended by SIGTERM")
        assert await run_inside(other, "answer = 7") == 7
        listed = await manager.verbs()["etl_list"]({}, no_report)
        assert [(each["id"], each["stage"]) for each in listed] == [
            ("another-one", "Running"), ("some-server", "Aborted"),
        ]  # fmt: skip
        await manager.verbs()["etl_start"]({"name": etl.spec.name}, no_report)
        assert await run_inside(etl, "answer = 7") == 7

    run(tmp_path, test)


def test_the_guards_death_is_nothing_the_transform_pays_for(tmp_path: Path) -> None:
    async def test(manager: Manager) -> None:
        etl = await new(manager)
        for _ in range(2):
            before, launched = found(etl).socket_path, runner_of(etl).launched
            assert launched is not None
            os.kill(launched.guard_pid, signal.SIGKILL)
            await until(etl, lambda before=before: etl.runs and found(etl).socket_path != before)  # type: ignore[misc]
        if not lacks("namespaces"):  # else the port may be taken for a moment longer, by what the guard had kept
            assert etl.life.restarts == ()

    run(tmp_path, test)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"code": "import sys; sys.exit('no GPU here')"}, r"ended with exit status 1\n.*no GPU here"),
        ({"code": "import nothing_of_the_kind"}, r"exit status 1\n[\s\S]*nothing_of_the_kind"),
        ({"command": ["no-such-program"], "code": "", "filename": ""}, r"status 127\n.*no-such-program: No such file"),
        ({"code": "import time; print('slowly', flush=True); time.sleep(99)", "init_timeout_seconds": 3},
         r"timeout: .*not ready within 3 s \(starting: nothing listens at port \d+\)\nslowly"),
        ({"code": SERVER.replace("200, b\"Running\"", "503, b\"\""), "init_timeout_seconds": 3},
         r"timeout: .*GET /health: 503"),
        ({"code": "import os; os.kill(os.getpid(), 11)"}, r"was ended by SIGSEGV"),
        ({"os_packages": ["no-such-package"]}, r"the system package 'no-such-package' is not installed"),
    ],
    ids=["exit", "import", "no-program", "silent", "unhealthy", "signal", "package"],
)  # fmt: skip
def test_what_does_not_come_up_says_why(tmp_path: Path, fields: dict[str, object], expected: str) -> None:
    async def test(manager: Manager) -> None:
        with pytest.raises(EtlInitError, match=expected):
            await new(manager, **fields)  # type: ignore[arg-type]
        assert manager.etls() == {}
        assert os.listdir(tmp_path / "runtime") == []

    run(tmp_path, test)


@needs("proc")
def test_one_that_is_near_its_limit_is_let_live(tmp_path: Path) -> None:
    """Near it the guard looks often, at every process."""
    busy = "begun = time.monotonic()\nwhile time.monotonic() < begun + 3:\n    pass"

    async def test(manager: Manager) -> None:
        etl = await new(manager, memory_bytes=192 << 20)
        assert (
            await run_inside(etl, f"kept = bytearray(os.urandom(1 << 20)) * 100\n{busy}\nanswer = len(kept) >> 20")
            == 100
        )
        assert etl.life.restarts == ()

    run(tmp_path, test)


@needs("affinity")
@pytest.mark.parametrize("sandbox", ["on", "off"])
def test_it_has_the_cores_that_it_may_have(tmp_path: Path, sandbox: str) -> None:
    async def test(manager: Manager) -> None:
        etl = await new(manager, cpus=0.5, sandbox=sandbox, port=free_port())
        assert await run_inside(etl, "answer = len(os.sched_getaffinity(0))") == 1
        assert await run_inside(etl, "answer = os.environ['NUM_WORKERS']") == "1"
        if sandbox == "on":
            with pytest.raises(AssertionError, match="PermissionError"):
                await run_inside(etl, "os.sched_setaffinity(0, range(64))")

    run(tmp_path, test)


def test_without_a_network_of_its_own_its_port_may_be_taken(tmp_path: Path) -> None:
    async def test(manager: Manager) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            with pytest.raises(EtlInitError, match=f"port {port} is taken"):
                await new(manager, sandbox="off", port=port)
        etl = await new(manager, sandbox="off", port=port)
        assert found(etl).port == port
        assert await run_inside(etl, "answer = 7") == 7
        reply = await ask(found(etl), b"GET /health HTTP/1.1\r\nHost: etl\r\n\r\n")
        assert reply == (200, b"Running")

    run(tmp_path, test)


def test_with_the_nodes_network_it_reaches_what_the_node_reaches(tmp_path: Path) -> None:
    async def test(manager: Manager) -> None:
        with socket.create_server(("127.0.0.1", 0)) as outside:
            etl = await new(manager, network="full", port=free_port())
            outside.setblocking(False)
            await run_inside(etl, f"socket.create_connection(('127.0.0.1', {outside.getsockname()[1]}), 5).close()")
            outside.accept()[0].close()

    run(tmp_path, test)

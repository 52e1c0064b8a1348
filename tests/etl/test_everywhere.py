"""Transforms of a cluster: made, stopped and removed on all its nodes, whichever of them end on the way."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs
from nodes import Node, cluster
from packages import make_wheel

from aistore.cluster.documents import EtlRecord
from aistore.errors import (
    ConflictError,
    EtlExistsError,
    EtlInitError,
    EtlNotFoundError,
    EtlNotRunningError,
    PeerUnreachableError,
    RetryLaterError,
)
from aistore.etl.environments.lock import check_lock, make_lock
from aistore.etl.environments.runtimes import resolve_runtime
from aistore.etl.warm_runner import WarmRunner
from aistore.model.etl import EtlSpec, Stage

COPY = "def transform(data):\n    return data\n"
#: Fails on the nodes whose directory is in the list.
FAILS_ON = (
    "import os\nif any(node in os.environ['TMPDIR'] for node in {nodes!r}):\n    raise OSError('no GPU')\n" + COPY
)
#: Waits on the nodes whose directory is in the list, as long as the gate is there.
WAITS_ON = (
    """
import os, time
while any(node in os.environ['TMPDIR'] for node in {nodes!r}) and os.path.exists({gate!r}):
    time.sleep(0.01)
"""
    + COPY
)
_SECONDS = 60.0


def run(directory: Path, test: Callable[[list[Node]], Awaitable[None]], count: int = 3) -> None:
    async def main() -> None:
        async with cluster(directory, count) as nodes:
            await asyncio.wait_for(test(nodes), _SECONDS)

    asyncio.run(main())


async def until(condition: Callable[[], Any]) -> None:
    async def wait() -> None:
        while not condition():
            await asyncio.sleep(0.01)

    await asyncio.wait_for(wait(), _SECONDS)


def stages(nodes: list[Node], name: str) -> list[str]:
    return [etl.life.stage.value if (etl := node.etl(name)) is not None else "" for node in nodes]


def test_made_on_all_nodes(tmp_path: Path) -> None:
    async def test(nodes: list[Node]) -> None:
        assert await nodes[1].init("copy-all", COPY) == "copy-all"
        assert stages(nodes, "copy-all") == ["Running"] * 3
        assert {message.partition(":")[0] for _, message in nodes[1].said} == {"n1", "n2", "n3"}
        ready = [message for stage, message in nodes[1].said if stage == "ready"]
        assert sorted(ready) == [f"n{number}: copy-all takes objects" for number in (1, 2, 3)]
        record = nodes[0].root.document.etls["copy-all"]
        assert record.making == ""
        details = [await node.ask("details", name="copy-all") for node in nodes]
        assert len({one["digest"] for one in details}) == 1
        assert [one["stage"] for one in details[0]["nodes"]] == ["Running"] * 3
        for node in nodes:
            found = await node.ask("find", name="copy-all", wait=0)
            assert os.path.exists(found["socket_path"])
            assert [(one["id"], one["stage"]) for one in await node.ask("list")] == [("copy-all", "Running")]
        for what in ("health", "logs", "metrics"):
            entries = await nodes[2].ask(what, name="copy-all")
            assert [entry["target_id"] for entry in entries] == ["n1", "n2", "n3"]

    run(tmp_path, test)


def test_the_first_node_to_fail_is_named_and_nothing_stays(tmp_path: Path) -> None:
    async def test(nodes: list[Node]) -> None:
        for failing in (["n2/"], ["n1/"]):  # another one, and the one that is asked
            with pytest.raises(EtlInitError, match=rf"node {failing[0][:2]}: .*(?s:.*)no GPU"):
                await nodes[0].init("fail-some", FAILS_ON.format(nodes=failing))
            assert stages(nodes, "fail-some") == [""] * 3
            assert nodes[0].root.document.etls == {}
        await nodes[0].init("fail-some", COPY)  # the name is free

    run(tmp_path, test)


def test_all_nodes_install_one_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    index = tmp_path / "index"
    index.mkdir()
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    make_wheel(str(index), "shapes", "1.0")

    async def test(nodes: list[Node]) -> None:
        await nodes[0].init("lock-all", "import shapes\n" + COPY, dependencies="shapes\n")
        make_wheel(str(index), "shapes", "2.0")
        late = Node(nodes[0].root, "n3", tmp_path / "n3", "start-3")
        await late.join()
        etls = [etl for node in (*nodes, late) if (etl := node.etl("lock-all")) is not None]
        assert [etl.life.stage.value for etl in etls] == ["Running"] * 3
        assert len({etl.runner.environment_directory for etl in etls}) == 3
        assert len({etl.digest() for etl in etls}) == 1
        assert all(etl.lock is not None and [one.version for one in etl.lock.packages] == ["1.0"] for etl in etls)

    run(tmp_path, test, count=2)


def test_a_lock_for_other_interpreters_is_refused() -> None:
    runtime = resolve_runtime("python3")
    lock = make_lock(runtime, [])
    check_lock(lock, runtime)
    check_lock(replace(lock, python=f"{lock.python}9"), runtime)  # another patch level
    for change in ({"python": "3.7.1"}, {"platform": "linux-vax"}, {"implementation": "PyPy"}):
        with pytest.raises(EtlInitError, match=r"this transform is for .* and python3\S* here is"):
            check_lock(replace(lock, **change), runtime)


def test_one_of_many_inits_wins(tmp_path: Path) -> None:
    async def test(nodes: list[Node]) -> None:
        results = await asyncio.gather(*(node.init("same-name", COPY) for node in nodes), return_exceptions=True)
        assert sorted(isinstance(one, EtlExistsError) for one in results) == [False, True, True], results
        assert stages(nodes, "same-name") == ["Running"] * 3

    run(tmp_path, test)


def test_stop_start_and_removal_reach_all(tmp_path: Path) -> None:
    async def test(nodes: list[Node]) -> None:
        await nodes[0].init("copy-all", COPY)
        sockets = [etl.found()["socket_path"] for node in nodes if (etl := node.etl("copy-all")) is not None]
        await nodes[1].ask("stop", name="copy-all")
        assert stages(nodes, "copy-all") == ["Aborted"] * 3
        assert not any(map(os.path.exists, sockets))
        for node in nodes:
            with pytest.raises(EtlNotRunningError, match=f"node {node.id}: .*stopped") as caught:
                await node.ask("find", name="copy-all", wait=0)
            assert caught.value.status == 409
        (summary,) = await nodes[2].ask("list")
        assert (summary["stage"], summary["message"]) == ("Aborted", "stopped")
        await nodes[2].ask("start", name="copy-all")
        assert stages(nodes, "copy-all") == ["Running"] * 3
        with pytest.raises(ConflictError, match="Running"):
            await nodes[0].ask("start", name="copy-all")
        await nodes[0].ask("delete", name="copy-all")
        assert stages(nodes, "copy-all") == [""] * 3
        for verb in ("delete", "stop", "start", "details", "logs"):
            with pytest.raises(EtlNotFoundError):
                await nodes[1].ask(verb, name="copy-all")
        await nodes[1].init("copy-all", COPY)

    run(tmp_path, test)


def test_called_off_while_it_is_made(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    gate.touch()

    async def test(nodes: list[Node]) -> None:
        for verb in ("stop", "delete"):
            making = asyncio.ensure_future(nodes[0].init("call-off", WAITS_ON.format(nodes=["n2/"], gate=str(gate))))
            await until(lambda: (etl := nodes[1].etl("call-off")) and etl.life.message.startswith("importing"))
            (summary,) = await nodes[2].ask("list")
            assert summary["stage"] == "Initializing"
            await nodes[2].ask(verb, name="call-off")
            with pytest.raises((EtlInitError, ConflictError), match="was stopped"):
                await making
            assert stages(nodes, "call-off") == [""] * 3
            assert nodes[0].root.document.etls == {}

    run(tmp_path, test)


def test_a_node_that_joins_has_them_before_it_takes_traffic(tmp_path: Path) -> None:
    async def test(nodes: list[Node]) -> None:
        await nodes[0].init("copy-all", COPY)
        await nodes[0].init("copy-not", COPY)
        await nodes[0].ask("stop", name="copy-not")
        late = Node(nodes[0].root, "n4", tmp_path / "n4", "start-4")
        joining = asyncio.ensure_future(late.join())
        await until(lambda: "n4" in late.root.document.nodes)
        assert (stages([late], "copy-all"), stages([late], "copy-not")) == (["Running"], ["Aborted"])
        await joining
        assert [one["target_id"] for one in await nodes[0].ask("health", name="copy-all")] == ["n1", "n2", "n3", "n4"]
        await nodes[0].ask("start", name="copy-not")
        assert stages([late], "copy-not") == ["Running"]

    run(tmp_path, test)


def test_a_node_that_joins_while_one_is_made_makes_it_too(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    gate.touch()

    async def test(nodes: list[Node]) -> None:
        making = asyncio.ensure_future(nodes[0].init("wait-two", WAITS_ON.format(nodes=["n2/"], gate=str(gate))))
        await until(lambda: (etl := nodes[1].etl("wait-two")) and etl.life.message.startswith("importing"))
        late = Node(nodes[0].root, "n3", tmp_path / "n3", "start-3")
        await late.join()
        assert stages([late], "wait-two") == [""]
        gate.unlink()
        await making
        assert stages([*nodes, late], "wait-two") == ["Running"] * 3

    run(tmp_path, test, count=2)


def test_what_a_node_that_died_was_making_is_removed(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    gate.touch()

    async def test(nodes: list[Node]) -> None:
        making = asyncio.ensure_future(nodes[0].init("wait-two", WAITS_ON.format(nodes=["n2/"], gate=str(gate))))
        await until(lambda: stages(nodes, "wait-two") == ["Running", "Initializing", "Running"])
        await nodes[0].die()
        nodes[1].root.set_node(nodes[0], None)  # as the others do, when its lease has lapsed
        await until(lambda: stages(nodes[1:], "wait-two") == ["", ""])
        assert nodes[1].root.document.etls == {}
        making.cancel()
        gate.unlink()
        await nodes[1].init("wait-two", COPY)

    run(tmp_path, test)


def test_what_a_controller_that_was_killed_was_making_is_removed(tmp_path: Path) -> None:
    """By its successor, which is the same start of the node and knows of nothing that it makes."""

    async def test(nodes: list[Node]) -> None:
        root = nodes[0].root
        record = EtlRecord(EtlSpec("left-over", COPY), True, None, 7, nodes[0].incarnation)
        root.put(structs.replace(root.document, etls={"left-over": record}))
        await until(lambda: root.document.etls == {})

    run(tmp_path, test)


@pytest.mark.parametrize("buried", [True, False])
def test_a_node_that_dies_while_it_is_asked(tmp_path: Path, buried: bool) -> None:
    """It does not matter once it is out of the map; a node of the map that never answers is named."""
    gate = tmp_path / "gate"
    gate.touch()

    async def test(nodes: list[Node]) -> None:
        making = asyncio.ensure_future(nodes[0].init("wait-two", WAITS_ON.format(nodes=["n2/"], gate=str(gate))))
        await until(lambda: stages(nodes, "wait-two") == ["Running", "Initializing", "Running"])
        await nodes[1].die()
        await until(lambda: ("waiting", "n2: node n2 does not answer") in nodes[0].said)
        if buried:
            nodes[0].root.set_node(nodes[1], None)
            assert await making == "wait-two"
            assert stages([nodes[0], nodes[2]], "wait-two") == ["Running", "Running"]
            return
        with pytest.raises(PeerUnreachableError, match="node n2"):
            await making
        assert stages([nodes[0], nodes[2]], "wait-two") == ["", ""]
        assert nodes[0].root.document.etls == {}

    run(tmp_path, test)


def test_a_node_where_it_does_not_run_says_why(tmp_path: Path) -> None:
    broken = tmp_path / "broken"

    async def test(nodes: list[Node]) -> None:
        await nodes[0].init(
            "break-two",
            WAITS_ON.format(nodes=[], gate="")
            + f"""
import os
if 'n2/' in os.environ['TMPDIR'] and os.path.exists({str(broken)!r}):
    raise OSError('the disk is away')
""",
        )
        broken.touch()
        etl = nodes[1].etl("break-two")
        assert etl is not None
        assert isinstance(etl.runner, WarmRunner)
        assert etl.runner.launched is not None
        os.kill(etl.runner.launched.guard_pid, signal.SIGKILL)
        await until(lambda: etl.life.stage is Stage.ABORTED)
        for node in (nodes[0], nodes[1]):
            (summary,) = await node.ask("list")
            assert summary["stage"] == "Aborted"
            assert summary["message"].startswith("n2: crashed 6 times")
            health = {one["target_id"]: one for one in await node.ask("health", name="break-two")}
            assert [health[key]["health_status"] for key in ("n1", "n2", "n3")] == ["Running", "Aborted", "Running"]
            assert "the disk is away" in health["n2"]["message"]
        with pytest.raises(EtlNotRunningError, match=r"node n2: etl job break-two is Aborted .crashed"):
            await nodes[1].ask("find", name="break-two", wait=0)
        assert await nodes[2].ask("find", name="break-two", wait=0)
        with pytest.raises(EtlInitError, match=r"node n2: (?s:.*)the disk is away"):
            await nodes[0].ask("start", name="break-two")
        assert stages(nodes, "break-two") == ["Running", "Aborted", "Running"]
        broken.unlink()
        await nodes[0].ask("start", name="break-two")
        assert stages(nodes, "break-two") == ["Running"] * 3

    run(tmp_path, test)


def test_a_start_that_fails_leaves_all_stopped(tmp_path: Path) -> None:
    broken = tmp_path / "broken"

    async def test(nodes: list[Node]) -> None:
        await nodes[0].init(
            "break-two", f"import os\nif os.path.exists({str(broken)!r}):\n    raise OSError('away')\n" + COPY
        )
        await nodes[0].ask("stop", name="break-two")
        broken.touch()
        with pytest.raises(EtlInitError, match=r"node n[12]: (?s:.*)away"):
            await nodes[0].ask("start", name="break-two")
        (summary,) = await nodes[0].ask("list")
        assert (summary["stage"], summary["message"]) == ("Aborted", "stopped")

    run(tmp_path, test, count=2)


def test_a_node_that_does_not_answer_is_told_of(tmp_path: Path) -> None:
    async def test(nodes: list[Node]) -> None:
        await nodes[0].init("copy-all", COPY)
        await nodes[2].die()
        (summary,) = await nodes[0].ask("list")
        assert summary["message"] == "n3: node n3 does not answer"
        assert summary["stage"] == "Running"
        health = await nodes[0].ask("health", name="copy-all")
        assert health[2] == {"target_id": "n3", "health_status": "Unknown", "message": "node n3 does not answer"}
        assert len(await nodes[0].ask("logs", name="copy-all")) == 2

    run(tmp_path, test)


def test_a_node_that_does_not_know_yet_does_not_say_that_there_is_none(tmp_path: Path) -> None:
    async def test(nodes: list[Node]) -> None:
        await nodes[0].init("copy-all", COPY)
        late = Node(nodes[0].root, "n2", tmp_path / "n2", "start-2")
        with pytest.raises(RetryLaterError, match="n2 is joining"):
            await late.ask("find", name="copy-all", wait=0)
        finding = asyncio.ensure_future(late.ask("find", name="copy-all", wait=_SECONDS))
        await late.join()
        assert (await finding)["name"] == "copy-all"

    run(tmp_path, test, count=1)

"""A transform that is a server, on the nodes of a cluster."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

from hosts import needs
from nodes import cluster
from server_program import SERVER
from servers_running import run_inside, runner_of, until

from aistore.model.etl import Stage


@needs("namespaces")
def test_one_that_ends_its_container_on_a_node_is_aborted_and_no_other(tmp_path: Path) -> None:
    async def test() -> None:
        async with cluster(tmp_path) as nodes:
            program = {"command": ["python", "server.py"], "filename": "server.py", "sandbox": "on"}
            for name in ("to-be-ended", "left-alone"):
                await nodes[0].init(name, SERVER, **program)
            secrets = {runner_of(etl).found()["target_url"] for node in nodes if (etl := node.etl("to-be-ended"))}
            assert len(secrets) == 3
            ended = nodes[1].etl("to-be-ended")
            assert ended is not None
            with contextlib.suppress(OSError, EOFError, asyncio.IncompleteReadError):
                await run_inside(ended, "os.kill(1, signal.SIGTERM); time.sleep(60)")
            await until(ended, lambda: ended.life.stage is Stage.ABORTED)
            listed = await nodes[2].ask("list")
            assert [(each["id"], each["stage"]) for each in listed] == [
                ("left-alone", "Running"), ("to-be-ended", "Aborted"),
            ]  # fmt: skip
            assert "n2: the transform's server was ended by SIGTERM" in listed[1]["message"]
            health = await nodes[0].ask("health", name="to-be-ended")
            assert sorted(each["health_status"] for each in health) == ["Aborted", "Running", "Running"]
            await nodes[0].ask("stop", name="to-be-ended")
            await nodes[0].ask("start", name="to-be-ended")
            assert await run_inside(ended, "answer = 7") == 7
            logs = await nodes[0].ask("logs", name="to-be-ended")
            assert [each["target_id"] for each in logs] == ["n1", "n2", "n3"]
            assert all("the server begins" in each["logs"] for each in logs)

    asyncio.run(test())

"""The README's "From one machine to many": its commands are run, on a cluster that its own command starts."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from test_documents import CLUSTER, blocks, matches, steps

from aistore.errors import NotSupportedError
from aistore.laptop.ports import free_block
from aistore.laptop.weed import find_weed

#: What differs from run to run, each once per line of what the command says at its start.
_NAMES = re.compile(r"http://127\.0\.0\.1:\d+|\bt\w{8}\b|(?<=pid )\d+|/tmp/ais-cluster-\w+")


@pytest.fixture
def cluster_as_shown(tmp_path: Path) -> Iterator[tuple[dict[str, str], int]]:
    """Start what the README starts; return what it is called there and here, and the first port after its nodes'."""
    try:
        find_weed()
    except NotSupportedError as error:
        pytest.skip(str(error))
    (shown,) = blocks("README.md", "text", CLUSTER)
    port = free_block(4)
    command = [sys.executable, "-m", "aistore", "cluster", "start-local", "--port", str(port), "--lease", "6"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert process.stdout is not None
    said = [process.stdout.readline() for _ in shown.splitlines()]
    try:
        names = {
            name: found
            for line, here in zip(shown.splitlines(), said, strict=True)
            for name, found in zip(_NAMES.findall(line), _NAMES.findall(here), strict=True)
        }
        as_shown = [_renamed(line, {found: name for name, found in names.items()}) for line in said]
        assert matches(_without_numbers(shown.splitlines()), _without_numbers(as_shown)), "".join(said)
        yield names, port + 3
    finally:
        process.terminate()
        process.wait(60)
        process.stdout.close()


def _renamed(text: str, names: dict[str, str]) -> str:
    return re.sub("|".join(sorted(map(re.escape, names), key=len, reverse=True)), lambda found: names[found[0]], text)


def _without_numbers(lines: list[str]) -> list[str]:
    """Return lines with numbers, and the width of columns, made alike: homes are where ids put them."""
    return [re.sub(r" +", " ", re.sub(r"\b\d[\d.]*(B|[KMG]iB)?(?!\S*:)", "N", line)).rstrip() for line in lines]


def test_the_commands_of_the_section(cluster_as_shown: tuple[dict[str, str], int], tmp_path: Path) -> None:
    names, next_port = cluster_as_shown
    names |= {
        "--port 8083": f"--port {next_port}", "http://127.0.0.1:8083": f"http://127.0.0.1:{next_port}",
        **{path: str(tmp_path / path[5:]) for path in ("/tmp/words", "/tmp/uppercase.py", "/tmp/node4")},
    }  # fmt: skip
    environment = {**os.environ, "PATH": f"{os.path.dirname(sys.executable)}:{os.environ['PATH']}"}
    walk = steps("README.md", CLUSTER)
    assert len(walk) >= 15
    started: list[subprocess.Popen[bytes]] = []
    try:
        for command, shown in walk:
            here = _renamed(command, names)
            if command.startswith("source "):
                with open(here.removeprefix("source "), encoding="utf-8") as file:
                    environment |= dict(line.strip().removeprefix("export ").split("=", 1) for line in file)
                continue
            if command.endswith(" &"):
                started.append(subprocess.Popen(["bash", "-c", f"exec {here[:-2]}"], env=environment))
                continue
            done = subprocess.run(
                ["bash", "-c", here], env=environment, capture_output=True, text=True, timeout=120, check=False
            )
            printed = _renamed(done.stderr + done.stdout, {there: name for name, there in names.items()}).splitlines()
            assert done.returncode == 0, (command, printed)
            assert matches(_without_numbers(shown), _without_numbers(printed)), (
                f"$ {command}\nthe document shows\n{shown}\nbut it printed\n{printed}"
            )
    finally:
        for process in started:
            process.terminate()
            process.wait(60)

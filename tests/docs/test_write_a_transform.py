"""What "Write a transform" shows is run: its files are written, its commands print what it says."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from package_index import SDK_SERVERS, Index
from test_documents import ENDPOINT, matches

from aistore.testing import StoreProcess

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "write-a-transform.md"

#: A file with its name before it, or a block of commands.
_BLOCK = re.compile(r"(?:^`([\w.]+)`:\n\n)?^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def walked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[StoreProcess, Path]]:
    """Return a store after all that the document does, and the directory with its files."""
    directory = tmp_path_factory.mktemp("transform")
    with StoreProcess() as store:
        environment = {
            **os.environ, "AIS_ENDPOINT": store.endpoint,
            "PATH": f"{os.path.dirname(sys.executable)}:{os.environ['PATH']}",
        }  # fmt: skip
        for name, language, text in _BLOCK.findall(DOCUMENT.read_text(encoding="utf-8")):
            if language == "console":
                run(text, directory, environment)
            else:
                assert name, text
                (directory / name).write_text(text)
        yield store, directory


def run(block: str, directory: Path, environment: dict[str, str]) -> None:
    for step in block.split("$ ")[1:]:
        command, *shown = step.splitlines()
        done = subprocess.run(
            ["bash", "-c", command], cwd=directory, env=environment, capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0, f"$ {command}\n{done.stderr}"
        printed = (done.stderr + done.stdout).splitlines()
        assert not shown or matches(shown, printed), f"$ {command}\nthe document shows\n{shown}\nnot\n{printed}"


def test_the_commands_and_programs(walked: tuple[StoreProcess, Path]) -> None:
    assert ENDPOINT not in DOCUMENT.read_text(encoding="utf-8")
    _, directory = walked
    assert len(list(directory.iterdir())) >= 7


@pytest.mark.slow
def test_the_class_of_the_sdk(walked: tuple[StoreProcess, Path], index: Index) -> None:
    store, directory = walked
    python = index.environment("sdk-etl-2.0.0", *SDK_SERVERS)
    done = subprocess.run(
        [python, directory / "of_the_sdk.py", store.endpoint], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert "| some words |" in done.stdout


def test_every_key_of_a_specification_is_in_the_table() -> None:
    from aistore.errors import BadRequestError
    from aistore.etl.specs.runtime_message import spec_from_runtime

    text = DOCUMENT.read_text(encoding="utf-8")
    for message, prefix in (({"x" * 30: 1, "runtime": {"code": "x"}}, ""), ({"runtime": {"x" * 30: 1}}, "runtime.")):
        with pytest.raises(BadRequestError) as caught:
            spec_from_runtime({"name": "some-name", **message})
        known = set(caught.value.hint.removeprefix("expected ").split(", "))
        for key in known - {"spec", "communication_type", "runtime", "resources"}:
            assert f"`{prefix}{key}`" in text, f"{prefix}{key} is not in the document"

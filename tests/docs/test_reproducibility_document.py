"""docs/reproducibility.md: its program prints what it says, and what it names is there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import aistore
from aistore.cli.commands.etl import etl
from aistore.testing import StoreProcess

TEXT = (Path(__file__).resolve().parents[2] / "docs" / "reproducibility.md").read_text(encoding="utf-8")


def test_its_program_prints_what_it_says(store: StoreProcess) -> None:
    (program,) = re.findall(r"^```python\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False,
        env={**os.environ, "AIS_ENDPOINT": store.endpoint},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    said = re.search(r"It prints (.*?)\.", TEXT)
    assert said is not None
    assert done.stdout.split() == re.findall(r"`(\w+)`", said[1])


def test_the_ways_to_give_a_seed_are_there() -> None:
    classes = {"Object": aistore.client.Object, "Bucket": aistore.client.Bucket}
    named = re.findall(r"`(Object|Bucket)\.(\w+)`", TEXT)
    assert len(named) == 5
    for kind, method in named:
        assert "seed" in getattr(classes[kind], method).__kwdefaults__, method
    for command in re.findall(r"`ais etl (object|bucket|inspect)`", TEXT):
        options = [option for one in etl.commands[command].params for option in one.opts]
        assert "--seed" in options, command

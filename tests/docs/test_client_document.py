"""docs/client.md: its programs run, and what it names is there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import aistore.client
from aistore import errors
from aistore.testing import StoreProcess

TEXT = (Path(__file__).resolve().parents[2] / "docs" / "client.md").read_text(encoding="utf-8")


def test_its_programs_run(store: StoreProcess) -> None:
    said = []
    for program in re.findall(r"^```python\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL):
        done = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False,
            env={**os.environ, "AIS_ENDPOINT": store.endpoint},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        said.append(done.stdout.splitlines())
    written, failed = said
    assert written[:2] == ["train/1.txt 5 1", "train/2.txt 4 1"]
    assert written[2].startswith("b'alpha' b'alp' 5 1 ")
    assert written[2].endswith("{'source': 'greek'}")
    missing = "ais://letters/no-such-object does not exist"
    assert failed == [missing, "5", missing]


def test_what_it_names_is_there() -> None:
    table = "".join(line for line in TEXT.splitlines() if line.startswith("| `"))
    client = aistore.client
    classes = [client.Client, client.Bucket, client.Object, client.Etl, client.Job]
    methods = set(re.findall(r"\.(\w+)\(", table))
    assert len(methods) > 15
    assert [name for name in methods if not any(hasattr(one, name) for one in classes)] == []
    assert [name for name in re.findall(r"`(\w+Error)`", TEXT) if not hasattr(errors, name)] == []

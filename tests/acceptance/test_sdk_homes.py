"""NVIDIA's SDK, asked which target it would go to, names the home that we compute."""

from __future__ import annotations

import json
import random
import subprocess
from pathlib import Path

import pytest
from person import PATIENCE, Index

from aistore.model.rendezvous import digest, home, uname

pytestmark = pytest.mark.slow


def test_sdk_goes_to_the_home_that_we_compute(index: Index):
    chance = random.Random(20260801)
    maps = [[f"{chance.getrandbits(48):x}" for _ in range(count)] for count in (1, 2, 3, 5, 16, 100)]
    providers = ("ais", "aws", "gcp", "azure", "ht")
    letters = "abcdefghij/0123456789 %ünïø☃."
    unames = [
        uname(chance.choice(providers), f"bucket-{number % 7}", "".join(chance.choices(letters, k=1 + number % 90)))
        for number in range(500)
    ]
    python = index.environment("sdk-2.0.0", "aistore==2.0.0")
    done = subprocess.run(
        [python, Path(__file__).parent / "clients" / "sdk_homes.py"],
        input=json.dumps({"maps": maps, "unames": unames}), capture_output=True, text=True, timeout=PATIENCE,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    ours = [[home({node: digest(node) for node in nodes}, name) for name in unames] for nodes in maps]
    assert ours == json.loads(done.stdout)

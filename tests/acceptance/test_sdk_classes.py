"""NVIDIA's SDK makes transforms from its web server classes and from images, from an environment of its own."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from package_index import SDK_SERVERS, Index

from aistore.etl.confinement import SYSTEM_PATH
from aistore.etl.environments.runtimes import find_runtimes
from aistore.testing import StoreProcess

pytestmark = pytest.mark.slow

#: How long all of it may take (seconds): an environment is installed twice, and 20 servers are started.
PATIENCE = 900.0


@pytest.fixture(scope="module")
def said(index: Index, classes_store: StoreProcess) -> dict[str, Any]:
    """Return what the SDK gets."""
    python = index.environment("sdk-etl-2.0.0", *SDK_SERVERS)
    script = Path(__file__).parent / "clients" / "sdk_classes.py"
    done = subprocess.run([python, script, classes_store.endpoint], capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr
    printed: dict[str, Any] = json.loads(done.stdout)
    return printed


@pytest.mark.parametrize(
    "name",
    ["class-fastapi-hpush", "class-fastapi-hpull", "class-fastapi-ws", "class-flask-hpush", "class-flask-hpull",
     "class-threaded-hpush", "class-threaded-hpull"],
)  # fmt: skip
def test_a_class_of_each_web_server(said: dict[str, Any], name: str) -> None:
    found = said["classes"][name]
    assert found["read"] == "SOME WORDS blue!"
    assert found.get("after a start", found["read"]) == found["read"]
    assert (found["fails"]["error"], found["fails"]["status"]) == ("AISError", 422)
    assert f"ETL error: {name} failed on ais://sdk-classes/dir/some thing" in found["fails"]["message"]
    assert found["logged"], "what the class logged when it was made is not in its log"
    assert found["communication"] == f"{name.rpartition('-')[2]}://"


@pytest.mark.skipif(
    not os.environ.get("AIS_ACCEPTANCE_PYTHONS"), reason="AIS_ACCEPTANCE_PYTHONS=1 tries Python 3.13 too"
)
def test_a_class_runs_in_the_python_that_pickled_it(index: Index, module_store: StoreProcess) -> None:
    runtimes = [found for found in find_runtimes().values() if found.version_info >= (3, 10) and found.has_venv]
    other = next((found for found in reversed(runtimes) if found.name != f"python3.{sys.version_info[1]}"), None)
    if other is None or other.serving:
        pytest.skip("this machine has no other Python that the SDK supports")
    python = index.environment(f"sdk-etl-2.0.0-of-{other.name}", *SDK_SERVERS, of=other.python)
    script = Path(__file__).parent / "clients" / "sdk_python.py"
    done = subprocess.run([python, script, module_store.endpoint], capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr
    assert f"python{done.stdout.strip()}" == other.name


def test_classes_that_stream_and_that_read_files(said: dict[str, Any]) -> None:
    assert said["kinds"]["class-streaming"]["value"] == "emosrow sd"
    assert said["kinds"]["class-of-files"]["value"] == "some thing some words"


def test_a_class_with_packages(said: dict[str, Any]) -> None:
    assert "| some words |" in said["kinds"]["class-packages"]["value"]


@pytest.mark.skipif(shutil.which("openssl", path=SYSTEM_PATH) is None, reason="this machine has no openssl")
def test_a_class_finds_the_system_packages_that_it_lists(said: dict[str, Any]) -> None:
    assert said["kinds"]["class-openssl"]["value"].startswith("OpenSSL ")
    without = said["kinds"]["class-without"]
    assert without["status"] == 422
    assert "openssl" in without["message"]


def test_a_system_package_that_is_not_there(said: dict[str, Any]) -> None:
    refused = said["kinds"]["class-not-there"]
    assert refused["status"] == 400
    assert "'no-such-package-at-all' is not installed on this machine" in refused["message"]


def test_a_class_that_is_too_slow(said: dict[str, Any]) -> None:
    assert said["kinds"]["class-slow"]["status"] == 422
    assert "timeout" in said["kinds"]["class-slow"]["message"]


def test_a_class_that_cannot_be_made(said: dict[str, Any]) -> None:
    refused = said["kinds"]["class-unmakeable"]
    assert refused["status"] == 400
    assert "ValueError: there is no model here" in refused["message"]


def test_a_class_that_kills_its_first_process(said: dict[str, Any]) -> None:
    # The read itself fails or not: a web server that is told to end may answer what it has begun with.
    assert said["kinds"]["aborted"] == ["class-killing"]


def test_public_images(said: dict[str, Any]) -> None:
    words, image = "some words", "aistorage/transformer_{}:latest"
    made = {"echo": words, "md5": "45274721987e0624326a67b74e146d61", "hello_world": "Hello World!"}
    command = {"md5": ["uvicorn", "fastapi_server:fastapi_app", "--port", "8000"]}
    for kind, result in made.items():
        assert said["images"][kind] == [result, image.format(kind), command.get(kind), [["K", "v"]]]


def test_images_and_names_that_cannot_be_had(said: dict[str, Any]) -> None:
    images = said["images"]
    assert images["other"]["error"] == "AISError"
    assert 400 <= images["other"]["status"] <= 501
    assert "engine" in images["other"]["message"]
    assert (images["twice"]["error"], images["twice"]["status"]) == ("ErrETLAlreadyExists", 409)
    assert (images["gone"]["error"], images["gone"]["status"]) == ("ErrETLNotFound", 404)


def md5(text: str) -> str:
    return hashlib.md5(text.encode()).hexdigest()


def test_a_class_and_an_image_in_a_row(said: dict[str, Any]) -> None:
    assert said["jobs"]["by both"] == said["jobs"]["copied"] == md5("SOME WORDS ")


def test_a_bucket_through_a_class_and_through_a_row(said: dict[str, Any]) -> None:
    jobs = said["jobs"]
    assert jobs["success"] == [True, True, True]
    by_class = {f"{number:02}.TXT": f"WORDS {number} " for number in range(20)}
    by_both = {f"md5-{number:02}.txt": md5(f"WORDS {number} ") for number in range(20)}
    assert jobs["made"] == {**by_class, **by_both}

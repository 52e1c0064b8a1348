"""NVIDIA's SDK makes transforms of images and of classes, and drives them in pipelines with others, unchanged."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest
from package_index import SDK_SERVERS
from person import Index, Shell
from test_sdk import run

from aistore.testing import StoreProcess

pytestmark = pytest.mark.slow


def md5(text: str) -> str:
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()


@pytest.fixture(scope="module")
def sdk(index: Index, classes_store: StoreProcess, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Return what NVIDIA's SDK 2.0.0 says of a store in which it makes transforms of its own."""
    shell = Shell(tmp_path_factory.mktemp("shell"), classes_store.endpoint)
    (shell.directory / "code.py").write_text("def transform(data):\n    return b'<' + data + b'>'\n")
    shell("ais etl init code --name sdk-code --from-file code.py")
    return run(index.environment("sdk-etl-2.0.0", *SDK_SERVERS), "sdk_class.py", shell.endpoint)


def test_classes_and_images_are_made(sdk):
    errors = {name: said["error"] for name, said in sdk["made"].items()}
    assert errors == {"upper": None, "reverse": None, "picky": None, "digest": None, "broken": "AISError"}
    assert "cannot be constructed" in sdk["made"]["broken"]["message"]
    assert sdk["image"]["error"] is None
    assert sdk["unknown image"]["error"] == "AISError"
    assert "registry.example/other:1" in sdk["unknown image"]["message"]
    assert sdk["left"] == ["class-digest", "class-picky", "class-upper", "image-md5", "sdk-code"]


def test_each_by_itself(sdk):
    assert sdk["alone"] == [
        "WORDS 1", "1 sdrow", "words 1", f"01.txt {md5('words 1')} six", "<words 1>", md5("words 1")
    ]  # fmt: skip
    assert sdk["asked"] == ["hello", "class-source/01.txt"]
    assert sdk["entered"] == "1 sdrow"


def test_pipelines_of_every_kind(sdk):
    assert sdk["lines"] == [
        "1 SDROW",
        "!>1 SDROW<",
        md5("<1 sdrow>"),
        f"01.txt {md5('words 1')} six".upper(),
        f"01.txt {md5('WORDS 1')} six",  # a later stage gets a file too, where AIStore sends it bytes
    ]
    assert sdk["refused"]["status"] == 422
    assert "class-picky failed on ais://class-source/70.txt" in sdk["refused"]["message"]
    assert sdk["refused alone"]["status"] == 422
    assert "class-picky failed on ais://class-source/07.txt" in sdk["refused alone"]["message"]
    assert "refused words 7" in sdk["refused alone"]["message"]


def test_copies_and_jobs(sdk):
    assert sdk["copied"] == "<WORDS 1>"
    assert sdk["job"] == [True, 21]
    assert sdk["job made"] == "2 SDROW"
    assert sdk["inspected"] == [[f"ais://class-source/{number}.txt", True] for number in ("07", "17")]


def test_life_logs_and_view(sdk):
    assert sdk["logs"]
    assert sdk["view"]["name"] == "class-digest"
    assert sdk["view"]["communication"] == "hpush://"
    assert {"ETL_CLASS_PAYLOAD", "ETL_DIRECT_FQN", "PACKAGES"} <= set(sdk["view"]["variables"])
    assert sdk["view"]["image"].startswith("aistorage/runtime_python:")
    assert sdk["stopped"]["status"] == 409
    assert sdk["started"] == "<WORDS 1>"

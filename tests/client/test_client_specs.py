"""Specifications at the client: what of a file is sent, and what is refused before anything is."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from http_stub import Stub, reply

from aistore.client import Client
from aistore.errors import AisError, BadRequestError

NDJSON = {"Content-Type": "application/x-ndjson"}
READY = b'{"stage":"ready"}\n{"name":"some-name"}\n'

POD = "apiVersion: v1\nkind: Pod\nmetadata: {name: of-a-pod}\nspec: {containers: [{image: a/b}]}\n"


def sent(spec: Any, name: str = "", **options: str) -> Mapping[str, Any]:
    """Return the message that a store gets."""
    with Stub([reply(200, READY, NDJSON)]) as stub, Client(stub.url) as client:
        assert client.etl(name).init_spec(spec, **options) == "some-name"
        (request,) = stub.received
        assert (request.method, request.path) == ("PUT", "/v1/etl")
        message: dict[str, Any] = json.loads(request.body)
        return message


def test_a_message_is_sent_as_it_is() -> None:
    message = {"name": "some-name", "runtime": {"image": "a/b"}, "whatever": [1, None]}
    assert sent(message) == message
    assert sent("name: some-name\nruntime: {image: a/b}\nwhatever: [1, null]") == message


def test_what_the_caller_says_comes_first() -> None:
    options = {"comm_type": "ws", "init_timeout": "9m", "object_timeout": "3s"}
    assert sent({"name": "some-name", "obj_timeout": "1s"}, "own-name", **options) == {
        "name": "own-name", "communication": "ws", "init_timeout": "9m", "obj_timeout": "3s"
    }  # fmt: skip


def test_a_file_and_what_it_names(tmp_path: Path) -> None:
    (tmp_path / "server.py").write_text("print('ü')")
    spec = tmp_path / "spec.yaml"
    spec.write_text("name: some-name\nruntime: {command: [python, server.py], file: server.py}\n")
    assert sent(spec)["runtime"] == {
        "command": ["python", "server.py"], "code": "print('ü')", "filename": "server.py"
    }  # fmt: skip


def test_a_pod_is_sent_as_one() -> None:
    message = sent(POD)
    assert message["name"] == "of-a-pod"
    assert json.loads(base64.b64decode(message["spec"]))["spec"] == {"containers": [{"image": "a/b"}]}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "the specification is empty"),
        ("- a", "a specification is a mapping of names to values, not ['a']"),
        ("a: 1\n---\nb: 1", "expected one specification, got 2"),
        ("a: [", "cannot be read as YAML"),
        ("kind: Pod\nmetadata: {name: 2020-01-01}", "a value that is no text or number"),
        ("runtime: {file: x.py, code: y}", "runtime has both a file and code"),
        ("name: some-name\ninit_timeout: soon", "'soon' is not a duration"),
    ],
)
def test_what_is_no_specification_is_not_sent(text: str, words: str) -> None:
    with Stub([]) as stub, Client(stub.url) as client:
        with pytest.raises(BadRequestError) as caught:
            client.etl().init_spec(text)
        assert words in caught.value.message
        assert not stub.received


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "spec.yaml").write_text("runtime: {file: gone.py}")
    (tmp_path / "binary.yaml").write_text("runtime: {file: binary}")
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    with Stub([]) as stub, Client(stub.url) as client:
        for name, kind in (("gone.yaml", OSError), ("spec.yaml", OSError), ("binary.yaml", AisError)):
            with pytest.raises(kind):
                client.etl().init_spec(tmp_path / name)
        assert not stub.received

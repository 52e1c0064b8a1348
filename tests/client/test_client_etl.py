"""Making a transform: what is sent, and how progress and errors come back."""

from __future__ import annotations

import base64
import json

import pytest
from http_stub import Stub, reply

from aistore.client import Client
from aistore.errors import BadRequestError, EtlInitError
from aistore.wire.messages import Progress

NDJSON = {"Content-Type": "application/x-ndjson"}


def lines(*values: object) -> bytes:
    return b"".join(json.dumps(value).encode() + b"\n" for value in values)


def test_message_and_progress():
    body = lines({"stage": "importing", "message": "torch"}, {}, {"stage": "ready", "name": "my-first-etl"})
    seen: list[Progress] = []
    with Stub([reply(200, body, NDJSON)]) as stub, Client(stub.url) as client:
        etl = client.etl("my-first-etl")
        name = etl.init_code("print()", dependencies=["torch", "numpy"], comm_type="io", on_progress=seen.append)
        assert name == etl.name == "my-first-etl"
        sent = json.loads(stub.received[0].body)
    assert base64.b64decode(sent["code"]) == b"print()"
    assert base64.b64decode(sent["dependencies"]) == b"torch\nnumpy"
    assert (sent["communication_type"], sent["name"], sent["id"]) == ("io://", "my-first-etl", "my-first-etl")
    assert [progress.stage for progress in seen] == ["importing", "", "ready"]


def test_name_as_text_is_enough(tmp_path):
    script = tmp_path / "code.py"
    script.write_text("def transform(data): return data")
    with Stub([reply(200, b"etl-chosen", {"Content-Type": "text/plain"})]) as stub, Client(stub.url) as client:
        assert client.etl().init_code(script) == "etl-chosen"


def test_error_in_the_report_is_raised_as_its_kind():
    error = {
        "tcode": "ErrETLInit",
        "message": "no matching distribution for torchh",
        "status": 400,
        "hint": "spelling?",
    }
    with (
        Stub([reply(200, lines({"stage": "resolving"}, {"error": error}), NDJSON)]) as stub,
        Client(stub.url) as client,
    ):
        with pytest.raises(EtlInitError) as caught:
            client.etl("my-first-etl").init_code("x")
        assert caught.value.hint == "spelling?"


@pytest.mark.parametrize("body", [b"", lines({"stage": "resolving"}), b"\n\n"])
def test_report_without_an_end_is_an_error(body):
    with (
        Stub([reply(200, body, NDJSON)]) as stub,
        Client(stub.url) as client,
        pytest.raises(EtlInitError, match="ended the report"),
    ):
        client.etl("my-first-etl").init_code("x")


def test_verbs_and_their_paths():
    logs = json.dumps([{"target_id": "t1", "logs": base64.b64encode("é".encode()).decode()}]).encode()
    listing = json.dumps([{"id": "my-etl", "stage": "Running", "new_field": 1}]).encode()
    details = json.dumps(
        {"init_msg": {"name": "my-etl"}, "obj_errors": [{"obj_name": "ais://b/o", "ecode": 422}]}
    ).encode()
    with Stub([reply(200)] * 3 + [reply(200, logs), reply(200, listing), reply(200, details)]) as stub:
        with Client(stub.url) as client:
            etl = client.etl("my-etl")
            etl.start()
            etl.stop()
            etl.delete()
            assert [(log.node, log.text) for log in etl.logs()] == [("t1", "é")]
            summary = etl.summary()
            assert summary is not None
            assert summary.stage == "Running"
            found = etl.details()
            assert found.errors is not None
            assert found.errors[0].name == "ais://b/o"
        assert [(request.method, request.path) for request in stub.received] == [
            ("POST", "/v1/etl/my-etl/start"),
            ("POST", "/v1/etl/my-etl/stop"),
            ("DELETE", "/v1/etl/my-etl"),
            ("GET", "/v1/etl/my-etl/logs"),
            ("GET", "/v1/etl"),
            ("GET", "/v1/etl/my-etl"),
        ]


def test_nameless_etl_cannot_be_deleted():
    with Stub([]) as stub, Client(stub.url) as client:
        with pytest.raises(BadRequestError, match="no name"):
            client.etl().delete()
        assert stub.received == []

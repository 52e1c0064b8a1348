"""How transforms, and lines of them, are spelt in requests."""

from __future__ import annotations

import json
from urllib.parse import parse_qsl, urlsplit

import pytest
from http_stub import Stub, reply

from aistore.client import Client, Pipeline
from aistore.errors import BadRequestError

DESCRIBED = {"ais-checksum-type": "xxhash2", "ais-checksum-value": "0", "ais-version": "1", "ais-atime": "1"}


def test_pipelines_are_made_from_names_and_transforms() -> None:
    client = Client("http://127.0.0.1:1")
    a, b = client.etl("resize-it"), client.etl("gray-it")
    for pipeline in (a >> b, a >> "gray-it", "resize-it" >> (Pipeline("gray-it")), Pipeline("resize-it", "gray-it")):
        assert str(pipeline) == "resize-it >> gray-it"
        assert pipeline == a >> b
    assert str(a >> b >> "third-it") == str(a >> (b >> "third-it")) == "resize-it >> gray-it >> third-it"
    with pytest.raises(BadRequestError, match="resize-it is in it twice, which is a loop"):
        a >> b >> a
    with pytest.raises(BadRequestError, match="stage 2 is empty"):
        Pipeline("resize-it", " ")


@pytest.mark.parametrize(
    ("etl", "query"),
    [
        ("resize-it", {"etl_name": "resize-it"}),
        ("resize-it >> gray-it", {"etl_name": "resize-it", "etl_pipeline": "gray-it"}),
        ("resize-it,gray-it , third-it", {"etl_name": "resize-it", "etl_pipeline": "gray-it,third-it"}),
        (Pipeline("resize-it", "gray-it"), {"etl_name": "resize-it", "etl_pipeline": "gray-it"}),
    ],
)
def test_reads_and_copies_name_all_stages(etl: str, query: dict[str, str]) -> None:
    with Stub([reply(200, b"x", DESCRIBED), reply(200, b"")]) as stub, Client(stub.url) as client:
        client.bucket("b").object("x").get(etl=etl, etl_args={"k": 1}).read()
        client.bucket("b").object("x").copy_to(client.bucket("s3://c").object("d/y"), etl=etl)
        read, copied = (dict(parse_qsl(urlsplit(request.path).query)) for request in stub.received)
        assert read == {"provider": "ais", "etl_args": '{"k":1}', **query}
        assert copied == {"provider": "ais", "object_to": "aws/@#/c/d/y", **query}
        assert stub.received[1].method == "PUT"


def test_what_is_refused_before_anything_is_sent() -> None:
    bucket = Client("http://127.0.0.1:1").bucket("b")
    thing = bucket.object("x")
    with pytest.raises(BadRequestError, match="empty"):
        thing.get(etl="")
    with pytest.raises(BadRequestError, match="for a transform"):
        thing.copy_to(thing, etl_args="x")
    with pytest.raises(BadRequestError, match="twice"):
        thing.get(etl="a-stage,a-stage")
    with pytest.raises(BadRequestError, match="chosen by prefix and names"):
        bucket.copy("c", prefix="a", names=["b"])


@pytest.mark.parametrize(
    ("options", "action", "value"),
    [
        ({}, "etl-bck", {"prefix": ""}),
        ({"prefix": "t/", "workers": 2}, "etl-bck", {"prefix": "t/", "num-workers": 2}),
        ({"names": iter(["a", "b"]), "go_on": True}, "etl-listrange", {"objnames": ["a", "b"], "coer": True}),
        ({"names": []}, "etl-listrange", {"objnames": []}),  # the store says that this is nothing
        ({"template": "{1..3}"}, "etl-listrange", {"template": "{1..3}"}),
    ],
)
def test_jobs_are_on_buckets_or_on_chosen_objects(
    options: dict[str, object], action: str, value: dict[str, object]
) -> None:
    with Stub([reply(200, b"id1")]) as stub, Client(stub.url) as client:
        job = client.bucket("b").transform("c", "resize-it >> gray-it", etl_args="x", **options)
        assert str(job) == "id1"
        sent = json.loads(stub.received[0].body)
        assert sent["action"] == action
        named = {"id": "resize-it", "pipeline": ["gray-it"], "etl_args": "x", "request_timeout": ""}
        assert sent["value"].items() >= {**value, **named}.items()

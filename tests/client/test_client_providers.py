"""Buckets outside of the store: what the client and `ais` ask of a store, word by word."""

from __future__ import annotations

import json

import msgspec
import pytest
from http_stub import Stub, reply

from aistore.cli.main import run
from aistore.client import Client
from aistore.errors import BadRequestError
from aistore.wire.messages import ListEntryMsgpack, ListMsgpack

PAGE = msgspec.msgpack.encode(ListMsgpack([ListEntryMsgpack("a", s=1, f=64), ListEntryMsgpack("b", s=2)]))


def asked(stub: Stub) -> list[tuple[str, str, object]]:
    """Return method, path and the action's value of every request."""
    return [
        (request.method, request.path, json.loads(request.body)["value"] if request.body else None)
        for request in stub.received
    ]


def ais(stub: Stub, line: str) -> int:
    return run(["--endpoint", stub.url, *line.split()])


def test_objects_of_every_provider():
    with Stub([reply(200, b"x"), reply(200, b"x"), reply(200), reply(200)]) as stub, Client(stub.url) as client:
        assert client.bucket("lake", provider="s3").object("a b").get().read() == b"x"
        assert client.bucket("gs://lake").object("a").get(latest=True).read() == b"x"
        client.bucket("lake", "az").object("a").delete()
        client.bucket("lake", "ht").object("a").head()
    assert [request.path for request in stub.received] == [
        "/v1/objects/lake/a%20b?provider=aws",
        "/v1/objects/lake/a?provider=gcp&latest-ver=true",
        "/v1/objects/lake/a?provider=azure",
        "/v1/objects/lake/a?provider=ht",
    ]


def test_buckets_of_all_providers():
    known = b'[{"name":"b","provider":"ais"},{"name":"b","provider":"aws"},{"name":"x","provider":"future"}]'
    with Stub([reply(200, known), reply(200, known)]) as stub, Client(stub.url) as client:
        assert [str(bucket) for bucket in client.buckets()] == ["ais://b", "s3://b"]
        client.buckets("s3")
    assert [request.path for request in stub.received] == ["/v1/buckets?provider=", "/v1/buckets?provider=aws"]


def test_listing_what_is_cached():
    with Stub([reply(200, PAGE)] * 3) as stub, Client(stub.url) as client:
        bucket = client.bucket("s3://lake")
        assert [(found.name, found.cached) for found in bucket.list(props="name,cached")] == [("a", True), ("b", False)]
        list(bucket.list(cached=True))
        list(bucket.list(cached=False))
    assert [value["flags"] for _, _, value in asked(stub)] == ["0", "1", "512"]


def test_a_bucket_outside_is_made_known_and_forgotten():
    with Stub([reply(200)] * 6) as stub, Client(stub.url) as client:
        bucket = client.bucket("s3://lake").create(props={"extra.aws.endpoint": "http://h:1", "immutable": True})
        bucket.set_props({"immutable": False})
        bucket.reset_props()
        bucket.forget(keep_props=True)
        bucket.delete()  # never destroy-bck: the objects are not the store's
        client.bucket("own").delete()
    actions = [(request.method, json.loads(request.body)["action"], request.path) for request in stub.received]
    assert actions == [
        ("POST", "create-bck", "/v1/buckets/lake?provider=aws"),
        ("PATCH", "set-bprops", "/v1/buckets/lake?provider=aws"),
        ("PATCH", "reset-bprops", "/v1/buckets/lake?provider=aws"),
        ("DELETE", "evict-remote-bck", "/v1/buckets/lake?provider=aws&keep_bck_md=true"),
        ("DELETE", "evict-remote-bck", "/v1/buckets/lake?provider=aws"),
        ("DELETE", "destroy-bck", "/v1/buckets/own?provider=ais"),
    ]
    assert asked(stub)[0][2] == {"extra": {"aws": {"endpoint": "http://h:1"}}, "immutable": True}


def test_prefetch_and_evict():
    with Stub([reply(200, b"job-1")] * 5) as stub, Client(stub.url) as client:
        bucket = client.bucket("s3://lake")
        assert bucket.prefetch(prefix="train/", latest=True, workers=3) == "job-1"
        assert bucket.evict(["a", "b"]) == "job-1"
        bucket.object("a").evict()
        client.bucket("own").object("a").evict()
        with pytest.raises(BadRequestError):
            bucket.evict(["a"], prefix="b")
        with pytest.raises(BadRequestError):
            client.bucket("own").forget()
    assert asked(stub) == [
        ("POST", "/v1/buckets/lake?provider=aws",
         {"template": "train/", "coer": True, "latest-ver": True, "num-workers": 3}),
        ("DELETE", "/v1/buckets/lake?provider=aws", {"objnames": ["a", "b"]}),
        ("DELETE", "/v1/objects/lake/a?provider=aws", None),
        # an object of the store's own is never named by a DELETE of itself
        ("DELETE", "/v1/buckets/own?provider=ais", {"objnames": ["a"]}),
    ]  # fmt: skip
    assert b"evict-listrange" in stub.received[2].body


@pytest.mark.parametrize(
    ("line", "provider", "props"),
    [
        ("create s3://lake --s3-endpoint http://h:1 --region eu --profile me", "aws",
         {"extra": {"aws": {"endpoint": "http://h:1", "cloud_region": "eu", "profile": "me"}}}),
        ("create s3://lake --props extra.aws.endpoint=http://h:1", "aws", {"extra": {"aws": {"endpoint": "http://h:1"}}}),
        ("create ht://lake --url https://h/x/", "ht", {"extra": {"http": {"original_url": "https://h/x/"}}}),
        ("create ais://lake --props immutable=true", "ais", {"immutable": True}),
        ("create gs://lake", "gcp", None),
    ],
)  # fmt: skip
def test_ais_create(line, provider, props):
    with Stub([reply(200)]) as stub:
        assert ais(stub, line) == 0
    assert asked(stub) == [("POST", f"/v1/buckets/lake?provider={provider}", props)]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("create ht://lake", "--url https://HOST/PATH/"),
        ("create ais://lake --region eu", "--region is not for ais://lake"),
        ("create s3://lake --region eu --props extra.aws.cloud_region=us", "given twice"),
        ("ls s3://lake --cached --not-cached", "exclude each other"),
        ("evict s3://lake/x --keep-md", "--keep-md is for a whole bucket"),
        ("prefetch s3://lake/x --prefix y", "exclude each other"),
    ],
)
def test_ais_refuses_before_it_asks(line, said, capsys):
    with Stub([]) as stub:
        assert ais(stub, line) == 2
    assert said in capsys.readouterr().err
    assert not stub.received


def test_ais_lists_what_is_cached(capsys):
    with Stub([reply(200, PAGE), reply(200, PAGE)]) as stub:
        assert ais(stub, "ls s3://lake") == 0
        assert ais(stub, "ls s3://lake/x --not-cached --props cached -H") == 0
    assert capsys.readouterr().out.splitlines() == [
        "NAME  SIZE  CACHED", "a     1B    yes", "b     2B    no",
        "a  yes", "b  no",
    ]  # fmt: skip
    assert [(value["prefix"], value["flags"]) for _, _, value in asked(stub)] == [("", "0"), ("x", "512")]


@pytest.mark.parametrize(
    ("line", "path", "value", "said"),
    [
        ("prefetch s3://lake/train/ --latest", "buckets/lake", {"template": "train/", "coer": True, "latest-ver": True},
         "Prefetching s3://lake/train/. To monitor the progress, run 'ais show job j'"),
        ("prefetch s3://lake --list a,b --nv", "buckets/lake",
         {"objnames": ["a", "b"], "coer": True, "latest-ver": False}, "j"),
        ("evict s3://lake/x", "objects/lake/x", None, 'evicted "x" from s3://lake'),
        ("evict s3://lake", "buckets/lake", None, '"s3://lake" evicted'),
        ("evict s3://lake --template x-{1..9}", "buckets/lake", {"template": "x-{1..9}"},
         "Evicting s3://lake/x-{1..9}. To monitor the progress, run 'ais show job j'"),
    ],
)  # fmt: skip
def test_ais_prefetch_and_evict(line, path, value, said, capsys):
    with Stub([reply(200, b"j")]) as stub:
        assert ais(stub, line) == 0
    ((_, asked_path, asked_value),) = asked(stub)
    assert (asked_path, asked_value) == (f"/v1/{path}?provider=aws", value)
    assert capsys.readouterr().out == said + "\n"


def test_evicting_all_of_an_own_bucket_never_destroys_it():
    with Stub([reply(200, b"j")]) as stub:
        assert ais(stub, "evict ais://own") == 0
    assert json.loads(stub.received[0].body) == {"action": "evict-listrange", "name": "", "value": {"template": ""}}


def test_ais_sets_properties(capsys):
    props = json.dumps({"immutable": False, "extra": {"aws": {"profile": "old"}}})
    head = reply(200, headers={"Ais-Bucket-Props": props})
    with Stub([head, reply(200), reply(200), head]) as stub:
        assert ais(stub, "bucket props set s3://lake immutable=true extra.aws.profile=new") == 0
        assert ais(stub, "bucket props reset s3://lake") == 0
        assert ais(stub, "bucket props s3://lake -H") == 0
    assert capsys.readouterr().out.splitlines()[:4] == [
        '"immutable" set to: "true" (was: "false")',
        '"extra.aws.profile" set to: "new" (was: "old")',
        "Bucket props successfully updated.",
        "Bucket props successfully reset.",
    ]
    assert asked(stub)[1][2] == {"immutable": True, "extra": {"aws": {"profile": "new"}}}

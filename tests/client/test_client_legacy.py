"""The calls of the 2021 client, and the ones of today against a scripted store."""

from __future__ import annotations

import io
import json

import msgspec
import pytest
from http_stub import Stub, reply

import aistore
from aistore.client import Bck, Client
from aistore.errors import BadRequestError, BucketExistsError, NotSupportedError, ObjectNotFoundError
from aistore.wire.messages import ListEntryMsgpack, ListMsgpack

SMAP = {
    "tmap": {"t1": {"daemon_id": "t1", "daemon_type": "target", "public_net": {"direct_url": "http://h:2"}}},
    "pmap": {"p1": {"daemon_id": "p1", "daemon_type": "proxy", "public_net": {"direct_url": "http://h:1"}}},
    "proxy_si": {"daemon_id": "p1"},
    "uuid": "u",
    "version": "7",
}


def test_names_of_2021_are_where_they_were():
    assert aistore.Client is Client
    assert aistore.Bck("b") == Bck("b", "ais", "")


def test_list_and_get_object():
    page = msgspec.msgpack.encode(ListMsgpack([ListEntryMsgpack("a"), ListEntryMsgpack("b")]))
    with Stub([reply(200, page), reply(200, b"x"), reply(200, b"y"), reply(200, b"z")]) as stub:
        with Client(stub.url) as client:
            assert client.list_objects(Bck("b"), prefix="train/") == ["a", "b"]
            assert client.get_object(Bck("b"), "a b") == b"x"
            assert client.get_object("b", "a", transform_id="my-etl") == b"y"
            assert client.get_object("b", "a.tar", archpath="in/1") == b"z"
        assert [request.path for request in stub.received[1:]] == [
            "/v1/objects/b/a%20b?provider=ais",
            "/v1/objects/b/a?provider=ais&etl_name=my-etl",
            "/v1/objects/b/a.tar?provider=ais&archpath=in%2F1",
        ]


def test_errors_are_raised_not_returned():
    body = json.dumps({"tcode": "ErrObjNotFound", "message": "ais://b/a does not exist", "status": 404}).encode()
    with Stub([reply(404, body)]) as stub, Client(stub.url) as client, pytest.raises(ObjectNotFoundError):
        client.get_object(Bck("b"), "a")


def test_object_urls():
    client = Client("h:1")
    assert client.object_url(Bck("b"), "x/y z") == "http://h:1/v1/objects/b/x/y%20z?provider=ais"
    assert list(client.expand_object_urls(Bck("b"), "my-etl", "{0..1}.tar")) == [
        "http://h:1/v1/objects/b/0.tar?provider=ais&etl_name=my-etl",
        "http://h:1/v1/objects/b/1.tar?provider=ais&etl_name=my-etl",
    ]


def test_providers_are_named_and_namespaces_refused():
    client = Client("h:1")
    assert client.object_url(Bck("b", provider="s3"), "x") == "http://h:1/v1/objects/b/x?provider=aws"
    with pytest.raises(NotSupportedError):
        client.object_url(Bck("b", provider="oci"), "x")
    with pytest.raises(NotSupportedError):
        client.object_url(Bck("b", ns="n"), "x")
    with pytest.raises(BadRequestError):
        client.object_url(Bck("b", provider="nope"), "x")


def test_etl_calls():
    listing = b'[{"id":"my-etl","stage":"Running"}]'
    with Stub([reply(200, b"my-etl"), reply(200, listing), reply(200), reply(200, b"my-pod")]) as stub:
        with Client(stub.url) as client:
            assert client.etl_init_code("code", name="my-etl") == "my-etl"
            assert client.etl_list()[0].stage == "Running"
            client.etl_stop("my-etl")
            assert client.etl_init("kind: Pod") == "my-pod"
        assert stub.received[2].path == "/v1/etl/my-etl/stop"


def test_cluster_map():
    body = json.dumps(SMAP).encode()
    with Stub([reply(200, body)] * 2, smap=True) as stub, Client(stub.url) as client:
        assert client.get_cluster_info()["uuid"] == "u"
        info = client.cluster()
        assert (info.primary, info.version) == ("p1", "7")
        assert [(node.id, node.type, node.url) for node in info.nodes] == [
            ("p1", "proxy", "http://h:1"),
            ("t1", "target", "http://h:2"),
        ]


def test_buckets_and_their_life():
    exists = json.dumps({"tcode": "ErrBckAlreadyExists", "message": "exists", "status": 409}).encode()
    missing = json.dumps({"tcode": "ErrBckNotFound", "message": "missing", "status": 404}).encode()
    props = json.dumps({"bid": "5", "created": "17", "provider": "ais"})
    answers = [
        reply(200, b'[{"name":"b","provider":"ais","namespace":null},{"name":"a"}]'),
        reply(409, exists),
        reply(409, exists),
        reply(404, missing),
        reply(200, b"", {"Ais-Bucket-Props": props}),
    ]
    with Stub(answers) as stub, Client(stub.url) as client:
        assert [bucket.name for bucket in client.buckets()] == ["a", "b"]
        bucket = client.bucket("b")
        bucket.create(exist_ok=True)
        with pytest.raises(BucketExistsError):
            bucket.create()
        bucket.delete(missing_ok=True)
        info = bucket.head()
        assert (info.id, info.created_ns) == (5, 17)


@pytest.mark.parametrize("source", [b"data", bytearray(b"data"), memoryview(b"data"), io.BytesIO(b"data")])
def test_put_sends_checksum_and_custom(source):
    with Stub([reply(200)]) as stub, Client(stub.url) as client:
        client.bucket("b").object("x").put(source, custom={"a": "1"})
        request = stub.received[0]
        assert request.body == b"data"
        assert request.headers["content-length"] == "4"
        assert request.headers["ais-checksum-type"] == "xxhash2"
        assert request.headers["ais-custom-md"] == "a=1"


def test_put_starts_where_the_file_stands():
    file = io.BytesIO(b"headdata")
    file.seek(4)
    with Stub([reply(200)]) as stub, Client(stub.url) as client:
        client.bucket("b").object("x").put(file)
        assert stub.received[0].body == b"data"


@pytest.mark.parametrize("source", [3, None, io.StringIO("x")])
def test_put_of_what_has_no_bytes(source, tmp_path):
    text = open(tmp_path / "t", "w+", encoding="utf-8")  # noqa: SIM115
    with text, Client("h:1") as client:
        with pytest.raises(TypeError, match="cannot put"):
            client.bucket("b").object("x").put(source)
        with pytest.raises(TypeError, match="opened as text"):
            client.bucket("b").object("x").put(text)  # type: ignore[arg-type]


def test_head_custom_and_delete():
    headers = {"ais-version": "3", "ais-checksum-type": "xxhash2", "ais-checksum-value": "ab", "ais-atime": "9"}
    with Stub([reply(200, b"12345", headers), reply(200), reply(200), reply(200)]) as stub, Client(stub.url) as client:
        handle = client.bucket("b").object("x")
        info = handle.head()
        assert (info.size, info.version, info.checksum.value) == (5, 3, "ab")
        handle.set_custom({"k": "v"})
        handle.set_custom({"k": "v"}, replace=True)
        handle.delete()
        assert json.loads(stub.received[1].body)["value"] == {"k": "v"}
        assert stub.received[2].path.endswith("set-new-custom=true")


@pytest.mark.parametrize(
    ("given", "header"),
    [((0, 1), "bytes=0-0"), ((5, None), "bytes=5-"), ((-7, None), "bytes=-7"), ((10, 100), "bytes=10-109")],
)
def test_ranges(given, header):
    with Stub([reply(206, b"x", {"Content-Range": "bytes 0-0/1"})]) as stub, Client(stub.url) as client:
        client.bucket("b").object("x").get(range=given).close()
        assert stub.received[0].headers["range"] == header


@pytest.mark.parametrize("how", [{"range": (0, 0)}, {"range": (-5, 2)}, {"etl": "e", "range": (0, 1)}, {"args": "x"}])
def test_impossible_reads_are_refused_before_any_request(how):
    with Client("h:1") as client, pytest.raises(BadRequestError):
        client.bucket("b").object("x").get(**how)


def test_readiness():
    with Stub([reply(200)]) as stub, Client(stub.url) as client:
        assert client.is_ready()
    assert not client.is_ready()

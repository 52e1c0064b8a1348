"""What the transport does when the network or the store fails."""

from __future__ import annotations

import io
import json
import os
import pickle
import socket

import pytest
import urllib3
from http_stub import Stub, broken, hang_up, reply

from aistore.client import Client, Endpoint, RetryPolicy
from aistore.client.endpoint import find_endpoints, parse_endpoint
from aistore.client.transport import Request, Transport
from aistore.errors import (
    BadRequestError,
    BucketNotFoundError,
    ObjectNotFoundError,
    OverloadedError,
    StoreUnreachableError,
)

QUICK = RetryPolicy(attempts_max=3, pause_seconds=0.001, busy_seconds_max=1.0)


def client_of(stub: Stub, retry: RetryPolicy = QUICK) -> Client:
    return Client(stub.url, retry=retry)


def error_body(code: str, message: str, status: int, hint: str = "") -> bytes:
    return json.dumps({"tcode": code, "message": message, "status": status, "hint": hint}).encode()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_refused_connection_names_endpoint_origin_and_remedy():
    port = free_port()
    endpoint = Endpoint(f"http://127.0.0.1:{port}", "from AIS_ENDPOINT")
    with Client(endpoint, retry=QUICK) as client, pytest.raises(StoreUnreachableError) as caught:
        client.buckets()
    assert caught.value.message == f"no store answers at {endpoint.url} (from AIS_ENDPOINT): connection refused"
    assert "ais serve" in caught.value.hint


def test_unknown_host_is_said_so():
    with Client("http://no-such-host.invalid:1", retry=QUICK) as client, pytest.raises(StoreUnreachableError) as caught:
        client.buckets()
    assert "is not known" in caught.value.message


def test_reset_before_the_answer_is_tried_again_for_get():
    with Stub([lambda h: hang_up(h, reset=True), hang_up, reply(200, b"[]")]) as stub, client_of(stub) as client:
        assert client.etls() == []
        assert len(stub.received) == 3


def test_reset_is_not_tried_again_for_post():
    with Stub([hang_up, reply(200)]) as stub, client_of(stub) as client:
        with pytest.raises(StoreUnreachableError, match="broke"):
            client.bucket("b").create()
        assert len(stub.received) == 1


def test_a_broken_connection_is_told_in_words():
    stub = Stub([lambda handler: hang_up(handler, reset=True)])
    with stub, client_of(stub) as client, pytest.raises(StoreUnreachableError) as caught:
        client.bucket("b").create()
    assert caught.value.message.endswith(" broke: Connection reset by peer")


def test_attempts_are_bounded():
    with Stub([hang_up] * 9) as stub, client_of(stub) as client:
        with pytest.raises(StoreUnreachableError):
            client.etls()
        assert len(stub.received) == QUICK.attempts_max


def test_busy_store_is_asked_again_after_the_time_it_names():
    busy = reply(503, error_body("ErrBusy", "queue full", 503), {"Retry-After": "0.01"})
    with Stub([busy] * 6 + [reply(200)]) as stub, client_of(stub) as client:
        client.bucket("b").create()
        assert len(stub.received) == 7


def test_patience_with_a_busy_store_is_bounded():
    busy = reply(503, error_body("ErrBusy", "queue full", 503), {"Retry-After": "3600"})
    with Stub([busy] * 2) as stub, client_of(stub) as client:
        with pytest.raises(OverloadedError, match="queue full"):
            client.etls()
        assert len(stub.received) == 1


def test_503_without_a_time_is_final():
    with Stub([reply(503, error_body("ErrBusy", "no", 503))] * 2) as stub, client_of(stub) as client:
        with pytest.raises(OverloadedError):
            client.etls()
        assert len(stub.received) == 1


def test_errors_come_back_as_their_kind_with_hint():
    body = error_body("ErrBckNotFound", 'bucket "ais://b" does not exist', 404, "create it")
    with Stub([reply(404, body)]) as stub, client_of(stub) as client:
        with pytest.raises(BucketNotFoundError) as caught:
            list(client.bucket("b").list())
        assert (caught.value.status, caught.value.hint) == (404, "create it")


def test_error_of_head_comes_in_a_header():
    told = error_body("ErrObjNotFound", "ais://b/x does not exist", 404).decode()
    with (
        Stub([reply(404, b"", {"Hdr-Error": told}), reply(200, b"[]")]) as stub,
        client_of(stub) as client,
    ):
        with pytest.raises(ObjectNotFoundError, match="ais://b/x does not exist"):
            client.bucket("b").object("x").head()
        assert client.etls() == []  # on the same connection
        assert len({request.peer for request in stub.received}) == 1


def test_connection_is_kept_between_requests_also_after_errors():
    answers = [reply(200, b"[]"), reply(404, b"no"), reply(200, b"[]")]
    with Stub(answers) as stub, client_of(stub) as client:
        client.etls()
        with pytest.raises(Exception, match="HTTP 404: no"):
            client.etls()
        client.etls()
        assert len({request.peer for request in stub.received}) == 1


def test_redirect_is_followed_with_its_body():
    with Stub([reply(307, b"", {"Location": "/v1/objects/b/x?here=1"}), reply(200)]) as stub, client_of(stub) as client:
        client.bucket("b").object("x").put(b"data")
        assert stub.received[1].path == "/v1/objects/b/x?here=1"
        assert stub.received[1].body == b"data"


@pytest.mark.parametrize(("location", "port"), [("https://other.example/x", 443), ("http://other.example/x", 80)])
def test_redirect_without_a_port_goes_to_the_port_of_its_scheme(monkeypatch, location, port):
    asked = []

    def exchange(self, request, content, headers, address, target, timeout):
        asked.append(address)
        return urllib3.HTTPResponse(
            b"", {"location": location} if len(asked) == 1 else {}, 307 if len(asked) == 1 else 200
        )

    monkeypatch.setattr(Transport, "_exchange", exchange)
    Transport(Endpoint("http://127.0.0.1:8080")).send(Request("GET", "/v1/etl")).close()
    assert asked[1] == (location.partition(":")[0], "other.example", port)


def test_a_delete_whose_reply_was_lost_is_done():
    gone = reply(404, error_body("ErrObjNotFound", "ais://b/x does not exist", 404))
    with Stub([hang_up, gone]) as stub, client_of(stub) as client:
        client.bucket("b").object("x").delete()
        assert len(stub.received) == 2
    with Stub([gone]) as stub, client_of(stub) as client, pytest.raises(ObjectNotFoundError):
        client.bucket("b").object("x").delete()


def test_a_redirect_elsewhere_does_not_carry_the_token():
    with Stub([reply(200, b"[]")]) as elsewhere:
        away = reply(307, b"", {"Location": f"{elsewhere.url}/v1/etl"})
        with Stub([away]) as stub, Client(stub.url, retry=QUICK, token="secret") as client:
            client.etls()
            assert stub.received[0].headers["authorization"] == "Bearer secret"
            assert "authorization" not in elsewhere.received[0].headers


def test_a_file_that_is_gone_is_no_failure_of_the_connection(tmp_path):
    with Stub([]) as stub, client_of(stub) as client, pytest.raises(FileNotFoundError):
        client.bucket("b").object("x").put(tmp_path / "missing")
    assert stub.received == []


def test_endless_redirects_end():
    loop = reply(302, b"", {"Location": "/v1/etl"})
    with Stub([loop] * 9) as stub, client_of(stub) as client:
        client.transport.send(Request("GET", "/v1/etl")).close()
        assert len(stub.received) == 4


def test_forked_child_opens_its_own_connection():
    with Stub([reply(200, b"[]")] * 3) as stub, client_of(stub) as client:
        client.etls()
        child = os.fork()
        if child == 0:  # pragma: no cover - another process
            try:
                client.etls()
            finally:
                os._exit(0 if len(client.transport._pools.pools.keys()) == 1 else 1)
        assert os.waitpid(child, 0)[1] == 0
        client.etls()
        peers = [request.peer for request in stub.received]
        assert peers[0] == peers[2] != peers[1]


def test_client_can_be_pickled():
    client = pickle.loads(pickle.dumps(Client("localhost:1", token="secret")))
    assert client.endpoint == "http://localhost:1"
    assert client.transport.settings.token == "secret"
    assert "secret" not in repr(client.transport.settings)


def test_put_of_a_stream_that_cannot_rewind_is_sent_once():
    class Pipe(io.RawIOBase):
        data = io.BytesIO(b"abc")

        def readable(self) -> bool:
            return True

        def read(self, size: int = -1) -> bytes:
            return self.data.read(size)

    with Stub([hang_up, reply(200)]) as stub, client_of(stub) as client:
        with pytest.raises(StoreUnreachableError):
            client.bucket("b").object("x").put(Pipe())
        assert len(stub.received) == 1
        assert stub.received[0].body == b"abc"


def test_put_of_a_file_is_sent_again_from_its_start(tmp_path):
    path = tmp_path / "f"
    path.write_bytes(b"z" * 600_000)
    with Stub([hang_up, reply(200)]) as stub, client_of(stub) as client:
        client.bucket("b").object("x").put(path)
        assert [len(request.body) for request in stub.received] == [600_000, 600_000]
        assert stub.received[0].headers["ais-checksum-value"]


def test_broken_error_body_is_still_an_error():
    with (
        Stub([broken(500, b"x" * 100, 10)] * 3) as stub,
        client_of(stub) as client,
        pytest.raises(Exception, match=r"HTTP 500|broke"),
    ):
        client.etls()


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("127.0.0.1:8080", "http://127.0.0.1:8080"),
        ("http://h:1/", "http://h:1"),
        ("https://h/v1/", "https://h"),
        ("[::1]:80", "http://[::1]:80"),
        ("http://h/store", "http://h/store"),
    ],
)
def test_endpoints_are_read_as_people_write_them(text, url):
    assert parse_endpoint(text).url == url


@pytest.mark.parametrize("text", ["ftp://h", "http://", "http://h:99999", "a b:1", "http://h?x=1", ":80"])
def test_what_is_no_endpoint_is_refused(text):
    with pytest.raises(BadRequestError, match="is not an address"):
        parse_endpoint(text)


def test_endpoint_comes_from_argument_then_variable_then_default():
    assert [found.url for found in find_endpoints("h:1", {"AIS_ENDPOINT": "g:2"})] == ["http://h:1"]
    assert find_endpoints(None, {"AIS_ENDPOINT": "g:2"}) == (Endpoint("http://g:2", "from AIS_ENDPOINT"),)
    assert [found.url for found in find_endpoints(None, {})] == ["http://127.0.0.1:8080"]
    assert [found.url for found in find_endpoints("h:1, http://g:2/,")] == ["http://h:1", "http://g:2"]

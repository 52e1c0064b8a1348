"""Batches: order, errors of entries, resume after a broken reply."""

from __future__ import annotations

import json

import pytest
from http_stub import Stub, broken, reply

from aistore.client import Client, RetryPolicy
from aistore.errors import AisError, BucketNotFoundError, ObjectNotFoundError, StoreUnreachableError
from aistore.wire.batch import encode_end, encode_header

QUICK = RetryPolicy(attempts_max=3, pause_seconds=0.001)


def frames(*results: tuple[int, bytes]) -> bytes:
    body = b"".join(encode_header(status, index, data) + data for index, (status, data) in enumerate(results))
    return body + encode_end(len(results))


def missing(name: str) -> bytes:
    return json.dumps({"tcode": "ErrObjNotFound", "message": f"ais://b/{name} does not exist", "status": 404}).encode()


def test_results_come_in_order_and_errors_stay_with_their_entry():
    body = frames((200, b"one"), (404, missing("two")), (200, b""))
    with Stub([reply(200, body)]) as stub, Client(stub.url) as client:
        one, two, three = client.bucket("b").batch(
            [("one", "etl-aa"), "two", ("three", "")], etl="etl-bb", args={"k": 1}
        )
        assert (one, three) == (b"one", b"")
        assert isinstance(two, ObjectNotFoundError)
        assert json.loads(stub.received[0].body) == {
            "entries": [["one", "etl-aa"], ["two", "etl-bb"], ["three", "etl-bb"]],
            "etl_args": '{"k":1}',
        }


def test_nothing_asked_nothing_sent():
    with Stub([]) as stub, Client(stub.url) as client:
        assert list(client.bucket("b").batch([])) == []
        assert stub.received == []


def test_broken_reply_is_continued_without_repeating_results():
    first = frames((200, b"a" * 50), (200, b"b" * 50), (200, b"c" * 50))
    with (
        Stub([broken(200, first, 24 + 50 + 24 + 10), reply(200, frames((200, b"b"), (200, b"c")))]) as stub,
        Client(stub.url, retry=QUICK) as client,
    ):
        assert list(client.bucket("b").batch(["a", "b", "c"])) == [b"a" * 50, b"b", b"c"]
        assert json.loads(stub.received[1].body)["entries"] == [["b", ""], ["c", ""]]


@pytest.mark.parametrize("body", [b"", b"short", frames((200, b"data"))[:-30], frames()], ids=range(4))
def test_replies_that_stay_broken_are_an_error(body):
    with Stub([reply(200, body)] * 9) as stub, Client(stub.url, retry=QUICK) as client:
        results = []
        with pytest.raises(StoreUnreachableError, match="batch of ais://b"):
            results.extend(client.bucket("b").batch(["a", "b"]))


def test_damaged_entries_are_not_handed_out():
    body = frames((200, b"data"))
    with Stub([reply(200, body.replace(b"data", b"dada"))] * 3) as stub, Client(stub.url, retry=QUICK) as client:
        with pytest.raises(AisError, match="checksum"):
            list(client.bucket("b").batch(["a"]))
        assert len(stub.received) == 3


def test_error_of_the_whole_batch_is_raised():
    body = json.dumps({"tcode": "ErrBckNotFound", "message": 'bucket "ais://b" does not exist', "status": 404}).encode()
    with Stub([reply(404, body)]) as stub, Client(stub.url) as client, pytest.raises(BucketNotFoundError):
        list(client.bucket("b").batch(["a"]))

"""Listings: pages, limits, and agreement with the wire's own messages."""

from __future__ import annotations

import json

import msgspec
import pytest
from http_stub import Stub, reply

from aistore.client import Client, ListedObject
from aistore.errors import InternalError
from aistore.wire.messages import ListEntryMsgpack, ListMsgpack


def page(names: list[str], token: str = "", uuid: str = "") -> bytes:
    return msgspec.msgpack.encode(ListMsgpack([ListEntryMsgpack(name, s=3) for name in names], uuid, token))


def test_pages_are_followed():
    with Stub([reply(200, page(["a", "b"], "b", "u1")), reply(200, page(["c"]))]) as stub, Client(stub.url) as client:
        entries = list(client.bucket("b").list("p", props="name", start_after="0"))
        assert [entry.name for entry in entries] == ["a", "b", "c"]
        first, second = (json.loads(request.body)["value"] for request in stub.received)
        assert (first["prefix"], first["props"], first["start_after"], first["pagesize"]) == ("p", "name", "0", 0)
        assert (second["continuation_token"], second["uuid"]) == ("b", "u1")


def test_every_field_of_the_wire_is_understood():
    entry = ListEntryMsgpack("x", s=1, cs="c", a="t", v="2", m="k=v", f=64)
    body = msgspec.msgpack.encode(ListMsgpack([entry]))
    with Stub([reply(200, body)]) as stub, Client(stub.url) as client:
        assert list(client.bucket("b").list()) == [ListedObject("x", 1, "c", "t", "2", "k=v", 64)]


def test_limit_asks_for_no_more_than_it_needs():
    with Stub([reply(200, page(["a", "b", "c"], "c"))]) as stub, Client(stub.url) as client:
        assert len(list(client.bucket("b").list(limit=2))) == 2
        assert json.loads(stub.received[0].body)["value"]["pagesize"] == 2
        assert list(client.bucket("b").list(limit=0)) == []


def test_null_entries_are_none():
    body = msgspec.msgpack.encode({"UUID": "", "ContinuationToken": "", "Entries": None, "Flags": 0})
    with Stub([reply(200, body)]) as stub, Client(stub.url) as client:
        assert list(client.bucket("b").list()) == []


def test_listing_that_does_not_advance_ends():
    with Stub([reply(200, page(["a"], "a"))] * 3) as stub, Client(stub.url) as client:
        with pytest.raises(InternalError, match="does not advance"):
            list(client.bucket("b").list())
        assert len(stub.received) == 2

"""Something else answers at the endpoint, and says 200: one clear error, whatever was asked."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from http_stub import Stub, reply

from aistore.client import Client
from aistore.errors import ForeignReplyError

PAGE = reply(200, b"<html>It works!</html>", {"Content-Type": "text/html; charset=utf-8"})
JSON = reply(200, b'{"Entries": 1, "tracker": {"a": 1}, "tmap": [1]}', {"Content-Type": "application/json"})

ASKED: dict[str, Callable[[Client], object]] = {
    "buckets": lambda client: client.buckets(),
    "objects": lambda client: list(client.bucket("b").list()),
    "transforms": lambda client: client.etls(),
    "a transform": lambda client: client.etl("some-etl").details(),
    "a log": lambda client: client.etl("some-etl").logs(),
    "the cluster": lambda client: client.cluster(),
    "counters": lambda client: client.performance(),
    "disks": lambda client: client.storage().mountpaths(),
    "the scrubber": lambda client: client.scrub_report(),
    "a scrub": lambda client: client.start_scrub(),
}
STORED: dict[str, Callable[[Client], object]] = {
    "an object": lambda client: client.bucket("b").object("x").get().read(),
    "a head": lambda client: client.bucket("b").object("x").head(),
    "a write": lambda client: client.bucket("b").object("x").put(b"data"),
}


@pytest.mark.parametrize("what", [*ASKED, *STORED])
def test_a_web_page_is_no_reply(what: str) -> None:
    with Stub([PAGE] * 9, smap=True) as stub, Client(stub.url) as client, pytest.raises(ForeignReplyError) as caught:
        {**ASKED, **STORED}[what](client)
    assert caught.value.message.startswith(f"what answers at {stub.url} (given by the program) is not a store: it")
    assert caught.value.hint == "pass the address of one that runs"


@pytest.mark.parametrize("what", sorted(ASKED.keys() - {"disks", "the scrubber", "a scrub"}))  # whose fields may lack
def test_other_json_is_no_reply(what: str) -> None:
    with Stub([JSON] * 9, smap=True) as stub, Client(stub.url) as client, pytest.raises(ForeignReplyError):
        ASKED[what](client)


@pytest.mark.parametrize("props", ["{", "[]", '{"bid": "x"}'])
def test_properties_that_cannot_be_read(props: str) -> None:
    with (
        Stub([reply(200, b"", {"Ais-Bucket-Props": props})]) as stub,
        Client(stub.url) as client,
        pytest.raises(ForeignReplyError),
    ):
        client.bucket("b").head()

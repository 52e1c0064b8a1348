"""What goes wrong with an object store is said in a way that one can act on, and ends in time."""

from __future__ import annotations

import http.server
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from obstore.exceptions import GenericError

from aistore.errors import (
    AisError,
    AmbiguousWriteError,
    BackendRefusedError,
    BackendUnavailableError,
    BadRequestError,
    NotSupportedError,
    RangeNotSatisfiableError,
    StoredNotFoundError,
)
from aistore.laptop.weed import Weed
from aistore.storage.objectstore import clients, s3_pages
from aistore.storage.objectstore.failures import translate
from aistore.storage.objectstore.probe import probe
from aistore.storage.objectstore.store import ObstoreStore
from aistore.storage.objectstore.urls import open_object_store, parse_url


@pytest.fixture
def answers() -> Iterator[tuple[str, list[tuple[int, str]], list[str]]]:
    """A server that answers as it is told, in order, and the last answer for ever; and what it was asked."""
    told: list[tuple[int, str]] = []
    asked: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _answer(self) -> None:
            self.rfile.read(int(self.headers.get("content-length") or 0))
            asked.append(f"{self.command} {self.path}")
            status, body = told.pop(0) if len(told) > 1 else told[0]
            self.send_response(status)
            self.send_header("content-length", str(len(body)))
            self.send_header("etag", '"e"')
            self.send_header("last-modified", "Sun, 22 Nov 2026 10:00:00 GMT")
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body.encode())

        do_GET = do_PUT = do_HEAD = do_POST = do_PROPFIND = do_DELETE = _answer

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", told, asked
    server.shutdown()
    thread.join()
    server.server_close()


def anonymous(endpoint: str) -> ObstoreStore:
    return open_object_store("s3://lake/ais", {"endpoint": endpoint, "anonymous": True})


def every_read(store: ObstoreStore) -> list[AisError]:
    found = []
    for verb in (lambda: store.get("k"), lambda: store.head("k"), lambda: store.list("k"), lambda: store.list_groups()):
        with pytest.raises(AisError) as caught:
            verb()
        found.append(caught.value)
    return found


def test_signed_requests_have_any_name_and_metadata(weed_store: ObstoreStore) -> None:
    name, metadata = "é &/=+ %2F~", {"ais-custom": "one two  three"}
    weed_store.put(name, b"1", metadata)
    assert weed_store.head(name).metadata == metadata
    assert [entry.key for entry in weed_store.list("é &/").entries] == [name]
    weed_store.delete(name)
    assert weed_store.list().entries == []


@pytest.mark.parametrize(
    ("variable", "said"), [("AWS_ACCESS_KEY_ID", "access key"), ("AWS_SECRET_ACCESS_KEY", "secret key")]
)
def test_wrong_credentials(weed: Weed, monkeypatch: pytest.MonkeyPatch, variable: str, said: str) -> None:
    monkeypatch.setenv(variable, "wrong")
    store = open_object_store("s3://lake/ais")
    for verb in (lambda: store.get("k"), lambda: store.list("k"), lambda: store.put("k", b"1")):
        with pytest.raises(BackendRefusedError, match=said) as caught:
            verb()
        assert "s3://lake/ais/k" in caught.value.message
    with pytest.raises(BackendRefusedError, match="credentials"):  # an answer to HEAD has no body that says more
        store.head("k")


def test_public_access_to_what_is_not_public(weed: Weed) -> None:
    with pytest.raises(BackendRefusedError, match="s3://lake/ais/k"):
        open_object_store("s3://lake/ais", {"anonymous": True}).get("k")


def test_a_missing_bucket(weed: Weed) -> None:
    for error in every_read(open_object_store("s3://no-such-lake/ais")):
        assert isinstance(error, BackendRefusedError)
        assert "s3://no-such-lake" in str(error)
        assert "create the bucket" in error.hint
    with pytest.raises(StoredNotFoundError):
        open_object_store("s3://lake/ais").head("k")


def test_a_wrong_clock(answers: tuple[str, list[tuple[int, str]], list[str]]) -> None:
    endpoint, told, _ = answers
    told.append((403, "<Error><Code>RequestTimeTooSkewed</Code><Message>The difference is too large</Message></Error>"))
    with pytest.raises(BackendRefusedError, match="clock"):
        anonymous(endpoint).get("k")
    with pytest.raises(BackendRefusedError, match="clock"):
        anonymous(endpoint).put("k", b"1")


def test_a_key_without_the_right(answers: tuple[str, list[tuple[int, str]], list[str]]) -> None:
    endpoint, told, _ = answers
    told.append((403, "<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"))
    with pytest.raises(BackendRefusedError, match="policy"):
        anonymous(endpoint).put("k", b"1")


def test_another_region(answers: tuple[str, list[tuple[int, str]], list[str]]) -> None:
    endpoint, told, _ = answers
    told.append((400, "<Error><Code>AuthorizationHeaderMalformed</Code><Message>expecting eu</Message></Error>"))
    with pytest.raises(BackendRefusedError, match="AWS_REGION"):
        anonymous(endpoint).get("k")


def test_no_route(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clients, "_READ_RETRIES", 1)
    monkeypatch.setattr(s3_pages, "_ATTEMPTS", 2)
    with socket.create_server(("127.0.0.1", 0)) as server:
        closed = f"http://127.0.0.1:{server.getsockname()[1]}"
    store = anonymous(closed)
    for error in every_read(store):
        assert isinstance(error, BackendUnavailableError)
        assert "no connection" in str(error)
        assert "endpoint" in error.hint
    with pytest.raises(BackendUnavailableError, match="no connection"):  # certain: nothing was sent
        store.put("k", b"1")
    with pytest.raises(BackendUnavailableError, match="no connection"):
        store.delete("k")


def test_silence_ends_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clients, "_READ_RETRIES", 1)
    monkeypatch.setattr(clients, "_SILENCE_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as server:  # connections are made, nothing is ever said
        store = anonymous(f"http://127.0.0.1:{server.getsockname()[1]}")
        with pytest.raises(BackendUnavailableError, match="in time"):
            store.get("k")
        with pytest.raises(AmbiguousWriteError, match="in time"):
            store.put("k", b"1", seconds=1)
        with pytest.raises(AmbiguousWriteError, match="in time"):
            store.delete("k", seconds=1)


def test_reads_are_tried_again_and_writes_are_not(answers: tuple[str, list[tuple[int, str]], list[str]]) -> None:
    endpoint, told, asked = answers
    store = anonymous(endpoint)
    told += [(500, "oops"), (503, "slow down"), (200, "data")]
    body = store.get("k")
    assert body is not None
    assert body.read() == b"data"
    assert len(asked) == 3
    told[:] = [(503, "slow down"), (200, "<ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>")]
    assert store.list().entries == []
    asked.clear()
    told[:] = [(500, "oops"), (200, "")]
    with pytest.raises(AmbiguousWriteError, match="500"):
        store.put("k", b"1")
    assert asked == ["PUT /lake/ais/k"]


PAGE = """<?xml version="1.0"?><ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">
<EncodingType>url</EncodingType><IsTruncated>false</IsTruncated>{}</ListBucketResult>"""
ENTRY = """<Contents><Key>ais/{}</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified>
<ETag>&quot;e&quot;</ETag><Size>0</Size></Contents>"""


def test_foreign_keys_are_counted(answers: tuple[str, list[tuple[int, str]], list[str]]) -> None:
    endpoint, told, asked = answers
    listed = ("a+b", "a%2Fb", "dir/", "double//slash", "./x", "a%00b", "a%0Ab", "z")
    told.append((200, PAGE.format("".join(ENTRY.format(key) for key in listed))))
    page = anonymous(endpoint).list()
    assert [entry.key for entry in page.entries] == ["a b", "a/b", "z"]
    assert page.foreign == 5
    assert page.continuation == ""
    assert "prefix=ais%2F" in asked[0]


def test_where_the_library_lists_folders_are_counted_and_other_foreign_keys_named(
    answers: tuple[str, list[tuple[int, str]], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    endpoint, told, asked = answers
    monkeypatch.setenv("GOOGLE_BEARER_TOKEN", "token")
    store = open_object_store("gs://lake/ais", {"endpoint": endpoint})
    page = PAGE.replace("<EncodingType>url</EncodingType>", "")
    told += [(200, page.format(ENTRY.format("dir/") + ENTRY.format("empty"))), (404, ""), (200, "")]
    found = store.list()
    assert ([entry.key for entry in found.entries], found.foreign) == (["empty"], 1)
    assert [line for line in asked if line.startswith("HEAD")] == ["HEAD /lake/ais%2Fdir", "HEAD /lake/ais%2Fempty"]
    told[:] = [(200, page.format(ENTRY.format("double//slash")))]
    with pytest.raises(NotSupportedError, match="double//slash") as caught:
        store.list()
    assert "rename" in caught.value.hint


def test_foreign_keys_in_a_directory_are_counted(tmp_path: Path) -> None:
    for name in (b"good", b"bad\n", b"bad\xff", b"unfinished#12"):
        (tmp_path / name.decode(errors="surrogateescape")).write_bytes(b"x")
    page = open_object_store(f"file://{tmp_path}").list()
    assert [entry.key for entry in page.entries] == ["good"]
    assert page.foreign == 2


def test_a_web_server_is_read_and_neither_listed_nor_written(tmp_path: Path) -> None:
    (tmp_path / "dir").mkdir()
    (tmp_path / "dir" / "a b").write_bytes(b"0123456789")

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments: object) -> None:
            super().__init__(*arguments, directory=str(tmp_path))  # type: ignore[arg-type]

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        store = open_object_store(f"http://127.0.0.1:{server.server_port}/dir")
        assert probe(store) == store.capabilities
        assert store.head("a b").size == 10
        body = store.get("a b")
        assert body is not None
        assert body.read() == b"0123456789"
        with pytest.raises(StoredNotFoundError):
            store.get("nothing")
        with pytest.raises(NotSupportedError, match="cannot list"):
            store.list()
        with pytest.raises(NotSupportedError, match="only be read"):
            store.put("x", b"1")
        with pytest.raises(NotSupportedError, match="only be read"):
            store.delete("a b")
        with pytest.raises(NotSupportedError, match="range"):
            store.get("a b", 3, 4)  # this server ignores ranges: no other bytes are passed off as these
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.parametrize(
    "url",
    ["lake", "ftp://lake", "s3://", "s3:///x", "s3://key:secret@lake", "file://relative", "https://u:p@host/x", "http://",
     "https://host/x?token=1", "gs://lake?x=1"],
)  # fmt: skip
def test_urls_that_name_no_store(url: str) -> None:
    with pytest.raises(BadRequestError) as caught:
        open_object_store(url)
    assert "secret" not in str(caught.value)
    assert "token" not in str(caught.value)


def test_urls() -> None:
    place = parse_url("s3://lake/ais/deep/")
    assert (place.kind, place.bucket, place.base, place.url) == ("s3", "lake", "ais/deep/", "s3://lake/ais/deep")
    assert parse_url("gcp://lake").url == "gs://lake"
    assert parse_url("azure://box/x").base == "x/"
    assert parse_url("https://host/a/").bucket == "https://host/a"
    with pytest.raises(BadRequestError, match="endpoint, region"):
        open_object_store("memory://", {"secret": "x"})
    with pytest.raises(BackendRefusedError, match="no such directory"):
        open_object_store("file:///no/such/directory")


def test_profiles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "credentials").write_text("[lab]\naws_access_key_id = a\naws_secret_access_key = b\n")
    (tmp_path / "config").write_text("[profile lab]\nregion = eu-west-3\n[profile empty]\nregion = x\n")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    store = open_object_store("s3://lake", {"profile": "lab"})
    assert store.url == "s3://lake"
    with pytest.raises(BackendRefusedError, match="'empty' has no access key"):
        open_object_store("s3://lake", {"profile": "empty"})


@pytest.mark.parametrize(
    "text",
    [
        "Generic S3 error: Error after 0 retries in 1.416s, source: HTTP error: request or response body error",
        "Generic S3 error: HTTP error: error sending request for http://127.0.0.1:14160/lake/k, kind: Connect",
    ],
)
def test_a_number_is_no_status(text: str) -> None:
    assert isinstance(translate(GenericError(text), "GET s3://lake/k"), BackendUnavailableError)


def test_a_range_outside_of_an_object_is_told() -> None:
    text = "Generic S3 error: Server returned non-2xx status code: 416: <Code>InvalidRange</Code>"
    assert isinstance(translate(GenericError(text), "GET s3://lake/k"), RangeNotSatisfiableError)

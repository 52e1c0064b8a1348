"""What is sent to Google and to Azure, which cannot be had here: a server that notes the requests stands in."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator

import pytest

from aistore.errors import StaleConditionError
from aistore.storage.objectstore.contract import ABSENT
from aistore.storage.objectstore.urls import open_object_store

Request = tuple[str, str, dict[str, str]]


@pytest.fixture
def noting() -> Iterator[tuple[str, list[Request]]]:
    asked: list[Request] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _answer(self) -> None:
            self.rfile.read(int(self.headers.get("content-length") or 0))
            asked.append((self.command, self.path, {name.lower(): value for name, value in self.headers.items()}))
            self.send_response(201 if self.command == "PUT" else 200)
            self.send_header("content-length", "5" if self.command == "HEAD" else "0")
            self.send_header("etag", '"e"')
            self.send_header("x-goog-generation", "77")
            self.send_header("x-goog-meta-ais-version", "3")
            self.send_header("x-ms-meta-ais_version", "3")
            self.send_header("last-modified", "Sun, 22 Nov 2026 10:00:00 GMT")
            self.end_headers()

        do_GET = do_PUT = do_HEAD = _answer

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", asked
    server.shutdown()
    thread.join()
    server.server_close()


def test_google(noting: tuple[str, list[Request]], monkeypatch: pytest.MonkeyPatch) -> None:
    endpoint, asked = noting
    monkeypatch.setenv("GOOGLE_BEARER_TOKEN", "token")
    store = open_object_store("gs://lake/ais", {"endpoint": endpoint})
    assert store.head("k").metadata == {"ais-version": "3"}
    asked.clear()
    store.put("k", b"1", {"ais-version": "4"}, ABSENT)
    store.put("k", b"1", {"ais-version": "4"}, '"e"')
    assert [(method, path) for method, path, _ in asked] == [
        ("PUT", "/lake/ais%2Fk"),
        ("HEAD", "/lake/ais%2Fk"),
        ("PUT", "/lake/ais%2Fk"),
    ]
    assert asked[0][2]["x-goog-if-generation-match"] == "0"
    assert asked[0][2]["x-goog-meta-ais-version"] == "4"
    assert asked[2][2]["x-goog-if-generation-match"] == "77"
    asked.clear()
    with pytest.raises(StaleConditionError, match="not as expected"):
        store.put("k", b"1", condition='"another"')
    assert [method for method, _, _ in asked] == ["HEAD"]


def test_azure(noting: tuple[str, list[Request]], monkeypatch: pytest.MonkeyPatch) -> None:
    endpoint, asked = noting
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", "lab")
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_KEY", "c2VjcmV0")
    store = open_object_store("az://box/ais", {"endpoint": endpoint})
    assert store.head("k").metadata == {"ais-version": "3"}
    asked.clear()
    store.put("k", b"1", {"ais-version": "4"}, ABSENT)
    store.put("k", b"1", {"ais-version": "4"}, '"e"')
    assert [(method, path) for method, path, _ in asked] == [("PUT", "/box/ais/k")] * 2
    assert asked[0][2]["if-none-match"] == "*"
    assert asked[0][2]["x-ms-meta-ais_version"] == "4"
    assert asked[1][2]["if-match"] == '"e"'

"""Buckets of Google and Azure, as far as stand-ins on this machine speak their protocols."""

from __future__ import annotations

import hashlib
import http.server
import threading
import urllib.parse
from collections.abc import Iterator

import pytest

from aistore.client import Client
from aistore.errors import ObjectNotFoundError
from aistore.testing import StoreProcess

_DATE = "Sun, 22 Nov 2026 10:00:00 GMT"


class _Cloud(http.server.BaseHTTPRequestHandler):
    """Keys of one bucket in memory, in the words of Google's XML protocol and of Azure's blobs."""

    protocol_version = "HTTP/1.1"
    kept: dict[str, tuple[bytes, dict[str, str], str, int]]
    kind: str

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        parts = urllib.parse.urlsplit(self.path)
        key = urllib.parse.unquote(parts.path).lstrip("/").partition("/")[2]
        found = self.kept.get(key)
        if not key:
            self._reply(200, self._listing(urllib.parse.parse_qs(parts.query).get("prefix", [""])[0]))
        elif self.command == "PUT":
            if self._is_stale(found):
                self._reply(412)
                return
            meta = {name.lower(): value for name, value in self.headers.items() if "-meta-" in name.lower()}
            generation = max((entry[3] for entry in self.kept.values()), default=0) + 1
            self.kept[key] = body, meta, f'"{hashlib.sha1(body).hexdigest()}-{generation}"', generation
            self._reply(201 if self.kind == "azure" else 200, entry=self.kept[key])
        elif found is None:
            self._reply(404, b"<Error><Code>NoSuchKey</Code></Error>")
        elif self.command == "DELETE":
            del self.kept[key]
            self._reply(202 if self.kind == "azure" else 204)
        else:
            self._reply(200, found[0], found)

    do_GET = do_PUT = do_HEAD = do_DELETE = _answer

    def _is_stale(self, found: tuple[bytes, dict[str, str], str, int] | None) -> bool:
        headers = self.headers
        if headers.get("if-none-match") == "*" or headers.get("x-goog-if-generation-match") == "0":
            return found is not None
        generation, tag = headers.get("x-goog-if-generation-match"), headers.get("if-match")
        return (generation is not None and (found is None or str(found[3]) != generation)) or (
            tag is not None and (found is None or found[2] != tag)
        )

    def _reply(
        self, status: int, body: bytes = b"", entry: tuple[bytes, dict[str, str], str, int] | None = None
    ) -> None:
        self.send_response_only(status)
        self.send_header("content-length", str(len(body)))
        self.send_header("last-modified", _DATE)
        if entry is not None:
            for name, value in entry[1].items():
                self.send_header(name, value)
            self.send_header("etag", entry[2])
            self.send_header("x-goog-generation", str(entry[3]))
        self.end_headers()
        if self.command != "HEAD" and status != 204:
            self.wfile.write(body)

    def _listing(self, prefix: str) -> bytes:
        rows = [(key, entry) for key, entry in sorted(self.kept.items()) if key.startswith(prefix)]
        if self.kind == "google":
            text = "".join(
                f"<Contents><Key>{key}</Key><Size>{len(data)}</Size><ETag>{tag.replace(chr(34), '&quot;')}</ETag>"
                "<LastModified>2026-11-22T10:00:00Z</LastModified></Contents>"
                for key, (data, _, tag, _) in rows
            )
            return f"<ListBucketResult><IsTruncated>false</IsTruncated>{text}</ListBucketResult>".encode()
        text = "".join(
            f"<Blob><Name>{key}</Name><Properties><Content-Length>{len(data)}</Content-Length>"
            f"<Last-Modified>{_DATE}</Last-Modified><Etag>{tag.replace(chr(34), '&quot;')}</Etag>"
            "<Content-Type>application/octet-stream</Content-Type></Properties></Blob>"
            for key, (data, _, tag, _) in rows
        )
        return f"<EnumerationResults><Blobs>{text}</Blobs><NextMarker/></EnumerationResults>".encode()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(params=["google", "azure"])
def cloud(request: pytest.FixtureRequest) -> Iterator[tuple[type[_Cloud], str, dict[str, str]]]:
    """The stand-in, the bucket's URI, and the environment that leads to it."""
    handler = type("Handler", (_Cloud,), {"kept": {}, "kind": request.param})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_address[1]}"
    if request.param == "google":
        yield handler, "gs://lake", {"STORAGE_EMULATOR_HOST": url, "GOOGLE_BEARER_TOKEN": "token"}
    else:
        access = {"AZURE_STORAGE_ACCOUNT_NAME": "lab", "AZURE_STORAGE_ACCOUNT_KEY": "c2VjcmV0"}
        yield handler, "az://lake", {"AZURE_STORAGE_ENDPOINT": url, **access}
    server.shutdown()
    server.server_close()


def test_a_bucket_of_a_cloud(cloud: tuple[type[_Cloud], str, dict[str, str]]) -> None:
    handler, uri, environment = cloud
    handler.kept["theirs"] = b"theirs", {}, '"t"', 1
    with StoreProcess(env=environment) as process:
        client = Client(process.endpoint)
        bucket = client.bucket(uri).create()
        assert bucket.object("theirs").get().read() == b"theirs"
        bucket.object("dir/x").put(b"one", custom={"k": "v v"})
        bucket.object("dir/x").put(b"two", custom={"k": "w"})
        assert handler.kept["dir/x"][0] == b"two"
        info = bucket.object("dir/x").head()
        assert (info.version, info.custom) == (2, {"k": "w"})
        bucket.object("dir/x").evict()
        assert bucket.object("dir/x").get().read() == b"two"
        assert [entry.name for entry in bucket.list()] == ["dir/x", "theirs"]
        assert client.job(bucket.prefetch()).wait(60).objects == 2
        if handler.kind == "google":
            bucket.object("theirs").delete()
            assert list(handler.kept) == ["dir/x"]
        else:  # where keys are removed in batches, which the stand-in does not speak
            handler.kept.pop("theirs")
            bucket.forget(keep_props=True)
        with pytest.raises(ObjectNotFoundError):
            bucket.object("theirs").get().read()
        assert "Traceback" not in process.errors(), process.errors()

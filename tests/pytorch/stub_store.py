"""A small store of its own process for the tests of datasets: the files of a directory, listed and read in batches.

Run as ``python stub_store.py DIRECTORY``; prints its address. Buckets are subdirectories. Its transforms:
``reverse-etl`` reverses bytes, ``pixels-etl`` gives the raw pixels of a picture as NPY, ``broken-etl`` fails on names
that contain ``bad``, ``stopped-etl`` does not run. ``GET /requests`` tells how often each path was asked for and from
which client ports.
"""

from __future__ import annotations

import io
import json
import sys
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar
from urllib.parse import unquote, urlsplit

import msgspec

from aistore.errors import (
    AisError,
    BucketNotFoundError,
    EtlNotFoundError,
    ObjectNotFoundError,
    OverloadedError,
    TransformError,
)
from aistore.wire import batch
from aistore.wire.messages import ListEntryMsgpack, ListMsgpack

PAGE = 7  # small, so that every test lists several pages


def pixels(data: bytes) -> bytes:
    import numpy
    from PIL import Image

    out = io.BytesIO()
    numpy.save(out, numpy.asarray(Image.open(io.BytesIO(data)).convert("RGB")).transpose(2, 0, 1))
    return out.getvalue()


STAGES = {"stopped-etl": "Aborted"}
TRANSFORMS = {
    "stopped-etl": bytes,
    "reverse-etl": lambda data: data[::-1],
    "pixels-etl": pixels,
    "broken-etl": lambda data: data,
}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    root: Path
    requests: ClassVar[Counter[str]] = Counter()
    ports: ClassVar[set[int]] = set()
    busy_replies_left = 0

    def log_message(self, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        self.answer(self.get)

    def do_HEAD(self) -> None:
        self.answer(self.get)

    def do_POST(self) -> None:
        self.answer(self.post)

    def answer(self, handle) -> None:
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        path = unquote(urlsplit(self.path).path)
        type(self).requests[path] += path != "/requests"
        type(self).ports.add(self.client_address[1])
        try:
            status, kind, reply = handle(path, body)
        except AisError as error:
            status, kind, reply = error.status, "application/json", error_body(error)
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(reply)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(reply)

    def bucket(self, name: str) -> Path:
        if not (self.root / name).is_dir():
            raise BucketNotFoundError.of(name)
        return self.root / name

    def get(self, path: str, body: bytes) -> tuple[int, str, bytes]:
        parts = path.strip("/").split("/")
        if path == "/requests":
            return reply_json({"requests": dict(self.requests), "ports": sorted(self.ports)})
        if parts[:2] == ["v1", "buckets"]:
            bucket = self.bucket(parts[2])
            page = listing(bucket, json.loads(body)["value"])
            return 200, "application/msgpack", msgspec.msgpack.encode(page)
        if parts[:2] == ["v1", "etl"]:
            if len(parts) == 2:
                return reply_json([{"id": name, "stage": STAGES.get(name, "Running")} for name in TRANSFORMS])
            if parts[2] not in TRANSFORMS:
                raise EtlNotFoundError.of(parts[2])
            return reply_json({"init_msg": {"name": parts[2], "communication": "io://"}})
        raise AisError(f"the stub does not know GET {path}")

    def post(self, path: str, body: bytes) -> tuple[int, str, bytes]:
        if path.startswith("/busy/"):
            type(self).busy_replies_left = int(path.rpartition("/")[2])
            return reply_json({})
        assert path.startswith("/v1/batch/"), path
        bucket = self.bucket(path.rpartition("/")[2])
        entries = json.loads(body)["entries"]
        out = bytearray()
        for position, (name, etl) in enumerate(entries):
            try:
                status, data = 200, self.read(bucket, name, etl)
            except AisError as error:
                status, data = error.status, error_body(error)
            out += batch.encode_header(status, position, data) + data
        return 200, batch.CONTENT_TYPE, bytes(out + batch.encode_end(len(entries)))

    def read(self, bucket: Path, name: str, etl: str) -> bytes:
        if self.busy_replies_left:
            type(self).busy_replies_left -= 1
            raise OverloadedError("every worker is busy")
        try:
            data = (bucket / name).read_bytes()
        except FileNotFoundError:
            raise ObjectNotFoundError.of(bucket.name, name) from None
        if not etl:
            return data
        if etl not in TRANSFORMS:
            raise EtlNotFoundError.of(etl)
        if etl == "broken-etl" and "bad" in name:
            raise TransformError(
                'Traceback (most recent call last):\n  File "code.py", line 3\nValueError: no such colour'
            )
        return TRANSFORMS[etl](data)


def reply_json(value: object) -> tuple[int, str, bytes]:
    return 200, "application/json", json.dumps(value).encode()


def error_body(error: AisError) -> bytes:
    return json.dumps({"tcode": error.code, "message": error.message, "status": error.status}).encode()


def listing(bucket: Path, value: dict[str, str]) -> ListMsgpack:
    names = sorted(str(path.relative_to(bucket)) for path in bucket.rglob("*") if path.is_file())
    after = value.get("continuation_token") or ""
    names = [name for name in names if name > after and name.startswith(value.get("prefix") or "")]
    more = names[PAGE - 1] if len(names) > PAGE else ""
    return ListMsgpack([ListEntryMsgpack(name) for name in names[:PAGE]], ContinuationToken=more)


if __name__ == "__main__":
    Handler.root = Path(sys.argv[1])
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    print(f"http://127.0.0.1:{server.server_address[1]}", flush=True)
    server.serve_forever()

"""A listing takes as much memory for a million keys as for ten thousand. AIS_LISTED_KEYS says how many, really."""

from __future__ import annotations

import http.server
import os
import threading
from collections.abc import Iterator
from urllib.parse import parse_qs, urlsplit

import pytest

from aistore.storage.objectstore.urls import open_object_store

KEYS = int(os.environ.get("AIS_LISTED_KEYS", "40000"))
#: What reading pages may add to a process once it has read some: buffers, not keys (a key takes about 400 bytes here).
GROWTH_BYTES_MAX = 6 << 20


def resident_bytes() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def entry(number: int, folders: bool) -> str:
    end = "/" if folders and number % 700 == 0 else ""
    return (
        f"<Contents><Key>train/{number:08}.jpg{end}</Key><LastModified>2026-11-22T10:00:00.000Z</LastModified>"
        f"<ETag>&quot;{number:032x}&quot;</ETag><Size>{number}</Size><StorageClass>STANDARD</StorageClass></Contents>"
    )


@pytest.fixture
def endpoint() -> Iterator[str]:
    """Buckets of KEYS keys that exist in answers only; in ``folders`` some end in a slash, so they cannot be named."""

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            folders = urlsplit(self.path).path == "/folders"
            query = {name: values[0] for name, values in parse_qs(urlsplit(self.path).query).items()}
            after = query.get("continuation-token") or query.get("start-after", "")
            first = int(after[6:14]) + 1 if after else 0
            last = min(KEYS, first + int(query["max-keys"]))
            more = f"<NextContinuationToken>train/{last - 1:08}.jpg</NextContinuationToken>" if last < KEYS else ""
            body = (
                '<?xml version="1.0"?><ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
                f"<IsTruncated>{'true' if more else 'false'}</IsTruncated>{more}"
                f"{''.join(entry(number, folders) for number in range(first, last))}</ListBucketResult>"
            ).encode()
            self.send_response(200)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="the system does not tell how much memory is used")
def test_a_long_listing_takes_little_memory(endpoint: str) -> None:
    store = open_object_store("s3://lake", {"endpoint": endpoint, "anonymous": True})
    listed, after, before = 0, "", 0
    while True:
        page = store.list("", after)
        assert [found.key for found in page.entries[:1]] == [f"train/{listed:08}.jpg"]
        assert page.entries[-1].size == listed + len(page.entries) - 1
        listed += len(page.entries)
        after = page.continuation
        if listed == 10_000:
            before = resident_bytes()
        if not after:
            break
    assert listed == KEYS
    assert resident_bytes() - before < GROWTH_BYTES_MAX
    store.close()


def test_a_page_is_put_together_from_pages_of_the_store(endpoint: str) -> None:
    store = open_object_store("s3://folders", {"endpoint": endpoint, "anonymous": True})
    listed, foreign, after = list[str](), 0, ""
    while True:
        page = store.list("", after, 3500)
        assert len(page.entries) == 3500 or not page.continuation
        listed += [found.key for found in page.entries]
        foreign += page.foreign
        after = page.continuation
        if not after:
            break
    assert listed == [f"train/{number:08}.jpg" for number in range(KEYS) if number % 700]
    assert foreign == KEYS - len(listed)
    store.close()

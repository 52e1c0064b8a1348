"""Pages of a listing asked of S3 directly (ListObjectsV2): exact where the library is not.

The library's listing fails on a page with a key that it cannot name (``a//b``), and shows ``dir/``, which consoles
write for a folder, as ``dir``, which is not there. Here such keys are counted. It also takes any text as a prefix.
"""

from __future__ import annotations

import functools
import hashlib
import hmac
import html
import re
import threading
import time
from collections.abc import Generator, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime, timezone
from queue import SimpleQueue
from typing import Any, NamedTuple
from urllib.parse import quote, unquote_plus, urlsplit
from urllib.request import getproxies, proxy_bypass
from xml.etree import ElementTree

import urllib3
from obstore import exceptions

from ...errors import BackendRefusedError
from .contract import StoredInfo, StoredPage
from .names import unnamable

_PAGE_KEYS_MAX = 1000  # what S3 gives at most
_ATTEMPTS = 5
_AHEAD_MAX = 8  # pages asked for while others are parsed
_TIMEOUT = urllib3.Timeout(connect=5.0, read=10.0)
_TOKEN = re.compile(rb"<NextContinuationToken>([^<]+)<")
_FIELD = re.compile("<(Key|Size|ETag|LastModified)>([^<]*)")
_EMPTY_SHA256 = hashlib.sha256().hexdigest()


@dataclass(frozen=True, slots=True)
class S3Access:
    """How a bucket is reached: ``keys`` are access key, secret key and session token, None for public data."""

    endpoint: str
    bucket: str
    region: str
    keys: tuple[str, str, str] | None

    def __repr__(self) -> str:
        return f"S3Access({self.endpoint!r}, {self.bucket!r})"


class _Page(NamedTuple):
    """What a reply says: of each key name, size, ETag and time as they are spelt; the token of the next."""

    contents: Iterable[tuple[str, str, str, str]]
    encoded: bool
    token: str


class S3PageReader:
    """Reads pages of the keys below ``base``. Thread-safe."""

    def __init__(self, base: str, access: S3Access) -> None:
        self._base = base
        self._access = access
        proxy = getproxies().get(urlsplit(access.endpoint).scheme)
        host = urlsplit(access.endpoint).hostname or ""
        options: dict[str, Any] = {"maxsize": 8, "timeout": _TIMEOUT, "retries": False}
        self._pool = (
            urllib3.ProxyManager(proxy, **options)
            if proxy and not proxy_bypass(host)
            else urllib3.PoolManager(**options)
        )
        self._threads = ThreadPoolExecutor(_AHEAD_MAX, thread_name_prefix="pages")
        self._tree = False  # whether the server is known to take ``a`` for the end of all below ``a/``

    def read(self, prefix: str, start_after: str, limit: int, byte_order: bool) -> StoredPage:
        """Return a page; raises what the library raises."""
        entries: list[StoredInfo] = []
        foreign = 0
        query = {"list-type": "2", "encoding-type": "url", "prefix": self._base + prefix}
        with closing(self._replies(query, start_after, limit, byte_order)) as replies:
            for reply in replies:
                page = _plain_page(reply) or self._parsed(reply)
                foreign += self._take(page, prefix, entries)
                if not page.token or len(entries) >= limit:
                    break
            while page.token and len(entries) < limit:  # keys that cannot be named have left room
                reply, _ = self._ask(_next(query, min(limit - len(entries), _PAGE_KEYS_MAX), page.token))
                page = _plain_page(reply) or self._parsed(reply)
                foreign += self._take(page, prefix, entries)
        return StoredPage(entries, entries[-1].key if page.token and entries else "", foreign)

    def _replies(
        self, query: Mapping[str, str], start_after: str, limit: int, byte_order: bool
    ) -> Generator[bytes, None, None]:
        """Yield replies with ``limit`` keys together. A store takes some time for one, in which others are parsed."""
        asked = min(limit, _PAGE_KEYS_MAX)
        reply = self._first({**query, "max-keys": str(asked)}, start_after, byte_order)
        ended, coming = threading.Event(), SimpleQueue[bytes | BaseException | None]()
        token, left = _token(reply), limit - asked
        try:
            if token and left:
                self._threads.submit(self._ask_ahead, query, token, left, coming, ended)
            yield reply
            while token and left:
                found = coming.get()
                if found is None:
                    return
                if isinstance(found, BaseException):
                    raise found
                yield found
        finally:
            ended.set()

    def _ask_ahead(
        self, query: Mapping[str, str], token: str, left: int, coming: SimpleQueue[bytes | BaseException | None],
        ended: threading.Event,
    ) -> None:  # fmt: skip
        """Ask for one reply after the other, in a thread of its own: who parses does not let go of the interpreter."""
        try:
            while token and left > 0 and not ended.is_set():
                asked = min(left, _PAGE_KEYS_MAX)
                reply, _ = self._ask(_next(query, asked, token))
                coming.put(reply)
                token, left = _token(reply), left - asked
            coming.put(None)
        except BaseException as error:
            coming.put(error)

    def _first(self, query: Mapping[str, str], start_after: str, byte_order: bool) -> bytes:
        """Ask for the page after a key, which servers take in two ways."""
        tree = self._tree or not byte_order
        while True:
            start = {"start-after": self._base + start_after + ("/" if tree else "")} if start_after else {}
            reply, server = self._ask({**query, **start})
            self._tree = self._tree or server.startswith("SeaweedFS")
            if not start or tree or not self._tree:
                return reply
            tree = True  # the start was meant otherwise than this server takes it

    def close(self) -> None:
        """Give threads and connections back."""
        self._threads.shutdown(wait=True, cancel_futures=True)
        self._pool.clear()

    def _take(self, page: _Page, prefix: str, entries: list[StoredInfo]) -> int:
        """Append the keys of a page to ``entries``; return how many of them cannot be named."""
        cut = len(self._base)
        foreign = 0
        for key, size, etag, modified in page.contents:
            name = (unquote_plus(key) if page.encoded else key)[cut:]
            if not name.startswith(prefix):
                continue  # some servers fold a prefix like ``a//`` into another
            if unnamable(name):
                foreign += 1
                continue
            entries.append(StoredInfo(name, int(size), etag, _unix_ns(modified)))
        return foreign

    def _ask(self, query: Mapping[str, str]) -> tuple[bytes, str]:
        """Send one request, again after a pause when the failure may pass; return the reply and the server's name."""
        for attempt in range(_ATTEMPTS):
            last = attempt == _ATTEMPTS - 1
            url, headers = _signed(self._access, query)
            try:
                reply = self._pool.request("GET", url, headers=headers)
            except urllib3.exceptions.HTTPError as error:
                if last:
                    kind = "Timeout" if isinstance(error, urllib3.exceptions.ReadTimeoutError) else "Connect"
                    raise exceptions.GenericError(f"HTTP error\n\nDebug source: kind: {kind} {error}") from error
            else:
                if reply.status == 200:
                    return reply.data, reply.headers.get("Server", "")
                if last or not (reply.status >= 500 or reply.status == 429):
                    body = reply.data[:2000].decode(errors="replace")
                    if reply.status in (400, 404, 405, 501) and "<Code>" not in body:
                        raise self._no_store(f"it answered {reply.status} to a listing")
                    raise exceptions.GenericError(f"Server returned non-2xx status code: {reply.status}: {body}")
            time.sleep(min(0.1 * 2**attempt, 3.0))
        raise AssertionError("the last attempt returns or raises")

    def _parsed(self, data: bytes) -> _Page:
        """Parse a reply that is XML in whatever way."""
        try:
            # The store is one that the operator chose, and the parser does not load what a document names.
            root = ElementTree.fromstring(data)  # noqa: S314
        except ElementTree.ParseError as error:
            raise self._no_store("its answer is no XML") from error
        if root.tag.rpartition("}")[2] != "ListBucketResult":
            raise self._no_store(f"it answered a listing with <{root.tag[:50]}>")
        contents = [
            (found.findtext("{*}Key", ""), found.findtext("{*}Size", ""), found.findtext("{*}ETag", ""),
             found.findtext("{*}LastModified", ""))
            for found in root.iterfind("{*}Contents")
        ]  # fmt: skip
        return _Page(
            contents,
            root.findtext("{*}EncodingType") == "url",
            (root.findtext("{*}IsTruncated") == "true" and root.findtext("{*}NextContinuationToken")) or "",
        )

    def _no_store(self, why: str) -> BackendRefusedError:
        return BackendRefusedError(
            f"what answers at {self._access.endpoint} is no S3 object store: {why}",
            hint="check AWS_ENDPOINT_URL, or the bucket's extra.aws.endpoint",
        )


def _next(query: Mapping[str, str], keys: int, token: str) -> dict[str, str]:
    return {**query, "max-keys": str(keys), "continuation-token": token}


def _plain_page(reply: bytes) -> _Page | None:
    """Take a page from a reply as servers write them: elements without prefixes or attributes, nothing else in them.

    None for any other reply. A parser makes ten objects of each key; for a million keys that was half of the time.
    """
    text = reply.decode("utf-8", "replace").rstrip()
    head, *blocks = text.split("<Contents>")
    tail = blocks[-1].partition("</Contents>")[2] if blocks else ""
    around = head + tail
    if "<!" in text or "Contents>" in around or not text.endswith("</ListBucketResult>"):
        return None
    if "<ListBucketResult" not in head or "<IsTruncated>" not in around:
        return None
    contents: list[tuple[str, str, str, str]] = []
    for block in blocks:
        fields = dict(_FIELD.findall(block))
        try:
            key, size, modified = fields["Key"], fields["Size"], fields["LastModified"]
        except KeyError:
            return None
        contents.append((_text(key), size, _text(fields.get("ETag", "")), modified))
    return _Page(
        contents,
        "<EncodingType>url</EncodingType>" in around,
        _token(around.encode()) if "<IsTruncated>true</IsTruncated>" in around else "",
    )


def _text(written: str) -> str:
    """Return what text of XML stands for."""
    return html.unescape(written) if "&" in written else written


def _token(reply: bytes) -> str:
    """Return what the page after this one is asked for with, found without parsing; empty if it is not found."""
    found = _TOKEN.search(reply)
    return html.unescape(found[1].decode()) if found else ""


@functools.lru_cache(4096)  # objects next to each other in a listing were often written together
def _unix_ns(text: str) -> int:
    """Return Unix nanoseconds, exact to the millisecond, of a time as S3 spells it."""
    return int(datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp() * 1000) * 1_000_000


def _signed(access: S3Access, query: Mapping[str, str]) -> tuple[str, dict[str, str]]:
    """Return URL and headers of a GET of the bucket with AWS's signature, version 4."""
    parts = urlsplit(access.endpoint)
    path = f"{parts.path.rstrip('/')}/{quote(access.bucket)}"
    asked = "&".join(f"{quote(name, safe='')}={quote(value, safe='')}" for name, value in sorted(query.items()))
    url = f"{parts.scheme}://{parts.netloc}{path}?{asked}"
    if access.keys is None:
        return url, {}
    access_key, secret, session = access.keys
    now = datetime.now(timezone.utc).strftime("%Y%m%dT%H%M%SZ")
    headers = {"host": parts.netloc, "x-amz-content-sha256": _EMPTY_SHA256, "x-amz-date": now}
    if session:
        headers["x-amz-security-token"] = session
    names = ";".join(sorted(headers))
    lines = "".join(f"{name}:{headers[name]}\n" for name in sorted(headers))
    request = f"GET\n{path}\n{asked}\n{lines}\n{names}\n{_EMPTY_SHA256}"
    scope = f"{now[:8]}/{access.region}/s3/aws4_request"
    text = f"AWS4-HMAC-SHA256\n{now}\n{scope}\n{hashlib.sha256(request.encode()).hexdigest()}"
    key = f"AWS4{secret}".encode()
    for part in scope.split("/"):
        key = hmac.digest(key, part.encode(), "sha256")
    signature = hmac.digest(key, text.encode(), "sha256").hex()
    headers["authorization"] = (
        f"AWS4-HMAC-SHA256 Credential={access_key}/{scope}, SignedHeaders={names}, Signature={signature}"
    )
    return url, headers

"""Signed requests to an S3 store (AWS Signature Version 4), as few as it takes to make a bucket and see it work."""

from __future__ import annotations

import hashlib
import hmac
import time
import urllib.parse
import urllib.request


def _mac(key: bytes, text: str) -> bytes:
    return hmac.new(key, text.encode(), hashlib.sha256).digest()


def signed_request(
    method: str, url: str, *, access_key: str, secret_key: str, region: str, body: bytes = b""
) -> urllib.request.Request:
    """Return a request signed for now. ``url`` has no query."""
    parts = urllib.parse.urlsplit(url)
    now = time.gmtime()
    stamp, day = time.strftime("%Y%m%dT%H%M%SZ", now), time.strftime("%Y%m%d", now)
    digest = hashlib.sha256(body).hexdigest()
    headers = {"host": parts.netloc, "x-amz-content-sha256": digest, "x-amz-date": stamp}
    names = ";".join(headers)
    canonical = "\n".join(
        [method, parts.path, "", *(f"{name}:{value}" for name, value in headers.items()), "", names, digest]
    )
    scope = f"{day}/{region}/s3/aws4_request"
    to_sign = "\n".join(["AWS4-HMAC-SHA256", stamp, scope, hashlib.sha256(canonical.encode()).hexdigest()])
    key = ("AWS4" + secret_key).encode()
    for part in scope.split("/"):
        key = _mac(key, part)
    headers["authorization"] = (
        f"AWS4-HMAC-SHA256 Credential={access_key}/{scope}, SignedHeaders={names}, Signature={_mac(key, to_sign).hex()}"
    )
    del headers["host"]  # urllib writes it
    return urllib.request.Request(url, data=body or None, method=method, headers=headers)  # noqa: S310

"""Large objects pass through with flat memory, in both directions. AIS_STREAM_BYTES sets another size (10 GiB, say)."""

from __future__ import annotations

import hashlib
import os
import uuid
from collections.abc import Iterator

import pytest
import urllib3

from aistore.testing import StoreProcess

SIZE = int(os.environ.get("AIS_STREAM_BYTES", str(384 << 20)))
PIECE = os.urandom(1 << 20)
MEMORY_GROWTH_MAX = 96 << 20  # a few pieces per connection and what the allocator keeps; far below the object


def body(size: int, digest: object) -> Iterator[bytes]:
    """Yield ``size`` bytes in pieces that differ, and hash them."""
    for number in range(0, size, len(PIECE)):
        piece = (number.to_bytes(8, "little") + PIECE[8:])[: size - number]
        digest.update(piece)  # type: ignore[attr-defined]
        yield piece


def peak_memory(store: StoreProcess) -> int:
    """Return the largest resident set that any HTTP worker has had, in bytes."""
    peaks = []
    for pid, command in store.children().items():
        if "http_worker" in command:
            with open(f"/proc/{pid}/status", encoding="ascii") as status:
                peaks += [int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM")]
    return max(peaks)


@pytest.mark.parametrize("chunked", [True, False])
def test_a_large_object_passes_with_flat_memory(store: StoreProcess, chunked: bool) -> None:
    with urllib3.PoolManager(retries=False, timeout=urllib3.Timeout(600)) as pool:
        bucket = f"b-{uuid.uuid4().hex[:12]}"
        pool.request("POST", f"{store.endpoint}/v1/buckets/{bucket}", body=b'{"action":"create-bck"}')
        before = peak_memory(store)
        url = f"{store.endpoint}/v1/objects/{bucket}/large"
        sent, received = hashlib.blake2b(), hashlib.blake2b()
        headers = {"Transfer-Encoding": "chunked"} if chunked else {"Content-Length": str(SIZE)}
        assert pool.request("PUT", url, body=body(SIZE, sent), headers=headers, chunked=chunked).status == 200
        reply = pool.request("GET", url, preload_content=False)
        assert reply.headers["content-length"] == str(SIZE)
        for piece in reply.stream(1 << 20):
            received.update(piece)
        reply.release_conn()
        assert received.digest() == sent.digest()
        assert peak_memory(store) - before < MEMORY_GROWTH_MAX
        assert (
            pool.request("DELETE", f"{store.endpoint}/v1/buckets/{bucket}", body=b'{"action":"destroy-bck"}').status
            == 200
        )

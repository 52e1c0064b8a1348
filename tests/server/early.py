"""What tests of objects that are sent early have: a store of one HTTP worker with one transform, and its counters.

Replies that are made early have no id of their request; the ordinary way gives one.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod

import urllib3

from aistore.testing import StoreProcess

OBJECT = "/v1/objects/b/"


def is_early(reply: urllib3.BaseHTTPResponse) -> bool:
    return "x-request-id" not in reply.headers


class EarlyStore(ABC):
    """A store with the bucket "b", the object "o" in it, and the transform "does-it", which does what arguments say."""

    def __init__(self, store: StoreProcess) -> None:
        self.store = store
        self.pool = urllib3.PoolManager(retries=False, timeout=60, maxsize=32)
        assert self.call("POST", "/v1/buckets/b", b'{"action":"create-bck"}').status == 200
        self.put(b"x" * 20_000)
        self.init("1 ")
        self.warm()

    @abstractmethod
    def init(self, mark: str) -> None:
        """Make the transform, whose results begin with ``mark``."""

    def call(self, method: str, path: str, body: bytes | None = None) -> urllib3.BaseHTTPResponse:
        return self.pool.request(method, f"{self.store.endpoint}{path}", body=body)

    def put(self, data: bytes, name: str = "o") -> None:
        assert self.call("PUT", OBJECT + name, data).status == 200

    def get(self, args: str = "", name: str = "o", **fields: str) -> urllib3.BaseHTTPResponse:
        fields = {"etl_name": "does-it", **({"etl_args": args} if args else {}), **fields}
        return self.pool.request("GET", f"{self.store.endpoint}{OBJECT}{name}", fields=fields)

    def warm(self) -> None:
        """Have all there that the next object needs to go early."""
        assert self.get().status == 200

    def get_early(self, args: str = "", **fields: str) -> urllib3.BaseHTTPResponse:
        """Return a reply that was made early; on a busy machine one may take too long for that."""
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            reply = self.get(args, **fields)
            assert reply.status == 200, reply.data
            if is_early(reply):
                return reply
            self.warm()
        raise AssertionError("no reply was made early")

    def numbers(self) -> dict[str, float]:
        """Return what is counted of the transform."""
        found: dict[str, float] = {}
        for line in self.call("GET", "/metrics").data.decode().splitlines():
            if line.startswith("ais_etl_") and 'etl="does-it"' in line and "_bucket" not in line:
                name, _, value = line.rpartition(" ")
                found[name.partition("{")[0]] = found.get(name.partition("{")[0], 0.0) + float(value)
        return found

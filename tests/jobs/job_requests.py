"""Jobs on a store as curl would start them."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import urllib3

from aistore.testing import StoreProcess
from aistore.wire.messages import encode_base64

PATIENCE = 120.0


class Http:
    """A store over plain HTTP."""

    def __init__(self, store: StoreProcess) -> None:
        self.store = store
        self.pool = urllib3.PoolManager(retries=urllib3.Retry(8, backoff_factor=0.1), maxsize=16)

    @property
    def url(self) -> str:
        return f"{self.store.endpoint}/v1"

    def ask(self, method: str, path: str, body: Any = None) -> urllib3.BaseHTTPResponse:
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        return self.pool.request(method, f"{self.url}/{path}", body=data)

    def ok(self, method: str, path: str, body: Any = None) -> urllib3.BaseHTTPResponse:
        reply = self.ask(method, path, body)
        assert reply.status == 200, reply.data
        return reply

    def bucket(self, objects: Mapping[str, bytes] | None = None) -> str:
        name = f"b-{uuid.uuid4().hex[:10]}"
        self.ok("POST", f"buckets/{name}", {"action": "create-bck"})
        with ThreadPoolExecutor(8) as threads:
            puts = [(f"objects/{name}/{key}", data) for key, data in (objects or {}).items()]
            for _ in threads.map(lambda put: self.ok("PUT", *put), puts):
                pass
        return name

    def new_name(self) -> str:
        return f"b-{uuid.uuid4().hex[:10]}"

    def etl(self, code: str, communication: str = "hpush://", **fields: Any) -> str:
        message = {"code": encode_base64(code), "communication_type": communication, "runtime": "python3", **fields}
        return self.ok("POST", "etl/init_code", message).data.decode()

    def begin(self, source: str, destination: str, action: str = "copy-bck", **value: Any) -> urllib3.BaseHTTPResponse:
        path = f"buckets/{source}?bck_to=ais%2F%40%23%2F{destination}%2F"
        return self.ask("POST", path, {"action": action, "name": "", "value": value})

    def job(self, source: str, destination: str, action: str = "copy-bck", **value: Any) -> str:
        reply = self.begin(source, destination, action, **value)
        assert reply.status == 200, reply.data
        return reply.data.decode()

    def status(self, job: str) -> dict[str, Any]:
        found: dict[str, Any] = self.ok("GET", "cluster?what=status", {"ID": job, "Kind": ""}).json()
        return found

    def snap(self, job: str) -> dict[str, Any]:
        ((snap,),) = self.ok("GET", "cluster?what=qryxstats", {"ID": job}).json().values()
        found: dict[str, Any] = snap
        return found

    def objects_done(self, job: str) -> int:
        return int(self.snap(job)["stats"]["loc-objs"])

    def until(self, what: Callable[[], Any]) -> Any:
        deadline = time.monotonic() + PATIENCE
        while not (found := what()):
            assert time.monotonic() < deadline, self.store.errors()
            time.sleep(0.005)
        return found

    def ended(self, job: str) -> dict[str, Any]:
        def look() -> dict[str, Any] | None:
            status = self.status(job)
            return status if status["end_time"] else None

        found: dict[str, Any] = self.until(look)
        return found

    def finished(self, job: str) -> dict[str, Any]:
        """Return the snap of a job that has done all its work."""
        status = self.ended(job)
        assert (status["err"], status["aborted"]) == ("", False), (status, self.store.errors())
        return self.snap(job)

    def entries(self, bucket: str) -> dict[str, dict[str, Any]]:
        found, token = {}, ""
        while True:
            value = {"props": "name,size,version,checksum", "continuation_token": token}
            page = self.ok("GET", f"buckets/{bucket}", {"action": "list", "value": value}).json()
            found.update({entry["name"]: entry for entry in page["entries"]})
            token = page["continuation_token"]
            if not token:
                return found

    def read(self, bucket: str, name: str) -> bytes:
        return self.ok("GET", f"objects/{bucket}/{name}").data

    def child(self, module: str) -> int:
        """Return the pid of a child of the supervisor."""
        return next(pid for pid, command in self.store.children().items() if module in command)

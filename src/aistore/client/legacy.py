"""The calls of the 2021 client, on the same `Client`.

``from aistore.client import Client, Bck`` is how programs of that time begin. One thing is different here: these
calls raise errors, where the old client handed back the text of the error as if it were the object.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from ..errors import NotSupportedError
from ..model.names import BucketRef, bucket_ref
from ..model.templates import expand_braces
from ..wire.messages import EtlSummary
from .bucket import Bucket
from .cluster import fetch_cluster_map
from .etl import Etl, list_etls
from .pipeline import transform_query
from .transport import Request, Transport, quote_name


@dataclass(frozen=True, slots=True)
class Bck:
    """A bucket as the 2021 client names it. Only the global namespace exists here."""

    name: str
    provider: str = "ais"
    ns: str = ""


class LegacyCalls:
    """The methods of the 2021 client; `Client` has them all."""

    transport: Transport

    def list_objects(self, bck: Bck | str, prefix: str = "") -> list[str]:
        """Return the names in a bucket that start with ``prefix``, all of them, in byte order."""
        bucket = Bucket(self.transport, _ref(bck))
        return [entry.name for page in bucket.list_pages(prefix, props="name") for entry in page]

    def get_object(self, bck: Bck | str, object_name: str, transform_id: str = "", archpath: str = "") -> bytes:
        """Return an object's bytes, or what the ETL ``transform_id`` makes of it."""
        if archpath:
            query = {**_query(bck, transform_id), "archpath": archpath}
            path = f"/v1/objects/{_ref(bck).name}/{quote_name(object_name)}"
            return self.transport.call(Request("GET", path, query=query))
        handle = Bucket(self.transport, _ref(bck)).object(object_name)
        with handle.get(etl=transform_id or None) as reader:
            return reader.read()

    def object_url(self, bck: Bck | str, object_name: str, transform_id: str = "") -> str:
        """Return the address of an object, for tools that fetch it themselves."""
        path = f"/v1/objects/{_ref(bck).name}/{quote_name(object_name)}"
        return f"{self.transport.endpoint.url}{path}?{urlencode(_query(bck, transform_id))}"

    def expand_object_urls(self, bck: Bck | str, transform_id: str = "", template: str = "") -> Iterator[str]:
        """Yield the addresses of the objects that ``template`` stands for, such as ``train/{0000..0099}.tar``."""
        for name in expand_braces(template):
            yield self.object_url(bck, name, transform_id)

    def get_cluster_info(self) -> dict[str, Any]:
        """Return the cluster map as the wire has it."""
        return fetch_cluster_map(self.transport)

    def etl_init(self, spec: str | bytes) -> str:
        """Make an ETL from the YAML of a pod, wait until it is ready and return its name (see `Etl.init_spec`)."""
        body = spec.encode() if isinstance(spec, str) else spec
        return self.transport.call(Request("POST", "/v1/etl/init_spec", body=body)).decode()

    def etl_init_code(
        self,
        code: str,
        dependencies: str = "",
        name: str = "",
        runtime: str = "python3",
        communication_type: str = "hpush://",
    ) -> str:
        """Make an ETL from code, wait until it is ready and return its name (see `Etl.init_code`)."""
        return Etl(self.transport, name).init_code(
            code, dependencies=dependencies, runtime=runtime, comm_type=communication_type
        )

    etl_build = etl_init_code

    def etl_list(self) -> list[EtlSummary]:
        """Return all ETLs of the store."""
        return list_etls(self.transport)

    def etl_stop(self, etl_id: str) -> None:
        """Stop an ETL."""
        Etl(self.transport, etl_id).stop()


def _ref(bck: Bck | str) -> BucketRef:
    if isinstance(bck, str):
        return bucket_ref(bck)
    if bck.ns:
        raise NotSupportedError(f"namespace {bck.ns!r} is not supported by this store")
    return bucket_ref(bck.name, bck.provider)


def _query(bck: Bck | str, transform_id: str) -> dict[str, str]:
    return {"provider": _ref(bck).provider, **transform_query(transform_id or None)}

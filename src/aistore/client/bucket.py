"""One bucket: create, delete, list, batches, and the way to its objects."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from ..errors import AisError, BucketExistsError, BucketNotFoundError
from ..model.buckets import BucketInfo
from ..model.names import check_bucket_name
from ..wire import headers as wire_headers
from .batch import BatchEntry, read_batch
from .foreign import reading_reply
from .listing import ListedObject, Page, list_pages
from .object import EtlArgs, Object, spell_args
from .transport import Request, Transport

if TYPE_CHECKING:
    from .etl import Etl


class Bucket:
    """A bucket of the store; whether it exists is known when you ask for it."""

    def __init__(self, transport: Transport, name: str) -> None:
        self._transport = transport
        self.name = check_bucket_name(name)

    def __repr__(self) -> str:
        return f"Bucket({str(self)!r})"

    def __str__(self) -> str:
        return f"ais://{self.name}"

    def object(self, name: str) -> Object:
        """Return the handle of one object; asks the store nothing."""
        return Object(self._transport, self.name, name)

    def create(self, *, exist_ok: bool = False) -> Bucket:
        """Create the bucket and return it; raises BucketExistsError unless ``exist_ok``."""
        try:
            self._act("POST", "create-bck")
        except BucketExistsError:
            if not exist_ok:
                raise
        return self

    def delete(self, *, missing_ok: bool = False) -> None:
        """Remove the bucket with all that is in it; raises BucketNotFoundError unless ``missing_ok``."""
        try:
            self._act("DELETE", "destroy-bck")
        except BucketNotFoundError:
            if not missing_ok:
                raise

    def head(self) -> BucketInfo:
        """Return the bucket's properties; raises BucketNotFoundError."""
        reply = self._transport.send(Request("HEAD", f"/v1/buckets/{self.name}", query={"provider": "ais"}))
        reply.drain()
        with reading_reply(self._transport.endpoint):
            props = json.loads(reply.headers.get(wire_headers.BUCKET_PROPS) or "{}")
            return BucketInfo(self.name, int(props.get("bid") or 0), int(props.get("created") or 0), props)

    def list(
        self,
        prefix: str = "",
        *,
        props: str = "name,size",
        start_after: str = "",
        page_size: int = 0,
        limit: int | None = None,
    ) -> Iterator[ListedObject]:
        """Yield the objects whose names start with ``prefix``, in byte order of names; memory holds one page.

        ``props`` is a comma list of name, size, checksum, atime, version, custom.
        """
        for page in self.list_pages(prefix, props=props, start_after=start_after, page_size=page_size, limit=limit):
            yield from page

    def list_pages(
        self,
        prefix: str = "",
        *,
        props: str = "name,size",
        start_after: str = "",
        page_size: int = 0,
        limit: int | None = None,
    ) -> Iterator[Page]:
        """Yield what `list` yields, page by page."""
        return list_pages(
            self._transport, self.name, prefix=prefix, props=props, start_after=start_after, page_size=page_size,
            limit=limit,
        )  # fmt: skip

    def batch(
        self,
        entries: Iterable[BatchEntry],
        *,
        etl: str | Etl | None = None,
        etl_args: EtlArgs | None = None,
        args: EtlArgs | None = None,
    ) -> Iterator[bytes | AisError]:
        """Read many objects at once and yield a result per entry, in order: its bytes, or its error (not raised).

        An entry is a name, or ``(name, etl)`` to read it through a transform; ``etl`` is for entries that name none,
        ``etl_args`` (``args`` is the same) are handed to every transform.

        >>> images = bucket.batch([("train/1.jpg", "resize"), ("train/1.cls", "")])  # doctest: +SKIP
        """
        return read_batch(
            self._transport, self.name, entries, etl=str(etl or ""), args=spell_args(etl_args, args) or ""
        )

    def _act(self, method: str, action: str) -> None:
        body = json.dumps({"action": action, "name": "", "value": None}).encode()
        self._transport.call(
            Request(
                method, f"/v1/buckets/{self.name}", query={"provider": "ais"},
                headers={"Content-Type": "application/json"}, body=body,
            )
        )  # fmt: skip

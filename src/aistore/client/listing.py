"""Listing a bucket, page by page."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import msgspec

from ..errors import InternalError
from ..model.names import BucketRef
from ..wire import headers as wire_headers
from .foreign import reading_reply
from .transport import Request, Transport


class ListedObject(
    msgspec.Struct,
    frozen=True,
    gc=False,
    rename={"name": "n", "size": "s", "checksum": "cs", "atime": "a", "version": "v", "custom": "m", "flags": "f"},
):
    """One name of a listing. ``size`` is in bytes; what the listing was not asked for is empty.

    The wire's entries are decoded into these directly: at a million names a copy would be what listing costs.
    """

    name: str
    size: int = 0
    checksum: str = ""
    atime: str = ""
    version: str = ""
    custom: str = ""
    flags: int = 0

    @property
    def cached(self) -> bool:
        """Whether the store has a copy, where the objects are in a bucket outside of it."""
        return bool(self.flags & IN_CLUSTER)


#: Bit of ``flags``: the store has a copy in its cache.
IN_CLUSTER = 64

#: Flags of a request: bit 0 asks for objects in the cluster, bit 9 for those that are not.
_FLAGS = {None: "0", True: "1", False: "512"}

#: One page of a listing.
Page = list[ListedObject]


class _Reply(msgspec.Struct, frozen=True, rename={"entries": "Entries", "uuid": "UUID", "token": "ContinuationToken"}):
    entries: Page | None = None
    uuid: str = ""
    token: str = ""


_DECODER = msgspec.msgpack.Decoder(_Reply)


def list_pages(
    transport: Transport,
    bucket: BucketRef,
    *,
    prefix: str = "",
    props: str = "name,size",
    start_after: str = "",
    page_size: int = 0,
    limit: int | None = None,
    cached: bool | None = None,
    on_unnamable: Callable[[int], None] | None = None,
) -> Iterator[Page]:
    """Yield the pages of a listing in byte order of names, ``limit`` names in all; memory holds one page.

    ``props`` is a comma list of name, size, checksum, atime, version, custom, cached. ``page_size`` 0 leaves it to the
    store. ``cached`` leaves out what the store has no copy of, False leaves out the others, None nothing.
    ``on_unnamable`` hears how many keys a page leaves out, of a bucket outside of the store, that other programs wrote
    and no object can be named by.
    """
    token, uuid, left = "", "", limit
    while left is None or left > 0:
        size = page_size if left is None else min(page_size or left, left)
        page, unnamable = _fetch(
            transport,
            bucket,
            {
                "prefix": prefix,
                "pagesize": size,
                "uuid": uuid,
                "props": props,
                "continuation_token": token,
                "flags": _FLAGS[cached],
                "start_after": start_after,
            },
        )
        if unnamable and on_unnamable is not None:
            on_unnamable(unnamable)
        entries = page.entries or []
        if left is not None:
            entries = entries[:left]
            left -= len(entries)
        if entries:
            yield entries
        if not page.token:
            return
        if page.token == token:  # not an earlier one: stores may list in an order of their own
            raise InternalError(f"the listing of {bucket} does not advance past {token!r}")
        token, uuid = page.token, page.uuid


def _fetch(transport: Transport, bucket: BucketRef, value: dict[str, object]) -> tuple[_Reply, int]:
    """Return a page, and how many keys it leaves out."""
    reply = transport.send(
        Request(
            "GET",
            f"/v1/buckets/{bucket.name}",
            query={"provider": bucket.provider},
            headers={"Content-Type": "application/json", "Accept": "application/msgpack"},
            body=msgspec.json.encode({"action": "list", "name": "", "value": value}),
        )
    )
    body = reply.drain()
    with reading_reply(transport.endpoint):
        return _DECODER.decode(body), int(reply.headers.get(wire_headers.UNNAMABLE) or 0)

"""One object: put, get, head, delete."""

from __future__ import annotations

import json
from collections.abc import Mapping

from ..errors import BadRequestError, ChecksumMismatchError
from ..model.names import BucketRef, check_object_name
from ..model.objects import ObjectInfo
from ..model.rendezvous import uname
from ..wire import headers as wire_headers
from .foreign import stored_info
from .pipeline import EtlArgs, Seed, Transforms, transform_query
from .reader import ObjectReader
from .transport import Request, Transport, quote_name
from .upload import Source, upload_of


class Object:
    """A name in a bucket; whether there is an object of that name is known when you ask for it."""

    def __init__(self, transport: Transport, bucket: BucketRef, name: str) -> None:
        self._transport = transport
        self.ref = bucket
        self.bucket = bucket.name
        self.name = check_object_name(name)

    def __repr__(self) -> str:
        return f"Object({str(self)!r})"

    def __str__(self) -> str:
        return f"{self.ref}/{self.name}"

    @property
    def _path(self) -> str:
        return f"/v1/objects/{self.bucket}/{quote_name(self.name)}"

    @property
    def _uname(self) -> str:
        return uname(self.ref.provider, self.bucket, self.name)

    @property
    def _query(self) -> dict[str, str]:
        return {"provider": self.ref.provider}

    def put(self, source: Source, *, custom: Mapping[str, str] | None = None) -> None:
        """Write the object: bytes, the path of a file (``str`` is a path), or an open binary file.

        The checksum travels before the bytes and the store refuses bytes that do not match it. Only a stream that
        cannot be read twice is checked afterwards.
        """
        upload = upload_of(source)
        headers = {"Content-Type": "application/octet-stream"}
        if custom:
            headers[wire_headers.CUSTOM] = wire_headers.encode_custom(wire_headers.check_custom_spelling(custom))
        if upload.checksum is not None:
            headers[wire_headers.CHECKSUM_TYPE] = "xxhash2"
            headers[wire_headers.CHECKSUM_VALUE] = upload.checksum
        reply = self._transport.send(
            Request("PUT", self._path, query=self._query, headers=headers, body=upload, uname=self._uname)
        )
        reply.drain()
        stored = stored_info(self._transport.endpoint, self.bucket, self.name, reply.headers).checksum
        sent = upload.sent_checksum()
        if stored.type == "xxhash2" and stored.value != sent:
            raise ChecksumMismatchError(f"{self}: sent bytes of xxhash2 {sent}, the store has {stored.value}")

    def get(
        self,
        *,
        etl: Transforms | None = None,
        etl_args: EtlArgs | None = None,
        args: EtlArgs | None = None,
        seed: Seed | None = None,
        range: tuple[int, int | None] | None = None,
        latest: bool = False,
    ) -> ObjectReader:
        """Open the object for reading, or what ``etl`` makes of it: a transform, or a line of them (``a >> b``).

        ``etl_args`` (``args`` is the same) are handed to the transforms. ``seed`` fixes what they draw at random: the
        same object, transforms, arguments and seed give the same bytes. ``range`` is ``(start, length)`` in bytes,
        length None up to the end, a negative start counts from the end; a range of a transformed object is not
        possible. ``latest`` has the store compare its copy with the bucket outside of it first.
        """
        if etl is not None and range is not None:
            raise BadRequestError("a range of a transformed object cannot be read", hint="read it whole and slice it")
        query = {
            **self._query,
            **transform_query(etl, etl_args, args, seed),
            **({"latest-ver": "true"} if latest else {}),
        }
        headers = {} if range is None else {"Range": spell_range(*range)}
        patience = self._transport.settings.transform_timeout_seconds if etl is not None else None
        request = Request(
            "GET", self._path, query=query, headers=headers, read_timeout_seconds=patience, uname=self._uname
        )
        return ObjectReader(self._transport, request, self.ref, self.name, stored=etl is None)

    def copy_to(
        self,
        to: Object,
        *,
        etl: Transforms | None = None,
        etl_args: EtlArgs | None = None,
        args: EtlArgs | None = None,
        seed: Seed | None = None,
        latest: bool = False,
    ) -> None:
        """Have the store copy the object, or what transforms make of it, to another name or bucket.

        What is there is replaced; custom metadata comes along. The options are those of `get`. Raises
        BucketNotFoundError, ObjectNotFoundError, EtlNotFoundError, TransformError.

        >>> bucket.object("1.jpg").copy_to(bucket.object("small/1.jpg"), etl="resize >> gray")  # doctest: +SKIP
        """
        query = {**self._query, **transform_query(etl, etl_args, args, seed), "object_to": to._uname}
        if latest:
            query["latest-ver"] = "true"
        patience = self._transport.settings.transform_timeout_seconds if etl is not None else None
        self._transport.call(Request("PUT", self._path, query=query, read_timeout_seconds=patience, uname=to._uname))

    def head(self) -> ObjectInfo:
        """Return size, version, checksum, time of writing and custom metadata; raises ObjectNotFoundError."""
        reply = self._transport.send(Request("HEAD", self._path, query=self._query, uname=self._uname))
        reply.drain()
        return stored_info(self._transport.endpoint, self.bucket, self.name, reply.headers)

    def delete(self) -> None:
        """Remove the object; raises ObjectNotFoundError."""
        self._transport.call(Request("DELETE", self._path, query=self._query, uname=self._uname))

    def evict(self) -> None:
        """Have the store drop its copy of the object; the object itself stays where it is."""
        path, value = self._path, None
        if not self.ref.is_backed:
            # Never a DELETE of the object itself: a store that does not know the action would remove the only one.
            path, value = f"/v1/buckets/{self.bucket}", {"objnames": [self.name]}
        body = {"action": "evict-listrange", "name": "", "value": value}
        headers = {"Content-Type": "application/json"}
        self._transport.call(
            Request("DELETE", path, query=self._query, headers=headers, body=json.dumps(body).encode())
        )

    def set_custom(self, custom: Mapping[str, str], *, replace: bool = False) -> None:
        """Merge ``custom`` into the object's custom metadata; with ``replace`` it takes the place of what is there."""
        query = {**self._query, **({"set-new-custom": "true"} if replace else {})}
        body = {"action": "", "name": "", "value": wire_headers.check_custom_spelling(custom)}
        self._transport.call(
            Request(
                "PATCH", self._path, query=query, headers={"Content-Type": "application/json"},
                body=json.dumps(body).encode(), uname=self._uname,
            )
        )  # fmt: skip


def spell_range(start: int, length: int | None) -> str:
    """Return the Range header for ``length`` bytes from ``start`` (see `Object.get`)."""
    if length is not None and length < 1:
        raise BadRequestError(f"a range of {length} bytes cannot be read", hint="expected a length of 1 or more")
    if start >= 0:
        return f"bytes={start}-" if length is None else f"bytes={start}-{start + length - 1}"
    if length is not None and length < -start:
        raise BadRequestError("a range from the end has no length", hint="expected (-count, None)")
    return f"bytes={start}"

"""One bucket: create, delete, list, batches, and the way to its objects."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from ..errors import AisError, BadRequestError, BucketExistsError, BucketNotFoundError
from ..model.buckets import BucketInfo
from ..model.names import BucketRef, bucket_ref
from ..model.properties import flatten, nest
from ..wire import headers as wire_headers
from .batch import BatchEntry, read_batch
from .foreign import reading_reply
from .job import Job, JobArguments, start_on_bucket, start_to_verify
from .listing import ListedObject, Page, list_pages
from .object import Object
from .pipeline import EtlArgs, Seed, Transforms, spell_args, spell_seed, stages_of
from .transport import Request, Transport

if TYPE_CHECKING:
    from typing_extensions import Unpack


class Bucket:
    """A bucket of the store; whether it exists is known when you ask for it."""

    def __init__(self, transport: Transport, ref: BucketRef) -> None:
        self._transport = transport
        self.ref = ref
        self.name = ref.name

    def __repr__(self) -> str:
        return f"Bucket({str(self)!r})"

    def __str__(self) -> str:
        return str(self.ref)

    @property
    def _query(self) -> dict[str, str]:
        return {"provider": self.ref.provider}

    def object(self, name: str) -> Object:
        """Return the handle of one object; asks the store nothing."""
        return Object(self._transport, self.ref, name)

    def create(self, *, exist_ok: bool = False, props: Mapping[str, Any] | None = None) -> Bucket:
        """Create the bucket and return it; raises BucketExistsError unless ``exist_ok``.

        A bucket of another provider than ``ais`` exists already, outside of the store: it is made known to it.
        ``props`` are properties, nested or with dotted keys: ``{"extra.aws.endpoint": "http://127.0.0.1:8333"}``.
        """
        try:
            self._act("POST", "create-bck", nest(dict(flatten(props))) if props else None)
        except BucketExistsError:
            if not exist_ok:
                raise
        return self

    def delete(self, *, missing_ok: bool = False) -> None:
        """Remove the bucket with all that is in it; raises BucketNotFoundError unless ``missing_ok``.

        The objects of a bucket outside of the store stay where they are: the store forgets it, as `evict` does.
        """
        try:
            self._act("DELETE", "evict-remote-bck" if self.ref.is_backed else "destroy-bck")
        except BucketNotFoundError:
            if not missing_ok:
                raise

    def head(self) -> BucketInfo:
        """Return the bucket's properties; raises BucketNotFoundError."""
        reply = self._transport.send(Request("HEAD", f"/v1/buckets/{self.name}", query=self._query))
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
        cached: bool | None = None,
    ) -> Iterator[ListedObject]:
        """Yield the objects whose names start with ``prefix``, in byte order of names; memory holds one page.

        ``props`` is a comma list of name, size, checksum, atime, version, custom, cached. ``cached`` True yields only
        objects that the store has a copy of, False only the others: where a bucket is outside of the store.
        """
        pages = self.list_pages(
            prefix, props=props, start_after=start_after, page_size=page_size, limit=limit, cached=cached
        )
        for page in pages:
            yield from page

    def list_pages(
        self,
        prefix: str = "",
        *,
        props: str = "name,size",
        start_after: str = "",
        page_size: int = 0,
        limit: int | None = None,
        cached: bool | None = None,
        on_unnamable: Callable[[int], None] | None = None,
    ) -> Iterator[Page]:
        """Yield what `list` yields, page by page.

        ``on_unnamable`` hears how many keys a page leaves out, of a bucket outside of the store, that other programs
        wrote and no object can be named by.
        """
        return list_pages(
            self._transport, self.ref, prefix=prefix, props=props, start_after=start_after, page_size=page_size,
            limit=limit, cached=cached, on_unnamable=on_unnamable,
        )  # fmt: skip

    def batch(
        self,
        entries: Iterable[BatchEntry],
        *,
        etl: Transforms | None = None,
        etl_args: EtlArgs | None = None,
        args: EtlArgs | None = None,
        seed: Seed | None = None,
    ) -> Iterator[bytes | AisError]:
        """Read many objects at once and yield a result per entry, in order: its bytes, or its error (not raised).

        An entry is a name, or ``(name, etl)`` to read it through a transform, or a line of them (``resize >> gray``);
        ``etl`` is for entries that name none, ``etl_args`` (``args`` is the same) are handed to every transform, and
        ``seed`` fixes what they draw at random, for each object apart.

        >>> images = bucket.batch([("train/1.jpg", "resize"), ("train/1.cls", "")])  # doctest: +SKIP
        """
        spelled = spell_args(etl_args, args) or ""
        return read_batch(
            self._transport, self.ref, entries, etl=str(etl or ""), args=spelled, seed=spell_seed(seed)
        )  # fmt: skip

    def set_props(self, props: Mapping[str, Any]) -> None:
        """Change properties, nested or with dotted keys; those not named stay as they are."""
        self._act("PATCH", "set-bprops", nest(dict(flatten(props))))

    def reset_props(self) -> None:
        """Give all properties their defaults again."""
        self._act("PATCH", "reset-bprops")

    def prefetch(
        self,
        names: Iterable[str] | None = None,
        *,
        prefix: str = "",
        latest: bool = False,
        workers: int = 0,
        continue_on_error: bool = True,
    ) -> str:
        """Have the store copy objects into its cache: those named, else all that start with ``prefix``.

        A prefix may be a template such as ``train/{0000..0999}.jpg``. ``latest`` compares copies with what the object
        store has. Returns the id of the job, which goes on by itself.
        """
        value: dict[str, Any] = {"coer": continue_on_error, "latest-ver": latest}
        if workers:
            value["num-workers"] = workers
        return self._act("POST", "prefetch-listrange", {**_selection(names, prefix), **value}).decode()

    def evict(self, names: Iterable[str] | None = None, *, prefix: str = "") -> str:
        """Have the store drop its copies of objects: those named, else all that start with ``prefix``.

        Nothing is removed but copies: the next read fetches the object again. Returns the id of the job.
        """
        return self._act("DELETE", "evict-listrange", _selection(names, prefix)).decode()

    def forget(self, *, keep_props: bool = False) -> None:
        """Drop all copies of a bucket that is outside of the store, and its properties unless ``keep_props``."""
        if not self.ref.is_backed:
            raise BadRequestError(f"{self} is in the store alone", hint="evict() drops the copies of its objects")
        self._act("DELETE", "evict-remote-bck", query={"keep_bck_md": "true"} if keep_props else {})

    def copy(self, to: Bucket | BucketRef | str, **options: Unpack[JobArguments]) -> Job:
        """Begin to copy this bucket's objects to another bucket, which is made if need be; return the job.

        ``prefix`` chooses objects by the begin of their names, ``flat`` leaves out those with a slash after it;
        ``names`` are the objects themselves, ``template`` stands for names (``train/{0000..0999}.jpg``), and a name
        that is not there is an object that failed.
        ``prepend`` is put before each name, and ``ext`` (``{"jpg": "txt"}``) replaces extensions. ``dry_run`` only
        counts. ``go_on`` leaves out objects that fail; else the first one ends the job. ``force`` writes also what is
        there already as it would be written. ``sync`` removes what such a job has made of objects that are gone since.
        ``workers`` is how many objects are under way at once, by default as many as is good.

        >>> bucket.copy("backup", prefix="train/").wait()  # doctest: +SKIP
        """
        return start_on_bucket(self._transport, self.ref, _ref_of(to), **options)

    def transform(
        self,
        to: Bucket | BucketRef | str,
        etl: Transforms,
        *,
        etl_args: EtlArgs | None = None,
        args: EtlArgs | None = None,
        seed: Seed | None = None,
        object_timeout: str = "",
        **options: Unpack[JobArguments],
    ) -> Job:
        """Begin to write what a transform, or a line of them, makes of this bucket's objects to another bucket.

        Returns the job. The options are those of `copy`; ``etl_args`` (``args`` is the same) are handed to the
        transforms, ``seed`` fixes what they draw at random, ``object_timeout`` (``45s``) is for one object and one
        transform.
        """
        return start_on_bucket(
            self._transport, self.ref, _ref_of(to), stages=stages_of(etl), etl_args=spell_args(etl_args, args) or "",
            seed=spell_seed(seed), object_timeout=object_timeout, **options,
        )  # fmt: skip

    def inspect(
        self,
        etl: Transforms,
        *,
        etl_args: EtlArgs | None = None,
        args: EtlArgs | None = None,
        seed: Seed | None = None,
        object_timeout: str = "",
        **options: Unpack[JobArguments],
    ) -> Job:
        """Begin to run a transform on this bucket's objects without keeping what it makes of them; return the job.

        It goes on after an object that fails; `Job.errors` has them. The arguments are those of `transform`.
        """
        options |= {"dry_run": True, "go_on": True}
        return self.transform(
            self, etl, etl_args=etl_args, args=args, seed=seed, object_timeout=object_timeout, **options
        )

    def verify(
        self, *, sample: int = 0, percent: float = 0.0, prefix: str = "", workers: int = 0, object_timeout: str = ""
    ) -> Job:
        """Begin to make derived objects again and compare them with what is here; return the job.

        ``sample`` objects drawn at random, or ``percent`` of them; all if both are 0. `JobInfo.failed` objects differ,
        or cannot be made again; of `JobInfo.stale` ones the source has changed since. `Job.errors` has both.

        >>> bucket.verify(percent=1).wait().error  # doctest: +SKIP
        """
        return start_to_verify(
            self._transport, self.ref, prefix=prefix, sample=sample, percent=percent, workers=workers,
            object_timeout=object_timeout,
        )  # fmt: skip

    def _act(self, method: str, action: str, value: Any = None, query: Mapping[str, str] | None = None) -> bytes:
        body = json.dumps({"action": action, "name": "", "value": value}).encode()
        return self._transport.call(
            Request(
                method, f"/v1/buckets/{self.name}", query={**self._query, **(query or {})},
                headers={"Content-Type": "application/json"}, body=body,
            )
        )  # fmt: skip


def _selection(names: Iterable[str] | None, prefix: str) -> dict[str, Any]:
    """Return which objects are meant, as the wire has it."""
    if names is None:
        return {"template": prefix}
    if prefix:
        raise BadRequestError("both names and a prefix are given", hint="pass one of them")
    return {"objnames": list(names)}


def _ref_of(bucket: Bucket | BucketRef | str) -> BucketRef:
    return bucket.ref if isinstance(bucket, Bucket) else bucket_ref(bucket)

"""``Dataset``: the objects of a bucket as samples, for ``torch.utils.data.DataLoader``."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import torch.utils.data

from ..client.pipeline import EtlArgs, Seed, Transforms, spell_seed
from ..errors import AisError, BadRequestError, DecodeError, NotFoundError, NotSupportedError, SamplesError
from ..model.names import BucketRef, bucket_ref
from .decoders import Decoder, default_decode
from .samples import Part, SampleTable, extension, group
from .source import Source, StoreSource

if TYPE_CHECKING:
    from ..client import Bck


class Dataset(torch.utils.data.Dataset[tuple[Any, ...]]):  # type: ignore[misc]  # torch is not followed by mypy
    """A map-style dataset of the objects of ``bck`` whose names start with ``prefix``, of the store at ``url``.

    Objects of one base name are a sample: ``train/1.jpg`` and ``train/1.cls`` give ``(image, label)``; pictures come
    first and labels (``.cls``, ``.json``, ``.txt``) last, others in between, by name within each. The bucket is listed
    once, here: objects put later are not seen, and one deleted later is an error when it is read.

    ``transform_id`` names an ETL of the store, or a line of them (``resize >> gray``); ``etl_args``, text or a mapping,
    are handed to them. Objects for which ``transform_filter`` is true of the name (all, without a filter) are read
    through it. The filter is applied here and not kept, so that a lambda does no harm under any start method of
    workers. ``decoders`` replaces the decoder of single extensions, ``loader(name, data)`` replaces
    them all. ``parts`` are the extensions of a sample in the order wanted, for buckets that hold more than that;
    ``incomplete="drop"`` leaves out samples that lack a part.

    With ``seed`` the transforms draw the same random numbers for an object whenever and wherever it is read;
    `set_epoch` makes them others for each epoch.

    A DataLoader's batch is one request, or one to each node of a cluster. A node that dies, joins or is too busy while
    samples are read is no error: what can succeed later is tried for ``retry_seconds``. The dataset can be pickled, and
    every process makes connections of its own.

    Raises StoreUnreachableError, BucketNotFoundError, EtlNotFoundError, NotFoundError for an empty listing, and
    SamplesError for samples that differ in their parts. Reading a sample raises what the store says of the object
    (ObjectNotFoundError, TransformError, …) or DecodeError; the message names the object.
    """

    def __init__(
        self,
        url: str | None,
        bck: Bck | str,
        prefix: str = "",
        loader: Callable[[str, bytes], Any] | None = None,
        transform_id: Transforms | None = None,
        transform_filter: Callable[[str], bool] | None = None,
        *,
        decoders: Mapping[str, Decoder] | None = None,
        parts: Sequence[str] | None = None,
        incomplete: Literal["error", "drop"] = "error",
        etl_args: EtlArgs | None = None,
        seed: Seed | None = None,
        retry_seconds: float = 60.0,
    ) -> None:
        if incomplete not in ("error", "drop"):
            raise BadRequestError(f"incomplete={incomplete!r}", hint='expected "error" or "drop"')
        if loader is not None and decoders is not None:
            raise BadRequestError("both loader and decoders are given", hint="loader replaces every decoder: pass one")
        self.ref, self.prefix, self.transform_id = _bucket_of(bck), prefix, str(transform_id or "")
        self.bucket = self.ref.name
        if seed is not None and not self.transform_id:
            raise BadRequestError("a seed is for a transform", hint="name it with transform_id=")
        self._seed = spell_seed(seed)
        # Shared, because the workers of a DataLoader may outlive an epoch.
        self._epoch = None if seed is None else torch.zeros(1, dtype=torch.int64).share_memory_()
        self._loader = loader
        self._decoders = {_check_extension(kind): decoder for kind, decoder in (decoders or {}).items()}
        source = StoreSource(url, self.ref, retry_seconds, etl_args)
        self.url = source.url
        self._source: Source = source
        try:
            if self.transform_id:
                self._source.check_transform(self.transform_id)
            self._samples, self.dropped = self._list(transform_filter, parts, incomplete == "drop")
        finally:
            self._source.close()  # nothing is open when workers are forked

    def _list(
        self, transform_filter: Callable[[str], bool] | None, parts: Sequence[str] | None, drop_incomplete: bool
    ) -> tuple[SampleTable, int]:
        where = f"{self.ref}/{self.prefix}"
        try:
            samples, dropped = group(self._source.names(self.prefix), parts=parts, drop_incomplete=drop_incomplete)
        except SamplesError as error:
            raise SamplesError(f"{where}: {error.message}", hint=error.hint) from None
        is_transformed = (transform_filter or (lambda name: True)) if self.transform_id else (lambda name: False)
        table = SampleTable(samples, is_transformed)
        if not len(table):
            of_kinds = f" and the extensions {', '.join(parts)}" if parts else ""
            raise NotFoundError(
                f"bucket {self.ref} has no objects with the prefix {self.prefix!r}{of_kinds}",
                hint=f"`ais ls {self.ref}` shows what is there",
            )
        if self.transform_id and not table.transformed_count:
            raise BadRequestError(
                f"transform_filter accepts none of the objects of {where}, so {self.transform_id} would never run",
                hint="the first sample is " + ", ".join(part.name for part in table[0]),
            )
        return table, dropped

    @property
    def seed(self) -> str | None:
        """The seed that objects are read with now: ``seed`` as it was given, from epoch 1 on ``SEED:EPOCH``."""
        epoch = 0 if self._epoch is None else int(self._epoch[0])
        return f"{self._seed}:{epoch}" if epoch else self._seed

    def set_epoch(self, epoch: int) -> None:
        """Read with other random numbers from now on, those of this epoch; for workers of a DataLoader, too.

        Call it before an epoch begins. Raises BadRequestError for a dataset without a seed, which never repeats itself.
        """
        if self._epoch is None:
            raise BadRequestError("a dataset without a seed has no epochs", hint="pass seed= to make one")
        if epoch < 0:
            raise BadRequestError(f"epoch {epoch}", hint="expected 0 or more")
        self._epoch[0] = epoch

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, index: int) -> tuple[Any, ...]:
        """Return the decoded parts of one sample."""
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Iterable[int]) -> list[tuple[Any, ...]]:
        """Return many samples, read in one request; a DataLoader calls this with the indices of a batch."""
        samples = [self._samples[operator.index(index)] for index in indices]
        # all values before the first sample, since a reply that is not read to its end costs the connection
        values = iter(list(self._read([part for sample in samples for part in sample])))
        return [tuple(next(values) for _ in sample) for sample in samples]

    def _read(self, parts: Sequence[Part]) -> Iterator[Any]:
        """Yield the decoded ``parts``, each as soon as its bytes are here."""
        entries = [(part.name, self.transform_id if part.transformed else "") for part in parts]
        for part, result in zip(parts, self._source.fetch(entries, self.seed), strict=True):
            if isinstance(result, AisError):
                raise self._named(result, part)
            yield self._decode(part, result)

    def _decode(self, part: Part, data: bytes) -> Any:
        kind = extension(part.name)
        try:
            if self._loader is not None:
                return self._loader(part.name, data)
            decoder = self._decoders.get(kind)
            return decoder(data) if decoder is not None else default_decode(kind, data)
        except Exception as error:  # a decoder may raise anything, and the object's name is what helps
            raise DecodeError(
                f"cannot decode {self._label(part)} ({len(data):,} bytes): {type(error).__name__}: {error}"
            ) from error

    def _label(self, part: Part) -> str:
        through = f", transformed by {self.transform_id}" if part.transformed else ""
        return f"{self.ref}/{part.name}{through}"

    def _named(self, error: AisError, part: Part) -> AisError:
        """Return ``error`` with the object's name in its message, if it is not there yet."""
        if part.name in error.message:
            return error
        return type(error)(f"{self._label(part)}: {error.message}", hint=error.hint, status=error.status)

    @property
    def samples(self) -> SampleTable:
        """The parts of each sample, by index: their names, and whether they are read through the transform."""
        return self._samples

    def names(self, index: int) -> tuple[str, ...]:
        """Return the object names of one sample."""
        return tuple(part.name for part in self._samples[index])

    def close(self) -> None:
        """Close this process's connections; reading again opens new ones."""
        self._source.close()

    def __repr__(self) -> str:
        layout = ", ".join(extension(part.name) or "no extension" for part in self._samples[0])
        transformed = f"{self._samples.transformed_count:,} objects through {self.transform_id}"
        through = f", {transformed}" if self.transform_id else ""
        dropped = f", {self.dropped:,} incomplete dropped" if self.dropped else ""
        return (
            f"<aistore.pytorch.Dataset {self.ref}/{self.prefix} at {self.url}: "
            f"{len(self):,} samples of ({layout}){through}{dropped}>"
        )


def _bucket_of(bck: Bck | str) -> BucketRef:
    if isinstance(bck, str):
        return bucket_ref(bck)
    if bck.ns:
        raise NotSupportedError(f"namespace {bck.ns!r} is not supported by this store")
    return bucket_ref(bck.name, bck.provider)


def _check_extension(kind: str) -> str:
    if not kind.startswith("."):
        raise BadRequestError(f"decoders has the key {kind!r}", hint='expected an extension such as ".jpg"')
    return kind.lower()

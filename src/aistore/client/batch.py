"""Reading many objects with few requests, transformed or not, in order."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence

import msgspec

from ..errors import AisError, InternalError, StoreUnreachableError
from ..model.names import BucketRef
from ..model.rendezvous import uname
from ..wire.batch import CONTENT_TYPE, ENTRIES_MAX, BatchRequest, Frame, read_frames
from ..wire.messages import decode_error
from .lanes import read_side_by_side
from .transport import Request, Transport

#: What to read: a name, or a name and the ETL to read it through ("" for none).
BatchEntry = str | tuple[str, str]

Pairs = Sequence[tuple[str, str]]


def read_batch(
    transport: Transport,
    bucket: BucketRef,
    entries: Iterable[BatchEntry],
    *,
    etl: str = "",
    args: str = "",
    seed: str | None = None,
) -> Iterator[bytes | AisError]:
    """Yield one result per entry, in order: the bytes, or the error of this entry.

    ``etl`` is for entries that name none. Raises what concerns the whole batch (no such bucket, no store). A reply
    that breaks off is asked for again from where it broke. Of a cluster every node is asked for what is at home there,
    side by side.
    """
    pairs = [(entry, etl) if isinstance(entry, str) else (entry[0], entry[1] or etl) for entry in entries]
    for start in range(0, len(pairs), ENTRIES_MAX):
        chunk = pairs[start : start + ENTRIES_MAX]
        groups = _groups(transport, bucket, chunk)
        if len(groups) == 1:
            yield from _read_chunk(transport, bucket, chunk, args, seed)
        else:
            lanes = [
                (group, _read_chunk(transport, bucket, [chunk[position] for position in group], args, seed))
                for group in groups
            ]
            yield from read_side_by_side(lanes)


def _groups(transport: Transport, bucket: BucketRef, pairs: Pairs) -> list[list[int]]:
    if len(pairs) == 1:
        return [[0]]
    return transport.routing.groups([uname(bucket.provider, bucket.name, name) for name, _ in pairs])


def _read_chunk(
    transport: Transport, bucket: BucketRef, pairs: Pairs, args: str, seed: str | None
) -> Iterator[bytes | AisError]:
    done, failures, broke_at = 0, 0, 0.0
    while done < len(pairs):
        try:
            for frame in _frames(transport, bucket, pairs[done:], args, seed):
                done += 1
                failures = 0
                yield _result_of(frame)
        except (StoreUnreachableError, _BrokenReplyError) as error:
            failures += 1
            if failures == 1:
                broke_at = time.monotonic()
            pause = transport.settings.retry.pause_after_failure(failures, time.monotonic() - broke_at)
            if pause is None:
                raise StoreUnreachableError(f"batch of {bucket}: {error}") from error
            time.sleep(pause)


class _BrokenReplyError(Exception):
    """The reply began and did not end as it should; what came before is good."""


def _frames(transport: Transport, bucket: BucketRef, pairs: Pairs, args: str, seed: str | None) -> Iterator[Frame]:
    request = Request(
        "POST",
        f"/v1/batch/{bucket.name}",
        query={"provider": bucket.provider},
        headers={"Content-Type": "application/json", "Accept": CONTENT_TYPE},
        body=msgspec.json.encode(BatchRequest(list(pairs), args, seed)),
        read_timeout_seconds=transport.settings.transform_timeout_seconds if any(etl for _, etl in pairs) else None,
        uname=uname(bucket.provider, bucket.name, pairs[0][0]),
        repeatable=True,
    )
    reply = transport.send(request)
    try:
        count = 0
        for frame in read_frames(reply.read):
            if frame.position != count or count == len(pairs):
                raise InternalError(f"the batch reply has entry {frame.position} in place of {count}")
            count += 1
            yield frame
        if count < len(pairs):
            raise InternalError(f"the batch reply has {count} of {len(pairs)} entries")
    except (InternalError, StoreUnreachableError) as error:
        raise _BrokenReplyError(error.message) from error
    finally:
        reply.close()


def _result_of(frame: Frame) -> bytes | AisError:
    return frame.data if frame.status == 200 else decode_error(frame.data, frame.status)

"""The documents that the nodes of a cluster share, and how they are spelled in the store.

One root document (the map of nodes with its history, buckets, transforms, settings), replaced as a whole and only as
long as nobody else replaced it; one lease per incarnation of a node, which only that incarnation writes.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import structs

from ..errors import BadRequestError, ConflictError, InternalError, NotSupportedError, TooLargeError
from ..model.etl import EtlSpec
from ..model.names import SCHEMES

FORMAT = 1
ROOT_BYTES_MAX = 8 << 20
#: Maps that are remembered: a cached copy from before the oldest one is compared with the store before it is used.
HISTORY_MAX = 64

#: The property that names prefixes of objects to keep copies of, separated by commas; ``*`` is all objects.
PINNED = "lru.pinned"

#: The setting that says how long a lease holds, on all nodes.
LEASE_SECONDS = "lease_seconds"

#: Names below the base of the store that are the cluster's own. No bucket's name begins with a dot.
SYSTEM = ".ais/"
ROOT_KEY = SYSTEM + "root"
LEASES = SYSTEM + "leases/"
JOBS = SYSTEM + "jobs/"


class NodeRecord(msgspec.Struct, frozen=True):
    """A node of the map: where it is reached, which of its starts is meant, and whether objects live there.

    ``draining`` nodes answer for every object, but are home to none.
    """

    url: str
    incarnation: str
    draining: bool = False
    started_ns: int = 0


class Epoch(msgspec.Struct, frozen=True):
    """The homes of one epoch: node ids with the incarnation each had when the epoch began."""

    number: int
    homes: Mapping[str, str]


class BucketRecord(msgspec.Struct, frozen=True):
    """A bucket: ``provider`` as on the wire (``ais``, ``aws``, …); ``id`` is of this bucket, not of its name.

    A bucket that is ``deleting`` is gone for everybody but the one who removes its objects.
    """

    provider: str
    name: str
    id: str
    created_ns: int
    props: Mapping[str, Any] = {}
    deleting: bool = False

    @property
    def uri(self) -> str:
        """The bucket as a person writes it: ``s3://lake``."""
        return f"{SCHEMES[self.provider]}://{self.name}"

    @property
    def immutable(self) -> bool:
        """Whether objects are never replaced or removed, so that a copy is as good as the original."""
        return bool(self.props.get("immutable"))

    @property
    def pinned(self) -> list[str]:
        """Prefixes of objects whose copies are never evicted; an empty one is all."""
        texts = [text.strip() for text in str(self.props.get(PINNED, "")).split(",")]
        return ["" if text == "*" else text for text in texts if text]

    @property
    def validates(self) -> bool:
        """Whether each read asks the store for changes by other programs."""
        return bool(self.props.get("versioning.validate_warm_get"))


class EtlRecord(msgspec.Struct, frozen=True):
    """A transform of the cluster: ``lock`` is the environment that every node installs.

    ``making`` is the incarnation of the node that is making it ready on all nodes; empty when that is done. When that
    node has gone before, nobody goes on: without a lock the record is removed, with one it is stopped.
    """

    spec: EtlSpec
    wanted: bool
    lock: Any = None
    uid: int = 0
    making: str = ""


class RootDocument(msgspec.Struct, frozen=True):
    """What all nodes agree on. ``version`` goes up with every change, ``epoch`` with every change of the homes.

    ``settled`` is an epoch that nobody acts below any more, as whoever changed the map last knew it. ``removed`` are
    nodes, with the incarnation each had, that an operator took out and that do not come back by themselves. ``secret``
    is what nodes show each other where their operator gave them none: whoever reads it can read all objects anyway.
    """

    format: int
    uuid: str
    created_ns: int
    version: int
    epoch: int
    settled: int
    nodes: Mapping[str, NodeRecord] = {}
    history: tuple[Epoch, ...] = ()
    buckets: Mapping[str, BucketRecord] = {}
    etls: Mapping[str, EtlRecord] = {}
    settings: Mapping[str, Any] = {}
    removed: Mapping[str, str] = {}
    secret: str = ""


class Lease(msgspec.Struct, frozen=True):
    """What one incarnation of a node says of itself: ``version`` of the root document is adopted by all of it."""

    node: str
    incarnation: str
    counter: int
    version: int
    url: str = ""


def new_root() -> RootDocument:
    """Return the document of a cluster that begins."""
    return RootDocument(FORMAT, secrets.token_hex(8), time.time_ns(), 1, 0, 0, secret=secrets.token_hex(32))


def encode_root(root: RootDocument) -> bytes:
    """Return the bytes of a root document; raises TooLargeError."""
    data = msgspec.json.encode(root)
    if len(data) > ROOT_BYTES_MAX:
        raise TooLargeError(
            f"the cluster's root document would be {len(data)} bytes long",
            hint=f"expected {ROOT_BYTES_MAX} at most: remove buckets or transforms that are not needed",
        )
    return data


class _Format(msgspec.Struct):
    format: int


def decode_root(data: bytes, where: str) -> RootDocument:
    """Read a root document; raises NotSupportedError for one of a later format, BadRequestError for what is none."""
    try:
        found = msgspec.json.decode(data, type=_Format).format
        if found != FORMAT:
            raise NotSupportedError(
                f"{where} has the format {found}, this version of pyaistore knows {FORMAT}",
                hint="upgrade pyaistore on this node",
            )
        return msgspec.json.decode(data, type=RootDocument)
    except msgspec.DecodeError as error:
        raise BadRequestError(
            f"{where} is no root document of a cluster: {error}",
            hint="put back what was there, or choose another --store",
        ) from error


def check_follows(root: RootDocument, known: RootDocument) -> None:
    """Raise ConflictError unless ``root``, asked for when ``known`` was read already, came of it by changes."""
    if root.uuid == known.uuid and (root.version > known.version or root == known):
        return
    raise ConflictError(
        f"{ROOT_KEY} was replaced: version {root.version} of {root.uuid} came after {known.version} of {known.uuid}",
        hint="to go back to an older one, stop all nodes and empty their caches first",
    )


def encode_lease(lease: Lease) -> bytes:
    """Return the bytes of a lease."""
    return msgspec.json.encode(lease)


def decode_lease(data: bytes) -> Lease:
    """Read a lease; raises InternalError."""
    try:
        return msgspec.json.decode(data, type=Lease)
    except msgspec.DecodeError as error:
        raise InternalError(f"a lease cannot be read: {error}") from error


def lease_key(node: str, incarnation: str) -> str:
    """Return the key of a lease, below the base of the store."""
    return f"{LEASES}{node}.{incarnation}"


def with_node(root: RootDocument, node: str, record: NodeRecord | None, settled: int) -> RootDocument:
    """Return the document with one node's record put in, replaced, or (None) taken out.

    If that changes the homes a new epoch begins. ``settled`` is the latest epoch that the caller knows to be settled.
    """
    nodes = dict(root.nodes)
    if record is None:
        nodes.pop(node, None)
    else:
        nodes[node] = record
    settled = max(root.settled, min(settled, root.epoch))
    changed = structs.replace(root, nodes=nodes, settled=settled)
    homes = {name: one.incarnation for name, one in nodes.items() if not one.draining}
    last = root.history[-1].homes if root.history else {}
    if set(homes) == set(last):
        # A node that started again: the same homes, and its lease is now another one.
        history = (*root.history[:-1], Epoch(root.epoch, homes)) if homes else root.history
        return structs.replace(changed, history=history)
    history = (*root.history, Epoch(root.epoch + 1, homes))
    return structs.replace(changed, epoch=root.epoch + 1, history=history[-HISTORY_MAX:])

"""What `ais serve` can be told, and the bounds of a store: built once and passed down to every process."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal, get_args

import msgspec

from .errors import BadRequestError
from .fallbacks import usable_cores

DEFAULT_PORT = 8080
DEFAULT_LEASE_SECONDS = 30.0
# Guessed: longer than the pause between two epochs of a small model. A worker that comes back costs some milliseconds,
# one that stays the memory that it does not share.
DEFAULT_ETL_IDLE_SECONDS = 60.0
Durability = Literal["default", "durable"]
DURABILITIES: tuple[Durability, ...] = get_args(Durability)
_RUNTIME_PREFIX = "ais-run-"
#: Names the data directory of the store whose runtime directory it is.
_OWNER = "owner"
SOCKET_PATH_BYTES_MAX = 107  # sun_path of Linux without its last byte
_SOCKET_NAME_BYTES = len("/etl-12345678-123456-123456.sock")
RUNTIME_PATH_BYTES = len(f"/{_RUNTIME_PREFIX}12345678") + _SOCKET_NAME_BYTES  #: what is below the temporary directory


def default_data_directory(environ: Mapping[str, str] = os.environ) -> str:
    """Return where `ais serve` keeps its data when it is not told: $AIS_DATA, else the XDG data directory."""
    if environ.get("AIS_DATA"):
        return os.path.abspath(environ["AIS_DATA"])
    home = environ.get("XDG_DATA_HOME") or os.path.join(os.path.expanduser("~"), ".local", "share")
    return os.path.join(home, "pyaistore")


class Secret(str):
    """Text that must not show in logs, tracebacks or reprs."""

    def __repr__(self) -> str:
        return "Secret('***')"


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of what the store accepts and holds; sizes in bytes, times in seconds."""

    # Below this an object is read whole and sent as one message; above it streams in pieces of this size.
    # Measured: 1 MiB pieces, read one ahead, move 100 MB as fast as a file reply and with flat memory.
    piece_bytes: int = 1 << 20
    # Larger inputs of a transform go through an unlinked file instead of memory.
    memfd_input_bytes_max: int = 64 << 20
    # Control messages; an ETL's code and dependencies travel in one.
    control_body_bytes_max: int = 16 << 20
    # Copies of objects in the memory of one HTTP worker that wait for a transform worker or are with one.
    etl_input_bytes_max: int = 1 << 30
    # Requests that may wait for a transform worker before the answer is "busy, come again".
    etl_queue: int = 512
    # A worker of a transform with nothing to do ends after so long, or twice that.
    etl_idle_seconds: float = DEFAULT_ETL_IDLE_SECONDS
    # Transforms of one batch request that are under way at once.
    batch_window: int = 32
    # No more objects of one batch request are taken up while those that are have so many bytes together.
    batch_window_bytes: int = 64 << 20
    # How long a read waits for an ETL that is being made ready, and for a free worker.
    etl_ready_wait_seconds: float = 60.0
    etl_queue_wait_seconds: float = 120.0
    # How fast the scrubber reads, and how often it begins a pass over all objects. Guessed: a tenth of what a slow disk
    # can read, and 80 TB a month.
    scrub_bytes_per_second: int = 32 << 20
    scrub_period_seconds: float = 30 * 86_400.0
    # A pass that somebody asked for and waits for.
    scrub_now_bytes_per_second: int = 256 << 20
    list_page_max: int = 10_000
    # Connections of one HTTP worker, less where the system allows fewer descriptors; more wait to be accepted. Each
    # idle one costs 15 KB. Derived: the data loaders of a large training job, ten times.
    connections_per_worker: int = 16_384
    # Time for the headers of a request to be whole, counted from the end of the reply before them: an idle connection
    # is closed after this, and one that sends its headers forever. As long as web servers of the field wait.
    header_seconds: float = 60.0
    # No byte of a request body for so long: 408. As long as clients of the field wait for a store.
    body_stall_seconds: float = 30.0
    # A client that takes nothing of its reply for so long loses its connection.
    reply_stall_seconds: float = 30.0
    # Requests under way in one HTTP worker before the answer is "busy, come again"; reads from memory do not count.
    # Derived: what may wait for a transform, and as many others.
    requests_max: int = 1024
    # Memory of one HTTP worker for request bodies that are being read: a small object's whole, a piece of a large one.
    # Derived: 256 uploads at once, more than any disk is quicker with.
    body_bytes_max: int = 256 << 20
    # Memory of one HTTP worker for replies that are sent in pieces: when it gets short, pieces get smaller. Derived:
    # ten readers at once have whole pieces, and hundreds that read slowly hold 450 KiB each beyond it.
    reply_bytes_max: int = 128 << 20
    io_threads: int = 8
    # A request whose reply begins later than this is logged. A transform is expected to take a second, an upload more.
    slow_request_seconds: float = 10.0


def parse_limits(texts: Iterable[str]) -> Limits:
    """Return the limits with what ``texts`` change, each ``name=number``; raises BadRequestError."""
    kinds: dict[str, type[int] | type[float]] = {
        one.name: float if isinstance(one.default, float) else int for one in fields(Limits)
    }
    changes: dict[str, Any] = {}
    for text in texts:
        name, _, number = text.partition("=")
        if name not in kinds:
            raise BadRequestError(f"no such limit: {name!r}", hint="expected one of: " + ", ".join(sorted(kinds)))
        try:
            changes[name] = kinds[name](number)
        except ValueError as error:
            raise BadRequestError(f"limit {text!r}: {number!r} is no {kinds[name].__name__}") from error
        if not 0 < changes[name] < float("inf"):
            raise BadRequestError(f"limit {text!r} must be more than 0")
    return Limits(**changes)


@dataclass(frozen=True, slots=True)
class ServeSettings:
    """What `ais serve` was asked to do, after defaults, environment and flags."""

    data: str
    host: str = "127.0.0.1"
    port: int = DEFAULT_PORT
    workers: int = 0
    token: str = ""
    insecure: bool = False
    allowed_hosts: tuple[str, ...] = ()
    # Directories to spread objects over, beside the data directory; those that are new are attached.
    mountpaths: tuple[str, ...] = ()
    log_level: str = "warning"
    log_format: str = "text"
    access_log: bool = False
    #: "default": safe against the kill of any process, a power cut may cost the last second. "durable": synced before
    #: the reply.
    durability: Durability = "default"
    limits: Limits = field(default_factory=Limits)
    #: Where the objects of a cluster are (``s3://lake/ais``); "" for a store of one machine. ``cache`` is then the
    #: directory of this node's copies, and ``data`` a part of it; ``cache_size`` bounds it (``80%``, ``500GiB``).
    store: str = ""
    cache: str = ""
    cache_size: str = "80%"
    #: What the store was found to be able to do at the start, by the names of ``Capabilities``.
    store_capabilities: Mapping[str, Any] = field(default_factory=dict)
    #: How much of transforms' results may be kept for being read again (``5%`` of the disk, ``100GiB``); 0 for nothing.
    transform_cache: str = "5%"
    #: The URL under which other nodes and clients reach this one; "" for the address it listens on.
    advertise: str = ""
    #: What all nodes of a cluster know and nobody else; empty where there is no cluster.
    cluster_secret: str = ""
    #: The program that runs transforms that are images; "" for podman or docker, whichever answers.
    container_engine: str = ""
    #: How long a node that says nothing counts as there; 0 for as long as its cluster has it.
    lease_seconds: float = DEFAULT_LEASE_SECONDS

    @property
    def worker_count(self) -> int:
        """HTTP worker processes: as asked, or one per core this process may use, at least two."""
        return self.workers or max(2, usable_cores())


@dataclass(frozen=True, slots=True)
class ProcessSettings:
    """What the supervisor tells each of its children: the settings, and what only this run knows.

    ``runtime`` is a private directory for sockets, removed when the store stops.
    """

    serve: ServeSettings
    runtime: str
    node_id: str
    started_ns: int
    port: int

    def encode(self) -> bytes:
        """Return the settings as they are written to a child's standard input."""
        return msgspec.json.encode(asdict(self), enc_hook=str)  # Secret, which msgspec does not take for text

    @classmethod
    def decode(cls, data: bytes) -> ProcessSettings:
        """Read what ``encode`` wrote."""
        return msgspec.json.decode(data, type=cls)

    @property
    def spool(self) -> str:
        """Directory for the inputs of transforms that are too large for memory."""
        return os.path.join(self.serve.data, "spool")

    @property
    def url(self) -> str:
        """Where other nodes and clients reach this one."""
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.serve.host, self.serve.host)
        return self.serve.advertise or f"http://{f'[{host}]' if ':' in host else host}:{self.port}"

    @property
    def target_id(self) -> str:
        """The node's id on the map of a cluster, as the wire writes ids of targets."""
        return f"t{self.node_id}"

    @property
    def fence(self) -> str:
        """Path of the shared mapping that says until when this node may act (server/node/fence.py)."""
        return os.path.join(self.runtime, "fence")

    @property
    def jobs_socket(self) -> str:
        """Path of the Unix socket on which the controller hands out the work of jobs."""
        return os.path.join(self.runtime, "jobs.sock")

    @property
    def controller_socket(self) -> str:
        """Path of the controller's Unix socket."""
        return os.path.join(self.runtime, "controller.sock")


def make_runtime_directory(data: str) -> str:
    """Create the private directory for sockets, and remove the one that a killed store of ``data`` left.

    A copy of a data directory names that of the store it was copied from, which may run, so each says whose it is.
    It lies in the system's temporary directory: a socket's path may have 107 bytes only. The caller owns ``data``.
    """
    note = os.path.join(data, "runtime")
    try:
        with open(note, encoding="utf-8") as file:
            left = file.read()
        ours = os.path.basename(left).startswith(_RUNTIME_PREFIX) and os.stat(left).st_uid == os.geteuid()
        if ours and _owner_of(left) == _identity(data):
            shutil.rmtree(left, ignore_errors=True)
    except FileNotFoundError:
        pass
    path = tempfile.mkdtemp(prefix=_RUNTIME_PREFIX)
    if len(os.fsencode(path)) + _SOCKET_NAME_BYTES > SOCKET_PATH_BYTES_MAX:
        os.rmdir(path)
        raise BadRequestError(
            f"the directory for temporary files, {os.path.dirname(path)}, is too long a path for sockets",
            hint="set TMPDIR to a shorter one, such as /tmp",
        )
    with open(os.path.join(path, _OWNER), "w", encoding="utf-8") as file:
        file.write(_identity(data))
    with open(note, "w", encoding="utf-8") as file:
        file.write(path)
    return path


def _identity(directory: str) -> str:
    """Return what tells a directory from its copies."""
    found = os.stat(directory)
    return f"{found.st_dev} {found.st_ino}"


def _owner_of(runtime: str) -> str:
    with open(os.path.join(runtime, _OWNER), encoding="utf-8") as file:
        return file.read()

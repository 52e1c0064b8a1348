"""A cluster on this machine: an object store and nodes over it, each in processes of its own."""

from __future__ import annotations

import fcntl
import os
import secrets
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from ..errors import AisError, ConflictError
from ..fallbacks import usable_cores
from .node import LocalNode, poll
from .ports import free_block, is_free
from .weed import BUCKET, Weed

#: Of the disk, for all nodes' copies together: the store's objects are on it too.
_CACHES_PERCENT = 40


class Place(NamedTuple):
    """Where a process runs and listens: an address, and the command that takes it there (none: here)."""

    host: str = "127.0.0.1"
    through: tuple[str, ...] = ()


def _here(name: str) -> Place:
    return Place()


class LocalCluster:
    """An object store (`weed`) and ``nodes`` nodes, kept below ``directory``; without one, in a temporary directory.

    Nodes are numbered from 1. With ``first_port`` node N listens on ``first_port`` + N - 1, else on a free port; a node
    that is started again is found where it was. ``lease_seconds`` is how long a dead node is waited for (None: 30).
    ``arguments`` are given to each `ais serve`, ``environment`` is added to this process's own. ``place`` says where
    the store ("store") and each node ("node1") runs. ``store`` is a running `weed` to use instead of one of its own,
    with the URL in it to be the cluster's; it stays when the cluster stops.

    >>> with LocalCluster() as cluster:  # doctest: +SKIP
    ...     client = aistore.Client(cluster.node(1).endpoint)
    """

    def __init__(
        self,
        nodes: int = 3,
        directory: str | None = None,
        *,
        first_port: int = 0,
        lease_seconds: float | None = None,
        arguments: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
        place: Callable[[str], Place] = _here,
        store: tuple[Weed, str] | None = None,
    ) -> None:
        self._temporary = directory is None
        self.directory = os.path.abspath(directory or tempfile.mkdtemp(prefix="ais-cluster-"))
        self._count = nodes
        self._first_port = first_port
        lease = () if lease_seconds is None else ("--lease", f"{lease_seconds:g}")
        self._arguments = (*lease, *arguments)
        self._environment = {**os.environ, **(environment or {})}
        self._place = place
        self._ownership: int | None = None
        self._own_store = store is None
        if store is not None:
            self.weed, self.store_url = store
        else:
            where = place("store")
            self.weed = Weed(os.path.join(self.directory, "store"), host=where.host, through=where.through)
            self.store_url = f"s3://{BUCKET}/ais"
        self.nodes: dict[int, LocalNode] = {}

    @property
    def environment(self) -> dict[str, str]:
        """What a node needs in its environment: how to reach the store, the cluster's secret."""
        return {**self._environment, **self.weed.environment, "AIS_CLUSTER_SECRET": self._secret()}

    def node(self, number: int) -> LocalNode:
        """Return node ``number``."""
        return self.nodes[number]

    @property
    def running(self) -> list[LocalNode]:
        """The nodes that run."""
        return [node for node in self.nodes.values() if node.running]

    def start(self) -> LocalCluster:
        """Start the store and all nodes and wait until they serve; raises AisError, and nothing is left then."""
        try:
            self._acquire()
            self._check_ports()
            if self._own_store:
                self.weed.start()
            for number in range(1, self._count + 1):
                self._make(number).begin()
            for node in self.nodes.values():
                node.wait_ready()
            self._write_environment()
        except BaseException:
            self.stop()
            raise
        return self

    def add(self) -> LocalNode:
        """Start one node more and wait until it serves."""
        return self._make(max(self.nodes, default=0) + 1).start()

    def _make(self, number: int) -> LocalNode:
        place = self._place(f"node{number}")
        directory = os.path.join(self.directory, f"node{number}")
        port = self._first_port + number - 1 if self._first_port else free_block(1)
        workers = max(2, usable_cores() // self._count)  # HTTP workers: together as many as one node would have
        arguments = ["--host", place.host, "--port", str(port), "--workers", str(workers)]
        arguments += ["--cache-size", f"{_CACHES_PERCENT // self._count}%"]
        arguments += [*self._storage(directory), *self._arguments]
        if place.host != "127.0.0.1":
            arguments.append("--insecure")
        node = LocalNode(number, arguments, directory=directory, environment=self.environment, through=place.through)
        self.nodes[number] = node
        return node

    def _storage(self, directory: str) -> list[str]:
        return ["--store", self.store_url, "--cache", os.path.join(directory, "cache")]

    def _check_ports(self) -> None:
        """Raise ConflictError before anything is started if a node's port is taken."""
        for port in range(self._first_port, self._first_port + self._count) if self._first_port else ():
            if not is_free(port):
                raise ConflictError(
                    f"port {port} is in use", hint="choose others with --port: each node takes the next (0: any free)"
                )

    def _acquire(self) -> None:
        """Own the directory; raises ConflictError that names who does."""
        os.makedirs(self.directory, exist_ok=True)
        known = {"lock", "secret", "store", "environment"}
        strange = [name for name in os.listdir(self.directory) if name not in known and not name.startswith("node")]
        if strange:
            raise ConflictError(
                f"{self.directory} holds other things than a cluster: {', '.join(sorted(strange)[:3])}",
                hint="choose an empty or new directory",
            )
        descriptor = os.open(os.path.join(self.directory, "lock"), os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = os.pread(descriptor, 100, 0).decode(errors="replace")
            os.close(descriptor)
            raise ConflictError(
                f"{self.directory} is in use by another cluster (process {owner})",
                hint="stop it, or choose another directory with --dir",
            ) from None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, str(os.getpid()).encode(), 0)
        self._ownership = descriptor

    @property
    def environment_path(self) -> str:
        """A file for a shell to read: with it, further nodes and other S3 programs find the store."""
        return os.path.join(self.directory, "environment")

    def _write_environment(self) -> None:
        variables = {
            **self.weed.environment, "AIS_CLUSTER_SECRET": self._secret(), "AIS_ENDPOINT": self.nodes[1].endpoint,
        }  # fmt: skip
        descriptor = os.open(self.environment_path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with open(descriptor, "w", encoding="utf-8") as file:
            file.writelines(f"export {name}={value}\n" for name, value in variables.items())

    def _secret(self) -> str:
        """Return what nodes prove to one another that they belong together with; made once, kept in the directory."""
        path = os.path.join(self.directory, "secret")
        try:
            with open(path, encoding="ascii") as file:
                return file.read()
        except FileNotFoundError:
            secret = secrets.token_hex(20)
            with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="ascii") as file:
                file.write(secret)
            return secret

    def stop(self) -> None:
        """Stop the nodes, then the store; remove the directory if it is temporary. May be called again."""
        for node in self.running:
            node.begin_stop()
        for node in self.nodes.values():
            node.stop()
        if self._own_store:
            self.weed.stop()
        if self._ownership is not None:
            os.close(self._ownership)
            self._ownership = None
        if self._temporary:
            shutil.rmtree(self.directory, ignore_errors=True)

    def __enter__(self) -> LocalCluster:
        return self if self._ownership is not None else self.start()

    def __exit__(self, *error: object) -> None:
        self.stop()

    # What nodes say of the cluster.

    def status(self, number: int) -> dict[str, Any]:
        """Return what node ``number`` says of itself as a node (``cluster`` of its node_status); raises OSError."""
        found: dict[str, Any] = self.nodes[number].ask("node_status")["cluster"]
        return found

    def map(self, number: int) -> tuple[int, frozenset[str]]:
        """Return the version of the map that node ``number`` has, and the ids of its targets; raises OSError."""
        smap = self.nodes[number].ask("smap")
        return int(smap["version"]), frozenset(smap["tmap"])

    def wait_settled(self, timeout_seconds: float = 60.0) -> None:
        """Wait until all running nodes have one map, of exactly them, and it is settled; raises TimeoutError."""
        ids = frozenset(node.id for node in self.running)

        def settled() -> bool:
            said = [(self.status(node.number), self.map(node.number)) for node in self.running]
            versions = {cluster["version"] for cluster, _ in said}
            return len(versions) == 1 and all(
                members == ids and cluster["settled"] == cluster["epoch"] for cluster, (_, members) in said
            )

        self.wait_until(settled, f"the map of nodes {sorted(ids)} to be settled", timeout_seconds)

    def wait_until(self, true: Callable[[], bool], what: str, timeout_seconds: float = 60.0) -> None:
        """Ask until ``true`` is; an OSError is "not yet". Raises TimeoutError that names ``what``, or AisError.

        The latter when a node ended meanwhile that was running: its log is in the message.
        """
        watched = self.running

        def look() -> bool:
            for node in watched:
                if node._process is not None and node.process.ended:
                    raise AisError(f"node {node.number} ended by itself; the end of its log:\n{node.log()[-2000:]}")
            return true()

        poll(timeout_seconds, what, look)

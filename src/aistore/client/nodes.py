"""The nodes of a cluster: what each says of itself, and taking one out."""

from __future__ import annotations

import re
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import msgspec
from msgspec import structs

from ..errors import AisError
from ..wire import headers
from ..wire.messages import Action
from .cluster import ClusterInfo, Node, cluster_info
from .foreign import reading_reply
from .retry import RetryPolicy
from .transport import Request, Transport

_AT_A_TIME = 16
_ANSWER_SECONDS = 10.0


class NodeStatus(msgspec.Struct, frozen=True, rename={"others": "states"}):
    """What a node says of itself: ``error`` is why it did not, and the rest is empty then.

    ``state`` is what the node that was asked first thinks of it: ``online``, ``draining``, ``late``, ``lapsed``.
    ``epoch`` is that of its map, ``settled`` the latest that all nodes have; the two are the same when nothing is
    changing. Sizes are in bytes, times in seconds. ``others`` is what it thinks of each node.
    """

    id: str = ""
    url: str = ""
    state: str = ""
    version: int = 0
    epoch: int = 0
    settled: int = 0
    cached_objects: int = 0
    cached_bytes: int = 0
    cache_capacity: int = 0
    lease_seconds_left: float = 0.0
    load: float = 0.0
    store: str = ""
    lease_seconds: float = 0.0
    renew_seconds: float = 0.0
    poll_seconds: float = 0.0
    others: Mapping[str, str] = {}
    error: str = ""


class _Answer(msgspec.Struct):
    cluster: NodeStatus | None = None


class Nodes:
    """The nodes of the cluster that the endpoint belongs to."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def statuses(self) -> list[NodeStatus]:
        """Ask every node what it says of itself, all at a time, once; empty for a store that is one machine.

        In the order of their addresses. A node that does not answer is listed with why.
        """
        return self.of(cluster_info(self._transport))

    def of(self, cluster: ClusterInfo) -> list[NodeStatus]:
        """Return `statuses` of the nodes of a map that was fetched before."""
        targets = sorted(
            (node for node in cluster.nodes if node.type == "target"), key=lambda node: _by_place(node.url)
        )
        once = replace(self._transport.settings, retry=RetryPolicy(attempts_max=1, busy_seconds_max=0.0))
        transport = Transport(self._transport.endpoint, once)  # who looks wants to know now
        try:
            with ThreadPoolExecutor(_AT_A_TIME) as threads:
                found = list(threads.map(lambda node: _status(transport, node), targets))
        finally:
            transport.close()
        if any(status is None for status in found):
            return []
        known = [status for status in found if status is not None]
        asked = next((status.others for status in known if not status.error), {})
        return [structs.replace(status, state=asked.get(status.id, status.state)) for status in known]

    def drain(self, node: str) -> None:
        """Make node ``node`` home to no object; it goes on answering. Returns when all nodes know."""
        self._act("start-maintenance", node)

    def undrain(self, node: str) -> None:
        """Make a drained node home to objects again."""
        self._act("stop-maintenance", node)

    def remove(self, node: str) -> None:
        """Take a node out of the cluster; it is refused until it is started again."""
        self._act("decommission-node", node)

    def _act(self, action: str, node: str) -> None:
        body = msgspec.json.encode(Action(action, value={"sid": node}))
        self._transport.call(Request("PUT", "/v1/cluster", headers={"Content-Type": "application/json"}, body=body))


def _by_place(url: str) -> tuple[str | int, ...]:
    """Return what sorts URLs as a person would: by host, and port 9 before port 10."""
    return tuple(int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", url))


def _status(transport: Transport, node: Node) -> NodeStatus | None:
    """Ask one node through the one at the endpoint; None from a store that is one machine."""
    request = Request(
        "GET", "/v1/reverse/daemon", query={"what": "node_status"}, headers={headers.NODE_ID: node.id},
        read_timeout_seconds=_ANSWER_SECONDS,
    )  # fmt: skip
    try:
        body = transport.call(request)
        with reading_reply(transport.endpoint):
            said = msgspec.json.decode(body, type=_Answer).cluster
    except AisError as error:
        return NodeStatus(node.id, node.url, error=error.message)
    if said is None or not said.state:
        return None
    return structs.replace(said, id=node.id, url=node.url)

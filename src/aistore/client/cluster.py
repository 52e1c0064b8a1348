"""The nodes of the store."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..wire import headers
from .foreign import reading_reply
from .transport import Request, Transport


@dataclass(frozen=True, slots=True)
class Node:
    """One node: its id, its role (``proxy`` or ``target``) and where it answers."""

    id: str
    type: str
    url: str


@dataclass(frozen=True, slots=True)
class ClusterInfo:
    """The cluster map: its nodes by role and id, the primary's id, its uuid and version."""

    uuid: str
    version: str
    primary: str
    nodes: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class MountpathUse:
    """How full a mountpath is, in bytes."""

    path: str
    used_bytes: int
    available_bytes: int


@dataclass(frozen=True, slots=True)
class NodePerformance:
    """What a target counted since the store started, by the field's names (``get.n``, ``put.size``), and its disks."""

    node: str
    counters: dict[str, int]
    mountpaths: tuple[MountpathUse, ...]


def node_performance(transport: Transport) -> list[NodePerformance]:
    """Ask every target what it has counted, and how full it is."""
    found = []
    for node in cluster_info(transport).nodes:
        if node.type != "target":
            continue
        request = Request(
            "GET", "/v1/reverse/daemon", query={"what": "node_status"}, headers={headers.NODE_ID: node.id}
        )  # fmt: skip
        status = transport.fetch(request, dict[str, Any])
        with reading_reply(transport.endpoint):
            found.append(_performance(node.id, status))
    return found


def _performance(node: str, status: dict[str, Any]) -> NodePerformance:
    return NodePerformance(
        node,
        {name: int(value["v"]) for name, value in (status.get("tracker") or {}).items()},
        tuple(
            MountpathUse(path, int(use["used"]), int(use["avail"]))
            for path, use in sorted(((status.get("capacity") or {}).get("mountpaths") or {}).items())
        ),
    )


def fetch_cluster_map(transport: Transport) -> dict[str, Any]:
    """Return the cluster map as the wire has it."""
    return transport.fetch(Request("GET", "/v1/daemon", query={"what": "smap"}), dict[str, Any])


def cluster_info(transport: Transport) -> ClusterInfo:
    """Return the cluster map as values."""
    smap = fetch_cluster_map(transport)
    with reading_reply(transport.endpoint):
        return _cluster_of(smap)


def _cluster_of(smap: dict[str, Any]) -> ClusterInfo:
    nodes = [
        Node(str(node.get("daemon_id", "")), kind, str(node.get("public_net", {}).get("direct_url", "")))
        for kind, key in (("proxy", "pmap"), ("target", "tmap"))
        for _, node in sorted((smap.get(key) or {}).items())
    ]
    primary = str((smap.get("proxy_si") or {}).get("daemon_id", ""))
    return ClusterInfo(str(smap.get("uuid", "")), str(smap.get("version", "")), primary, tuple(nodes))

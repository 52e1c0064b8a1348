"""The nodes of the store."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec

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


def fetch_cluster_map(transport: Transport) -> dict[str, Any]:
    """Return the cluster map as the wire has it."""
    body = transport.call(Request("GET", "/v1/daemon", query={"what": "smap"}))
    found: dict[str, Any] = msgspec.json.decode(body, type=dict[str, Any])
    return found


def cluster_info(transport: Transport) -> ClusterInfo:
    """Return the cluster map as values."""
    smap = fetch_cluster_map(transport)
    nodes = [
        Node(str(node.get("daemon_id", "")), kind, str(node.get("public_net", {}).get("direct_url", "")))
        for kind, key in (("proxy", "pmap"), ("target", "tmap"))
        for _, node in sorted((smap.get(key) or {}).items())
    ]
    primary = str((smap.get("proxy_si") or {}).get("daemon_id", ""))
    return ClusterInfo(str(smap.get("uuid", "")), str(smap.get("version", "")), primary, tuple(nodes))

"""The cluster map as the client uses it: which node is an object's home, and where that node answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import AisError
from ..model.rendezvous import digest, home
from .endpoint import FROM_MAP, Endpoint, parse_endpoint

#: Bits of a node's ``flags`` that take it out of the choice of homes: maintenance, decommissioning.
_LEAVING = 4 | 8


@dataclass(frozen=True, slots=True)
class ClusterMap:
    """One version of the map: the digests of the nodes that objects have their homes on, and their addresses.

    A node that cannot be gone to (an address that is none, or no TLS where the endpoint has it) has no address here.
    """

    uuid: str
    version: int
    digests: Mapping[str, int]
    endpoints: Mapping[str, Endpoint]

    def home(self, uname: str) -> str:
        """Return the id of the node that is the home of an object."""
        return home(self.digests, uname)


def read_cluster_map(smap: Mapping[str, Any], asked: Endpoint) -> ClusterMap:
    """Read the wire's map as told by ``asked``; for what is no map raises what reading it comes to."""
    digests, endpoints = {}, {}
    for node, record in sorted(smap["tmap"].items()):
        if int(record.get("flags") or 0) & _LEAVING:
            continue
        digests[node] = int(record.get("id_digest") or digest(node))
        try:
            found = parse_endpoint(str((record.get("public_net") or {}).get("direct_url") or ""), FROM_MAP)
        except AisError:
            continue
        if (
            found.scheme == asked.scheme or asked.scheme == "http"
        ):  # a token is never sent in the clear because of a map
            endpoints[node] = found
    return ClusterMap(str(smap.get("uuid") or ""), int(smap.get("version") or 0), digests, endpoints)

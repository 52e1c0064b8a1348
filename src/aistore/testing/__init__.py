"""For the project's tests and for its users' tests: real stores and clusters in real processes."""

from ..laptop.cluster import LocalCluster
from ..laptop.node import LocalNode
from .network import Network
from .store import StoreProcess

__all__ = ["LocalCluster", "LocalNode", "Network", "StoreProcess"]

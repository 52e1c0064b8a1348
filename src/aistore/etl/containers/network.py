"""How a container's network is reached: from inside, or by a port that the engine publishes."""

from __future__ import annotations

import os

from ...errors import EtlInitError
from ...fallbacks import lacks
from ...model.etl import EtlSpec, Network
from .engine import Engine


def choose_network(spec: EtlSpec, engine: Engine) -> bool:
    """Return whether the store enters the container's network, else its port is published on this machine's loopback.

    Entering is what root can do with containers of this machine; then the container needs no network at all. Raises
    EtlInitError where a container without a network could not be reached.
    """
    addresses = [os.environ.get(name, "unix://") for name in ("DOCKER_HOST", "CONTAINER_HOST")]
    remote = not all(address.startswith(("unix://", "fd://")) for address in addresses)
    enters = os.geteuid() == 0 and not (remote or lacks("namespaces") or lacks("proc"))
    if not enters and spec.network is Network.NONE:
        raise EtlInitError(
            f"etl job {spec.name}: a container without a network can be reached only where the store is root on the "
            f"machine of {engine.name}",
            hint="start the store as root, or let the container have the network of its engine (network: full)",
        )
    return enters

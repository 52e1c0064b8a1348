"""Calls from one node to another: HTTP/1.1 on connections that are kept, signed with the cluster's secret.

``connection`` is one socket and the reply on it, read by the pure machine in ``wire/http1.py``; ``pool`` keeps the
connections to one node and remembers that it did not answer; ``calls`` is what the rest of the server uses.
"""

from __future__ import annotations

from .calls import Body, Peers
from .pool import PeerLimits
from .reply import PeerReply

__all__ = ["Body", "PeerLimits", "PeerReply", "Peers"]

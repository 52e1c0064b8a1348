"""The disks of the store."""

from __future__ import annotations

import msgspec

from ..wire.messages import Action, MountpathList, MountpathState
from .transport import Request, Transport

_PATH = "/v1/daemon/mountpaths"


class Storage:
    """The mountpaths of a store: directories, each best on a disk of its own, over which objects are spread.

    Paths are those of the machine that the store runs on.
    """

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def mountpaths(self) -> list[MountpathState]:
        """Return all mountpaths with their states, in the order in which they came."""
        request = Request("GET", "/v1/daemon", query={"what": "mountpaths"})
        return self._transport.fetch(request, MountpathList).mountpaths

    def attach(self, path: str) -> None:
        """Add an empty directory; new objects spread over it. Raises ConflictError for one that is not empty."""
        self._act("PUT", "attach-mp", path)

    def detach(self, path: str, *, force: bool = False) -> None:
        """Take a mountpath out; raises ConflictError if objects are on it, unless ``force`` gives them up."""
        self._act("DELETE", "detach-mp", path, {"force": "true"} if force else {})

    def disable(self, path: str) -> None:
        """Make the objects of a mountpath unavailable, so that its disk can be unmounted."""
        self._act("POST", "disable-mp", path)

    def enable(self, path: str) -> None:
        """Use a mountpath again that was disabled."""
        self._act("POST", "enable-mp", path)

    def _act(self, method: str, action: str, path: str, query: dict[str, str] | None = None) -> None:
        body = msgspec.json.encode(Action(action, value=path))
        headers = {"Content-Type": "application/json"}
        self._transport.call(Request(method, _PATH, query=query or {}, headers=headers, body=body))

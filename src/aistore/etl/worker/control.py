"""The connection of an ETL's parent to the controller."""

import json
import os
import socket
from typing import Any, Dict, Optional

from .failure import encode
from .messages import Messages, descriptors_of

_MESSAGE_BYTES_MAX = 256 << 10


class Control:
    """The socket to the controller; what it does not read in time is dropped rather than waited for."""

    def __init__(self, fd: int) -> None:
        self._socket = socket.socket(fileno=fd)
        self._messages = Messages(self._socket)
        os.set_inheritable(fd, False)

    def fileno(self) -> int:
        """Return the descriptor, for poll."""
        return self._socket.fileno()

    def send(self, event: str, **fields: Any) -> None:
        """Send an event."""
        try:
            flags = socket.MSG_DONTWAIT if event == "exited" else 0
            self._messages.send(encode(dict(fields, event=event)), flags=flags)
        except BlockingIOError:
            pass
        except OSError:
            os._exit(0)  # the controller has gone

    def receive(self) -> Optional[Dict[str, Any]]:
        """Return the next message, with ``code`` filled in from ``code_fd``; None at the end of the connection."""
        try:
            data, ancillary = self._messages.receive(_MESSAGE_BYTES_MAX, socket.CMSG_SPACE(4))
        except ConnectionResetError:
            return None
        if not data:
            return None
        message: Dict[str, Any] = json.loads(data.decode("utf-8"))
        for fd in descriptors_of(ancillary):
            with open(fd, "rb") as file:
                file.seek(0)
                message["code"] = file.read().decode("utf-8")
        return message

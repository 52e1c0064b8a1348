"""Doors into the network of a transform that serves: sockets made there are given out to the store's processes.

A socket belongs to the network that it was made in, whoever holds it, and the guard is in the transform's. At one Unix
socket it gives out new TCP sockets, which the store connects to the transform's port; at the other, the one socket on
which the transform's calls back to the store are listened for. One byte comes with each.
"""

import array
import os
import socket
from typing import Any, Dict, List

_AT_ONCE = 16  # connections at a door before the guard looks after its command again
_BACKLOG = 128
LOOPBACK = "127.0.0.1"


class PortTakenError(Exception):
    """Somebody else listens at the port that the transform was to have."""


class Doors:
    """The Unix sockets that the configuration names, and what is given out at them.

    ``port`` is where the transform is to listen; ``calls_port`` where it finds the store.
    """

    def __init__(self, config: Dict[str, Any], own_network: bool) -> None:
        """Listen for the transform's calls. Raises PortTakenError, where others could have taken its port."""
        self._fds = [int(fd) for fd in (config["sockets_fd"], config["calls_fd"])]
        for fd in self._fds:
            os.set_inheritable(fd, False)
        self._doors = {fd: socket.socket(fileno=fd) for fd in self._fds}
        for door in self._doors.values():
            door.setblocking(False)
        self.calls = _listening(int(config["calls_port"]) if own_network else 0)
        self.calls_port = int(self.calls.getsockname()[1])
        self.port = int(config["port"]) if own_network else _free_port(int(config["shared_port"]))

    def filenos(self) -> List[int]:
        """Return the descriptors of the doors, for poll."""
        return self._fds

    def descriptors(self) -> List[int]:
        """Return every descriptor that has to stay open."""
        return [*self._fds, self.calls.fileno()]

    def answer(self, fd: int) -> None:
        """Give out what belongs to the door ``fd`` to those who came to it. Never waits."""
        for _ in range(_AT_ONCE):
            try:
                asker = self._doors[fd].accept()[0]
            except OSError:  # nobody more, or no descriptor left for now: they stay in the queue
                return
            with asker:
                try:
                    if fd == self._fds[1]:
                        _give(asker, self.calls)
                    else:
                        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as made:
                            _give(asker, made)
                except OSError:  # it went away, or there are too many on their way: it gets an end instead
                    pass

    def close(self) -> None:
        """Give all of it back, in a process that is not the guard."""
        for door in self._doors.values():
            door.close()
        self.calls.close()


def _give(asker: socket.socket, given: socket.socket) -> None:
    rights = array.array("i", [given.fileno()])
    asker.sendmsg([b"+"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])


def _listening(port: int) -> socket.socket:
    made = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    made.bind((LOOPBACK, port))
    made.listen(_BACKLOG)
    made.setblocking(False)
    return made


def _free_port(wanted: int) -> int:
    """Return ``wanted`` if nobody listens there, for 0 a port where nobody does."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as servers do: not those that are just closing
        try:
            probe.bind((LOOPBACK, wanted))
        except OSError as error:
            raise PortTakenError("port {} is taken on this machine: {}".format(wanted, error.strerror)) from None
        return int(probe.getsockname()[1])

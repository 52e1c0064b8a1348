"""A network switch in a process: machines are network namespaces, and every packet between them passes through here.

Run by path, as root, on Linux, by network.py. Each machine is a namespace whose one device is a TUN device that this
process reads and writes; the machine that it was started on has one too. So a path between any two machines can be cut,
slow or lossy, on any kernel, without tools; and when this process ends, however it does, devices, routes and namespaces
are gone with it, and whatever still runs in one reaches nobody.

Standard input has commands, a line of JSON each; each is answered by a line. Its end ends the switch.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import heapq
import json
import os
import random
import selectors
import socket
import struct
import sys
import time
from typing import Any

_CLONE_NEWNET = 0x4000_0000  # linux/sched.h
_TUNSETIFF = 0x4004_54CA  # linux/if_tun.h
_IFF_TUN, _IFF_NO_PI = 0x1, 0x1000
_SIOCSIFFLAGS, _SIOCSIFADDR, _SIOCSIFNETMASK, _SIOCSIFMTU = 0x8914, 0x8916, 0x891C, 0x8922  # linux/sockios.h
_IFF_UP = 0x1
#: Large, so that few packets carry much: Python moves some 50,000 a second.
_MTU = 32_000
#: Packets under way on slow paths; more are lost, as in any switch.
_WAITING_MAX = 20_000
_BURST = 64


def _switch_namespace(descriptor: int) -> None:
    if ctypes.CDLL(None, use_errno=True).setns(descriptor, _CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns")


def _configure(name: str, address: str = "") -> None:
    """Give a device of the current namespace its address, a /24 around it, and switch it on."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:

        def call(number: int, payload: bytes) -> None:
            fcntl.ioctl(control, number, struct.pack("16s24s", name.encode(), payload))

        if address:
            for number, text in ((_SIOCSIFADDR, address), (_SIOCSIFNETMASK, "255.255.255.0")):
                call(number, struct.pack("HH4s", socket.AF_INET, 0, socket.inet_aton(text)))
            call(_SIOCSIFMTU, struct.pack("i", _MTU))
        call(_SIOCSIFFLAGS, struct.pack("h", _IFF_UP))


def _open_tun(name: str) -> int:
    device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(device, _TUNSETIFF, struct.pack("16sH22s", name.encode(), _IFF_TUN | _IFF_NO_PI, b""))
    return device


class Switch:
    """The machines by number, and how the path from each to each is."""

    def __init__(self, subnet: str, seed: int) -> None:
        self._subnet = subnet
        self._random = random.Random(seed)  # noqa: S311
        self._home = os.open("/proc/self/ns/net", os.O_RDONLY)
        self.devices: dict[int, int] = {}
        self._paths: dict[tuple[int, int], tuple[bool, float, float, float]] = {}
        self._waiting: list[tuple[float, int, int, bytes]] = []
        self._count = 0
        self.passed = self.lost = 0

    def add(self, number: int, host_device: str = "") -> int:
        """Make a machine, or with ``host_device`` join this one; return the descriptor of its namespace."""
        address = f"{self._subnet}.{number}"
        if host_device:
            self.devices[number] = _open_tun(host_device)
            _configure(host_device, address)
            return self._home
        if ctypes.CDLL(None, use_errno=True).unshare(_CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), "unshare")
        try:
            self.devices[number] = _open_tun("net0")
            _configure("lo")
            _configure("net0", address)
            return os.open("/proc/self/ns/net", os.O_RDONLY)
        finally:
            _switch_namespace(self._home)

    def set_path(self, source: int, target: int, cut: bool, delay: float, jitter: float, loss: float) -> None:
        """Set how packets fare from machine ``source`` to ``target``; seconds, and a share of 1."""
        self._paths[source, target] = (cut, delay, jitter, loss)

    def forward(self, source: int) -> None:
        """Take the packets that wait at a machine's device."""
        device = self.devices[source]
        for _ in range(_BURST):
            try:
                packet = os.read(device, 65_535)
            except BlockingIOError:
                return
            if packet[0] >> 4 != 4 or socket.inet_ntoa(packet[16:19] + b"\0")[:-2] != self._subnet:
                continue  # not of this network: multicast, IPv6
            target = packet[19]
            cut, delay, jitter, loss = self._paths.get((source, target), (False, 0.0, 0.0, 0.0))
            if target not in self.devices or cut or (loss and self._random.random() < loss):
                self.lost += 1
            elif delay or jitter:
                self._hold(target, packet, delay + jitter * self._random.random())
            else:
                self._deliver(target, packet)

    def _hold(self, target: int, packet: bytes, seconds: float) -> None:
        if len(self._waiting) >= _WAITING_MAX:
            self.lost += 1
            return
        self._count += 1
        heapq.heappush(self._waiting, (time.monotonic() + seconds, self._count, target, packet))

    def _deliver(self, target: int, packet: bytes) -> None:
        try:
            os.write(self.devices[target], packet)
            self.passed += 1
        except OSError as error:  # its queue is full, or it is switched off
            if error.errno not in (errno.EAGAIN, errno.EIO, errno.EINVAL, errno.ENOBUFS):
                raise
            self.lost += 1

    def deliver_due(self) -> float | None:
        """Deliver held packets whose time has come; return the seconds until the next, None without one."""
        now = time.monotonic()
        while self._waiting and self._waiting[0][0] <= now:
            _, _, target, packet = heapq.heappop(self._waiting)
            self._deliver(target, packet)
        return max(0.0, self._waiting[0][0] - now) if self._waiting else None


def main() -> None:
    """Serve commands and packets until standard input ends."""
    subnet, seed, host_device = sys.argv[1:4]
    switch = Switch(subnet, int(seed))
    selector = selectors.DefaultSelector()
    selector.register(0, selectors.EVENT_READ)
    buffered = b""

    def obey(command: dict[str, Any]) -> dict[str, int]:
        verb = command.pop("do")
        if verb == "add":
            descriptor = switch.add(**command)
            selector.register(switch.devices[command["number"]], selectors.EVENT_READ, command["number"])
            return {"descriptor": descriptor}
        if verb == "path":
            switch.set_path(**command)
        return {"passed": switch.passed, "lost": switch.lost}

    def reply(message: object) -> None:
        os.write(1, json.dumps(message).encode() + b"\n")

    try:
        switch_answer = obey({"do": "add", "number": 1, "host_device": host_device})
    except OSError as error:
        reply({"error": f"{error.strerror} ({type(error).__name__})"})
        return
    reply(switch_answer)
    while True:
        for key, _ in selector.select(switch.deliver_due()):
            if key.fd:
                switch.forward(key.data)
                continue
            piece = os.read(0, 65_536)
            if not piece:
                return
            *lines, buffered = (buffered + piece).split(b"\n")
            for line in lines:
                reply(obey(json.loads(line)))


if __name__ == "__main__":
    main()

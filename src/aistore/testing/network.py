"""A network of machines on this one, for tests of what happens when it is cut, slow or lossy. Linux, root.

>>> with Network() as network, LocalCluster(place=network.place) as cluster:  # doctest: +SKIP
...     network.cut("node1", "store")
"""

from __future__ import annotations

import json
import os
import random
import secrets
import selectors
import shutil
import socket
import subprocess
import sys
from typing import Any

from ..errors import AisError, NotSupportedError
from ..laptop.cluster import Place

_SWITCH = os.path.join(os.path.dirname(__file__), "switch.py")
_ANSWER_SECONDS = 20.0
HOST = "host"  #: The machine that the test itself runs on; it is in the network like the others.


class Network:
    """Machines, each a network namespace with one address, and a switch between them that can be told to misbehave.

    Machines are made when they are first named. What is started in one keeps running when the network is closed, and
    reaches nobody. Loss and jitter are random from ``seed``. Raises NotSupportedError where such a network cannot be.
    """

    def __init__(self, seed: int | None = None) -> None:
        if sys.platform != "linux" or os.geteuid() != 0:
            raise NotSupportedError("networks of namespaces need Linux, and root")
        if shutil.which("nsenter") is None:
            raise NotSupportedError("networks of namespaces need the program nsenter (util-linux)")
        self.seed = random.SystemRandom().randrange(1 << 32) if seed is None else seed
        self._subnet = _unused_subnet()
        self._numbers = {HOST: 1}
        self._places = {HOST: Place(f"{self._subnet}.1")}
        command = [sys.executable, "-I", "-S", _SWITCH, self._subnet, str(self.seed), f"ais{secrets.token_hex(4)}"]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True)
        try:
            self._answer()
        except AisError as error:
            self.close()
            raise NotSupportedError(f"networks of namespaces are refused here: {error.message}") from error

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            line = self._process.stdout.readline() if selector.select(_ANSWER_SECONDS) else b""
        if not line:
            raise AisError("the switch does not answer; its error is above")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise AisError(answer["error"])
        return answer

    def _do(self, verb: str, **values: object) -> dict[str, Any]:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"do": verb, **values}).encode() + b"\n")
        self._process.stdin.flush()
        return self._answer()

    def place(self, name: str) -> Place:
        """Return where machine ``name`` is: its address, and the command that runs another one there."""
        if name not in self._places:
            number = len(self._numbers) + 1
            descriptor = self._do("add", number=number)["descriptor"]
            self._numbers[name] = number
            through = ("nsenter", f"--net=/proc/{self._process.pid}/fd/{descriptor}")
            self._places[name] = Place(f"{self._subnet}.{number}", through)
        return self._places[name]

    def shape(
        self, one: str, other: str, *, delay_seconds: float = 0.0, jitter_seconds: float = 0.0, loss: float = 0.0,
        cut: bool = False, both_ways: bool = True,
    ) -> None:  # fmt: skip
        """Set how packets fare from ``one`` to ``other``, and back: ``loss`` is the share of those that are lost.

        Each takes ``delay_seconds`` and up to ``jitter_seconds`` more. This replaces what was set before.
        """
        for machine in (one, other):
            self.place(machine)
        source, target = self._numbers[one], self._numbers[other]
        for pair in [(source, target), (target, source)][: 2 if both_ways else 1]:
            self._do(
                "path", source=pair[0], target=pair[1], cut=cut, delay=delay_seconds, jitter=jitter_seconds, loss=loss
            )

    def cut(self, one: str, other: str, *, both_ways: bool = True) -> None:
        """Lose every packet from ``one`` to ``other``, and back. Nobody is told, as when a cable is pulled."""
        self.shape(one, other, cut=True, both_ways=both_ways)

    def heal(self, one: str, other: str) -> None:
        """Let packets pass between two machines as if nothing had been."""
        self.shape(one, other)

    def isolate(self, name: str) -> None:
        """Cut a machine off from all others that were named so far, the host included."""
        for other in self._numbers:
            if other != name:
                self.cut(name, other)

    def heal_all(self) -> None:
        """Let all packets pass again."""
        names = list(self._numbers)
        for index, one in enumerate(names):
            for other in names[index + 1 :]:
                self.heal(one, other)

    def counts(self) -> tuple[int, int]:
        """Return how many packets passed and how many were lost so far."""
        answer = self._do("count")
        return answer["passed"], answer["lost"]

    def close(self) -> None:
        """End the network; may be called again."""
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None and not pipe.closed:
                pipe.close()
        self._process.terminate()  # beside the end of its input, of which a forked child may hold a copy
        self._process.wait()

    def __enter__(self) -> Network:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def _unused_subnet() -> str:
    """Return a /24 that this machine has no address in, by its first three numbers."""
    for _ in range(100):
        subnet = f"10.{random.randrange(200, 250)}.{random.randrange(256)}"  # noqa: S311
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            try:
                probe.bind((f"{subnet}.1", 0))
            except OSError:  # not an address of this machine, so not of another such network
                return subnet
    raise AisError("found no unused network address")

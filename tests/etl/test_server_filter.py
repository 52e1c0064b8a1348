"""What the system call filter leaves a transform that is a server, for both machines."""

from __future__ import annotations

import pytest
from test_sandbox_filter import ALLOW, EPERM, MACHINES, answer

from aistore.etl.worker.sandbox import landlock, seccomp

OWN = seccomp.Restrictions(False, True, True, False, seccomp.OWN_NETWORK, True)
CALLS = seccomp.Restrictions(False, True, False, False, seccomp.CALLS_BACK, True)
LISTENS = seccomp.Restrictions(False, False, False, True, seccomp.ONLY_LISTENS, False)
TCP, UDP, MPTCP, FASTOPEN = 6, 17, 262, 0x20000000


@MACHINES
@pytest.mark.parametrize(
    ("name", "arguments", "own", "calls", "listens"),
    [
        ("socket", (2, 1, 0), ALLOW, ALLOW, ALLOW),
        ("socket", (10, 1 | 0x80800, TCP), ALLOW, ALLOW, ALLOW),
        ("socket", (2, 1, MPTCP), ALLOW, EPERM, EPERM),
        ("socket", (2, 2, 0), ALLOW, EPERM, EPERM),
        ("socket", (2, 3, UDP), ALLOW, EPERM, EPERM),
        ("socket", (2, 5, 0), ALLOW, EPERM, EPERM),  # SCTP
        ("socket", (1, 1, 0), ALLOW, EPERM, EPERM),
        ("socket", (16, 3, 0), EPERM, EPERM, EPERM),
        ("socket", (17, 3, 0), EPERM, EPERM, EPERM),
        ("socket", (40, 1, 0), EPERM, EPERM, EPERM),  # to the hypervisor
        ("connect", (5,), ALLOW, ALLOW, EPERM),
        ("bind", (5,), ALLOW, ALLOW, ALLOW),
        ("listen", (5,), ALLOW, ALLOW, ALLOW),
        ("sendto", (5, 0, 0, 0x4000), ALLOW, ALLOW, ALLOW),
        ("sendto", (5, 0, 0, FASTOPEN), ALLOW, EPERM, EPERM),
        ("sendmsg", (5, 0, 0), ALLOW, ALLOW, ALLOW),
        ("sendmsg", (5, 0, FASTOPEN | 0x4000), ALLOW, EPERM, EPERM),
        ("sendmmsg", (5, 0, 1, FASTOPEN), ALLOW, EPERM, EPERM),
        ("fchmod", (5, 0o600), ALLOW, ALLOW, EPERM),
        ("utimensat", (5, 0), ALLOW, ALLOW, EPERM),
        ("fchmodat", (-100, 1), ALLOW, ALLOW, EPERM),
        ("socketpair", (1, 1), ALLOW, ALLOW, ALLOW),
        ("clone", (0x10000000 | 17,), EPERM, EPERM, EPERM),
    ],
)
def test_sockets(machine: str, name: str, arguments: tuple[int, ...], own: int, calls: int, listens: int) -> None:
    assert [answer(each, machine, name, *arguments) for each in (OWN, CALLS, LISTENS)] == [own, calls, listens]


def test_ports_are_restricted_by_landlocks_that_know_them() -> None:
    assert not landlock.restricts_ports(3)
    assert landlock.restricts_ports(4)

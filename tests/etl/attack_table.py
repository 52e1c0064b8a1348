"""Every attack, what is promised on which host, and the table of it in docs/security.md.

``python tests/etl/attack_table.py --write`` renews the table there; a test compares.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, field
from typing import Any

DOCUMENT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "docs", "security.md")
BEGIN, END = "<!-- attacks: made by tests/etl/attack_table.py --write -->", "<!-- end of attacks -->"

PROFILES = ("root", "user", "confined", "none")
ISOLATIONS = ("warm", "fork")
CELLS = tuple(f"{profile}/{isolation}" for profile in PROFILES for isolation in ISOLATIONS)

OFF = frozenset(cell for cell in CELLS if cell.startswith("none/"))
WARM = frozenset(cell for cell in CELLS if cell.endswith("/warm"))
CONFINED = frozenset(cell for cell in CELLS if cell.startswith("confined/"))
NEVER: frozenset[str] = frozenset()

GIB = 1 << 30
MIB = 1 << 20


@dataclass(frozen=True, eq=False)
class Attack:
    """One row.

    ``attack`` is ``module.function`` in tests/etl/attacks, called with ``options``; texts in braces are filled in.
    ``open`` are the cells in which nothing is promised: there it has to work. ``how`` is what has to be looked at to
    know (a function of attack_host.py). ``then`` is the attack's second half, with the next object.
    ``alone`` are options with which it has to work in a plain process, for what does not need a sandbox to be stopped.
    """

    title: str
    attack: str
    options: dict[str, Any] = field(default_factory=dict)
    open: frozenset[str] = OFF
    how: str = "told"
    then: str = ""
    alone: dict[str, Any] | None = None
    lane: str = "quick"

    def promised(self, profile: str, isolation: str) -> bool:
        """Return whether it is promised to be stopped there. Root without namespaces is promised what others are."""
        return f"{'confined' if '-' in profile else profile}/{isolation}" not in self.open


PIDS = {"pids": "{pids}"}

GROUPS: dict[str, list[Attack]] = {
    "Data and files of others": [
        Attack("another object's file", "attack_reach.read_file", {"path": "{object}"}),
        Attack("the objects' directory", "attack_reach.list_directory", {"path": "{objects}"}),
        Attack("the index, read", "attack_reach.read_file", {"path": "{index}"}),
        Attack("the index, written", "attack_reach.write_file", {"path": "{index}"}),
        Attack("the log of the index, read", "attack_reach.read_file", {"path": "{index}-wal"}),
        Attack("another transform's code and settings", "attack_reach.read_file", {"path": "{record}"}),
        Attack("another transform's log", "attack_reach.read_file", {"path": "{victim_log}"}),
        Attack("another transform's files", "attack_reach.list_directory", {"path": "{victim_scratch}"}),
        Attack("the store's counters and sockets", "attack_reach.list_directory", {"path": "{runtime}"}),
        Attack("/etc/shadow", "attack_reach.read_file", {"path": "/etc/shadow"}),
        Attack("/etc/passwd", "attack_reach.read_file", {"path": "/etc/passwd"}),
        Attack("names and sizes outside", "attack_reach.names_outside", {"path": "{object}"}, OFF | CONFINED),
        Attack("links and `..` to an object", "attack_reach.links_to", {"path": "{object}"}),
        Attack("links and `..` in an archive", "attack_reach.archive", {"path": "{object}", "target": "{target}"},
               how="unpacked"),
        Attack("an object by its file handle", "attack_reach.handles", {"path": "{object}"}),
        Attack("watching the objects' directory", "attack_reach.watch_directory",
               {"path": "{objects}", "touch": "{object}"}),
        Attack("its environment, changed", "attack_reach.write_environment", {"paths": "{packages}"}),
        Attack("its environment, held up by a lease", "attack_reach.hold_up_others", {"path": "{package}"}),
        Attack("its environment, flags of files", "attack_reach.inode_flags", {"path": "{package}"}),
        Attack("/sys, devices, the kernel's files in /proc", "attack_reach.kernel_files"),
    ],
    "Network and sockets": [
        Attack("connect to the store", "attack_reach.connect", {"address": "{store}"}),
        Attack("connect to a service on loopback", "attack_reach.connect", {"address": "{service}"}),
        Attack("connect outward", "attack_reach.connect_outward", {"address": ["192.0.2.1", 80]}),
        Attack("datagram outward", "attack_reach.send_datagram", {"address": ["192.0.2.1", 53]}),
        Attack("datagram to loopback", "attack_reach.send_datagram", {"address": "{service}"}),
        Attack("listen at a port", "attack_reach.listen_for"),
        Attack("sockets of other families", "attack_reach.other_sockets"),
        Attack("abstract socket", "attack_reach.unix_socket", {"address": "{abstract}"}),
        Attack("the controller's socket by its path", "attack_reach.unix_socket", {"address": "{controller}"}),
        Attack("datagram from a pair", "attack_reach.unix_datagram_pair", {"address": "{datagrams}"}),
        Attack("sockets that are open, connected anew", "attack_reach.open_sockets", {"path": "{controller}"}),
    ],
    "Processes of others": [
        Attack("/proc of others", "attack_reach.other_processes", {"secret": "{secret}", **PIDS}),
        Attack("memory of others", "attack_reach.other_memory", PIDS),
        Attack("ptrace and its kin", "attack_reach.ptrace", PIDS),
        Attack("signals", "attack_reach.kill", PIDS),
        Attack("signals by a descriptor", "attack_reach.signal_by_descriptor", PIDS, how="signalled"),
        Attack("descriptors of others", "attack_reach.descriptors_of_others", PIDS),
        Attack("limits of others", "attack_reach.limit_other", PIDS),
        Attack("priority of others", "attack_reach.renice_other", PIDS),
        Attack("priority of the whole user", "attack_reach.renice_user", {"uid": "{uid}"}),
        Attack("cores of others", "attack_reach.pin_other", PIDS),
    ],
    "Kernel and privileges": [
        Attack("new namespaces", "attack_reach.namespaces"),
        Attack("mounts", "attack_reach.mounts"),
        Attack("chroot", "attack_reach.new_root"),
        Attack("bpf", "attack_reach.bpf"),
        Attack("io_uring", "attack_reach.io_uring"),
        Attack("userfaultfd", "attack_reach.userfaultfd"),
        Attack("perf events", "attack_reach.perf"),
        Attack("keyrings", "attack_reach.keyrings"),
        Attack("system calls for administrators", "attack_reach.administration"),
        Attack("clocks and host name", "attack_reach.clocks"),
        Attack("other users and capabilities", "attack_reach.identities"),
        Attack("personality", "attack_reach.other_personality"),
        Attack("secret memory", "attack_reach.secret_memory"),
        Attack("System V objects", "attack_reach.system_v"),
        Attack("system calls newer than the filter", "attack_reach.new_calls", open=NEVER),
        Attack("ioctl on files", "attack_reach.asks_kernel"),
        Attack("typing into the terminal", "attack_reach.terminal", open=NEVER),
        Attack("setuid programs", "attack_reach.gain_by_exec"),
        Attack("capabilities, new privileges", "attack_reach.privileges"),
    ],
    "Too much, and no end": [
        Attack("10 GB of memory", "attack_resources.memory", {"size": 10 * GIB}, alone={"size": 64 * MIB},
               lane="hungry"),
        Attack("10 GB of memory in eight processes", "attack_resources.memory_of_children", {"size": 10 * GIB},
               alone={"size": 64 * MIB}, lane="hungry"),
        Attack("10 GB of shared memory, out of sight", "attack_resources.memory_out_of_sight", {"size": 10 * GIB},
               alone={"size": 64 * MIB}, lane="hungry"),
        Attack("10 GB of memory files", "attack_resources.memory_files", {"size": 10 * GIB}, alone={"size": 64 * MIB},
               lane="hungry"),
        Attack("10 GB in messages under way", "attack_resources.memory_in_flight", {"size": 10 * GIB},
               alone={"size": 64 * MIB}, lane="hungry"),
        Attack("10 GB of memory, hidden", "attack_resources.hidden_memory", {"size": 10 * GIB},
               alone={"size": 64 * MIB}, lane="hungry"),
        Attack("a decompression bomb", "attack_resources.decompression", {"size": 10 * GIB}, alone={"size": 64 * MIB},
               lane="hungry"),
        Attack("a pickle bomb", "attack_resources.pickle_bomb", {"size": 10 * GIB}, alone={"size": 64 * MIB},
               lane="hungry"),
        Attack("10 GB of temporary files", "attack_resources.disk", {"size": 10 * GIB}, alone={"size": 64 * MIB},
               lane="hungry"),
        Attack("10 GB of removed files", "attack_resources.removed_files", {"size": 10 * GIB},
               alone={"size": 64 * MIB}, lane="hungry"),
        Attack("10 GB in /dev/shm", "attack_resources.shared_memory", {"size": 10 * GIB}, alone={"size": 16 * MIB},
               lane="hungry"),
        Attack("directories 5,000 deep", "attack_resources.deep_directories", {"levels": 5000}, NEVER, how="removed",
               alone={"levels": 1100}, lane="hungry"),
        Attack("10 GB of output", "attack_resources.output", {"size": 10 * GIB}, NEVER, alone={"size": 64 * MIB},
               lane="hungry"),
        Attack("10 GB of sparse output", "attack_resources.sparse_output", {"size": 10 * GIB}, NEVER,
               alone={"size": 10 * GIB}),
        Attack("10 GB of log", "attack_resources.log", {"size": 10 * GIB}, NEVER, how="log"),
        Attack("a fork bomb", "attack_resources.processes", {"count": 3000}, alone={"count": 100}, lane="hungry"),
        Attack("requests of asynchronous I/O", "attack_resources.contexts"),
        Attack("an endless loop", "attack_resources.endless", {}, NEVER, how="ended", lane="slow"),
        Attack("ignoring signals", "attack_resources.ignore_signals", {}, NEVER, how="ended", lane="slow"),
        Attack("stopping itself", "attack_resources.stop_itself", {}, NEVER, how="ended", lane="slow"),
        Attack("a child left behind", "attack_neighbours.leave_child", {"name": "{name}"}, NEVER, how="left"),
    ],
    "Its input and its result": [
        Attack("change and reopen the input", "attack_reach.change_input", how="large"),
        Attack("change the result after sending it", "attack_neighbours.change_result", {}, NEVER, how="consistent"),
        Attack("shrink the result after sending it", "attack_neighbours.shrink_large_result", {}, NEVER,
               how="consistent"),
        Attack("a mapping of the result kept", "attack_neighbours.keep_mapping", {}, NEVER, how="consistent"),
        Attack("an answer that is none", "attack_neighbours.answer_garbage", {"text": "\x00{[", "times": 1000}, NEVER,
               how="refused"),
        Attack("an answer of deep JSON", "attack_neighbours.answer_garbage", {"text": "[", "times": 30000}, NEVER,
               how="refused"),
    ],
    "Objects before, after and beside": [
        Attack("the environment of the next", "attack_neighbours.leave_environment", {}, NEVER, "next",
               "attack_neighbours.find_environment"),
        Attack("the environment of its programs", "attack_neighbours.leave_environment_of_c", {}, NEVER, "next",
               "attack_neighbours.find_environment_of_c"),
        Attack("`/tmp`, `/dev/shm`, home of the next", "attack_neighbours.leave_files", {}, OFF, "next",
               "attack_neighbours.find_files"),
        Attack("directory, umask, handlers of the next", "attack_neighbours.leave_state", {}, NEVER, "next",
               "attack_neighbours.find_state"),
        Attack("a thread left for the next", "attack_neighbours.leave_thread", {}, NEVER, "quiet"),
        Attack("output left for the next", "attack_neighbours.leave_output", {}, NEVER, "quiet",
               "attack_neighbours.find_output"),
        Attack("modules of the next", "attack_neighbours.leave_module", {}, WARM, "next",
               "attack_neighbours.find_module"),
        Attack("this object kept open for the next", "attack_neighbours.leave_descriptor", {}, WARM, "next",
               "attack_neighbours.find_descriptor"),
        Attack("taking the next object", "attack_neighbours.take_next_object", {}, WARM),
        Attack("kill 1", "attack_neighbours.kill_first", {"signals": "{signals}"}, how="alive"),
        Attack("signals to the parent", "attack_neighbours.kill_parent", how="alive"),
        Attack("signals to an object beside", "attack_neighbours.kill_neighbours", {}, OFF, "beside"),
        Attack("memory of an object beside", "attack_neighbours.neighbours_memory", {}, OFF, "beside"),
        Attack("files of an object beside", "attack_neighbours.neighbours_files", {}, OFF, "beside"),
    ],
    "A transform that is a server": [
        Attack("the store's other routes", "attack_server.other_routes", {"store": "{store}"}, lane="server"),
        Attack("objects that it was not asked for", "attack_server.other_objects", {"store": "{store}"}, lane="server"),
        Attack("looking for open ports", "attack_server.scan", {"store": "{store}", "service": "{service}"},
               lane="server"),
        Attack("a server's packet outward", "attack_reach.connect_outward", {"address": ["192.0.2.1", 80]},
               lane="server"),
        Attack("a server's datagram outward", "attack_reach.send_datagram", {"address": ["192.0.2.1", 53]},
               lane="server"),
        Attack("a server at the controller's socket", "attack_reach.unix_socket", {"address": "{controller}"},
               lane="server"),
        Attack("a server at an abstract socket", "attack_reach.unix_socket", {"address": "{abstract}"}, lane="server"),
        Attack("a server's sockets of other families", "attack_server.kernel_sockets", lane="server"),
        Attack("a server that reads an object's file", "attack_reach.read_file", {"path": "{object}"}, lane="server"),
        Attack("a server that reads /proc of others", "attack_reach.other_processes", {"secret": "{secret}", **PIDS},
               lane="server"),
        Attack("a server's signals", "attack_reach.kill", PIDS, lane="server"),
        Attack("a server's ptrace", "attack_reach.ptrace", PIDS, lane="server"),
        Attack("a server's namespaces", "attack_reach.namespaces", lane="server"),
        Attack("a server's io_uring", "attack_reach.io_uring", lane="server"),
        Attack("a server's keyrings", "attack_reach.keyrings", lane="server"),
        Attack("a server's 10 GB of memory", "attack_resources.memory", {"size": 10 * GIB}, alone={"size": 64 * MIB},
               how="ended_server", lane="server"),
    ],
    "What is installed": [
        Attack("a `setup.py` that reads and writes elsewhere", "setup.py", how="setup_reach"),
        Attack("a `setup.py` that changes modes elsewhere", "setup.py", {}, OFF | CONFINED, how="setup_modes"),
        Attack("a `setup.py` that leaves a process", "setup.py", how="setup_left"),
        Attack("a `setup.py` that connects to the store", "setup.py", {}, frozenset(CELLS), how="setup_network"),
    ],
}  # fmt: skip

ATTACKS = tuple(attack for group in GROUPS.values() for attack in group)


def table() -> str:
    """Return the published table."""
    heads = [f"{profile}, {isolation}" for profile in PROFILES for isolation in ISOLATIONS]
    lines = []
    for group, attacks in GROUPS.items():
        lines += ["", f"| {group} | " + " | ".join(heads) + " |", "|---" * (len(heads) + 1) + "|"]
        for attack in attacks:
            cells = [
                "stopped" if attack.promised(profile, isolation) else "not promised"
                for profile in PROFILES for isolation in ISOLATIONS
            ]  # fmt: skip
            lines.append(f"| {attack.title} | " + " | ".join(cells) + " |")
    return "\n".join(lines[1:]) + "\n"


def with_table(text: str) -> str:
    """Return the document with the table of today."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    assert before, "the document has no place for the table"
    assert after, "the document has no end of the table"
    return f"{before}{BEGIN}\n\n{table()}\n{END}{after}"


if __name__ == "__main__":
    with open(DOCUMENT, encoding="utf-8") as file:
        old = file.read()
    new = with_table(old)
    if "--write" in sys.argv[1:]:
        with open(DOCUMENT, "w", encoding="utf-8") as file:
            file.write(new)
    sys.exit(0 if "--write" in sys.argv[1:] or new == old else "the table in docs/security.md is an old one: --write")

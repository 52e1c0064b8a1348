"""The system call filter, run instruction by instruction for both machines, and kernels that lack a layer."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap

import pytest

from aistore.etl.worker.sandbox import kernel, landlock, seccomp

HERE = os.path.dirname(os.path.abspath(__file__))
ALLOW, EPERM, ENOTTY, ENOSYS, KILL = 0x7FFF0000, 0x00050001, 0x00050019, 0x00050026, 0x80000000
STRICT = seccomp.Restrictions(network=False, own_user=False, own_processes=False, signals=True)
MILD = seccomp.Restrictions(network=False, own_user=True, own_processes=True, signals=False)
INSTALLER = seccomp.Restrictions(network=True, own_user=True, own_processes=True, signals=False, changes=True)


def decide(program: list[tuple[int, int, int, int]], architecture: int, number: int, *arguments: int) -> int:
    """Run a filter as the kernel does (bpf(4)) and return its answer."""
    data = number.to_bytes(4, "little") + architecture.to_bytes(4, "little") + bytes(8)
    data += b"".join((value & (1 << 64) - 1).to_bytes(8, "little") for value in (*arguments, 0, 0, 0, 0, 0, 0)[:6])
    accumulator = position = 0
    while True:
        code, if_true, if_false, operand = program[position]
        position += 1
        if code == 0x20:
            accumulator = int.from_bytes(data[operand : operand + 4], "little")
        elif code == 0x54:
            accumulator &= operand
        elif code == 0x06:
            return operand
        else:
            test = {0x15: accumulator == operand, 0x35: accumulator >= operand, 0x45: bool(accumulator & operand)}[code]
            position += if_true if test else if_false


def answer(restrictions: seccomp.Restrictions, machine: str, name: str, *arguments: int) -> int:
    architecture, column = kernel.MACHINES[machine]
    number = kernel.SYSCALLS[name][column]
    if number < 0:
        pytest.skip(f"{machine} has no {name}")
    return decide(seccomp.build(restrictions, machine), architecture, number, *arguments)


MACHINES = pytest.mark.parametrize("machine", ["x86_64", "aarch64"])


@MACHINES
@pytest.mark.parametrize("name", seccomp._REFUSED)
def test_refused_whatever_the_arguments(machine: str, name: str) -> None:
    for restrictions in (STRICT, MILD, INSTALLER):
        for arguments in ((), (1, 2, 3, 4, 5, 6), (-1,) * 6):
            assert answer(restrictions, machine, name, *arguments) == EPERM


@MACHINES
@pytest.mark.parametrize(
    ("name", "arguments", "strict", "mild", "installer"),
    [
        ("clone3", (), ENOSYS, ENOSYS, ENOSYS),
        ("io_uring_setup", (), ENOSYS, ENOSYS, ENOSYS),
        ("clone", (17,), ALLOW, ALLOW, ALLOW),  # fork
        ("clone", (0x3D0F00,), ALLOW, ALLOW, ALLOW),  # a thread
        ("clone", (0x10000000 | 17,), EPERM, EPERM, EPERM),
        ("clone", (0x20000000 | 17,), EPERM, EPERM, EPERM),
        ("clone", (0x8000 | 17,), EPERM, EPERM, EPERM),  # CLONE_PARENT
        ("clone", (0x4111,), ALLOW, ALLOW, ALLOW),  # vfork
        ("socket", (1, 1, 0), EPERM, EPERM, EPERM),
        ("socket", (2, 1, 0), EPERM, EPERM, ALLOW),
        ("socket", (10, 2, 0), EPERM, EPERM, ALLOW),
        ("socket", (17, 3, 0), EPERM, EPERM, EPERM),
        ("socket", (16, 3, 0), EPERM, EPERM, ALLOW),  # netlink: of routes
        ("socket", (16, 3, 12), EPERM, EPERM, EPERM),  # of the firewall
        ("socketpair", (1, 1), ALLOW, ALLOW, ALLOW),
        ("socketpair", (1, 5 | 0x80000), ALLOW, ALLOW, ALLOW),
        ("socketpair", (1, 2 | 0x80000), EPERM, EPERM, EPERM),
        ("socketpair", (2, 1), EPERM, EPERM, EPERM),
        ("connect", (5,), EPERM, EPERM, ALLOW),
        ("fchmod", (0, 0o666), EPERM, EPERM, ALLOW),
        ("fchmodat", (-100, 1), EPERM, ALLOW, ALLOW),
        ("fsetxattr", (0,), EPERM, EPERM, ALLOW),
        ("utimensat", (0, 0), EPERM, EPERM, ALLOW),
        ("utimensat", (0, 1 << 40), EPERM, ALLOW, ALLOW),
        ("utimensat", (0, 4096), EPERM, ALLOW, ALLOW),
        ("setxattr", (), EPERM, EPERM, ALLOW),
        ("sendmsg", (3,), EPERM, EPERM, ALLOW),
        ("inotify_add_watch", (3,), ENOSYS, ENOSYS, ENOSYS),
        ("io_setup", (1,), ENOSYS, ENOSYS, ENOSYS),
        ("statmount", (), EPERM, ALLOW, ALLOW),
        ("prctl", (36, 1), ALLOW, ALLOW, ALLOW),  # PR_SET_CHILD_SUBREAPER
        ("prctl", (36, 0), EPERM, EPERM, EPERM),
        ("prctl", (4, 0), EPERM, EPERM, EPERM),  # PR_SET_DUMPABLE
        ("prctl", (4, 1), ALLOW, ALLOW, ALLOW),
        ("prctl", (15, 0), ALLOW, ALLOW, ALLOW),
        ("kill", (0, 15), ALLOW, ALLOW, ALLOW),
        ("kill", (77, 15), EPERM, ALLOW, ALLOW),
        ("kill", (-1, 9), EPERM, ALLOW, ALLOW),
        ("tgkill", (1, 1, 9), EPERM, ALLOW, ALLOW),
        ("prlimit64", (0, 7), ALLOW, ALLOW, ALLOW),
        ("prlimit64", (77, 7), EPERM, EPERM, EPERM),
        ("setpriority", (0, 0, 5), ALLOW, ALLOW, ALLOW),
        ("setpriority", (0, 77, 5), EPERM, EPERM, EPERM),
        ("setpriority", (2, 0, 5), EPERM, EPERM, EPERM),  # everything of this user
        ("ioprio_set", (1, 0, 5), ALLOW, ALLOW, ALLOW),
        ("ioprio_set", (1, 77, 5), EPERM, EPERM, EPERM),
        ("ioprio_set", (3, 0, 5), EPERM, EPERM, EPERM),
        ("sched_setaffinity", (0, 8), ALLOW, ALLOW, ALLOW),
        ("sched_setaffinity", (77, 8), EPERM, ALLOW, ALLOW),
        ("fcntl", (3, 1030), ALLOW, ALLOW, ALLOW),  # F_DUPFD_CLOEXEC
        ("fcntl", (3, 4, 0x2000), ALLOW, ALLOW, ALLOW),
        ("fcntl", (3, 8, 77), EPERM, ALLOW, ALLOW),  # F_SETOWN: have the kernel signal another process
        ("fcntl", (3, 15), EPERM, ALLOW, ALLOW),
        ("fcntl", (3, 1024, 1), EPERM, EPERM, EPERM),  # F_SETLEASE
        ("fcntl", (3, 1026), EPERM, EPERM, EPERM),  # F_NOTIFY
        ("ioctl", (0, 0x8901), ENOTTY, ENOTTY, ALLOW),
        ("ioctl", (0, 0x8902), ENOTTY, ENOTTY, ALLOW),
        ("ioctl", (0, 0x5401), ALLOW, ALLOW, ALLOW),
        ("ioctl", (0, 0x5412), ENOTTY, ENOTTY, EPERM),
        ("ioctl", (0, 0x541C), ENOTTY, ENOTTY, EPERM),
        ("ioctl", (0, 0x5412 | 1 << 40), ENOTTY, ENOTTY, EPERM),  # the kernel takes 32 bits of it
        ("ioctl", (0, 0x40086602), ENOTTY, ENOTTY, EPERM),  # FS_IOC_SETFLAGS
        ("ioctl", (0, 0x5000940E), ENOTTY, ENOTTY, EPERM),  # BTRFS_IOC_SUBVOL_CREATE
        ("seccomp", (), ALLOW, ALLOW, ALLOW),
    ],
)
def test_depends_on_arguments(
    machine: str, name: str, arguments: tuple[int, ...], strict: int, mild: int, installer: int
) -> None:
    answers = [answer(restrictions, machine, name, *arguments) for restrictions in (STRICT, MILD, INSTALLER)]
    assert answers == [strict, mild, installer]


@MACHINES
def test_other_architectures_are_killed(machine: str) -> None:
    other = kernel.MACHINES["aarch64" if machine == "x86_64" else "x86_64"][0]
    program = seccomp.build(MILD, machine)
    assert decide(program, other, 1) == KILL
    assert decide(program, 0x40000003, 1) == KILL  # i386 on x86_64
    assert decide(program, kernel.MACHINES[machine][0], 0x40000000 + 1) == ENOSYS  # x32


@MACHINES
def test_calls_newer_than_the_list_are_absent(machine: str) -> None:
    for restrictions in (STRICT, MILD, INSTALLER):
        program = seccomp.build(restrictions, machine)
        for number in (kernel.SYSCALL_LAST + 1, 480, 600, 0x3FFFFFFF):
            assert decide(program, kernel.MACHINES[machine][0], number) == ENOSYS


@MACHINES
def test_size(machine: str) -> None:
    assert len(seccomp.build(STRICT, machine)) < 4096  # BPF_MAXINSNS
    for _, if_true, if_false, _operand in seccomp.build(STRICT, machine):
        assert max(if_true, if_false) < 256


def test_missing_parts_of_old_landlocks_are_told() -> None:
    assert len(landlock.missing(1, network=False)) == 3
    assert landlock.missing(6, network=False) == []
    assert not landlock.scopes_signals(5)


REFUSE = textwrap.dedent(f"""
    import ctypes, json, os, struct, sys
    sys.path[:0] = [{HERE!r}, {os.path.join(HERE, "..", "..", "src")!r}]
    from aistore.etl.worker.sandbox import kernel
    refused = json.loads(sys.argv[1])
    program = [(0x20, 0, 0, 0)]
    for name in refused:
        program += [(0x15, 0, 1, kernel.number(name)), (0x06, 0, 0, 0x50001)]
    program.append((0x06, 0, 0, 0x7FFF0000))
    code = b"".join(struct.pack("HBBI", *each) for each in program)
    buffer = ctypes.create_string_buffer(code, len(code))
    class Program(ctypes.Structure):
        _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.c_void_p)]
    kernel.set_no_new_privileges()
    kernel.call("seccomp", 1, 0, ctypes.byref(Program(len(program), ctypes.cast(buffer, ctypes.c_void_p))))
    from running import RunningEtl
    with RunningEtl("print('ran')", sandbox=True) as etl:
        output = etl.run().output.decode() if etl.events[-1]["event"] == "ready" else ""
        print(json.dumps([etl.events, output]))
""")


def on_a_kernel_without(*names: str) -> tuple[list[dict[str, object]], str]:
    done = subprocess.run([sys.executable, "-c", REFUSE, json.dumps(names)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    events, output = json.loads(done.stdout)
    return events, output


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the sandbox is for Linux")
class TestMissingLayers:
    """What happens where the system refuses a layer, as containers do."""

    def test_no_landlock_refuses_to_start(self) -> None:
        events, _ = on_a_kernel_without("landlock_create_ruleset")
        assert events[-1]["event"] == "failed"
        assert events[-1]["reason"] == "sandbox"
        assert "Landlock" in str(events[-1]["message"])
        assert "--sandbox off" in str(events[-1]["message"])

    def test_no_seccomp_refuses_to_start(self) -> None:
        events, _ = on_a_kernel_without("seccomp")
        assert (events[-1]["event"], events[-1]["reason"]) == ("failed", "sandbox")
        assert "seccomp" in str(events[-1]["message"])

    @pytest.mark.parametrize("refused", ["unshare", "mount", "pivot_root", "mount_setattr"])
    def test_no_namespaces_is_told(self, refused: str) -> None:
        events, output = on_a_kernel_without(refused)
        assert output == "ran\n"
        assert "namespaces" in str(events[0]["missing"])
        assert "namespaces" not in str(events[0]["layers"])
        assert "landlock" in str(events[0]["layers"])

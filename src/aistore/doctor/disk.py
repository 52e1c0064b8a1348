"""Checks of places: the data directory, temporary files, shared memory, open files."""

from __future__ import annotations

import os
import resource
import shutil
import tempfile

from ..fallbacks import lacks
from ..settings import RUNTIME_PATH_BYTES, SOCKET_PATH_BYTES_MAX, default_data_directory
from .finding import Finding, Level

_FREE_WARN_BYTES, _FREE_FAIL_BYTES = 1 << 30, 64 << 20
_OPEN_FILES_MIN = 4096  # each object that waits for a transform takes four
_SHARED_MEMORY_MIN_BYTES = 256 << 20

#: File systems on other machines. SQLite's WAL needs memory that its processes share, and locks that hold.
_NETWORK = ("nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "ceph", "glusterfs", "lustre", "beegfs", "afs", "gpfs")
_NETWORK_FUSE = tuple(f"fuse.{name}" for name in ("sshfs", "glusterfs", "ceph", "s3fs", "gcsfuse", "rclone", "juicefs"))


def gib(size: int) -> str:
    """Return bytes as GiB, or MiB below one."""
    return f"{size / (1 << 30):.1f} GiB" if size >= 1 << 30 else f"{size >> 20} MiB"


def check_data(data: str | None) -> list[Finding]:
    """Check the data directory, or the place where it would be made."""
    directory = os.path.abspath(data) if data else default_data_directory()
    there = directory
    while not os.path.lexists(there):
        there = os.path.dirname(there)
    if not os.path.isdir(there):
        return [Finding("data", Level.FAIL, f"{there} is not a directory", "choose another with --data or AIS_DATA")]
    findings = [_check_writable(directory, there), _check_free(there)]
    kind = file_system_of(there)
    if kind in _NETWORK or kind in _NETWORK_FUSE:
        advice = "keep the data on a local disk: the index needs shared memory and locks that hold"
        findings.append(Finding("file system", Level.WARN, f"{there} is on {kind}, over the network", advice))
    else:
        findings.append(Finding("file system", Level.OK, kind or "unknown"))
    return findings


def _check_writable(directory: str, there: str) -> Finding:
    if not os.access(there, os.W_OK | os.X_OK):
        return Finding("data", Level.FAIL, f"{there} is not writable", "choose another with --data or AIS_DATA")
    if there != directory:
        return Finding("data", Level.OK, f"{directory} (not there yet: `ais serve` makes it)")
    try:
        names = os.listdir(directory)
    except OSError as error:
        return Finding("data", Level.FAIL, f"{directory}: {error.strerror}", "choose another with --data or AIS_DATA")
    if "format.json" not in names and set(names) - {"lost+found", "mp0"}:
        found = f"{directory} has other files in it ({', '.join(sorted(names)[:3])})"
        return Finding("data", Level.FAIL, found, "choose an empty directory or a new one with --data")
    try:
        with tempfile.TemporaryFile(dir=directory) as file:  # a read-only or full file system looks writable to others
            file.write(b"x")
            file.flush()
    except OSError as error:
        return Finding("data", Level.FAIL, f"{directory} cannot be written to: {error.strerror}", "see `df`, `mount`")
    from ..storage.local.locks import read_owner

    owner = read_owner(directory)
    if owner is not None:
        return Finding("data", Level.OK, f"{directory}, served at {owner.endpoint or 'a store'} by process {owner.pid}")
    return Finding("data", Level.OK, f"{directory} ({'empty' if not names else 'a store of ours'})")


def _check_free(there: str) -> Finding:
    usage = shutil.disk_usage(there)
    found = f"{gib(usage.free)} of {gib(usage.total)} free"
    if usage.free < _FREE_WARN_BYTES:
        level = Level.FAIL if usage.free < _FREE_FAIL_BYTES else Level.WARN
        return Finding("disk", level, found, f"make room on the disk of {there}: a full store refuses to write")
    return Finding("disk", Level.OK, found)


def file_system_of(path: str) -> str:
    """Return the kind of file system that ``path`` is on, from /proc/self/mountinfo; empty where that is not told."""
    real, best, kind = os.path.realpath(path), "", ""
    if lacks("proc"):
        return kind
    try:
        with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
            for line in file:
                fields = line.split()
                mounted = fields[4].encode().decode("unicode_escape")
                inside = real == mounted or real.startswith(mounted.rstrip("/") + "/")
                if inside and len(mounted) >= len(best):
                    best, kind = mounted, fields[fields.index("-") + 1]
    except (OSError, ValueError, IndexError):
        return ""
    return kind


def check_temporary() -> list[Finding]:
    """Check the directory of the store's sockets, and the shared memory that data loaders use."""
    directory = tempfile.gettempdir()
    findings = []
    if len(os.fsencode(directory)) + RUNTIME_PATH_BYTES > SOCKET_PATH_BYTES_MAX:
        findings.append(
            Finding(
                "temporary files",
                Level.FAIL,
                f"{directory} is too long a path for sockets",
                f"set TMPDIR to a path of at most {SOCKET_PATH_BYTES_MAX - RUNTIME_PATH_BYTES} bytes, such as /tmp",
            )
        )
    else:
        free = shutil.disk_usage(directory).free
        level = Level.WARN if free < _FREE_FAIL_BYTES else Level.OK
        advice = "" if level is Level.OK else f"make room in {directory}"
        findings.append(Finding("temporary files", level, f"{directory}, {gib(free)} free", advice))
    if os.path.isdir("/dev/shm"):
        size = shutil.disk_usage("/dev/shm").total
        small = size < _SHARED_MEMORY_MIN_BYTES
        advice = "data loaders with workers need more: start the container with --shm-size=1g" if small else ""
        findings.append(Finding("shared memory", Level.WARN if small else Level.OK, f"/dev/shm, {gib(size)}", advice))
    return findings


def check_open_files() -> Finding:
    """Check how many files a process may open; the store uses as many as the system allows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    told = "unlimited" if hard == resource.RLIM_INFINITY else f"{hard:,}"
    if hard != resource.RLIM_INFINITY and hard < _OPEN_FILES_MIN:
        advice = f"raise the hard limit to {_OPEN_FILES_MIN:,} or more (ulimit -Hn, /etc/security/limits.conf)"
        return Finding("open files", Level.WARN, f"{told} at most", advice)
    return Finding("open files", Level.OK, f"{soft:,} now, {told} at most")

"""The cache of environments: a directory where a build is one builder's, and what is published is complete.

- ``<lock digest>-<token>/lock.json`` and ``env/``: a published environment. Paths are written into what pip installs,
  so an environment cannot be moved into place when it is complete: the marker ``lock.json`` is, by rename, after all
  else. The token makes every try a new path, so an installer that outlived its builder spoils only its own.
- ``.build-<token>/`` and directories without a marker: builds. Their builder holds a lock (flock) on the directory,
  which the kernel releases with the builder's life: one that is not held is rubbish, and the next build removes it.
- ``.locks/``: one build per dependency list and per lock at a time; the others wait and then find it done.
- ``.resolutions/``: the locks of the last day by their request.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import shutil
import stat
import threading
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager

from ...errors import EtlInitError
from .commands import CommandTimeout, check_in_time, pause
from .lock import Lock

RESOLUTION_AGE_SECONDS_MAX = 24 * 3600.0
IDLE_SECONDS = 3600.0  # guessed: who removes a transform and makes it again does so within the hour

_MARKER = "lock.json"
_WAIT_SECONDS = 0.05  # how late a released lock is noticed
_CLEANING_SECONDS_MAX = 60.0  # guessed: what holds it up is one removal of rubbish, seconds for 10 GB


def published(envs_dir: str, lock: Lock, python: str) -> str | None:
    """Return the directory of the environment with ``lock``, if its interpreter is ``python``.

    An interpreter that was upgraded in place is another one. The idle time of what is returned starts again.
    """
    for name in sorted(os.listdir(envs_dir)):
        path = os.path.join(envs_dir, name)
        if not name.startswith(f"{lock.digest()}-") or _read_lock(os.path.join(path, _MARKER)) != lock:
            continue
        if os.path.realpath(os.path.join(path, "env", "bin", "python")) == os.path.realpath(python):
            os.utime(os.path.join(path, _MARKER))
            return path
    return None


def publish(path: str, lock: Lock) -> None:
    """Make the environment in ``path`` ours, readable by everyone, writable by nobody else, and then found.

    No process that could still write there may be left.
    """
    _seal(os.path.join(path, "env"))
    _write_atomically(os.path.join(path, _MARKER), lock.to_json(), 0o644)


def remembered(envs_dir: str, request: str) -> Lock | None:
    """Return the lock that ``request`` was resolved to within the last day."""
    path = os.path.join(envs_dir, ".resolutions", request)
    return _read_lock(path) if _is_recent(path, RESOLUTION_AGE_SECONDS_MAX) else None


def remember(envs_dir: str, request: str, lock: Lock | None) -> None:
    """Keep ``lock`` as what ``request`` was resolved to now; None forgets it."""
    directory = os.path.join(envs_dir, ".resolutions")
    os.makedirs(directory, 0o755, exist_ok=True)
    if lock is None:
        _unlink(os.path.join(directory, request))
    else:
        _write_atomically(os.path.join(directory, request), lock.to_json(), 0o600)


def remove_unused(envs_dir: str, in_use: Collection[str], *, idle_seconds: float = IDLE_SECONDS) -> list[str]:
    """Remove the environments below ``envs_dir`` whose directory is not ``in_use``; return those removed.

    Those handed out within ``idle_seconds`` stay: an ETL that is being made may have one and not show it yet.
    """
    keep = {os.path.realpath(path) for path in in_use}
    removed = []
    try:
        with held(envs_dir, "boxes", time.monotonic() + _CLEANING_SECONDS_MAX):
            _sweep(envs_dir)
            for name in sorted(os.listdir(envs_dir)):
                path = os.path.join(envs_dir, name)
                marker = os.path.join(path, _MARKER)
                if name.startswith(".") or os.path.realpath(path) in keep or not os.path.lexists(marker):
                    continue
                if not _is_recent(marker, idle_seconds) and _remove_box(path):
                    removed.append(path)
    except CommandTimeout:
        pass  # somebody else is cleaning up: next time
    return removed


@contextmanager
def held(
    envs_dir: str,
    name: str,
    deadline: float,
    cancel: threading.Event | None = None,
    waiting: Callable[[], None] = lambda: None,
) -> Iterator[None]:
    """Hold the lock ``name``, which one thread of one process can at a time; ``waiting`` is called once if it is taken.

    Raises CommandTimeout or CommandCancelled while it waits.
    """
    os.makedirs(os.path.join(envs_dir, ".locks"), 0o755, exist_ok=True)
    descriptor = os.open(os.path.join(envs_dir, ".locks", name), os.O_RDWR | os.O_CREAT, 0o600)
    try:
        if not _try_flock(descriptor):
            waiting()
            while not _try_flock(descriptor):
                pause(_WAIT_SECONDS, deadline, cancel)
        check_in_time(deadline, cancel)
        yield
    finally:
        os.close(descriptor)


@contextmanager
def box(envs_dir: str, deadline: float, cancel: threading.Event | None) -> Iterator[str]:
    """Make a directory to build in, ours for as long as we live; remove it at the end unless it was published."""
    token = secrets.token_hex(4)
    path = os.path.join(envs_dir, f".build-{token}")
    with held(envs_dir, "boxes", deadline, cancel):
        _sweep(envs_dir)
        os.mkdir(path)
        for directory in (envs_dir, path):
            os.chmod(directory, 0o755)  # noqa: S103 - whatever the umask: transforms run as other users
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    try:
        yield path
    finally:
        for name in os.listdir(envs_dir):
            left = os.path.join(envs_dir, name)
            if name.endswith(f"-{token}") and not os.path.lexists(os.path.join(left, _MARKER)):
                shutil.rmtree(left, ignore_errors=True)
        os.close(descriptor)


def name_box(path: str, lock: Lock) -> str:
    """Give the build in ``path`` the name it will be published under, and return that: pip writes it into scripts."""
    token = os.path.basename(path).rpartition("-")[2]
    named = os.path.join(os.path.dirname(path), f"{lock.digest()}-{token}")
    os.rename(path, named)
    return named


def write_new(path: str, text: str) -> None:
    """Write a file that was not there; its owner alone may read it (lists can hold the password of an index)."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with open(descriptor, "w", encoding="utf-8") as file:
        file.write(text)


def _sweep(envs_dir: str) -> None:
    """Remove builds whose builder is gone, and resolutions past their day. The caller holds the lock ``boxes``."""
    for name in os.listdir(envs_dir):
        path = os.path.join(envs_dir, name)
        if name not in (".locks", ".resolutions") and not os.path.lexists(os.path.join(path, _MARKER)):
            _remove_box(path)
    resolutions = os.path.join(envs_dir, ".resolutions")
    for name in os.listdir(resolutions) if os.path.isdir(resolutions) else ():
        if not _is_recent(os.path.join(resolutions, name), RESOLUTION_AGE_SECONDS_MAX):
            _unlink(os.path.join(resolutions, name))


def _remove_box(path: str) -> bool:
    """Remove the directory ``path`` unless a builder holds it; say whether it is gone."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        if not _try_flock(descriptor):
            return False
        _unlink(os.path.join(path, _MARKER))  # first of all: half of an environment must not pass for one
        shutil.rmtree(path, ignore_errors=True)
        return not os.path.lexists(path)
    finally:
        os.close(descriptor)


def _seal(env: str) -> None:
    uid, gid = os.geteuid(), os.getegid()
    for parent, directories, files in os.walk(env):
        links = [name for name in directories if os.path.islink(os.path.join(parent, name))]
        for path in (parent, *(os.path.join(parent, name) for name in (*files, *links))):
            found = os.lstat(path)
            if stat.S_ISREG(found.st_mode) and found.st_nlink > 1:
                # Its other name may be anywhere: what follows would give that away.
                raise EtlInitError(f"the installer left a hard link: {os.path.relpath(path, env)}")
            if (found.st_uid, found.st_gid) != (uid, gid):
                os.chown(path, uid, gid, follow_symlinks=False)
            if stat.S_ISLNK(found.st_mode):
                continue
            mode = stat.S_IMODE(found.st_mode)
            executable = 0o111 if stat.S_ISDIR(found.st_mode) or mode & 0o100 else 0
            sealed = (mode & 0o700) | 0o444 | executable  # no setuid bit either
            if sealed != mode:
                os.chmod(path, sealed)


def _try_flock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _read_lock(path: str) -> Lock | None:
    try:
        with open(path, encoding="utf-8") as file:
            return Lock.from_json(file.read())
    except (OSError, ValueError):
        return None


def _is_recent(path: str, seconds: float) -> bool:
    """Whether ``path`` was written within the last ``seconds``; the future, of a clock that was set back, is not."""
    try:
        return 0 <= time.time() - os.stat(path).st_mtime < seconds
    except OSError:
        return False


def _write_atomically(path: str, text: str, mode: int) -> None:
    aside = f"{path}.{secrets.token_hex(4)}"
    write_new(aside, text)
    os.chmod(aside, mode)
    os.rename(aside, path)


def _unlink(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass

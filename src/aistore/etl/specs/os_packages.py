"""What the packages of this machine's system have to offer to a class transform.

The images of AIStore install ``OS_PACKAGES`` at their start, as root. A store's node does not: what a class asks for
has to be on the node already, and what it does not ask for it does not find, so that a transform that works on one node
works on the next. A class is started with a ``PATH`` of the programs of its environment, the tools that any system has
(``_BASIC``), and those of the packages that it lists. This is about finding, not about access: the sandbox is what
keeps a transform from things.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterable, Iterator

from ...errors import EtlInitError
from ..confinement import SYSTEM_PATH

_QUERY_SECONDS = 30.0

#: Asked in this order: what lists the files of an installed package, and exits with an error if there is none.
_MANAGERS = (("dpkg", ("-L",)), ("rpm", ("-ql",)), ("apk", ("info", "-L")), ("pacman", ("-Qlq",)))
_INSTALL = {"dpkg": "apt install", "rpm": "dnf install", "apk": "apk add", "pacman": "pacman -S"}

#: What POSIX has and scripts take for granted.
_BASIC = (
    "sh bash dash cat ls cp mv rm ln mkdir rmdir touch chmod mktemp pwd basename dirname realpath readlink stat du df "
    "find xargs grep egrep fgrep sed awk gawk mawk head tail sort uniq wc tr cut paste join tee cmp diff comm split "
    "fold nl od xxd hexdump strings seq yes printf echo true false test [ expr env printenv date sleep timeout time id "
    "whoami uname hostname nproc ps kill tty stty tar gzip gunzip zcat bzip2 bunzip2 bzcat xz unxz xzcat dd sync file "
    "base64 md5sum sha1sum sha256sum sha512sum cksum getopt which rev tac shuf install patch"
).split()


def programs_for(packages: Iterable[str]) -> dict[str, str]:
    """Return the programs that a class with these packages finds, by name, each with its path. Blocks shortly.

    Raises EtlInitError for a package that this machine does not have.
    """
    found = {name: path for name in _BASIC if (path := shutil.which(name, path=SYSTEM_PATH))}
    for package in packages:
        found.update(_programs_of(package))
    return found


def check_installed(packages: Iterable[str]) -> None:
    """Raise EtlInitError for a package that this machine does not have. Blocks shortly."""
    for package in packages:
        _programs_of(package)


def _programs_of(package: str) -> dict[str, str]:
    files = _files_of(package)
    if files is not None:
        return dict(_executables(files))
    path = shutil.which(package, path=SYSTEM_PATH)
    if path is not None:  # installed by other means, or its package is called otherwise here
        return {package: path}
    manager = next((name for name, _ in _MANAGERS if shutil.which(name, path=SYSTEM_PATH)), "")
    raise EtlInitError(
        f"the system package {package!r} is not installed on this machine, and transforms do not install any",
        hint=f"install it on every node ({_INSTALL.get(manager, 'with the system')} {package}), "
        "or use an image with it and a container engine",
    )


def _files_of(package: str) -> list[str] | None:
    """Return the files of an installed package, None if no package manager knows it."""
    for manager, arguments in _MANAGERS:
        program = shutil.which(manager, path=SYSTEM_PATH)
        if program is None:
            continue
        try:
            done = subprocess.run(
                [program, *arguments, package], stdin=subprocess.DEVNULL, capture_output=True, timeout=_QUERY_SECONDS,
                env={"PATH": SYSTEM_PATH, "LANG": "C.UTF-8"}, cwd="/",
            )  # fmt: skip
        except (OSError, subprocess.TimeoutExpired):
            continue
        if done.returncode == 0:
            return [
                "/" + line.lstrip("/") for line in done.stdout.decode(errors="replace").splitlines() if line.strip()
            ]
    return None


def _executables(files: Iterable[str]) -> Iterator[tuple[str, str]]:
    directories = set(SYSTEM_PATH.split(":")) | {"/usr/games"}
    for path in files:
        if os.path.dirname(path) in directories and os.path.isfile(path) and os.access(path, os.X_OK):
            yield os.path.basename(path), path

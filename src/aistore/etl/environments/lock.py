"""Locks: exactly what a dependency list came to, once resolved, so that every node and every restart has the same."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import asdict, dataclass
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from packaging.utils import canonicalize_name

from ...errors import EtlInitError
from .runtimes import Runtime

#: First key of every lock on disk, and the version that this code writes.
FORMAT_VERSION = 1

# A report is written by foreign code's process: nothing from it reaches a requirements file unless it looks like this.
_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?")
_VERSION = re.compile(r"[A-Za-z0-9.!+_-]+")
_HASH = re.compile(r"(?:sha256|sha384|sha512):[0-9a-f]+")
_URL = re.compile(r"(?:git\+)?https?://[^\s\"']+")


@dataclass(frozen=True, slots=True)
class LockedPackage:
    """One distribution. ``url`` is set when it was asked for by URL, without credentials; hashes are ``sha256:…``."""

    name: str
    version: str
    url: str = ""
    hashes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Lock:
    """The packages of one environment, the interpreter's version and its platform.

    Wheels are chosen by platform and Python, so a lock is true for one of each and says which.
    """

    python: str
    implementation: str
    platform: str
    packages: tuple[LockedPackage, ...] = ()

    def digest(self) -> str:
        """Return 16 hex digits that change with anything in the lock."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()[:16]

    def to_json(self) -> str:
        """Return the lock as text, always the same for the same lock."""
        return json.dumps({"format": FORMAT_VERSION, **asdict(self)}, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Lock:
        """Return the lock that ``to_json`` wrote; ValueError for anything else."""
        content = json.loads(text)
        if not isinstance(content, dict) or content.pop("format", None) != FORMAT_VERSION:
            raise ValueError("not a lock of a known format")
        try:
            packages = tuple(
                LockedPackage(**{**package, "hashes": tuple(package["hashes"])}) for package in content.pop("packages")
            )
            return cls(packages=packages, **content)
        except (TypeError, KeyError) as error:
            raise ValueError(f"not a lock: {error}") from error

    def requirements(self, credentials: dict[str, str] | None = None) -> str:
        """Return a requirements file that installs this lock and nothing else, with ``pip install --no-deps``.

        ``credentials`` maps a host to the ``user:password`` that its URLs need. Hashes are checked when every package
        has one, which is pip's rule; only a source from version control has none.
        """
        hashed = all(package.hashes for package in self.packages)
        return "".join(_line(package, hashed, credentials or {}) for package in self.packages)


def make_lock(runtime: Runtime, packages: list[LockedPackage]) -> Lock:
    """Return the lock of ``packages`` for ``runtime``."""
    ordered = tuple(sorted(packages, key=lambda package: package.name))
    return Lock(runtime.version, runtime.implementation, runtime.platform, ordered)


def runtime_of(lock: Lock) -> str:
    """Return the name of the runtime that ``lock`` was made with."""
    return f"python{_minor(lock.python)}"


def check_lock(lock: Lock, runtime: Runtime) -> None:
    """Raise EtlInitError if ``lock`` was made for other interpreters than ``runtime``; patch levels may differ."""
    wanted = (lock.implementation, _minor(lock.python), lock.platform)
    here = (runtime.implementation, _minor(runtime.version), runtime.platform)
    if wanted != here:
        raise EtlInitError(
            f"the environment of this transform is for {_spell(*wanted)}, and {runtime.name} here is {_spell(*here)}",
            hint="have the same Python and platform on all nodes, or choose a runtime that all have with --runtime",
        )


def _minor(version: str) -> str:
    return ".".join(version.split(".")[:2])


def _spell(implementation: str, version: str, platform: str) -> str:
    return f"{implementation} {version} on {platform}"


def lock_from_report(runtime: Runtime, report: str) -> Lock:
    """Return the lock of pip's installation report; EtlInitError if it is not one.

    The format: https://pip.pypa.io/en/stable/reference/installation-report/
    """
    try:
        return make_lock(runtime, [_from_item(item) for item in json.loads(report)["install"]])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise EtlInitError(f"pip's report of the resolved dependencies cannot be read: {error}") from error


def _from_item(item: dict[str, Any]) -> LockedPackage:
    name, version = canonicalize_name(item["metadata"]["name"]), item["metadata"]["version"]
    download = item["download_info"]
    archive = download.get("archive_info") or {}
    found = dict(archive.get("hashes") or {})
    if "=" in (archive.get("hash") or ""):
        algorithm, _, value = archive["hash"].partition("=")
        found.setdefault(algorithm, value)
    hashes = tuple(sorted(f"{key}:{value}" for key, value in found.items() if key in ("sha256", "sha384", "sha512")))
    url = _direct_url(download) if item.get("is_direct") else ""
    if not _NAME.fullmatch(name) or not _VERSION.fullmatch(version):
        raise ValueError(f"{name!r} {version!r} is not a package and a version")
    if not all(_HASH.fullmatch(value) for value in hashes) or (url and not _URL.fullmatch(url)):
        raise ValueError(f"{name} has an impossible hash or URL")
    return LockedPackage(name, version, url, hashes)


def _direct_url(download: dict[str, Any]) -> str:
    """Return the URL to install from again, held to the commit where there is one, without credentials."""
    parts = urlsplit(download["url"])
    url = urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, parts.query, ""))
    if "vcs_info" in download:
        url = f"{download['vcs_info']['vcs']}+{url}@{download['vcs_info']['commit_id']}"
    return f"{url}#subdirectory={download['subdirectory']}" if download.get("subdirectory") else url


def _line(package: LockedPackage, hashed: bool, credentials: dict[str, str]) -> str:
    source = f"{package.name}=={package.version}"
    if package.url:
        scheme, _, rest = package.url.partition("://")
        host = re.split(r"[/?#]", rest, maxsplit=1)[0]
        source = f"{package.name} @ {scheme}://{f'{credentials[host]}@' if host in credentials else ''}{rest}"
    return " ".join([source, *(f"--hash={value}" for value in package.hashes if hashed)]) + "\n"

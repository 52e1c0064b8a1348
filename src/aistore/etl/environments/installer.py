"""The installer: which pip installs for a runtime, how its settings reach it, and what its output means.

Pip runs *in* the interpreter that it installs for, through the runner that its own ``--python`` option uses: one
process, and nothing but pip's site-packages and that interpreter has to be readable in the sandbox. The serving
environment's pip is taken when it supports the runtime's version, else the one that came with the runtime: pip drops
old versions of Python long before people do.

The operator's settings (index, proxy, certificates, find-links) are asked of pip itself and passed on as environment
variables, for the files they come from lie in a home that the installer's user cannot read.
"""

from __future__ import annotations

import ast
import glob
import importlib.metadata
import json
import netrc
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit

from packaging.specifiers import SpecifierSet

from ...errors import EtlInitError
from .commands import CommandSpec
from .requirements import mask_credentials
from .runtimes import Runtime

#: The first pip whose ``install`` has ``--dry-run`` and ``--report``.
PIP_VERSION_MIN = (22, 2)

_QUERY_TIMEOUT_SECONDS = 60.0
LINE_LENGTH_MAX = 2000
PROGRESS_LENGTH_MAX = 200  # of a line that a person watches: a list of all packages is no news
_LAST_LINES = 20  # of pip's output in an error, when it has no line that says ERROR

# Settings of the operator that say where packages come from. What would change where they go (target, user, prefix)
# or what the installer writes (log, cache-dir) is not passed on.
_SETTINGS = (
    "index-url", "extra-index-url", "no-index", "find-links", "trusted-host", "proxy", "cert", "client-cert", "timeout",
    "default-timeout", "retries", "pre", "prefer-binary", "only-binary", "no-binary", "constraint", "keyring-provider",
    "use-deprecated", "use-feature", "uploaded-prior-to",
)  # fmt: skip
_SETTINGS_INDEX = ("index-url", "extra-index-url")
_SETTINGS_WITH_PATHS = ("find-links", "cert", "client-cert", "constraint", *_SETTINGS_INDEX)
# Where the pages of an index in a directory named "simple" have their links lead to: beside it, as mirrors lay it out.
_INDEX_PAGES, _INDEX_FILES = "simple", ("packages", "files")
_PASSED_ON = ("PATH", "LANG", "LC_ALL", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY", "http_proxy",
              "https_proxy", "no_proxy", "all_proxy", "SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE",
              "CURL_CA_BUNDLE", "CC", "CXX", "CFLAGS", "LDFLAGS", "SOURCE_DATE_EPOCH")  # fmt: skip
_PASSED_ON_PATHS = ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")

# What of pip's chatter a person who waits wants to see.
_PROGRESS = re.compile(
    r"(Collecting|Processing|Downloading|Using cached|Cloning|Installing build dependencies|Preparing metadata|"
    r"Building wheel|Installing collected packages|Successfully installed)\b"
)
# Pip says where a requirement stands: in a file of ours, whose lines are not the user's.
_PLACE = re.compile(r"-r \S+ \(line (\d+)\)")
_VERSIONS = re.compile(r"\(from versions: ([^()]+)\)")  # all there are, oldest first: hundreds
_VERSIONS_SHOWN = 10
_FROM_PLACE = re.compile(r" \(from -r \S+ \(line \d+\)\)|->-r \S+ \(line \d+\)")


@dataclass(frozen=True, slots=True)
class Settings:
    """The operator's pip settings: environment variables, the local paths that they name, the index's ``netrc``."""

    env: Mapping[str, str] = field(repr=False)
    paths: tuple[str, ...] = ()
    netrc: str = field(default="", repr=False)

    def index(self, options: tuple[str, ...] = ()) -> str:
        """Return where packages are looked for, credentials masked; ``options`` are those of the dependency list."""
        chosen = [option.partition(" ")[2] for option in options if option.startswith("--index-url ")]
        extra = [option.partition(" ")[2] for option in options if option.startswith(("--extra-index", "--find-links"))]
        offline = "--no-index" in options or self.env.get("PIP_NO_INDEX", "").lower() in ("1", "true", "yes", "on")
        index = [] if offline else [chosen[-1] if chosen else self.env.get("PIP_INDEX_URL", "pip's default index")]
        more = f"{self.env.get('PIP_EXTRA_INDEX_URL', '') if not offline else ''} {self.env.get('PIP_FIND_LINKS', '')}"
        return mask_credentials(", ".join([*index, *more.split(), *extra])) or "none (no-index is set)"


def read_settings(environ: Mapping[str, str], runtime: Runtime) -> Settings:
    """Return the pip settings in force for the store: its environment, and the files that pip reads by itself.

    The pip that is asked is the serving environment's, or ``runtime``'s where that has none (uv makes such ones).
    """
    chosen: dict[str, str] = {}
    ranks: dict[str, int] = {}
    for line in _config_lines(environ, runtime):
        key, _, value = line.partition("=")
        section, _, name = key.strip().partition(".") if not key.startswith(":env:") else (":env:", "", key[6:])
        rank = {"global": 1, "install": 2, ":env:": 3}.get(section, 0)
        name = name.replace("_", "-")
        if rank > ranks.get(name, 0) and name in _SETTINGS:
            chosen[name], ranks[name] = str(ast.literal_eval(value)), rank
    env = {f"PIP_{name.upper().replace('-', '_')}": " ".join(value.split()) for name, value in chosen.items()}
    paths = [path for name in _SETTINGS_WITH_PATHS for path in _local_paths(chosen.get(name, ""))]
    paths += [path for name in _SETTINGS_INDEX for path in _files_of_index(chosen.get(name, ""))]
    for name in _PASSED_ON:
        if environ.get(name):
            env[name] = environ[name]
    paths += [env[name] for name in _PASSED_ON_PATHS if name in env]
    file = environ.get("NETRC") or os.path.join(os.path.expanduser("~"), ".netrc")
    urls = " ".join([env.get("PIP_INDEX_URL", ""), env.get("PIP_EXTRA_INDEX_URL", ""), env.get("PIP_FIND_LINKS", "")])
    return Settings(env, tuple(dict.fromkeys(paths)), netrc_of_hosts(file, urls.split()))


def netrc_of_hosts(file: str, urls: Iterable[str]) -> str:
    """Return the lines of a netrc file for the hosts of ``urls``: the installer runs foreign code, which may read them.

    Empty where there is no such file, or none that can be read.
    """
    try:
        known = netrc.netrc(file).hosts
    except (OSError, netrc.NetrcParseError, UnicodeDecodeError):
        return ""
    hosts = dict.fromkeys(urlsplit(url).hostname or "" for url in urls if "://" in url)
    lines = [f"machine {host} login {known[host][0]} password {known[host][2]}\n" for host in hosts if host in known]
    return "".join(lines)


def pip_runner(runtime: Runtime) -> str:
    """Return the path that runs a pip which supports ``runtime`` when its interpreter is given it as a script."""
    try:
        pip = importlib.metadata.distribution("pip")
        supported = SpecifierSet(pip.metadata["Requires-Python"])
        runner = str(pip.locate_file("pip/__pip-runner__.py"))
        if supported.contains(runtime.version) and os.path.isfile(runner):
            return runner
    except importlib.metadata.PackageNotFoundError:
        pass  # an environment made by uv has none
    found = _pip_of(runtime)
    if found is None:
        raise EtlInitError(
            f"no pip for {runtime.name} ({runtime.version}): neither the store's environment nor the runtime has one of"
            f" version {PIP_VERSION_MIN[0]}.{PIP_VERSION_MIN[1]} or newer that supports it",
            hint=f"run `{runtime.python} -m pip install --upgrade pip`, or `pip install pip` where the store runs",
        )
    return found


def pip_install(directory: str, runtime: Runtime, runner: str, settings: Settings, arguments: list[str]) -> CommandSpec:
    """Return the command ``pip install`` with ``arguments`` for the environment ``directory``; it writes only there."""
    work = work_directory(directory)
    for path in (os.path.join(work, "home"), os.path.join(work, "tmp"), cache_directory(directory)):
        os.makedirs(path, exist_ok=True)
    fixed = {
        "HOME": os.path.join(work, "home"),
        "TMPDIR": os.path.join(work, "tmp"),
        # A cache of this build alone: one shared by all would carry what a malicious setup.py leaves to the next ETL.
        "PIP_CACHE_DIR": cache_directory(directory),
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_NO_INPUT": "1",
        "PIP_NO_COLOR": "1",
        "PIP_PROGRESS_BAR": "off",
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "PIP_ROOT_USER_ACTION": "ignore",
        "PYTHONUNBUFFERED": "1",
        "PYTHONNOUSERSITE": "1",
    }
    if settings.netrc:
        fixed["NETRC"] = os.path.join(work, "netrc")
        with open(os.open(fixed["NETRC"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
            file.write(settings.netrc)
    # --use-pep517: the environment has no setuptools, which pip's older way needs there.
    python = os.path.join(directory, "bin", "python")
    argv = (python, runner, "install", "--use-pep517", "--no-warn-script-location", *arguments)
    # The directory that pip lies in, and not pip alone: its runner looks pip up by listing that directory.
    package = os.path.dirname(os.path.dirname(runner)) if runner.endswith(".py") else runner
    read = (package, runtime.base_prefix, os.path.dirname(os.path.realpath(runtime.python)), *settings.paths)
    return CommandSpec(argv, {**settings.env, **fixed}, read, directory)


def work_directory(directory: str) -> str:
    """Return where the installer of the environment ``directory`` keeps what is not part of it."""
    return os.path.join(directory, ".work")


def cache_directory(directory: str) -> str:
    """Return where pip keeps what it downloaded for the environment ``directory``."""
    return os.path.join(work_directory(directory), "cache")


class PipOutput:
    """Listens to pip: passes the lines that show progress on, keeps those that say what went wrong.

    ``line_of`` gives the line of the user's list for a line of the file that pip reads.
    """

    def __init__(
        self, progress: Callable[[str], None], line_of: Callable[[int], int | None] = lambda line: None
    ) -> None:
        self._progress = progress
        self._line_of = line_of
        self._last: list[str] = []
        self._errors: list[str] = []

    def line(self, text: str) -> None:
        """Take one line of pip's output."""
        text = _VERSIONS.sub(_newest, text)[:LINE_LENGTH_MAX]
        text = _PLACE.sub(self._place, _FROM_PLACE.sub("", mask_credentials(text)))
        self._last = [*self._last, text][-_LAST_LINES:]
        if text.lstrip().startswith(("ERROR:", "error:")) and text not in self._errors:
            self._errors = [*self._errors, text][-_LAST_LINES:]
        if _PROGRESS.match(text.lstrip()):
            text = text.strip()
            self._progress(text if len(text) <= PROGRESS_LENGTH_MAX else f"{text[:PROGRESS_LENGTH_MAX]} …")

    def reason(self) -> str:
        """Return what pip said about its failure."""
        if not self._errors:
            return "\n".join(self._last) or "pip said nothing"
        if not any("subprocess-exited-with-error" in line or "ResolutionImpossible" in line for line in self._errors):
            return "\n".join(self._errors)
        # The lines after the first error explain it: a traceback or a compiler's words, or what contradicts what.
        first = next((index for index, line in enumerate(self._last) if line in self._errors), 0)
        return "\n".join([*(line for line in self._errors if line not in self._last), *self._last[first:]])

    def _place(self, match: re.Match[str]) -> str:
        line = self._line_of(int(match[1]))
        return "the dependencies" if line is None else f"line {line} of the dependencies"

    def hint(self, runtime: Runtime) -> str:
        """Return what to do about the failure, as sentences to put before others; empty when it is not known."""
        said = self.reason()
        if "ResolutionImpossible" in said:
            return "loosen the versions that contradict one another; "
        if re.search(r"NewConnectionError|ConnectTimeout|NameResolution|ProxyError|SSLError|Connection refused", said):
            return "check that the machine of the store reaches its package index (through its own pip's settings); "
        if "No matching distribution" in said:
            target = f"Python {runtime.version} on {runtime.platform}"
            return f"check the name and version, and that there is a wheel for {target}; "
        return ""


def _newest(match: re.Match[str]) -> str:
    versions = match[1].split(", ")
    if len(versions) <= _VERSIONS_SHOWN:
        return match[0]
    return f"(from {len(versions)} versions, the last: {', '.join(versions[-_VERSIONS_SHOWN:])})"


def _config_lines(environ: Mapping[str, str], runtime: Runtime) -> list[str]:
    try:
        python, runner = (
            sys.executable,
            str(importlib.metadata.distribution("pip").locate_file("pip/__pip-runner__.py")),
        )
    except importlib.metadata.PackageNotFoundError:
        python, runner = runtime.python, pip_runner(runtime)
    done = subprocess.run(
        [python, runner, "config", "list"],
        env=dict(environ),
        cwd="/",
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=_QUERY_TIMEOUT_SECONDS,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        reason = mask_credentials((done.stderr.strip() or done.stdout.strip())[-500:])
        raise EtlInitError(
            f"the pip settings of the store's machine cannot be read: {reason}", hint="see `pip config debug`"
        )
    return [line for line in done.stdout.splitlines() if re.match(r"[:\w-]+\.[\w-]+=['\"]", line)]


def _local_paths(value: str) -> list[str]:
    """Return the paths of this machine among the words of a setting."""
    words = (unquote(urlsplit(word).path) if word.startswith("file:") else word for word in value.split())
    return [os.path.expanduser(word) for word in words if word.startswith(("/", "~"))]


def _files_of_index(value: str) -> list[str]:
    """Return the directories with the packages of the local indexes among the words of a setting."""
    indexes = (os.path.split(path.rstrip("/")) for path in _local_paths(value))
    beside = [os.path.join(parent, name) for parent, last in indexes if last == _INDEX_PAGES for name in _INDEX_FILES]
    return [path for path in beside if os.path.isdir(path)]


def _pip_of(runtime: Runtime) -> str | None:
    """Return what runs the pip that came with ``runtime``: installed there, or the wheel of its ensurepip."""
    script = (
        "import json, os\n"
        "found = []\n"
        "try:\n    import pip; found.append([pip.__version__, os.path.dirname(pip.__file__)])\nexcept Exception: pass\n"
        "try:\n    import ensurepip; found.append([ensurepip.version(), os.path.dirname(ensurepip.__file__)])\n"
        "except Exception: pass\n"
        "print(json.dumps(found))"
    )
    try:
        done = subprocess.run(
            [runtime.python, "-I", "-c", script],
            cwd="/",
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_QUERY_TIMEOUT_SECONDS,
            check=True,
        )
        found: list[list[str]] = json.loads(done.stdout)
    except (OSError, subprocess.SubprocessError, ValueError):
        return None
    for version, directory in found:
        if tuple(int(part) for part in re.findall(r"\d+", version)[:2]) < PIP_VERSION_MIN:
            continue
        runner = os.path.join(directory, "__pip-runner__.py")
        wheels = [
            *glob.glob(os.path.join(directory, "_bundled", f"pip-{version}-*.whl")),
            *glob.glob(f"/usr/share/python-wheels/pip-{version}-*.whl"),  # Debian keeps ensurepip's wheels there
        ]
        if os.path.isfile(runner):
            return runner
        if wheels:
            return os.path.join(wheels[0], "pip")
    return None

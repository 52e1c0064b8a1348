"""A real object store on this machine: SeaweedFS's `weed`, one of everything it needs, behind its S3 gateway.

What its options have to say is learned by trial:

- ``-master.peers=none``: a master that looks for peers takes ten seconds more after a restart, and a volume server that
  meets it too early comes back five seconds later; until then acknowledged objects answer 500.
- Each bucket takes volumes of its own, seven unless told otherwise, and writes fail when there are no more slots.
- It reads ``*.toml`` from its working directory first, then from the user's and the system's: so it gets its own.
- SIGTERM takes it 15 seconds, in which its filer waits for streams that do not end. Killing it loses nothing that was
  acknowledged: it keeps nothing back in memory, and only a power cut can take what the system has not written yet.
- The gRPC port of each part is its HTTP port + 10000, and each leaves a socket in /tmp when it is killed.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import sys
import sysconfig
import time
import urllib.error
import urllib.request

from ..errors import AisError, ConflictError, NotSupportedError
from .guarded import GuardedProcess
from .ports import free_block, is_free
from .signing import signed_request

_PARTS = ("master", "volume", "filer", "s3")  # in the order of their ports
_GRPC_ABOVE = 10_000
#: The bucket that is there when it is ready.
BUCKET = "lake"
_REGION = "us-east-1"
_GRACE_SECONDS = 0.5
_POLL_SECONDS = 0.02
_STARTS_MAX = 5

_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # no proxy leads to this machine

_FILES = {
    "master.toml": "[master.volume_growth]\ncopy_1 = 2\n",
    "filer.toml": '[leveldb2]\nenabled = true\ndir = "filer"\n',
    "security.toml": "",
}


def find_weed() -> str:
    """Return the path of the `weed` program; raises NotSupportedError that names the extra which brings it."""
    beside = os.path.join(sysconfig.get_path("scripts"), "weed")
    found = beside if os.access(beside, os.X_OK) else shutil.which("weed")
    if found is None:
        raise NotSupportedError(
            "there is no `weed` (SeaweedFS) on this machine, the object store that a cluster on one machine keeps its "
            "objects in",
            hint=f"install it with: {os.path.basename(sys.executable)} -m pip install 'pyaistore[cluster]'",
        )
    return found


class Weed:
    """A `weed` over ``directory``, which it makes; objects are kept there from one start to the next.

    ``host`` is the address it binds, ``through`` a command that runs it elsewhere, such as in a network namespace (its
    own command is added). Credentials are made once and kept in the directory, so that no web page that a browser on
    this machine shows can write to it.
    """

    def __init__(self, directory: str, *, host: str = "127.0.0.1", through: tuple[str, ...] = ()) -> None:
        self.directory = os.path.abspath(directory)
        self.host = host
        self.log_path = os.path.join(self.directory, "weed.log")
        self._through = through
        self._process: GuardedProcess | None = None
        self._first_port = self._log_start = 0
        self.access_key = ""
        self.secret_key = ""

    @property
    def endpoint(self) -> str:
        """Address of the S3 gateway."""
        return f"http://{self.host}:{self._port('s3')}"

    @property
    def environment(self) -> dict[str, str]:
        """What a program needs in its environment to reach the store as S3."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint, "AWS_ALLOW_HTTP": "true", "AWS_REGION": _REGION,
            "AWS_ACCESS_KEY_ID": self.access_key, "AWS_SECRET_ACCESS_KEY": self.secret_key,
        }  # fmt: skip

    @property
    def process(self) -> GuardedProcess:
        """The process, once started."""
        assert self._process is not None, "not started"
        return self._process

    def _port(self, part: str) -> int:
        return self._first_port + _PARTS.index(part)

    def start(self, timeout_seconds: float = 60.0) -> Weed:
        """Start it, wait until it takes and gives objects, make the bucket BUCKET.

        Raises AisError with the end of its log.
        """
        weed = find_weed()
        self._prepare()
        deadline = time.monotonic() + timeout_seconds
        for attempt in range(_STARTS_MAX):
            if attempt or not self._ports_are_free():
                self._choose_ports()
            self._log_start = os.path.getsize(self.log_path) if os.path.exists(self.log_path) else 0
            self._process = GuardedProcess(
                [*self._through, weed, *self._arguments()],
                log=self.log_path, env=self._own_environment(), directory=self.directory, grace_seconds=_GRACE_SECONDS,
            )  # fmt: skip
            if self._wait_ready(deadline):
                return self
            self._end()
            log = self.log()
            if "address already in use" not in log:
                break
        raise AisError(f"the object store did not start; the end of {self.log_path}:\n{log[-2000:]}")

    def _prepare(self) -> None:
        os.makedirs(os.path.join(self.directory, "data"), exist_ok=True)
        for name, text in _FILES.items():
            with open(os.path.join(self.directory, name), "w", encoding="utf-8") as file:
                file.write(text)
        try:
            with open(self._note_path, encoding="utf-8") as file:
                note = json.load(file)
            self._first_port, self.access_key, self.secret_key = note["port"], note["access_key"], note["secret_key"]
        except FileNotFoundError:
            self.access_key, self.secret_key = secrets.token_hex(10), secrets.token_hex(20)
        except (ValueError, KeyError, TypeError) as error:
            raise ConflictError(
                f"{self._note_path} cannot be read: {error}", hint="choose another directory"
            ) from error

    @property
    def _note_path(self) -> str:
        return os.path.join(self.directory, "laptop.json")

    def _ports_are_free(self) -> bool:
        if self._through:
            return self._first_port > 0  # another machine's, as far as ports go
        ports = [self._port(part) for part in _PARTS if self._first_port]
        return bool(ports) and all(
            is_free(port, self.host) and is_free(port + _GRPC_ABOVE, self.host) for port in ports
        )

    def _choose_ports(self) -> None:
        self._first_port = free_block(len(_PARTS), also_above=_GRPC_ABOVE)
        note = {"port": self._first_port, "access_key": self.access_key, "secret_key": self.secret_key}
        descriptor = os.open(self._note_path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with open(descriptor, "w", encoding="utf-8") as file:
            json.dump(note, file)

    def _own_environment(self) -> dict[str, str]:
        """Return this process's environment without what would configure another store."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "WEED_"))}
        mine = {"AWS_ACCESS_KEY_ID": self.access_key, "AWS_SECRET_ACCESS_KEY": self.secret_key}
        return {**kept, **mine, "HOME": self.directory}

    def _arguments(self) -> list[str]:
        return [
            "-logtostderr=true", "server", "-dir=data", f"-ip={self.host}", f"-ip.bind={self.host}",
            "-master.peers=none", "-master.telemetry=false", "-master.volumeSizeLimitMB=256",
            "-volume.max=2000", "-volume.preStopSeconds=0",
            "-filer", "-filer.disableHttp", "-s3", "-s3.port.iceberg=0", "-s3.port.lance=0",
            *(f"-{part}.port={self._port(part)}" for part in _PARTS),
        ]  # fmt: skip

    def _wait_ready(self, deadline: float) -> bool:
        """Ask until every part answers and a bucket can be made; False if it ended, or the time is over."""
        waiting = [f"http://{self.host}:{self._port('volume')}/healthz", f"{self.endpoint}/healthz"]
        while time.monotonic() < deadline and not self.process.ended:
            try:
                while waiting:
                    _OPENER.open(waiting[0], timeout=5).close()
                    waiting.pop(0)
                if self._has_volumes():
                    self.make_bucket(BUCKET)
                    return True
            except OSError:  # refused, reset, or an answer that says "not yet"
                pass
            time.sleep(_POLL_SECONDS)
        return False

    def _has_volumes(self) -> bool:
        """Return whether the volume server has told the master what it has: before, nothing is found or placed."""
        with _OPENER.open(f"http://{self.host}:{self._port('master')}/dir/status", timeout=5) as reply:
            return bool(json.load(reply)["Topology"]["DataCenters"])

    def make_bucket(self, name: str) -> None:
        """Make a bucket; nothing happens if it is there. Raises OSError."""
        request = signed_request(
            "PUT", f"{self.endpoint}/{name}", access_key=self.access_key, secret_key=self.secret_key, region=_REGION
        )
        try:
            _OPENER.open(request, timeout=10).close()
        except urllib.error.HTTPError as error:
            with error:
                if error.code != 409:
                    raise

    def log(self) -> str:
        """Return what it has logged since it was last started."""
        with open(self.log_path, "rb") as file:
            file.seek(self._log_start)
            return file.read().decode(errors="replace")

    def kill(self) -> None:
        """Kill it with SIGKILL, as a crash would; ``start`` starts it again with its objects, on the same ports."""
        self.process.signal(signal.SIGKILL)
        self.process.wait(10)
        self._end()

    def stop(self) -> None:
        """Stop it; its directory stays. May be called again."""
        if self._process is not None:
            self._end()

    def _end(self) -> None:
        self.process.end()
        self._process = None
        for part in _PARTS:
            for name in (f"{part}-grpc-{self._port(part) + _GRPC_ABOVE}", f"{part}-{self._port(part)}"):
                try:
                    os.unlink(f"/tmp/seaweedfs-{name}.sock")
                except FileNotFoundError:
                    pass

    def __enter__(self) -> Weed:
        return self if self._process is not None else self.start()

    def __exit__(self, *error: object) -> None:
        self.stop()

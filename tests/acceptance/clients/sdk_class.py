"""NVIDIA's SDK makes transforms of its own kinds: images, and classes of all its web servers, in mixed pipelines.

python sdk_class.py ENDPOINT      where aistore[etl] is installed, and this project is not; prints JSON

There is a transform "sdk-code" made from code, which puts <> around an object.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Callable
from typing import Any

from aistore.sdk import Client
from aistore.sdk.etl import ETLConfig
from aistore.sdk.etl.webserver.fastapi_server import FastAPIServer
from aistore.sdk.etl.webserver.flask_server import FlaskServer
from aistore.sdk.etl.webserver.http_multi_threaded_server import HTTPMultiThreadedServer
from sdk import outcome

JOB_SECONDS = 120


def upper(client: Client) -> None:
    @client.etl("class-upper").init_class(GREETING="hello")
    class Upper(FastAPIServer):
        """Capitals and the arguments; says its environment when it is asked to."""

        def __init__(self) -> None:
            super().__init__()
            print("upper was constructed", flush=True)

        def transform(self, data: bytes, path: str, etl_args: str) -> bytes:
            if etl_args == "greet":
                return os.environ["GREETING"].encode()
            if etl_args == "path":
                return path.encode()
            return data.upper() + etl_args.encode()


def reverse(client: Client) -> None:
    @client.etl("class-reverse").init_class(comm_type="hpull")
    class Reverse(FlaskServer):
        def transform(self, data: bytes, path: str, etl_args: str) -> bytes:
            return data[::-1]


def picky(client: Client) -> None:
    @client.etl("class-picky").init_class(comm_type="ws", direct_put=True)
    class Picky(FastAPIServer):
        def transform(self, data: bytes, path: str, etl_args: str) -> bytes:
            if data.endswith(b"7"):
                raise ValueError(f"refused {data.decode()}")
            return data


def digest(client: Client) -> None:
    @client.etl("class-digest").init_class(direct_file_access=True, dependencies=["six"])
    class Digest(HTTPMultiThreadedServer):
        """Gets the path of a file instead of bytes."""

        def transform(self, data: str, path: str, etl_args: str) -> bytes:
            import six

            with open(data, "rb") as file:
                digest = hashlib.md5(file.read(), usedforsecurity=False).hexdigest()
            return f"{os.path.basename(data)} {digest} {six.__name__}".encode()


def broken(client: Client) -> None:
    @client.etl("class-broken").init_class()
    class Broken(FastAPIServer):
        def __init__(self) -> None:
            super().__init__()
            raise RuntimeError("cannot be constructed")

        def transform(self, data: bytes, path: str, etl_args: str) -> bytes:
            return data


MAKERS: list[Callable[[Client], None]] = [upper, reverse, picky, digest]


def main() -> None:
    client = Client(sys.argv[1])
    source = client.bucket("class-source").create()
    for number in range(20):
        source.object(f"{number:02}.txt").get_writer().put_content(b"words %d" % number)
    source.object("70.txt").get_writer().put_content(b"7 words")
    words = source.object("01.txt")
    found: dict[str, Any] = {"made": {maker.__name__: outcome(lambda maker=maker: maker(client)) for maker in MAKERS}}
    found["image"] = outcome(lambda: client.etl("image-md5").init("aistorage/transformer_md5:latest"))
    found["made"]["broken"] = outcome(lambda: broken(client))
    found["unknown image"] = outcome(lambda: client.etl("image-other").init("registry.example/other:1"))
    first, second, third, fourth, code, md5 = (
        client.etl(name)
        for name in ("class-upper", "class-reverse", "class-picky", "class-digest", "sdk-code", "image-md5")
    )

    def read(etl: Any, args: Any = None, thing: Any = words) -> str:
        return thing.get_reader(etl=ETLConfig(etl, args=args)).read_all().decode()

    found["alone"] = [read(etl) for etl in (first, second, third, fourth, code, md5)]
    found["asked"] = [read(first, "greet"), read(first, "path")]
    found["lines"] = [
        read(first >> second >> third),
        read(code >> first >> second, "!"),
        read(second >> code >> md5),
        read(fourth >> first),
        read(first >> fourth),
    ]
    found["refused"] = outcome(lambda: read(second >> third >> first, thing=source.object("70.txt")))
    found["refused alone"] = outcome(lambda: read(third, thing=source.object("07.txt")))

    target = client.bucket("class-target").create()
    words.copy(target.object("copied"), etl=ETLConfig(code >> first))
    found["copied"] = target.object("copied").get_reader().read_all().decode()
    job = client.job(source.transform("class-upper", target, etl_pipeline=["class-reverse"], prepend="t/"))
    found["job"] = [job.wait(timeout=JOB_SECONDS).success, len(list(target.list_all_objects_iter(prefix="t/")))]
    found["job made"] = target.object("t/02.txt").get_reader().read_all().decode()
    inspected = client.job(source.inspect("class-picky", etl_pipeline=["class-upper"]))
    inspected.wait(timeout=JOB_SECONDS)
    found["inspected"] = sorted(
        [error.obj_name, "refused words" in error.msg] for error in third.view(inspected.job_id).obj_errors
    )
    (log,) = first.logs()
    found["logs"] = "upper was constructed" in log.logs
    details = fourth.view()
    found["view"] = {
        "name": details.init_msg.name, "communication": details.init_msg.communication,
        "variables": sorted(variable.name for variable in details.init_msg.runtime.env),
        "image": details.init_msg.runtime.image,
    }  # fmt: skip
    first.stop()
    found["stopped"] = outcome(lambda: read(code >> first))
    first.start()
    found["started"] = read(code >> first)
    with client.etl("class-reverse") as entered:
        found["entered"] = read(entered)
    found["left"] = sorted(info.id for info in client.cluster().list_etls())
    for name in found["left"]:
        client.etl(name).stop()
        client.etl(name).delete()
    print(json.dumps(found))


if __name__ == "__main__":
    main()

"""What the client of 2021 gets from a store, as JSON. Runs where that client is installed, and this project is not.

    python client_2021.py ENDPOINT

The store has the bucket ais://old with some objects; project_of_mine is a package that no index
has. The client never looks at a status: an error's text becomes the object, or the name of the ETL.
"""

from __future__ import annotations

import base64
import copy
import io
import json
import sys
import tarfile
import zlib
from importlib import metadata
from types import SimpleNamespace
from typing import Any

import pip._internal.utils.misc
import project_of_mine
from aistore.client.msg import BuildETL
from aistore.client.transform import BytesTransform, WDTransform

from aistore.client import Bck, Client

BUCKET = Bck("old")

IO_CODE = "import sys\nsys.stdout.write(sys.stdin.read().title())\n"
HPUSH_CODE = "def transform(input_bytes):\n    return input_bytes[::-1]\n"


def pip_of_2021() -> None:
    """Put back the function of pip (until 21.2) that the client asks for the list of what is installed."""
    pip._internal.utils.misc.get_installed_distributions = lambda: [
        SimpleNamespace(key=found.metadata["Name"].lower(), version=found.version) for found in metadata.distributions()
    ]


def base64_of(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def listing(client: Client) -> dict[str, Any]:
    return {
        "all": [entry["name"] for entry in client.list_objects(BUCKET)],
        "prefix": [entry["name"] for entry in client.list_objects(BUCKET, prefix="train/")],
        "none": client.list_objects(BUCKET, prefix="nothing/"),
        "missing": client.list_objects(Bck("old-none")),
    }


def transforms(client: Client) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, code, communication in (("old-io-etl", IO_CODE, "io://"), ("", HPUSH_CODE, "hpush://")):
        made = client.etl_build(BuildETL(base64_of(code), base64_of(""), communication, id=name))
        found[communication] = {
            "name": made,
            "result": client.get_object(BUCKET, "train/words", transform_id=made).decode(),
            "objects": [
                data.decode() for data in client.transform_objects(BUCKET, made, "train/{words,more words}")
            ],
            "failing": client.get_object(BUCKET, "no/such", transform_id=made).decode(),
            "stop": client.etl_stop(made).status_code,
            "stopped": client.get_object(BUCKET, "train/words", transform_id=made).decode(),
        }  # fmt: skip
    found["twice"] = client.etl_build(BuildETL(base64_of(IO_CODE), base64_of(""), "io://", id="old-io-etl"))
    found["broken"] = client.etl_build(BuildETL(base64_of("def"), base64_of(""), "io://", id="old-broken"))
    found["stop missing"] = client.etl_stop("old-missing").status_code
    return found


def members(data: bytes) -> dict[str, str] | str:
    """Return the files of a tar archive; of what is none, the text."""
    try:
        with tarfile.open(fileobj=io.BytesIO(data)) as archive:
            return {member.name: archive.extractfile(member).read().decode() for member in archive}
    except tarfile.ReadError:
        return data.decode()


def pickled(client: Client) -> dict[str, Any]:
    """A function as it is, with every package that is installed here as what it depends on."""
    pip_of_2021()
    transform = BytesTransform(client, zlib.compress, transform_name="old-pickled")
    listed = base64.b64decode(transform._base64_deps()).decode().split()
    transform.init()
    result = transform.get(BUCKET, "train/words")
    shard = WDTransform(client, copy.copy, transform_name="old-shard")
    shard.init()
    of_mine = BytesTransform(client, project_of_mine.shout, transform_name="old-of-mine")
    of_mine.init()
    return {
        "name": transform.name,
        "result": base64.b64encode(result).decode(),
        "dependencies": listed,
        "shard": {"name": shard.name, "members": members(shard.get(BUCKET, "train/shard.tar"))},
        "of mine": of_mine.name,
    }


def main() -> None:
    client = Client(sys.argv[1])
    print(
        json.dumps(
            {
                "version": metadata.version("aistore"),
                "listing": listing(client),
                "object": client.get_object(BUCKET, "train/words").decode(),
                "space": client.get_object(BUCKET, "train/more words").decode(),
                "missing": client.get_object(BUCKET, "no/such").decode(),
                "targets": [node["public_net"]["direct_url"] for node in client.get_cluster_info()["tmap"].values()],
                "urls": client.expand_object_urls(BUCKET, "train/{0..2}.tar", transform_id="some-etl"),
                "transforms": transforms(client),
                "bucket": client.transform_bucket(BUCKET, Bck("new"), "old-io-etl"),
                "specification": client.etl_init("kind: Pod\n"),
                "pickled": pickled(client),
            }
        )
    )


if __name__ == "__main__":
    main()

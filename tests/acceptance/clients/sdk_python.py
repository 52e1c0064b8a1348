"""What a class says of the Python that runs it. Runs where NVIDIA's SDK is, and this project is not.

python sdk_python.py ENDPOINT
"""

from __future__ import annotations

import sys

from aistore.sdk import Client
from aistore.sdk.etl import ETLConfig
from aistore.sdk.etl.webserver.fastapi_server import FastAPIServer


class Version(FastAPIServer):
    def transform(self, data: bytes, path: str, etl_args: str) -> bytes:
        import sys

        return "{}.{}".format(*sys.version_info[:2]).encode()


client = Client(sys.argv[1])
thing = client.bucket("sdk-python").create(exist_ok=True).object("thing")
thing.get_writer().put_content(b"thing")
etl = client.etl("sdk-python")
etl.init_class(NUM_WORKERS="1")(Version)
print(thing.get_reader(etl=ETLConfig("sdk-python")).read_all().decode())
etl.delete()

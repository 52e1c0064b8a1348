"""A transform of one of NVIDIA's classes, in the environment of their SDK: ``nvidia_server.py KIND STYLE PORT``."""

import sys
import time

from aistore.sdk.etl.webserver.fastapi_server import FastAPIServer
from aistore.sdk.etl.webserver.flask_server import FlaskServer
from aistore.sdk.etl.webserver.http_multi_threaded_server import HTTPMultiThreadedServer

KINDS = {"fastapi": FastAPIServer, "flask": FlaskServer, "threaded": HTTPMultiThreadedServer}


def bytes_of(data):
    """Return the bytes of an object, which with direct file access is given by its path."""
    if isinstance(data, str):
        with open(data, "rb") as file:
            return data.rpartition("/")[2].encode() + b": " + file.read()
    return data


class Whole:
    """Objects in one piece."""

    def transform(self, data, path, etl_args):
        """Return an object in capitals, its path and its arguments."""
        data = bytes_of(data)
        if data.endswith(b"bad"):
            raise ValueError("no picture")
        if data.endswith(b"slow"):
            time.sleep(1.5)
        return data.upper() + f"|{path}|{etl_args}".encode()


class Streaming:
    """Objects piece by piece."""

    def transform_stream(self, reader, path, etl_args):
        """Yield an object in capitals, its path and its arguments."""
        while True:
            piece = reader.read(100_000)
            if not piece:
                break
            if piece.endswith(b"bad"):
                raise ValueError("no picture")
            yield piece.upper()
        yield f"|{path}|{etl_args}".encode()


STYLES = {"whole": Whole, "streaming": Streaming}


if __name__ == "__main__":
    kind, style, port = sys.argv[1:]
    type("Transform", (STYLES[style], KINDS[kind]), {})(host="127.0.0.1", port=int(port)).start()

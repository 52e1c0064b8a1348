"""``ais get``: an object, or all of a prefix, into files or standard output."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

import click

from ...client import Bucket, ObjectReader
from ...errors import BadRequestError
from ...model.names import Uri, parse_uri
from ..complete import complete_uri
from ..files import base_name, path_inside, write_aside
from ..options import confirm, continue_option, workers_option, yes_option
from ..output import counted, format_size, plain
from ..progress import Bar
from ..session import client
from ..transfer import StoppedError, conclude, move_all

_STANDARD_OUTPUT = ("-", "/dev/stdout")


class Download(NamedTuple):
    """An object and the file that it becomes."""

    name: str
    size: int


@click.command()
@click.argument("uri", metavar="BUCKET/NAME | BUCKET[/PREFIX/]", shell_complete=complete_uri)
@click.argument("destination", metavar="[FILE|DIRECTORY|-|/dev/null]", default="")
@click.option("--prefix", help="Get all objects whose names start with this, into a directory.")
@click.option("--offset", type=click.IntRange(0), help="Begin at this byte.")
@click.option("--length", type=click.IntRange(1), help="At most so many bytes.")
@click.option("--latest", is_flag=True, help="Have the store compare its copy with the bucket outside of it first.")
@click.option("--limit", type=click.IntRange(0), help="At most so many objects of a prefix.")
@continue_option
@workers_option
@yes_option
def get(
    uri: str,
    destination: str,
    prefix: str | None,
    offset: int | None,
    length: int | None,
    latest: bool,
    limit: int | None,
    go_on: bool,
    workers: int,
    yes: bool,
) -> None:
    """Get an object, or all objects of a prefix.

    A file appears when it is complete. Without a destination it goes into the current directory. Objects of a prefix
    keep their names as paths below the destination.

    \b
    Examples:
      ais get ais://imagenet/train/1.jpg
      ais get ais://imagenet/train/1.jpg photo.jpg
      ais get ais://imagenet/train/1.cls -
      ais get ais://imagenet --prefix train/ ./copy
      ais get ais://imagenet/big.tar /dev/null
    """
    place = parse_uri(uri)
    bucket = client().bucket(place.bucket)
    if prefix is None and (not place.name or place.name.endswith("/")):
        prefix = place.name
    elif prefix is not None and place.name:
        raise click.UsageError("the prefix is given twice: in the URI and as --prefix")
    if prefix is None:
        part = None if offset is None and length is None else (offset or 0, length)
        get_one(bucket, place.name, destination, part, latest=latest)
        return
    if offset is not None or length is not None:
        raise click.UsageError("--offset and --length are for one object")
    _get_many(bucket, prefix, destination, latest=latest, limit=limit, workers=workers, go_on=go_on, yes=yes)


def get_one(
    bucket: Bucket, name: str, destination: str, part: tuple[int, int | None] | None, *, latest: bool = False
) -> None:
    """Write one object, or a part of it, to a file or to standard output."""
    if destination in _STANDARD_OUTPUT:
        with bucket.object(name).get(range=part, latest=latest) as reader:
            copy_to_stdout(reader)
        return
    path = _file_for(name, destination)
    with bucket.object(name).get(range=part, latest=latest) as reader:
        size = copy_to_file(reader, path, f"GET {name}")
    click.echo(f"GET {plain(name)} from {bucket} as {plain(path)} ({format_size(size)})")


def copy_to_stdout(reader: ObjectReader) -> None:
    """Write all bytes of ``reader`` to standard output."""
    for chunk in reader:
        sys.stdout.buffer.write(chunk)
    sys.stdout.buffer.flush()


def copy_to_file(reader: ObjectReader, path: str, label: str) -> int:
    """Write all bytes of ``reader`` to ``path``, with a bar; return how many they were."""
    with Bar(label, reader.length) as bar, _opened(path) as file:
        size = 0
        for chunk in reader:
            file.write(chunk)
            size += len(chunk)
            bar.advance(len(chunk))
    return size


def _file_for(name: str, destination: str) -> str:
    """Return the path that one object is written to; only a destination that names no file takes the object's name."""
    if not destination:
        return base_name(name)
    if destination.endswith("/") or os.path.isdir(destination):
        return os.path.join(destination, base_name(name))
    return destination


@contextlib.contextmanager
def _opened(path: str) -> Iterator[BinaryIO]:
    if path == os.devnull:
        with open(path, "wb") as file:
            yield file
    else:
        with write_aside(path) as file:
            yield file


def _get_many(
    bucket: Bucket,
    prefix: str,
    destination: str,
    *,
    latest: bool,
    limit: int | None,
    workers: int,
    go_on: bool,
    yes: bool,
) -> None:
    if destination in _STANDARD_OUTPUT:
        raise BadRequestError("several objects cannot go to standard output", hint="name a directory")
    discard = destination == os.devnull
    directory = destination or "."
    if not discard and os.path.exists(directory) and not os.path.isdir(directory):
        raise BadRequestError(f"{directory} is not a directory")
    confirm(f"Get all objects of {Uri(bucket.ref, prefix)} into {directory}?", yes=yes or bool(destination))
    listed = (Download(entry.name, entry.size) for entry in bucket.list(prefix, limit=limit))
    with Bar(f"GET {bucket}", None) as bar:

        def move(item: Download, stop: threading.Event) -> int:
            path = os.devnull if discard else path_inside(directory, item.name)
            size = 0
            with bucket.object(item.name).get(latest=latest) as reader, _opened(path) as file:
                for chunk in reader:
                    if stop.is_set():
                        raise StoppedError
                    file.write(chunk)
                    size += len(chunk)
                    bar.advance(len(chunk))
            return size

        account = move_all(
            listed, move, label=lambda item: str(Uri(bucket.ref, item.name)), verb="got", workers=workers, go_on=go_on
        )
    if not account.done and not account.failed:
        click.echo(f"No objects in {bucket}" + (f" that start with {prefix!r}" if prefix else ""), err=True)
        return
    click.echo(f"GET {counted(account.done, 'object')} ({format_size(account.size)}) from {bucket} into {directory}")
    conclude(account, "got")

"""``ais put``: files, directories and standard input into a bucket."""

from __future__ import annotations

import glob
import os
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

import click

from ...client import Bucket
from ...errors import BadRequestError
from ...model.names import Uri, check_object_name, parse_uri
from ..complete import complete_uri
from ..options import confirm, continue_option, workers_option, yes_option
from ..output import Column, Record, counted, format_size, plain, write_table
from ..progress import Bar
from ..session import client
from ..transfer import CountedFile, conclude, move_all


class Upload(NamedTuple):
    """A file and the object that it becomes."""

    path: str
    name: str
    size: int


@click.command()
@click.argument("sources", metavar="FILE|DIRECTORY|-...", nargs=-1)
@click.argument("destination", metavar="BUCKET[/NAME|/DIRECTORY/]", shell_complete=complete_uri)
@click.option("-r", "--recursive", is_flag=True, help="With the directories in a directory.")
@click.option("--include-src-dir", is_flag=True, help="Begin the names of a directory's files with its own name.")
@click.option("--custom", metavar="KEY=VALUE", multiple=True, help="Custom metadata for every object.")
@click.option("--dry-run", is_flag=True, help="Only say what would be put.")
@continue_option
@workers_option
@yes_option
def put(
    sources: tuple[str, ...],
    destination: str,
    recursive: bool,
    include_src_dir: bool,
    custom: tuple[str, ...],
    dry_run: bool,
    go_on: bool,
    workers: int,
    yes: bool,
) -> None:
    """Put files, directories or standard input into a bucket.

    A file keeps its name unless the destination names an object. The files of a directory are named by their path
    below it. With several files the destination is a directory.

    \b
    Examples:
      ais put README.md ais://docs
      ais put README.md ais://docs/readme.txt
      ais put -r imagenet ais://imagenet
      ais put '*.jpg' ais://imagenet/train/ -y
      tar c . | ais put - ais://backups/today.tar
    """
    if not sources:
        raise click.UsageError(_what_is_missing(destination))
    place = parse_uri(destination)
    metadata = _pairs(custom)
    if "-" in sources:
        _put_stdin(sources, place, metadata)
        return
    paths = [path for source in sources for path in _matches(source)]
    uploads = _plan(paths, place, recursive=recursive, include_src_dir=include_src_dir)
    bucket = client().bucket(place.bucket)
    many = len(uploads) > 1 or os.path.isdir(paths[0])
    skipped = 0 if recursive else sum(map(_count_directories, paths))
    if skipped:
        what = "1 directory" if skipped == 1 else f"{skipped:,} directories"
        click.echo(f"{what} skipped: use -r to put what is in {'it' if skipped == 1 else 'them'}", err=True)
    if dry_run:
        for upload in uploads:
            click.echo(f'PUT "{plain(upload.path)}" => {bucket}/{plain(upload.name)} (dry run)')
        return
    if many:
        _summarize(uploads)
        confirm(f"Put {counted(len(uploads), 'file')} to {bucket}?", yes=yes)
    _put_files(bucket, uploads, metadata, workers=workers, go_on=go_on, many=many)


def _what_is_missing(given: str) -> str:
    """Return what to say when ``put`` has one argument only."""
    if "://" in given and not os.path.lexists(given):
        return f"what to put is missing: ais put FILE {given}"
    return f"the bucket is missing: ais put {given} ais://BUCKET"


def _put_files(
    bucket: Bucket, uploads: list[Upload], metadata: dict[str, str], *, workers: int, go_on: bool, many: bool
) -> None:
    total = sum(upload.size for upload in uploads)
    with Bar(f"PUT {bucket}", total) as bar:

        def move(upload: Upload, stop: threading.Event) -> int:
            with open(upload.path, "rb") as file:
                source = CountedFile(file, bar.advance, stop)
                bucket.object(upload.name).put(source, custom=metadata)  # type: ignore[arg-type]
            return upload.size

        if many:
            bucket.head()  # before a thousand files fail for the same reason
            account = move_all(
                uploads, move, label=lambda upload: upload.path, verb="put", workers=workers, go_on=go_on
            )
        else:
            move(uploads[0], threading.Event())
    if many:
        click.echo(f"PUT {counted(account.done, 'file')} ({format_size(account.size)}) => {bucket}")
        conclude(account, "put")
    else:
        click.echo(f'PUT "{plain(uploads[0].path)}" => {bucket}/{plain(uploads[0].name)}')


def _put_stdin(sources: tuple[str, ...], place: Uri, metadata: dict[str, str]) -> None:
    if len(sources) > 1:
        raise click.UsageError("standard input (-) cannot be put together with files")
    if not place.name or place.name.endswith("/"):
        raise BadRequestError(
            "standard input has no name", hint=f"name the object: {Uri(place.bucket, place.name + 'NAME')}"
        )
    bucket = client().bucket(place.bucket)
    with Bar(f"PUT {place}", None) as bar:
        source = CountedFile(sys.stdin.buffer, bar.advance, threading.Event())
        bucket.object(place.name).put(source, custom=metadata)  # type: ignore[arg-type]
    click.echo(f'PUT "-" => {bucket}/{plain(place.name)}')


def _matches(source: str) -> list[str]:
    """Return the paths that an argument means: a path, or a pattern that the shell was kept from expanding."""
    if os.path.lexists(source):
        return [source]
    found = sorted(glob.glob(source, recursive=True))
    if not found:
        raise BadRequestError(f"{source}: no such file or directory")
    return found


def _plan(paths: list[str], place: Uri, *, recursive: bool, include_src_dir: bool) -> list[Upload]:
    """Return what to put where; two files for one name are refused."""
    if len(paths) == 1 and not os.path.isdir(paths[0]):
        name = place.name if place.name and not place.name.endswith("/") else place.name + os.path.basename(paths[0])
        return [Upload(paths[0], check_object_name(name), os.stat(paths[0]).st_size)]
    prefix = place.name if not place.name or place.name.endswith("/") else f"{place.name}/"
    uploads: dict[str, Upload] = {}
    for path in paths:
        for file, relative in _files_of(path, recursive=recursive, include_src_dir=include_src_dir):
            name = check_object_name(prefix + relative)
            if name in uploads:
                raise BadRequestError(f"{uploads[name].path} and {file} would both become {Uri(place.bucket, name)}")
            uploads[name] = Upload(file, name, os.stat(file).st_size)
    if not uploads:
        deeper = not recursive and any(map(_count_directories, paths))
        hint = "-r goes into the directories in it" if deeper else ""
        raise BadRequestError(f"no files in {', '.join(paths)}", hint=hint)
    return list(uploads.values())


def _files_of(path: str, *, recursive: bool, include_src_dir: bool) -> Iterator[tuple[str, str]]:
    """Yield the files of a directory (or the one file) with their relative names, in order of names."""
    if not os.path.isdir(path):
        yield path, os.path.basename(path)
        return
    base = os.path.basename(os.path.abspath(path)) + "/" if include_src_dir else ""
    for directory, directories, files in os.walk(path):
        directories.sort()
        below = os.path.relpath(directory, path)
        middle = "" if below == os.curdir else below.replace(os.sep, "/") + "/"
        for file in sorted(files):
            yield os.path.join(directory, file), base + middle + file
        if not recursive:
            return


def _count_directories(path: str) -> int:
    """Return how many directories there are in a directory; a file has none."""
    if not os.path.isdir(path):
        return 0
    with os.scandir(path) as entries:
        return sum(entry.is_dir() for entry in entries)


def _summarize(uploads: list[Upload]) -> None:
    """Print what will be put, by extension."""
    counts: Counter[str] = Counter()
    sizes: Counter[str] = Counter()
    for upload in uploads:
        extension = os.path.splitext(upload.name)[1]
        counts[extension] += 1
        sizes[extension] += upload.size
    records: list[Record] = [
        {"extension": extension, "count": counts[extension], "size": sizes[extension]} for extension in sorted(counts)
    ]
    records.append({"extension": "TOTAL", "count": len(uploads), "size": sum(sizes.values())})
    click.echo("Files to upload:")
    columns = [Column("EXTENSION", "extension"), Column("COUNT", "count"), Column("SIZE", "size", format_size)]
    write_table([records], columns)


def _pairs(texts: tuple[str, ...]) -> dict[str, str]:
    pairs = dict(text.split("=", 1) for text in texts if "=" in text)
    if len(pairs) != len(texts):
        raise click.UsageError("custom metadata is given as KEY=VALUE, each key once")
    return pairs

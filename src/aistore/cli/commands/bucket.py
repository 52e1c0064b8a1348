"""Buckets: list them and what is in them, create, remove, show."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import click

from ...errors import BadRequestError
from ...model.names import Uri, parse_uri
from ..complete import complete_uri
from ..lazy import LazyGroup
from ..options import confirm_removal, json_option, no_headers_option, yes_option
from ..output import (
    Column,
    Record,
    counted,
    format_size,
    format_time,
    write_json_list,
    write_properties,
    write_records,
    write_table,
)
from ..session import client

if TYPE_CHECKING:
    from ...client import ListedObject

_PROPS = ("name", "size", "checksum", "atime", "version", "custom")
_ALL_BUCKETS = ("", "ais", "ais:", "ais://")


@click.command()
@click.argument("uri", metavar="[BUCKET[/PREFIX]]", default="", shell_complete=complete_uri)
@click.option("--prefix", default="", help="Only names that start with this.")
@click.option("--limit", type=click.IntRange(0), help="At most so many names.")
@click.option("--props", default="name,size", show_default=True, help=f"Columns: all, or some of {','.join(_PROPS)}.")
@click.option("--start-after", default="", help="Only names that sort after this.")
@click.option("--page-size", type=click.IntRange(0, 10_000), default=0, help="Names per request.", hidden=True)
@click.option("--name-only", is_flag=True, help="Names alone.")
@click.option("--count-only", is_flag=True, help="Only how many there are, and their size.")
@no_headers_option
@click.option("-F", "--no-footers", is_flag=True, help="Print no last line with the number of names.")
@json_option
def ls(
    uri: str,
    prefix: str,
    limit: int | None,
    props: str,
    start_after: str,
    page_size: int,
    name_only: bool,
    count_only: bool,
    no_headers: bool,
    no_footers: bool,
    as_json: bool,
) -> None:
    """List buckets, or the objects of a bucket.

    Objects are listed page by page in byte order of their names, however many there are.

    \b
    Examples:
      ais ls
      ais ls ais://imagenet
      ais ls ais://imagenet/train/ --limit 10
      ais ls ais://imagenet --prefix train/ --props name,size,version --json
    """
    if uri in _ALL_BUCKETS:
        _list_buckets(no_headers=no_headers, as_json=as_json)
        return
    place = _with_prefix(parse_uri(uri), prefix)
    wanted = _wanted(props, name_only=name_only)
    pages = client().bucket(place.bucket).list_pages(
        place.name, props=",".join(wanted), start_after=start_after, page_size=page_size, limit=limit
    )  # fmt: skip
    records = _records_of(pages, wanted)
    if count_only:
        _count(records, as_json=as_json)
        return
    if as_json:
        write_json_list(records)
        return
    columns = [Column(prop.upper(), prop, format_size if prop == "size" else str) for prop in wanted]
    count = write_table(records, columns, headers=not no_headers and not name_only)
    if not count:
        click.echo(
            f"No objects in {Uri(place.bucket)}" + (f" that start with {place.name!r}" if place.name else ""), err=True
        )
    elif sys.stdout.isatty() and not no_footers:
        click.echo(f"Listed {counted(count, 'name')}")


def _list_buckets(*, no_headers: bool, as_json: bool) -> None:
    records: list[Record] = [{"name": str(found), "present": True} for found in client().buckets()]
    columns = [Column("NAME", "name"), Column("PRESENT", "present", lambda present: "yes" if present else "no")]
    write_records(records, columns, as_json=as_json, headers=not no_headers)
    if not records and not as_json:
        click.echo("No buckets. Create one with `ais create ais://NAME`.", err=True)


def _with_prefix(place: Uri, prefix: str) -> Uri:
    if prefix and place.name:
        raise click.UsageError("the prefix is given twice: in the bucket's URI and as --prefix")
    return Uri(place.bucket, place.name or prefix)


def _wanted(props: str, *, name_only: bool) -> list[str]:
    if name_only:
        return ["name"]
    wanted = list(_PROPS) if props == "all" else [prop.strip() for prop in props.split(",") if prop.strip()]
    unknown = [prop for prop in wanted if prop not in _PROPS]
    if unknown:
        raise click.UsageError(f"unknown property {unknown[0]!r}: expected all, or some of {', '.join(_PROPS)}")
    return ["name", *(prop for prop in wanted if prop != "name")]


def _records_of(pages: Iterator[list[ListedObject]], wanted: Sequence[str]) -> Iterator[list[Record]]:
    for page in pages:
        yield [{prop: getattr(entry, prop) for prop in wanted} for entry in page]


def _count(pages: Iterator[list[Record]], *, as_json: bool) -> None:
    objects = size = 0
    for page in pages:
        objects += len(page)
        size += sum(record.get("size", 0) for record in page)
    if as_json:
        write_properties({"objects": objects, "size": size}, as_json=True)
    else:
        click.echo(f"Listed {counted(objects, 'name')} ({format_size(size)})")


@click.command()
@click.argument("uris", metavar="BUCKET...", nargs=-1, required=True, shell_complete=complete_uri)
@click.option("--ignore-error", is_flag=True, help="Do not mind a bucket that exists.")
def create(uris: tuple[str, ...], ignore_error: bool) -> None:
    """Create buckets.

    \b
    Examples:
      ais create ais://imagenet
      ais create ais://a ais://b --ignore-error
    """
    for uri in uris:
        bucket = client().bucket(_bucket_of(uri))
        bucket.create(exist_ok=ignore_error)
        click.echo(f'"{bucket}" created')


@click.command("rm")
@click.argument("uris", metavar="BUCKET...", nargs=-1, required=True, shell_complete=complete_uri)
@click.option("--ignore-error", is_flag=True, help="Do not mind a bucket that does not exist.")
@yes_option
def rm(uris: tuple[str, ...], ignore_error: bool, yes: bool) -> None:
    """Remove buckets with all that is in them.

    Asks first; without a terminal to ask on, -y is needed.

    \b
    Examples:
      ais rmb ais://imagenet
      ais rmb ais://a ais://b -y
    """
    names = [_bucket_of(uri) for uri in uris]
    confirm_removal(f"{', '.join(f'ais://{name}' for name in names)} with all objects", yes=yes)
    for name in names:
        bucket = client().bucket(name)
        bucket.delete(missing_ok=ignore_error)
        click.echo(f'"{bucket}" destroyed')


@click.command()
@click.argument("uri", metavar="BUCKET", shell_complete=complete_uri)
@no_headers_option
@json_option
def show(uri: str, no_headers: bool, as_json: bool) -> None:
    """Show the properties of a bucket.

    \b
    Examples:
      ais bucket show ais://imagenet
      ais bucket show ais://imagenet --json
    """
    info = client().bucket(_bucket_of(uri)).head()
    record = {"name": info.name, **info.props}
    if not as_json and info.created_ns:
        record["created"] = format_time(info.created_ns)
    write_properties(record, as_json=as_json, headers=not no_headers)


def _bucket_of(uri: str) -> str:
    place = parse_uri(uri)
    if place.name.strip("/"):
        raise BadRequestError(f"{uri!r} names an object", hint=f"expected a bucket: {Uri(place.bucket)}")
    return place.bucket


@click.group(cls=LazyGroup)
def bucket() -> None:
    """Buckets: ls, create, rm, show."""


bucket.add_command(ls)
bucket.add_command(create)
bucket.add_command(rm)
bucket.add_command(show)
bucket.add_command(show, "props")

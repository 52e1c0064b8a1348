"""Buckets: list them and what is in them, create, remove, show."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import click

from ...model.names import PROVIDERS, BucketRef, Uri, parse_bucket_uri, parse_uri
from ..complete import complete_uri
from ..lazy import Lazy, LazyGroup
from ..options import confirm_removal, json_option, no_headers_option, yes_option
from ..output import (
    Column,
    Record,
    counted,
    format_size,
    write_json_list,
    write_properties,
    write_records,
    write_table,
)
from ..session import client
from .job import cp
from .props import creation_properties, show

if TYPE_CHECKING:
    from ...client import ListedObject

_PROPS = ("name", "size", "checksum", "atime", "version", "custom", "cached")


def _yes_or_no(value: bool) -> str:
    return "yes" if value else "no"


_SPELLED = {"size": format_size, "cached": _yes_or_no}


@click.command()
@click.argument("uri", metavar="[BUCKET[/PREFIX]]", default="", shell_complete=complete_uri)
@click.option("--prefix", default="", help="Only names that start with this.")
@click.option("--limit", type=click.IntRange(0), help="At most so many names.")
@click.option("--props", default="", help=f"Columns: name,size unless given; all, or some of {','.join(_PROPS)}.")
@click.option("--start-after", default="", help="Only names that sort after this.")
@click.option("--page-size", type=click.IntRange(0, 10_000), default=0, help="Names per request.", hidden=True)
@click.option("--cached", is_flag=True, help="Only objects that the store has a copy of, of a bucket outside of it.")
@click.option("--not-cached", is_flag=True, help="Only objects that the store has no copy of.")
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
    cached: bool,
    not_cached: bool,
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
    provider, separator, rest = uri.partition(":")
    if not uri or (provider.lower() in PROVIDERS and rest in ("", "//") and (separator or uri == "ais")):
        _list_buckets(provider, no_headers=no_headers, as_json=as_json)
        return
    place = _with_prefix(parse_uri(uri), prefix)
    if cached and not_cached:
        raise click.UsageError("--cached and --not-cached exclude each other")
    wanted = _wanted(props or ("name,size,cached" if place.bucket.is_backed else "name,size"), name_only=name_only)
    unnamable: list[int] = []
    pages = client().bucket(place.bucket).list_pages(
        place.name, props=",".join(wanted), start_after=start_after, page_size=page_size, limit=limit,
        cached=cached if cached or not_cached else None, on_unnamable=unnamable.append,
    )  # fmt: skip
    records = _records_of(pages, wanted)
    if count_only:
        _count(records, as_json=as_json)
    elif as_json:
        write_json_list(records)
    else:
        _write_table(records, wanted, place, headers=not no_headers and not name_only, footers=not no_footers)
    if unnamable:
        left_out = counted(sum(unnamable), "key")
        click.echo(f"{left_out} of {place.bucket} left out: no object can have such a name here", err=True)


def _write_table(
    records: Iterator[list[Record]], wanted: list[str], place: Uri, *, headers: bool, footers: bool
) -> None:
    columns = [Column(prop.upper(), prop, _SPELLED.get(prop, str)) for prop in wanted]
    count = write_table(records, columns, headers=headers)
    if not count:
        click.echo(
            f"No objects in {Uri(place.bucket)}" + (f" that start with {place.name!r}" if place.name else ""), err=True
        )
    elif sys.stdout.isatty() and footers:
        click.echo(f"Listed {counted(count, 'name')}")


def _list_buckets(provider: str, *, no_headers: bool, as_json: bool) -> None:
    records: list[Record] = [{"name": str(found), "present": True} for found in client().buckets(provider)]
    columns = [Column("NAME", "name"), Column("PRESENT", "present", _yes_or_no)]
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
@click.option("--props", metavar="'KEY=VALUE ...'", multiple=True, help="Properties, or JSON that has them.")
@click.option("--s3-endpoint", metavar="URL", help="Where an s3:// bucket is, if not at Amazon.")
@click.option("--region", help="Region of an s3:// bucket.")
@click.option("--profile", help="Profile in the store's AWS configuration, for an s3:// bucket.")
@click.option("--url", metavar="URL", help="What the objects of an ht:// bucket are below of.")
@click.option("--ignore-error", is_flag=True, help="Do not mind a bucket that exists.")
def create(uris: tuple[str, ...], props: tuple[str, ...], ignore_error: bool, **outside: str | None) -> None:
    """Create buckets.

    A bucket of another object store (s3://, gs://, az://, ht://) exists already and is made known to this one.
    Credentials of other object stores are those of the store's environment.

    \b
    Examples:
      ais create ais://imagenet
      ais create ais://a ais://b --ignore-error
      ais create ais://frozen --props immutable=true
      ais create s3://lake --region eu-west-1
      ais create s3://lake --s3-endpoint http://127.0.0.1:8333
      ais create ht://mirror --url https://data.example/imagenet/
    """
    refs = [parse_bucket_uri(uri) for uri in uris]
    given = {key: value for key, value in outside.items() if value}
    for ref in refs:
        properties = creation_properties(ref, props, given)
        bucket = client().bucket(ref)
        bucket.create(exist_ok=ignore_error, props=properties)
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
    refs = [parse_bucket_uri(uri) for uri in uris]
    confirm_removal(_spell_removal(refs), yes=yes)
    for ref in refs:
        bucket = client().bucket(ref)
        bucket.delete(missing_ok=ignore_error)
        click.echo(f'"{bucket}" destroyed')


def _spell_removal(refs: list[BucketRef]) -> str:
    """Return in words what is removed: of a backed bucket only what the store keeps of it."""
    kept = ", ".join(str(ref) for ref in refs if ref.is_backed)
    removed = ", ".join(str(ref) for ref in refs if not ref.is_backed)
    parts = [f"{removed} with all objects"] * bool(removed)
    parts += [f"{kept} from this store (the objects stay where they are)"] * bool(kept)
    return " and ".join(parts)


_COMMANDS = "aistore.cli.commands"
_LAZY = {
    "props": Lazy(f"{_COMMANDS}.props:props", "Show, set and reset the properties of a bucket."),
    "prefetch": Lazy(f"{_COMMANDS}.cached:prefetch", "Copy objects into the store's cache before they are read."),
    "evict": Lazy(f"{_COMMANDS}.cached:evict", "Drop the store's copies of objects."),
}


@click.group(cls=LazyGroup, lazy=_LAZY)
def bucket() -> None:
    """Buckets: ls, create, cp, rm, show, props, prefetch, evict."""


bucket.add_command(ls)
bucket.add_command(create)
bucket.add_command(cp)
bucket.add_command(rm)
bucket.add_command(show)

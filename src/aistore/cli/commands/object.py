"""Objects: cat, show, remove, custom metadata; put and get have modules of their own."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator

import click

from ...client import Bucket
from ...errors import BadRequestError
from ...model.names import Uri, parse_uri
from ...model.templates import expand_template
from ..complete import complete_uri
from ..lazy import Lazy, LazyGroup
from ..options import confirm_removal, continue_option, json_option, no_headers_option, workers_option, yes_option
from ..output import Record, counted, format_size, format_time, plain, write_properties
from ..session import client
from ..transfer import conclude, move_all
from .get import copy_to_stdout

_SHOWN = ("atime", "checksum", "name", "size")
_PROPS = (*_SHOWN, "custom", "version")


def object_uri(text: str) -> Uri:
    """Return the object that an argument names; raises BadRequestError for a bucket."""
    place = parse_uri(text)
    if not place.name:
        raise BadRequestError(f"{text!r} names no object", hint=f"expected for example {place}/NAME")
    return place


@click.command()
@click.argument("uri", metavar="BUCKET/NAME", shell_complete=complete_uri)
@click.option("--offset", type=click.IntRange(0), help="Begin at this byte.")
@click.option("--length", type=click.IntRange(1), help="At most so many bytes.")
def cat(uri: str, offset: int | None, length: int | None) -> None:
    """Write the bytes of an object to standard output.

    \b
    Examples:
      ais object cat ais://imagenet/train/1.cls
      ais object cat ais://imagenet/big.tar --offset 0 --length 512 | hexdump -C
    """
    place = object_uri(uri)
    part = None if offset is None and length is None else (offset or 0, length)
    with client().bucket(place.bucket).object(place.name).get(range=part) as reader:
        copy_to_stdout(reader)


@click.command()
@click.argument("uri", metavar="BUCKET/NAME", shell_complete=complete_uri)
@click.option("--props", default=",".join(_SHOWN), help=f"all, or some of {','.join(sorted(_PROPS))}.")
@no_headers_option
@json_option
def show(uri: str, props: str, no_headers: bool, as_json: bool) -> None:
    """Show what the store knows of an object.

    \b
    Examples:
      ais object show ais://imagenet/train/1.jpg
      ais object show ais://imagenet/train/1.jpg --props all --json
    """
    place = object_uri(uri)
    wanted = _PROPS if props == "all" else tuple(prop.strip() for prop in props.split(","))
    for prop in wanted:
        if prop not in _PROPS:
            raise click.UsageError(f"unknown property {prop!r}: expected all, or some of {', '.join(sorted(_PROPS))}")
    info = client().bucket(place.bucket).object(place.name).head()
    checksum = {"type": info.checksum.type, "value": info.checksum.value}
    values: Record = {
        "atime": info.created_ns if as_json else format_time(info.created_ns),
        "checksum": checksum if as_json else f"{info.checksum.type}[{info.checksum.value}]",
        "custom": dict(info.custom),
        "name": str(place),
        "size": info.size if as_json else format_size(info.size),
        "version": info.version,
    }
    write_properties({prop: values[prop] for prop in wanted}, as_json=as_json, headers=not no_headers)


@click.command("rm")
@click.argument("uris", metavar="BUCKET[/NAME]...", nargs=-1, required=True, shell_complete=complete_uri)
@click.option("--prefix", help="All objects of the bucket whose names start with this.")
@click.option("--list", "names", metavar="A,B,...", help="These objects of the bucket.")
@click.option("--template", help="The objects that a template stands for: 'train/{0000..0999}.jpg'.")
@click.option("--all", "everything", is_flag=True, help="All objects of the bucket.")
@continue_option
@workers_option
@yes_option
def rm(
    uris: tuple[str, ...],
    prefix: str | None,
    names: str | None,
    template: str | None,
    everything: bool,
    go_on: bool,
    workers: int,
    yes: bool,
) -> None:
    """Remove objects.

    Asks before it removes more than those named; without a terminal to ask on, -y is needed.

    \b
    Examples:
      ais rmo ais://imagenet/train/1.jpg
      ais rmo ais://imagenet --prefix train/ -y
      ais rmo ais://imagenet --list a.jpg,b.jpg -y
      ais rmo ais://imagenet --template 'shard-{000..099}.tar'
    """
    places = [parse_uri(uri) for uri in uris]
    selections = sum((prefix is not None, names is not None, template is not None, everything))
    if not selections:
        for place in [_one_object(uri, place) for uri, place in zip(uris, places, strict=True)]:
            client().bucket(place.bucket).object(place.name).delete()
            click.echo(f'deleted "{plain(place.name)}" from {Uri(place.bucket)}')
        return
    if selections > 1:
        raise click.UsageError("--prefix, --list, --template and --all exclude each other")
    if len(places) > 1 or places[0].name:
        raise click.UsageError("with --prefix, --list, --template or --all name one bucket, without an object")
    bucket = client().bucket(places[0].bucket)
    chosen = _chosen(bucket, prefix, names, template)
    confirm_removal(_spell_choice(bucket, prefix, names, template), yes=yes)
    _remove(bucket, chosen, workers=workers, go_on=go_on)


def _one_object(uri: str, place: Uri) -> Uri:
    """Return ``place`` if it is one object's; for what may stand for many, tell how many are removed."""
    bucket = Uri(place.bucket)
    if not place.name:
        raise BadRequestError(f"{uri!r} names no object", hint=f"all objects of a bucket: ais rmo {bucket} --all")
    if place.name.endswith("/"):
        raise BadRequestError(
            f"{uri!r} names no object", hint=f"all that start with it: ais rmo {bucket} --prefix {place.name}"
        )
    return place


def _spell_choice(bucket: Bucket, prefix: str | None, names: str | None, template: str | None) -> str:
    """Return in words what `_chosen` returns."""
    if prefix:
        return f"all objects of {bucket} that start with {prefix!r}"
    if names is not None or template is not None:
        return f"the objects {(template if names is None else names)!r} of {bucket}"
    return f"all objects of {bucket}"


def _chosen(bucket: Bucket, prefix: str | None, names: str | None, template: str | None) -> Iterable[str]:
    if names is not None:
        return [name.strip() for name in names.split(",") if name.strip()]
    if template is not None:
        expanded = expand_template("" if template == "*" else template)
        if expanded is not None:
            return expanded
        prefix = template
    return _listed(bucket, prefix or "")


def _listed(bucket: Bucket, prefix: str) -> Iterator[str]:
    """Yield names page by page: a page is fetched before its names are removed, so none is skipped."""
    for page in bucket.list_pages(prefix, props="name"):
        for entry in page:
            yield entry.name


def _remove(bucket: Bucket, names: Iterable[str], *, workers: int, go_on: bool) -> None:
    def move(name: str, stop: threading.Event) -> int:
        bucket.object(name).delete()
        return 0

    account = move_all(
        names, move, label=lambda name: str(Uri(bucket.ref, name)), verb="deleted", workers=workers, go_on=go_on
    )
    click.echo(f"deleted {counted(account.done, 'object')} from {bucket}")
    conclude(account, "deleted")


@click.command("set-custom")
@click.argument("uri", metavar="BUCKET/NAME", shell_complete=complete_uri)
@click.argument("pairs", metavar="KEY=VALUE...", nargs=-1, required=True)
@click.option("--set-new-custom", "replace", is_flag=True, help="In place of what is there, not in addition.")
def set_custom(uri: str, pairs: tuple[str, ...], replace: bool) -> None:
    """Set custom metadata of an object.

    \b
    Examples:
      ais object set-custom ais://imagenet/train/1.jpg label=cat source=flickr
    """
    place = object_uri(uri)
    if not all("=" in pair for pair in pairs):
        raise click.UsageError("custom metadata is given as KEY=VALUE")
    custom = dict(pair.split("=", 1) for pair in pairs)
    client().bucket(place.bucket).object(place.name).set_custom(custom, replace=replace)
    click.echo("Custom props successfully updated (to show updates, run 'ais show object ... --props=all').")


_COMMANDS = {
    "put": Lazy("aistore.cli.commands.put:put", "Put files, directories or standard input into a bucket."),
    "get": Lazy("aistore.cli.commands.get:get", "Get an object, or all objects of a prefix."),
    "cp": Lazy("aistore.cli.commands.job:cp", "Copy a bucket to another, or some of its objects, or one."),
    "ls": Lazy("aistore.cli.commands.bucket:ls", "List buckets, or the objects of a bucket."),
}


@click.group("object", cls=LazyGroup, lazy=_COMMANDS)
def object_() -> None:
    """Objects: put, get, cp, cat, show, rm, set-custom."""


for command in (cat, show, rm, set_custom):
    object_.add_command(command)

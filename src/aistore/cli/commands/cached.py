"""``ais prefetch`` and ``ais evict``: what the store keeps copies of."""

from __future__ import annotations

from typing import Any

import click

from ...client import Bucket
from ...model.names import Uri, parse_uri
from ..complete import complete_uri
from ..options import Command
from ..output import plain
from ..session import client
from .job import follow


def _selecting(command: Command) -> Command:
    """Add the options that select objects of a bucket."""
    for option in (
        click.option("--template", help="The objects that a template stands for: 'train/{0000..0999}.jpg'."),
        click.option("--list", "names", metavar="A,B,...", help="These objects of the bucket."),
        click.option("--prefix", help="All objects of the bucket whose names start with this."),
    ):
        command = option(command)
    return command


def _following(command: Command) -> Command:
    """Add the options that say what is told of the job."""
    for option in (
        click.option("--nv", "quiet", is_flag=True, help="Print only the id of the job."),
        click.option("--timeout", default="", metavar="DURATION", help="With --wait: how long at most."),
        click.option("--wait", "wait_", is_flag=True, help="Wait until the job has ended."),
    ):
        command = option(command)
    return command


@click.command()
@click.argument("uri", metavar="BUCKET[/NAME|/PREFIX/]", shell_complete=complete_uri)
@_selecting
@click.option("--latest", is_flag=True, help="Compare copies with the bucket outside of the store, and renew them.")
@click.option("--num-workers", "workers", type=click.IntRange(1, 256), help="Objects at a time on each node.")
@_following
def prefetch(
    uri: str,
    prefix: str | None,
    names: str | None,
    template: str | None,
    latest: bool,
    workers: int | None,
    **following: Any,
) -> None:
    """Copy objects into the store's cache before they are read.

    \b
    Examples:
      ais prefetch s3://lake --wait
      ais prefetch s3://lake/train/
      ais prefetch s3://lake --template 'train/{0000..0999}.jpg'
    """
    place = parse_uri(uri)
    bucket = client().bucket(place.bucket)
    chosen, start = _selection(place, prefix, names, template)
    job = bucket.prefetch(chosen, prefix=start, latest=latest, workers=workers or 0)
    _announce(f"Prefetching {_spell(bucket, chosen, start)}", job, **following)


@click.command()
@click.argument("uri", metavar="BUCKET[/NAME|/PREFIX/]", shell_complete=complete_uri)
@_selecting
@click.option("--keep-md", is_flag=True, help="Of a whole bucket: keep the bucket and its properties.")
@_following
def evict(
    uri: str, prefix: str | None, names: str | None, template: str | None, keep_md: bool, **following: Any
) -> None:  # fmt: skip
    """Drop the store's copies of objects.

    The objects stay where they are, and are fetched again when they are read. A whole bucket that is outside of the
    store is forgotten with its properties, unless --keep-md.

    \b
    Examples:
      ais evict s3://lake/train/1.jpg
      ais evict s3://lake --prefix train/
      ais evict s3://lake --keep-md
    """
    place = parse_uri(uri)
    bucket = client().bucket(place.bucket)
    selecting = prefix is not None or names is not None or template is not None
    if keep_md and (place.name or selecting):
        raise click.UsageError("--keep-md is for a whole bucket")
    if not selecting and place.name and not place.name.endswith("/"):
        bucket.object(place.name).evict()
        click.echo(f'evicted "{plain(place.name)}" from {bucket}')
    elif not selecting and not place.name and bucket.ref.is_backed:
        bucket.forget(keep_props=keep_md)
        click.echo(f'"{bucket}" evicted' + (" (its properties are kept)" if keep_md else ""))
    else:
        chosen, start = _selection(place, prefix, names, template)
        _announce(f"Evicting {_spell(bucket, chosen, start)}", bucket.evict(chosen, prefix=start), **following)


def _selection(place: Uri, prefix: str | None, names: str | None, template: str | None) -> tuple[list[str] | None, str]:
    """Return the names that are meant, or None and the prefix or template that they have."""
    if sum(given is not None for given in (prefix, names, template)) + bool(place.name) > 1:
        raise click.UsageError("a name after the bucket, --prefix, --list and --template exclude each other")
    if names is not None:
        return [name.strip() for name in names.split(",") if name.strip()], ""
    if place.name and not place.name.endswith("/"):
        return [place.name], ""
    return None, prefix or template or place.name


def _spell(bucket: Bucket, chosen: list[str] | None, start: str) -> str:
    if chosen is None:
        return plain(str(Uri(bucket.ref, start)))
    return plain(str(Uri(bucket.ref, chosen[0]))) if len(chosen) == 1 else f"{len(chosen):,} objects of {bucket}"


def _announce(what: str, job: str, *, quiet: bool, wait_: bool, timeout: str) -> None:
    if quiet:
        click.echo(job)
    elif wait_:
        click.echo(f"{what} ...")
    else:
        click.echo(f"{what}. To monitor the progress, run 'ais show job {plain(job)}'")
    if wait_:
        follow(client().job(job), timeout, quiet=quiet)

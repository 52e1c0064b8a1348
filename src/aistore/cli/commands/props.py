"""Properties of buckets: show, set, reset; and those that a new bucket begins with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import click

from ...model.names import BucketRef, parse_bucket_uri
from ...model.properties import AWS_ENDPOINT, AWS_PROFILE, AWS_REGION, HTTP_URL, flatten, nest, parse_properties
from ..complete import complete_uri
from ..lazy import LazyGroup
from ..options import json_option, no_headers_option
from ..output import format_time, write_properties
from ..session import client

#: Options of ``ais create`` that are properties: the provider they are for, and the property.
_OPTIONS = {
    "s3_endpoint": ("aws", AWS_ENDPOINT),
    "region": ("aws", AWS_REGION),
    "profile": ("aws", AWS_PROFILE),
    "url": ("ht", HTTP_URL),
}


def creation_properties(ref: BucketRef, texts: Sequence[str], options: Mapping[str, str]) -> dict[str, Any]:
    """Return the properties that a new bucket begins with: of ``--props``, and of options of their own."""
    flat = dict(flatten(parse_properties(texts)))
    for option, value in options.items():
        provider, key = _OPTIONS[option]
        spelled = "--" + option.replace("_", "-")
        if provider != ref.provider:
            raise click.UsageError(f"{spelled} is not for {ref}")
        if key in flat:
            raise click.UsageError(f"{key} is given twice: in --props and as {spelled}")
        flat[key] = value
    if ref.provider == "ht" and HTTP_URL not in flat:
        raise click.UsageError(f"where the objects of {ref} are is missing: ais create {ref} --url https://HOST/PATH/")
    return nest(flat)


class _ShowingGroup(LazyGroup):
    """A group whose first command is meant when a bucket comes in its place."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if args and args[0] not in self.commands and args[0] not in ("-h", "--help"):
            args.insert(0, "show")
        return super().parse_args(ctx, args)


@click.group(cls=_ShowingGroup)
def props() -> None:
    """Show, set and reset the properties of a bucket.

    \b
    Examples:
      ais bucket props ais://imagenet
      ais bucket props set ais://imagenet immutable=true
    """


@props.command()
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
    info = client().bucket(parse_bucket_uri(uri)).head()
    record = {"name": info.name, **info.props}
    if not as_json and info.created_ns:
        record["created"] = format_time(info.created_ns)
    write_properties(record, as_json=as_json, headers=not no_headers)


@props.command("set")
@click.argument("uri", metavar="BUCKET", shell_complete=complete_uri)
@click.argument("pairs", metavar="KEY=VALUE...", nargs=-1, required=True)
def set_(uri: str, pairs: tuple[str, ...]) -> None:
    """Set properties of a bucket; those not named stay as they are.

    \b
    Examples:
      ais bucket props set ais://imagenet immutable=true
      ais bucket props set s3://lake extra.aws.profile=reader
    """
    given = parse_properties(pairs)
    bucket = client().bucket(parse_bucket_uri(uri))
    before = dict(flatten(bucket.head().props))
    bucket.set_props(given)
    for key, value in flatten(given):
        click.echo(f'"{key}" set to: "{_spell(value)}" (was: "{_spell(before.get(key, ""))}")')
    click.echo("Bucket props successfully updated.")


@props.command()
@click.argument("uri", metavar="BUCKET", shell_complete=complete_uri)
def reset(uri: str) -> None:
    """Give all properties of a bucket their defaults again.

    \b
    Example:
      ais bucket props reset ais://imagenet
    """
    client().bucket(parse_bucket_uri(uri)).reset_props()
    click.echo("Bucket props successfully reset.")


def _spell(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)

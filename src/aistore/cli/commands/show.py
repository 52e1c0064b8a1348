"""``ais show``: what there is, by noun."""

from __future__ import annotations

import click

from ..lazy import Lazy, LazyGroup
from ..options import json_option, no_headers_option
from ..output import Column, Record, write_properties, write_records
from ..session import client

_COMMANDS = "aistore.cli.commands"


@click.command()
@click.argument("what", metavar="[smap]", type=click.Choice(["smap"]), required=False)
@no_headers_option
@json_option
def cluster(what: str | None, no_headers: bool, as_json: bool) -> None:
    """Show the nodes of the store, or with `smap` its cluster map.

    \b
    Examples:
      ais show cluster
      ais show cluster smap
      ais show cluster --json
    """
    info = client().cluster()
    nodes: list[Record] = [{"node": node.id, "type": node.type, "url": node.url} for node in info.nodes]
    if as_json:
        summary = {"uuid": info.uuid, "version": info.version, "primary": info.primary, "nodes": nodes}
        write_properties(summary, as_json=True)
        return
    columns = [Column("NODE", "node"), Column("TYPE", "type"), Column("PUBLIC URL", "url")]
    write_records(nodes, columns, as_json=False, headers=not no_headers)
    if what == "smap":
        click.echo(f"\nPrimary: {info.primary}\nUUID: {info.uuid}\nVersion: {info.version}")
        return
    proxies = sum(node.type == "proxy" for node in info.nodes)
    click.echo("\nSummary:")
    click.echo(f"  Proxies:              {proxies}")
    click.echo(f"  Targets:              {len(info.nodes) - proxies}")
    click.echo(f"  Cluster Map version:  {info.version}")
    click.echo(f"  Status:               {'ready' if client().is_ready() else 'not ready'}")


_LAZY = {
    "storage": Lazy(f"{_COMMANDS}.storage:show", "Show the disks of the store, and what is on them."),
    "etl": Lazy(f"{_COMMANDS}.etl:show", "Show all transforms, or some of them in detail."),
    "bucket": Lazy(f"{_COMMANDS}.bucket:show", "Show the properties of a bucket."),
    "performance": Lazy(f"{_COMMANDS}.performance:performance", "Show how much the store does, and how fast."),
    "object": Lazy(f"{_COMMANDS}.object:show", "Show what the store knows of an object."),
}


@click.group(cls=LazyGroup, lazy=_LAZY)
def show() -> None:
    """Show the cluster, its disks, transforms, performance, a bucket, an object."""


show.add_command(cluster)

"""``ais show``: what there is, by noun."""

from __future__ import annotations

import click

from ..lazy import Lazy, LazyGroup

_COMMANDS = "aistore.cli.commands"


_LAZY = {
    "cluster": Lazy(f"{_COMMANDS}.cluster:show", "Show the nodes of the store, or with `smap` its cluster map."),
    "storage": Lazy(f"{_COMMANDS}.storage:show", "Show the disks of the store, and what is on them."),
    "etl": Lazy(f"{_COMMANDS}.etl:show", "Show all transforms, or some of them in detail."),
    "job": Lazy(f"{_COMMANDS}.job:show", "Show the jobs that run, those of a kind, or one of them."),
    "bucket": Lazy(f"{_COMMANDS}.bucket:show", "Show the properties of a bucket."),
    "performance": Lazy(f"{_COMMANDS}.performance:performance", "Show how much the store does, and how fast."),
    "object": Lazy(f"{_COMMANDS}.object:show", "Show what the store knows of an object."),
}


@click.group(cls=LazyGroup, lazy=_LAZY)
def show() -> None:
    """Show the cluster, its disks, transforms, jobs, performance, a bucket, an object."""

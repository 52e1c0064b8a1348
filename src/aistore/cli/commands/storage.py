"""``ais storage`` and ``ais show storage``: the disks of the store."""

from __future__ import annotations

import os
from typing import Any

import click
import msgspec

from ..lazy import LazyGroup
from ..options import confirm_removal, json_option, no_headers_option, yes_option
from ..output import Column, Record, counted, format_size, write_records
from ..session import client
from .validate import validate


def _size(value: Any) -> str:
    return "-" if value is None else format_size(value)


def _count(value: Any) -> str:
    return "-" if value is None else f"{value:,}"


_COLUMNS = [
    Column("MOUNTPATH", "path"),
    Column("ID", "id"),
    Column("STATE", "state"),
    Column("OBJECTS", "objects", _count),
    Column("SIZE", "size", _size),
    Column("SHARE", "share"),
    Column("AVAILABLE", "avail", _size),
    Column("DISK", "total", _size),
]


@click.command("storage")
@no_headers_option
@json_option
def show(no_headers: bool, as_json: bool) -> None:
    """Show the disks of the store, and what is on them.

    SHARE is the part of all stored bytes that lies there; AVAILABLE is what is free for new objects.

    \b
    Examples:
      ais show storage
      ais show storage --json
    """
    records: list[Record] = [msgspec.to_builtins(one) for one in client().storage().mountpaths()]
    if as_json:
        write_records(records, (), as_json=True)
        return
    total = sum(record["size"] or 0 for record in records)
    for record in records:
        size = record["size"]
        record["share"] = "-" if size is None or not total else f"{100 * size / total:.0f}%"
    write_records(records, _COLUMNS, as_json=False, headers=not no_headers)
    for record in records:
        if record["reason"]:
            click.echo(f"\n{record['path']} is {record['state']}: {record['reason']}")
    damaged = len(client().scrub_report().damaged)
    if damaged:
        click.echo(f"\n{counted(damaged, 'object')} damaged: `ais storage validate --show` tells more")


def _full(path: str) -> str:
    # The store may run elsewhere, so only what looks like a file of this machine is made a full path.
    return path if path.startswith("/") or not os.path.exists(os.path.dirname(path) or path) else os.path.abspath(path)


@click.command()
@click.argument("path")
def attach(path: str) -> None:
    """Spread new objects over a directory on a further disk.

    PATH is of the machine that the store runs on; the directory must be empty or new. What is stored already stays
    where it is.

    \b
    Example:
      ais storage mountpath attach /mnt/disk2/ais
    """
    client().storage().attach(_full(path))
    click.echo(f'"{path}" attached')


@click.command()
@click.argument("path")
@click.option("--force", is_flag=True, help="Give up the objects that are on it.")
@yes_option
def detach(path: str, force: bool, yes: bool) -> None:
    """Take a mountpath out of the store for good.

    One that has objects on it, or cannot be looked into, needs --force: its objects are lost to the store then. Asks
    first; without a terminal to ask on, -y is needed.

    \b
    Examples:
      ais storage mountpath detach /mnt/disk2/ais
      ais storage mountpath detach /mnt/disk2/ais --force -y
    """
    if force:
        confirm_removal(f"mountpath {path} with all objects on it", yes=yes)
    client().storage().detach(_full(path), force=force)
    click.echo(f'"{path}" detached')


@click.command()
@click.argument("path")
def disable(path: str) -> None:
    """Stop using a mountpath for a while.

    Its objects are unavailable, and within seconds its disk can be unmounted.

    \b
    Example:
      ais storage mountpath disable /mnt/disk2/ais
    """
    client().storage().disable(_full(path))
    click.echo(f'"{path}" disabled')


@click.command()
@click.argument("path")
def enable(path: str) -> None:
    """Use a mountpath again that was disabled.

    \b
    Example:
      ais storage mountpath enable /mnt/disk2/ais
    """
    client().storage().enable(_full(path))
    click.echo(f'"{path}" enabled')


@click.group(cls=LazyGroup)
def mountpath() -> None:
    """Mountpaths: show, attach, detach, disable, enable."""


mountpath.add_command(show, "show")
mountpath.add_command(attach)
mountpath.add_command(detach)
mountpath.add_command(disable)
mountpath.add_command(enable)


@click.group(cls=LazyGroup)
def storage() -> None:
    """Show the disks of the store, add and remove them, validate what is on them."""


storage.add_command(show, "summary")
storage.add_command(mountpath)
storage.add_command(validate)

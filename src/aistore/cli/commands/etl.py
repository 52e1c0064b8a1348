"""``ais etl``: transforms that run where the data is."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable

import click

from ...client import Etl
from ...client.etl import EtlDetails
from ...errors import EtlNotFoundError, TransformError
from ...wire.messages import EtlSummary
from ..complete import complete_etl, complete_uri
from ..lazy import LazyGroup
from ..options import json_option, no_headers_option
from ..output import Column, Record, format_size, plain_lines, write_properties, write_records
from ..session import client
from .etl_init import init
from .get import copy_to_file, copy_to_stdout
from .job import copy_object, etl_bucket, etl_inspect, object_at, write_errors
from .object import object_uri
from .verify import etl_verify

_VALUE_SHOWN_MAX = 80  # of a variable; a pickled class is long

_COLUMNS = (
    Column("NAME", "name"),
    Column("STAGE", "stage"),
    Column("XACTION", "xaction"),
    Column("OBJECTS", "objects"),
    Column("ERRORS", "errors"),
    Column("KIND", "kind"),
    Column("SANDBOX", "sandbox", str.upper),
)


@click.group(cls=LazyGroup)
def etl() -> None:
    """Run transforms where the data is."""


etl.add_command(init)


@etl.command()
@click.argument("names", metavar="[NAME]...", nargs=-1, shell_complete=complete_etl)
@no_headers_option
@json_option
def show(names: tuple[str, ...], no_headers: bool, as_json: bool) -> None:
    """Show all transforms, or some of them in detail.

    `errors` before a transform's name shows the objects that failed in its last job, or in the one that is named.

    \b
    Examples:
      ais etl show
      ais etl show resize
      ais etl show --json
      ais etl show errors resize
      ais etl show errors resize htMxaTRfIy3
    """
    if names[:1] == ("errors",) and 1 < len(names) < 4:
        failed = client().etl(names[1]).details(*names[2:]).errors or []
        write_errors(failed, as_json=as_json, headers=not no_headers)
        return
    summaries = client().etls()
    if not names:
        records = [_record_of(summary) for summary in summaries]
        write_records(records, _COLUMNS, as_json=as_json, headers=not no_headers)
        return
    found = {summary.id: summary for summary in summaries}
    for name in names:
        if name not in found:
            raise EtlNotFoundError.of(name)
        write_properties(_detail_of(found[name], as_json=as_json), as_json=as_json, headers=not no_headers)


def _record_of(summary: EtlSummary) -> Record:
    return {
        "name": summary.id,
        "stage": summary.stage,
        "xaction": summary.xaction_id,
        "objects": summary.obj_count,
        "errors": summary.errors,
        "kind": summary.source,
        "sandbox": summary.sandbox,
    }


def _runtime_of(details: EtlDetails, *, as_json: bool) -> Record:
    """Return the image, the command and the variables of a transform that has any."""
    runtime = details.init_msg.get("runtime") or {}
    command, variables = runtime.get("command") or [], runtime.get("env") or []
    env = {variable.get("name", ""): variable.get("value", "") for variable in variables}
    shown = {
        name: value if len(value) <= _VALUE_SHOWN_MAX else f"{len(value)} characters" for name, value in env.items()
    }
    record = {
        "image": runtime.get("image") or "",
        "command": command if as_json else " ".join(map(shlex.quote, command)),
        "env": env if as_json else ", ".join(f"{name}={value}" for name, value in shown.items()),
    }
    return {key: value for key, value in record.items() if value}


def _detail_of(summary: EtlSummary, *, as_json: bool) -> Record:
    details = client().etl(summary.id).details()
    record = {
        **_record_of(summary),
        "bytes_in": summary.in_bytes if as_json else format_size(summary.in_bytes),
        "bytes_out": summary.out_bytes if as_json else format_size(summary.out_bytes),
        "processes": details.processes,
        "memory": details.mem if as_json else format_size(details.mem),
        "cpu": details.cpu,
        "isolation": summary.isolation,
        "communication": summary.communication,
        "runtime": summary.runtime,
        "network": details.network,
        **_runtime_of(details, as_json=as_json),
        "init_timeout": details.init_msg.get("init_timeout", ""),
        "obj_timeout": details.init_msg.get("obj_timeout", ""),
        "digest": details.digest,
        **_cache_of(details, as_json=as_json),
        "python": details.python,
        "dependencies": details.dependencies if as_json else ", ".join(details.dependencies.split("\n")).strip(", "),
        "lock": details.packages if as_json else ", ".join(details.packages),
        "sandbox_layers": details.sandbox_layers if as_json else "; ".join(details.sandbox_layers),
        "sandbox_missing": details.sandbox_missing if as_json else "; ".join(details.sandbox_missing),
    }
    if details.nodes:
        nodes = [{"node": one.node, "stage": one.stage, "message": one.message} for one in details.nodes]
        record["nodes"] = nodes if as_json else ", ".join(f"{one.node} {one.stage}" for one in details.nodes)
    if summary.message:
        record["message"] = summary.message
    return record


def _cache_of(details: EtlDetails, *, as_json: bool) -> Record:
    """Return what is kept of a transform's results, if anything is to be."""
    record: Record = {"deterministic": details.deterministic, "cache": details.cache}
    if details.cache:
        sizes = {"cache_bytes": details.cache_bytes, "cache_hit_bytes": details.cache_hit_bytes}
        record |= {
            "cache_objects": details.cache_objects, "cache_hits": details.cache_hits,
            "cache_misses": details.cache_misses,
            **{key: size if as_json else format_size(size) for key, size in sizes.items()},
        }  # fmt: skip
    return record


etl.add_command(show, "ls")
etl.add_command(show, "list")


etl.add_command(etl_bucket)
etl.add_command(etl_inspect)
etl.add_command(etl_verify)


@etl.command("object")
@click.argument("name", shell_complete=complete_etl)
@click.argument(
    "places", metavar="[cp] BUCKET/NAME FILE|-|/dev/null|BUCKET[/NAME]", nargs=-1, shell_complete=complete_uri
)
@click.option("--args", "arguments", help="Arguments for the transform.")
@click.option("--seed", help="Fixes what the transform draws at random.")
def object_(name: str, places: tuple[str, ...], arguments: str | None, seed: str | None) -> None:
    """Read one object through a transform, or write what it makes of one to another.

    NAME may be several transforms: each gets what the one before it made.

    \b
    Examples:
      ais etl object resize ais://imagenet/train/1.jpg small.jpg
      ais etl object resize ais://imagenet/train/1.jpg - | file -
      ais etl object resize ais://imagenet/train/1.jpg /dev/null --args 128
      ais etl object 'resize >> gray' ais://imagenet/train/1.jpg gray.jpg
      ais etl object resize cp ais://imagenet/train/1.jpg ais://small
    """
    copies = places[:1] == ("cp",)
    if len(places) != 2 + copies:
        expected = "cp BUCKET/NAME BUCKET[/NAME]" if copies else "BUCKET/NAME FILE"
        raise click.UsageError(f"expected: ais etl object {name} {expected}")
    place, destination = object_uri(places[-2]), places[-1]
    try:
        if copies:
            copy_object(
                place, object_at(destination, place), what=f"ETL[{name}]:", etl=name, arguments=arguments, seed=seed
            )
            return
        with client().bucket(place.bucket).object(place.name).get(etl=name, etl_args=arguments, seed=seed) as reader:
            if destination == "-":
                copy_to_stdout(reader)
            else:
                copy_to_file(reader, destination, f"ETL[{name}] {place}")
    except TransformError as error:
        if arguments is None and "sys.argv" in error.message and "IndexError" in error.message:
            error.hint = error.hint or "sys.argv[1] is what --args gives (etl_args in Python)"
        raise


@etl.command()
@click.argument("names", metavar="[NAME]...", nargs=-1, shell_complete=complete_etl)
@click.option("--all", "everything", is_flag=True, help="All that are stopped.")
def start(names: tuple[str, ...], everything: bool) -> None:
    """Start stopped transforms again.

    \b
    Example:
      ais etl start resize
    """
    _each(names, everything, Etl.start, "ETL[{}] started successfully")


@etl.command()
@click.argument("names", metavar="[NAME]...", nargs=-1, shell_complete=complete_etl)
@click.option("--all", "everything", is_flag=True, help="All of them.")
def stop(names: tuple[str, ...], everything: bool) -> None:
    """Stop transforms; they stay listed and can be started again.

    \b
    Example:
      ais etl stop resize
    """
    _each(names, everything, Etl.stop, "ETL[{}] stopped")


@etl.command()
@click.argument("names", metavar="[NAME]...", nargs=-1, shell_complete=complete_etl)
@click.option("--all", "everything", is_flag=True, help="All of them.")
def rm(names: tuple[str, ...], everything: bool) -> None:
    """Stop and remove transforms.

    \b
    Example:
      ais etl rm resize
    """
    _each(names, everything, Etl.delete, "ETL[{}] successfully deleted")


def _each(names: tuple[str, ...], everything: bool, verb: Callable[[Etl], None], message: str) -> None:
    if everything == bool(names):
        raise click.UsageError("name the transforms, or give --all")
    for name in [summary.id for summary in client().etls()] if everything else names:
        verb(client().etl(name))
        click.echo(message.format(name))


@etl.command("view-logs")
@click.argument("name", shell_complete=complete_etl)
@click.argument("node", metavar="[NODE]", default="")
@json_option
def view_logs(name: str, node: str, as_json: bool) -> None:
    """Show what a transform has logged.

    \b
    Examples:
      ais etl view-logs resize
      ais etl logs resize --json
    """
    logs = client().etl(name).logs(node)
    if as_json:
        columns = [Column("NODE", "node"), Column("LOGS", "logs")]
        write_records([{"node": log.node, "logs": log.text} for log in logs], columns, as_json=True)
        return
    for log in logs:
        if len(logs) > 1:
            click.echo(f"{log.node}:")
        text = plain_lines(log.text)
        sys.stdout.write(text if not text or text.endswith("\n") else f"{text}\n")


etl.add_command(view_logs, "logs")

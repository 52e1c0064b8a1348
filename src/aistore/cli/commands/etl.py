"""``ais etl``: transforms that run where the data is."""

from __future__ import annotations

import os
import re
import secrets
import sys
from collections.abc import Callable
from typing import TextIO

import click

from ...client import Etl
from ...errors import AisError, EtlInitError, EtlNotFoundError, NotSupportedError, TransformError
from ...wire.messages import EtlSummary, Progress
from ..complete import complete_etl, complete_uri
from ..lazy import LazyGroup
from ..options import json_option, no_headers_option
from ..output import Column, Record, format_size, plain_lines, write_properties, write_records
from ..progress import Stages
from ..session import client
from .get import copy_to_file, copy_to_stdout
from .job import etl_bucket, write_errors
from .object import object_uri

INTERRUPT_TIMEOUT_SECONDS = 10.0  # for the removal of what an interrupt left; whoever interrupts does not wait long

#: Packages whose modules are called otherwise, those that transforms import most.
_PACKAGES = {
    "PIL": "pillow", "cv2": "opencv-python-headless", "skimage": "scikit-image", "sklearn": "scikit-learn",
    "yaml": "PyYAML",
}  # fmt: skip

_COLUMNS = (
    Column("NAME", "name"),
    Column("STAGE", "stage"),
    Column("XACTION", "xaction"),
    Column("OBJECTS", "objects"),
    Column("ERRORS", "errors"),
    Column("SANDBOX", "sandbox", str.upper),
)


@click.group(cls=LazyGroup)
def etl() -> None:
    """Run transforms where the data is."""


@etl.group(cls=LazyGroup, invoke_without_command=True, subcommand_metavar="COMMAND [ARGS]...")
@click.option("-f", "--file", "spec", help="A pod specification, which this store does not run.", hidden=True)
@click.pass_context
def init(ctx: click.Context, spec: str | None) -> None:
    """Make a transform."""
    if ctx.invoked_subcommand is not None:
        return
    if spec is not None:
        raise _no_specifications()
    click.echo(ctx.get_help())


@init.command("spec", hidden=True)
@click.argument("specification", required=False)
@click.option("-f", "--from-file", "file")
@click.option("--name")
def init_spec(specification: str | None, file: str | None, name: str | None) -> None:
    """Make a transform from a pod specification, which this store does not run."""
    raise _no_specifications()


def _no_specifications() -> NotSupportedError:
    return NotSupportedError(
        "transforms from pod specifications or images are not supported by this store",
        hint="make one from code: ais etl init code --name NAME --from-file transform.py",
    )


@init.command("code")
@click.option("--name", default="", help="Name of the transform: 6 to 32 letters, digits, - or _.")
@click.option(
    "--from-file",
    "source",
    type=click.File("r", encoding="utf-8"),
    required=True,
    help="The code; - for standard input.",
)
@click.option("--deps-file", type=click.File("r", encoding="utf-8"), help="Requirements, as pip reads them.")
@click.option("--runtime", default="python3", show_default=True, help="The interpreter.")
@click.option("--comm-type", default="hpush://", show_default=True, help="io:// for a script, hpush:// for a function.")
@click.option(
    "--isolation",
    type=click.Choice(["warm", "fork"]),
    default="warm",
    show_default=True,
    help="Between objects: nothing but a clean start, or a process each.",
)
@click.option(
    "--sandbox",
    type=click.Choice(["on", "off"]),
    default="on",
    show_default=True,
    help="off lets the code do all that the store may.",
)
@click.option("--replace", is_flag=True, help="Remove the transform of that name first, if there is one.")
@click.option(
    "--init-timeout",
    "--wait-timeout",
    "init_timeout",
    default="",
    metavar="DURATION",
    help="For becoming ready: 45s, 5m.",
)
@click.option("--object-timeout", default="", metavar="DURATION", help="For one object.")
@click.option("--workers", type=click.IntRange(0, 1024), default=0, help="Processes; 0 for as many as cores.")
def init_code(
    name: str,
    source: TextIO,
    deps_file: TextIO | None,
    runtime: str,
    comm_type: str,
    isolation: str,
    sandbox: str,
    replace: bool,
    init_timeout: str,
    object_timeout: str,
    workers: int,
) -> None:
    """Make a transform from code and wait until it is ready; prints its name.

    With io:// the code is a script that reads an object from standard input and writes the result to standard output.
    With hpush:// it is a module with a function transform(data: bytes) -> bytes.

    \b
    Examples:
      ais etl init code --name resize --from-file resize.py --comm-type io://
      ais etl init code --name resize --from-file resize.py --deps-file deps.txt --runtime python3
      ais etl init code --name resize --from-file resize.py --comm-type io:// --replace
      ais etl init code --name=trusted --from-file=t.py --sandbox off
    """
    if replace and not name:
        raise click.UsageError("--replace needs --name")
    etl = client().etl(name or f"etl-{secrets.token_hex(4)}")  # named here, so that an interrupt knows what to remove
    code, dependencies = source.read(), deps_file.read() if deps_file else ""
    if replace:
        etl.delete(missing_ok=True)
    begun = False

    def on_progress(progress: Progress) -> None:
        nonlocal begun
        begun = True
        stages.update(progress.stage, progress.message)

    try:
        with Stages(f"ETL {etl}") as stages:
            made = etl.init_code(
                code,
                dependencies=dependencies,
                runtime=runtime,
                comm_type=comm_type,
                isolation=isolation,
                sandbox=sandbox,
                init_timeout=init_timeout,
                object_timeout=object_timeout,
                workers=workers,
                filename="" if source is sys.stdin else os.path.basename(source.name),
                on_progress=on_progress,
            )  # fmt: skip
    except KeyboardInterrupt:
        raise KeyboardInterrupt(_remove_begun(etl, begun)) from None
    except EtlInitError as error:
        raise EtlInitError(error.message, hint=error.hint or _hint_of(error), status=error.status) from error
    if sandbox == "off":
        click.echo(f"Warning: {made} runs without the sandbox: its code may do all that the store may", err=True)
    click.echo(made)


def _remove_begun(etl: Etl, begun: bool) -> str:
    """Remove a transform whose making was interrupted; return what became of it.

    Until the store has reported something, there may be another of that name: that one is left alone.
    """
    if not begun:
        return f"if etl job {etl} has begun, it goes on at the store; `ais etl rm {etl}` removes it"
    try:
        etl.delete(missing_ok=True, timeout_seconds=INTERRUPT_TIMEOUT_SECONDS)
    except (AisError, KeyboardInterrupt):
        return f"etl job {etl} goes on at the store; `ais etl rm {etl}` removes it"
    return f"etl job {etl} was removed"


def _hint_of(error: EtlInitError) -> str:
    """Return what to do about a failure that the store has no hint for."""
    module = re.search(r"^ModuleNotFoundError: No module named '(\w+)", error.message, re.MULTILINE)
    if module is None:
        return ""
    package = _PACKAGES.get(module[1])
    wanted = repr(package) if package else f"the package that has {module[1]!r}"
    return f"put {wanted} into the file of --deps-file"


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
        "sandbox": summary.sandbox,
    }


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
        "init_timeout": details.init_msg.get("init_timeout", ""),
        "obj_timeout": details.init_msg.get("obj_timeout", ""),
        "digest": details.digest,
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


etl.add_command(show, "ls")
etl.add_command(show, "list")


etl.add_command(etl_bucket)


@etl.command("object")
@click.argument("name", shell_complete=complete_etl)
@click.argument("uri", metavar="BUCKET/NAME", shell_complete=complete_uri)
@click.argument("destination", metavar="FILE|-|/dev/null")
@click.option("--args", "arguments", help="Arguments for the transform.")
def object_(name: str, uri: str, destination: str, arguments: str | None) -> None:
    """Read one object through a transform.

    \b
    Examples:
      ais etl object resize ais://imagenet/train/1.jpg small.jpg
      ais etl object resize ais://imagenet/train/1.jpg - | file -
      ais etl object resize ais://imagenet/train/1.jpg /dev/null --args 128
    """
    if ">>" in name or name == "cp" or uri == "cp":
        raise NotSupportedError("pipelines and copies through a transform are not supported by this store")
    place = object_uri(uri)
    try:
        with client().bucket(place.bucket).object(place.name).get(etl=name, etl_args=arguments) as reader:
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

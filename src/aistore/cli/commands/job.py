"""``ais job``, ``ais show job``, and what starts jobs: ``ais cp``, ``ais etl bucket``, ``ais etl inspect``."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from ...errors import AisError, BadRequestError, InternalError
from ...model.etl import parse_duration, parse_stages
from ...model.names import Uri, parse_uri
from ...wire.jobs import DISPLAY_NAMES, kind_of
from ..complete import complete_etl, complete_uri
from ..lazy import LazyGroup
from ..options import Command, json_option, no_headers_option
from ..output import Column, Record, counted, format_size, format_time, write_records
from ..progress import Steps
from ..session import client

if TYPE_CHECKING:
    from ...client import Job, JobInfo


def _state(info: JobInfo) -> str:
    if info.runs:
        return "Running"
    return "Aborted" if info.aborted else "Finished with errors" if info.error else "Finished"


def _label(info: JobInfo) -> str:
    return f"{DISPLAY_NAMES.get(info.kind, info.kind)}[{info.id}]"


def _record(info: JobInfo) -> Record:
    return {
        "id": info.id, "kind": info.kind, "source": info.source, "destination": info.destination,
        "objects": info.objects, "bytes": info.bytes, "skipped": info.skipped, "removed": info.removed,
        "failed": info.failed, "stale": info.stale, "gone": info.gone, "start": info.started_ns,
        "end": info.ended_ns, "state": _state(info), "error": info.error, "about": info.about,
    }  # fmt: skip


_COLUMNS = [
    Column("ID", "id"),
    Column("KIND", "kind"),
    Column("SRC BUCKET", "source"),
    Column("DST BUCKET", "destination"),
    Column("OBJECTS", "objects", lambda count: f"{count:,}"),
    Column("BYTES", "bytes", format_size),
    Column("SKIPPED", "skipped", lambda count: f"{count:,}"),
    Column("REMOVED", "removed", lambda count: f"{count:,}"),
    Column("FAILED", "failed", lambda count: f"{count:,}"),
    Column("START", "start", format_time),
    Column("END", "end", format_time),
    Column("STATE", "state"),
]


@click.command()
@click.argument("what", metavar="[KIND|ID]", default="")
@click.option("--all", "everything", is_flag=True, help="Those that have ended, too.")
@click.option("--errors", is_flag=True, help="The objects that failed in a job.")
@no_headers_option
@json_option
def show(what: str, everything: bool, errors: bool, no_headers: bool, as_json: bool) -> None:
    """Show the jobs that run, those of a kind, or one of them.

    \b
    Examples:
      ais show job
      ais show job --all
      ais show job copy-bucket --json
      ais show job htMxaTRfIy3 --errors
    """
    if errors:
        if not _is_id(what):
            raise click.UsageError("--errors needs the id of a job")
        write_errors(client().job(what).errors(), as_json=as_json, headers=not no_headers)
        return
    if _is_id(what):
        found = [client().job(what).info()]
    else:
        found = [info for info in client().jobs(kind=kind_of(what)) if info.runs or everything]
    write_records(list(map(_record, found)), _COLUMNS, as_json=as_json, headers=not no_headers)
    if not found and not as_json:
        click.echo("No running jobs. Use '--all' to show all, finished ones included.", err=True)
    for info in found:
        if info.error and _is_id(what) and not as_json:
            click.echo(f"\n{_label(info)}: {info.error}")


def write_errors(errors: list[Any], *, as_json: bool, headers: bool) -> None:
    """Write the objects that failed in a job."""
    records: list[Record] = [{"object": one.name, "status": one.status, "error": one.message} for one in errors]
    columns = [Column("OBJECT", "object"), Column("ECODE", "status"), Column("ERROR", "error", _last_line)]
    write_records(records, columns, as_json=as_json, headers=headers)


def _last_line(message: str) -> str:
    """Return the line of a message that says what it was: the last one of a traceback."""
    lines = message.strip().splitlines() or [""]
    return lines[0] if len(lines) == 1 else f"{lines[0].partition(': Traceback')[0]}: {lines[-1]}"


def _is_id(text: str) -> bool:
    return bool(text) and text not in DISPLAY_NAMES and text not in DISPLAY_NAMES.values()


@click.command()
@click.argument("job_id", metavar="ID")
@click.option("--timeout", default="", metavar="DURATION", help="Give up after this: 45s, 5m. The job goes on.")
@click.option("--progress", is_flag=True, help="Show a bar (as on every terminal).", hidden=True)
def wait(job_id: str, timeout: str, progress: bool) -> None:
    """Wait until a job has ended; fails if it did not do all of its work.

    \b
    Examples:
      ais job wait htMxaTRfIy3
      ais job wait htMxaTRfIy3 --timeout 5m
    """
    job = client().job(job_id)
    click.echo(f"Waiting for {_label(job.info())} ...")
    follow(job, timeout)


@click.command()
@click.argument("what", metavar="ID|KIND")
def stop(what: str) -> None:
    """End a job, or all jobs of a kind; what they have done stays done.

    \b
    Examples:
      ais job stop htMxaTRfIy3
      ais job stop copy-bucket
    """
    running = [info for info in client().jobs(kind="" if _is_id(what) else kind_of(what)) if info.runs]
    if not _is_id(what):
        if not running:
            click.echo(f"No running {what} jobs, nothing to do")
    else:
        running = [info for info in running if info.id == what]
        if not running:
            click.echo(f"{_label(client().job(what).info())} is already finished, nothing to do")
    for info in running:
        client().job(info.id).stop()
        click.echo(f"Stopped {_label(info)}")


@click.group(cls=LazyGroup)
def job() -> None:
    """Jobs: show, wait, stop."""


job.add_command(show)
job.add_command(show, "ls")
job.add_command(wait)
job.add_command(stop)


# --- what starts jobs

_OPTIONS: list[Callable[[Command], Command]] = [
    click.option("--prefix", default="", help="Only names that start with this."),
    click.option("--list", "names", metavar="A,B,...", help="These objects of the bucket."),
    click.option("--template", help="The objects that a template stands for: 'train/{0000..0999}.jpg'."),
    click.option("--prepend", default="", help="Put this before each name."),
    click.option("--dry-run", is_flag=True, help="Only count what would be done."),
    click.option("--force", "-f", is_flag=True, help="Write also what is there already as it would be written."),
    click.option("--sync", is_flag=True, help="Remove what such a job has made of objects that are gone since."),
    click.option("--nr", "flat", is_flag=True, help="Leave out names with a slash after the prefix."),
    click.option("--cont-on-err", "go_on", is_flag=True, help="Go on after an error with the next object."),
    click.option(
        "--num-workers", "workers", type=click.IntRange(0, 256), default=0,
        help="How many objects are under way at once; 0 leaves it to the store.",
    ),
    click.option("--wait", "wait_", is_flag=True, help="Wait until the job has ended."),
    click.option("--timeout", default="", metavar="DURATION", help="With --wait: give up after this; the job goes on."),
    click.option("--nv", "--non-verbose", "terse", is_flag=True, help="Print the job's id alone."),
    click.option("--progress", is_flag=True, help="Wait with a bar, as --wait does.", hidden=True),
    click.option("--all", "everything", is_flag=True, help="All objects, as is usual here.", hidden=True),
    click.option("--latest", is_flag=True, help="Look first at where the objects come from."),
]  # fmt: skip


def _job_options(command: Command) -> Command:
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


@click.command("cp")
@click.argument("source", metavar="SRC[/PREFIX/|/NAME]", shell_complete=complete_uri)
@click.argument("destination", metavar="DST[/PREFIX/|/NAME]", shell_complete=complete_uri)
@_job_options
def cp(source: str, destination: str, **options: Any) -> None:
    """Copy a bucket to another, or some of its objects, or one.

    A job in the store does it: all objects, those under a prefix, in a list or of a template. The bucket to write to
    is made if there is none. One object is copied at once. What is there already under a name is replaced, unless it
    is the same.

    \b
    Examples:
      ais cp ais://imagenet ais://backup --wait
      ais cp ais://imagenet/train/ ais://training
      ais cp ais://imagenet ais://backup --template 'train/{0000..0999}.jpg'
      ais cp ais://imagenet ais://backup --prepend 2026/ --dry-run
      ais cp ais://imagenet ais://backup --sync --wait
      ais cp ais://imagenet/train/1.jpg ais://backup/first.jpg
    """
    _refuse_path(source)
    place = parse_uri(source)
    if _is_object(place):
        copy_object(place, object_at(destination, place), what="COPY", options=options)
        return
    _start("Copying", "", source, destination, options)


def _is_object(place: Uri) -> bool:
    """Say whether a URI names one object, not a bucket, a prefix or a template."""
    return bool(place.name) and not place.name.endswith("/") and not _is_template(place.name)


def _is_template(text: str) -> bool:
    return "{" in text or "}" in text


def object_at(text: str, source: Uri) -> Uri:
    """Return where a copy of one object goes: below a bucket or a prefix it keeps its name."""
    _refuse_path(text)
    place = parse_uri(text)
    return place if _is_object(place) else Uri(place.bucket, place.name + source.name)


def copy_object(
    source: Uri, destination: Uri, *, what: str, etl: str | None = None, arguments: str | None = None,
    seed: str | None = None,
    options: dict[str, Any] | None = None,
) -> None:  # fmt: skip
    """Copy one object, through transforms if ``etl`` names some; ``options`` are those that only jobs have."""
    latest = bool(options and options.pop("latest"))
    unused = [name for name, value in (options or {}).items() if value and name not in ("everything", "force")]
    if unused:
        raise click.UsageError(f"{source} names one object: --{_SAID.get(unused[0], unused[0])} is for many")
    target = client().bucket(destination.bucket).object(destination.name)
    copied = client().bucket(source.bucket).object(source.name)
    copied.copy_to(target, etl=etl, etl_args=arguments, seed=seed, latest=latest)
    click.echo(f"{what} {source} => {destination}")


#: What options are called that have another name in Python.
_SAID = {
    "dry_run": "dry-run", "flat": "nr", "go_on": "cont-on-err", "workers": "num-workers", "wait_": "wait",
    "terse": "non-verbose", "names": "list",
}  # fmt: skip


@click.command("bucket")
@click.argument("name", shell_complete=complete_etl)
@click.argument("source", metavar="SRC[/PREFIX/|/TEMPLATE]", shell_complete=complete_uri)
@click.argument("destination", metavar="DST[/PREFIX/]", shell_complete=complete_uri)
@click.option("--ext", default="", metavar="MAP", help="Replace extensions: {jpg:txt}, or {in1:out1,in2:out2}.")
@click.option("--args", "arguments", help="Arguments for the transform.")
@click.option("--seed", help="Fixes what the transform draws at random.")
@click.option("--object-timeout", "--request-timeout", default="", metavar="DURATION", help="For one object: 45s, 5m.")
@_job_options
def etl_bucket(name: str, source: str, destination: str, ext: str, arguments: str | None, **options: Any) -> None:
    """Write what a transform makes of a bucket to another.

    A job in the store does it: all objects, those under a prefix, in a list or of a template. The bucket to write to
    is made if there is none. Without --cont-on-err the first object that fails ends the job. NAME may be several
    transforms: each gets what the one before it made. Run again, it transforms only what has changed since: the
    object, the transform, its arguments.

    \b
    Examples:
      ais etl bucket resize ais://imagenet ais://small --wait
      ais etl bucket 'resize >> gray' ais://imagenet ais://small
      ais etl bucket resize ais://imagenet/train/ ais://small --ext '{jpg:png}' --cont-on-err
      ais etl bucket resize ais://imagenet ais://small --list train/1.jpg,train/2.jpg
      ais etl bucket resize ais://imagenet ais://small --dry-run
      ais etl bucket resize ais://imagenet ais://small --sync --wait
    """
    options |= {"ext": _parse_ext(ext), "etl_args": arguments}
    _start(f"ETL[{name}]", name, source, destination, options)


@click.command("inspect")
@click.argument("name", shell_complete=complete_etl)
@click.argument("source", metavar="BUCKET[/PREFIX/|/TEMPLATE]", shell_complete=complete_uri)
@click.option("--args", "arguments", help="Arguments for the transform.")
@click.option("--seed", help="Fixes what the transform draws at random.")
@click.option("--object-timeout", "--request-timeout", default="", metavar="DURATION", help="For one object: 45s, 5m.")
@click.option("--prefix", default="", help="Only names that start with this.")
@click.option("--list", "names", metavar="A,B,...", help="These objects of the bucket.")
@click.option("--template", help="The objects that a template stands for: 'train/{0000..0999}.jpg'.")
@click.option(
    "--num-workers", "workers", type=click.IntRange(0, 256), default=0,
    help="How many objects are under way at once; 0 leaves it to the store.",
)  # fmt: skip
@click.option("--wait", "wait_", is_flag=True, help="Wait until the job has ended.")
@click.option("--timeout", default="", metavar="DURATION", help="With --wait: give up after this; the job goes on.")
@click.option("--latest", is_flag=True, help="Look first at where the objects come from.")
def etl_inspect(
    name: str, source: str, arguments: str | None, seed: str | None, wait_: bool, timeout: str, workers: int,
    latest: bool, object_timeout: str, **choice: Any,
) -> None:  # fmt: skip
    """Run a transform on the objects of a bucket without keeping what it makes of them.

    \b
    Examples:
      ais etl inspect resize ais://imagenet --wait
      ais etl inspect 'resize >> gray' ais://imagenet/train/
    """
    place = parse_uri(source)
    job = client().bucket(place.bucket).inspect(
        name, etl_args=arguments, seed=seed, object_timeout=object_timeout, workers=workers, latest=latest,
        **_chosen(place, **choice),
    )  # fmt: skip
    errors = f"`ais etl show errors {parse_stages(name)[0]} {job.id}` shows the objects that failed"
    if wait_:
        click.echo(f"Inspecting {place} with ETL[{name}] ...")
        follow(job, timeout)
    else:
        click.echo(
            f"Inspecting {place} with ETL[{name}]. To monitor the progress, run 'ais show job {job.id}'; {errors}"
        )


def _parse_ext(text: str) -> dict[str, str]:
    """Return a map as people write it: JSON, or JSON without quotes, or with the other ones, or without braces."""
    if not text.strip():
        return {}
    try:
        found = json.loads(text)
    except ValueError:
        bare = re.sub(r"""["'{}\s]""", "", text)
        found = {pair.partition(":")[0]: pair.partition(":")[2] for pair in bare.split(",")}
    if not isinstance(found, dict) or not all(isinstance(value, str) and value and key for key, value in found.items()):
        raise BadRequestError(f"--ext {text!r} cannot be read", hint="expected for example {jpg:txt,png:txt}")
    return found


def _refuse_path(text: str) -> None:
    if text.startswith(("/", "./", "../", "~")):
        raise click.UsageError(f"{text} is a path: `ais put` and `ais get` copy files, this copies buckets")


def _chosen(place: Uri, *, prefix: str, names: str | None, template: str | None) -> dict[str, Any]:
    """Return the options of a job on the objects that a URI, --prefix, --list or --template chooses."""
    in_uri = [place.name] if place.name else []
    if len(in_uri) + bool(prefix) + (names is not None) + (template is not None) > 1:
        raise click.UsageError("choose the objects once: in the bucket's URI, or by --prefix, --list or --template")
    if names is not None:
        return {"names": [name.strip() for name in names.split(",") if name.strip()]}
    if template is not None or _is_template(place.name):
        text = template or place.name
        return {"prefix": ""} if text == "*" else {"template": text}
    if place.name and not place.name.endswith("/"):
        raise click.UsageError(f"{place} names an object: end it with / for all that is under it, or use --prefix")
    return {"prefix": prefix or place.name}


def _start(what: str, etl: str, source: str, destination: str, options: dict[str, Any]) -> None:
    for text in (source, destination):
        _refuse_path(text)
    place, target = parse_uri(source), parse_uri(destination)
    wait_, timeout, terse = options.pop("wait_"), options.pop("timeout"), options.pop("terse")
    wait_ = options.pop("progress") or wait_
    options.pop("everything")
    chosen = _chosen(place, **{key: options.pop(key) for key in ("prefix", "names", "template")})
    if target.name:
        if options["prepend"] or not target.name.endswith("/"):
            raise click.UsageError(f"{target} names an object: expected a bucket, and --prepend for the begin of names")
        options["prepend"] = target.name
    bucket = client().bucket(place.bucket)
    if etl:
        job = bucket.transform(target.bucket, etl, **chosen, **options)
    else:
        job = bucket.copy(target.bucket, **chosen, **options)
    some = chosen.get("prefix") or chosen.get("template") or ""
    listed = f" ({counted(len(chosen['names']), 'object')})" if "names" in chosen else ""
    said = f"{what}{':' if etl else ''} {Uri(place.bucket, some)}{listed} => {target}"
    if options["dry_run"]:
        _dry(job, timeout)
    elif terse:
        click.echo(job.id)
        if wait_:
            follow(job, timeout, quiet=True)
    elif wait_:
        click.echo(f"{said} ...")
        follow(job, timeout)
    else:
        click.echo(f"{said}. To monitor the progress, run 'ais show job {job.id}'")


def _dry(job: Job, timeout: str) -> None:
    info = follow(job, timeout, quiet=True)
    unchanged = f", {info.skipped:,} unchanged" if info.skipped else ""
    removed = f", {info.removed:,} to be removed" if info.removed else ""
    done = f"{counted(info.objects, 'object')} ({format_size(info.bytes)}){unchanged}{removed}"
    click.echo(f"Dry run: {done}; nothing was written")


def follow(job: Job, timeout: str = "", *, quiet: bool = False, fails: bool = True) -> JobInfo:
    """Wait for a job with a bar; raises an error that says why it did not do all of its work, if it ``fails``."""
    seconds = parse_duration(timeout) if timeout else None
    with Steps(f"job {job.id}") as steps:

        def show_progress(info: JobInfo) -> None:
            failed = f", {counted(info.failed, 'object')} failed" if info.failed else ""
            done = info.objects + info.failed + info.gone + info.skipped + info.stale
            steps.update(done, info.total, f"{format_size(info.bytes)}{failed}")

        try:
            info = job.wait(seconds, on_progress=show_progress)
        except KeyboardInterrupt:
            raise KeyboardInterrupt(f"job {job.id} goes on at the store; `ais job stop {job.id}` ends it") from None
    if info.error and fails:
        raise _failure(info)
    if not quiet:
        took = (info.ended_ns - info.started_ns) / 1e9
        unchanged = f", {info.skipped:,} unchanged" if info.skipped else ""
        removed = f", {counted(info.removed, 'object')} removed" if info.removed else ""
        gone = f", {counted(info.gone, 'object')} gone meanwhile" if info.gone else ""
        made = f"{counted(info.objects, 'object')} ({format_size(info.bytes)}) in {took:.1f}s"
        click.echo(f"Done. {made}{unchanged}{removed}{gone}")
    return info


def _failure(info: JobInfo) -> AisError:
    if info.aborted:
        return InternalError(f"{_label(info)} was aborted: {info.error}")
    unchanged = f", {info.skipped:,} unchanged" if info.skipped else ""
    done = f"{counted(info.objects, 'object')} done{unchanged}"
    return InternalError(f"{_label(info)} finished with errors: {done}, {info.error}", hint=_errors_hint(info))


def _errors_hint(info: JobInfo) -> str:
    return f"`ais show job {info.id} --errors` shows the objects that failed" if info.failed else ""

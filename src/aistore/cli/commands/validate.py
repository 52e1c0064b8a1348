"""``ais storage validate``: are the bytes still those that were stored? `ais fsck` asks that of a stopped store."""

from __future__ import annotations

import time

import click
import msgspec

from ...errors import ObjectDamagedError
from ...wire.messages import ScrubReport
from ..options import json_option
from ..output import Column, Record, counted, format_size, format_time, plain, write_properties, write_table
from ..progress import Bar
from ..session import client

_POLL_SECONDS = 0.25


@click.command(short_help="Verify all objects of a running store.")
@click.option("--show", is_flag=True, help="Only show what is known; start nothing.")
@click.option("--stop", is_flag=True, help="End the pass that is under way.")
@click.option(
    "--mib-per-second", type=click.IntRange(1), help="How fast to read at most. [default: 256, or as the store is set]"
)
@json_option
def validate(show: bool, stop: bool, mib_per_second: int | None, as_json: bool) -> None:
    """Read every object of a running store now, compare it with its checksum, and show what is damaged.

    The store does this by itself every 30 days. Interrupting the command does not stop the pass.
    Exit codes: 0 all is sound, 1 something is damaged, a disk cannot be read, or it failed.

    \b
    Examples:
      ais storage validate
      ais storage validate --show
      ais scrub --mib-per-second 50
    """
    if show and stop:
        raise click.UsageError("--show and --stop exclude each other")
    if show:
        report = client().scrub_report()
    elif stop:
        report = client().stop_scrub()
    else:
        report = _run(mib_per_second or 0)
    away = [mountpath for mountpath in client().storage().mountpaths() if mountpath.state != "available"]
    if as_json:
        write_properties(msgspec.to_builtins(report), as_json=True)
    else:
        _write(report, whole=not away)
    for mountpath in away:
        about = f"{mountpath.path} is {mountpath.state}: {mountpath.reason}"
        click.echo(f"Error: {plain(about)}; what is on it was not validated", err=True)
    lost = [damaged for damaged in report.damaged if not damaged.harmless]
    if lost:
        one = len(lost) == 1
        raise ObjectDamagedError(
            f"{counted(len(lost), 'object')} damaged: reads of {'it' if one else 'them'} fail",
            hint=f"put {'it' if one else 'them'} again from {'its' if one else 'their'} source, or delete "
            + ("it" if one else "them"),
        )
    if report.damaged or report.index_errors or away:
        raise click.exceptions.Exit(1)


def _run(mib_per_second: int) -> ScrubReport:
    report = client().start_scrub(mib_per_second << 20)
    began, done = report.began, 0
    with Bar("validating", report.bytes_total) as bar:
        while report.running and report.began == began:
            bar.advance(report.bytes - done)
            done = report.bytes
            time.sleep(_POLL_SECONDS)
            report = client().scrub_report()
    return report


def _write(report: ScrubReport, *, whole: bool) -> None:
    if report.damaged:
        rows: list[Record] = [
            {
                "object": f"ais://{damaged.bucket}/{damaged.name}",
                "found": damaged.found_ns,
                "problem": f"{damaged.file or 'its row in the index'} {damaged.problem}",
            }
            for damaged in report.damaged
        ]
        columns = [Column("OBJECT", "object"), Column("FOUND", "found", format_time), Column("PROBLEM", "problem")]
        write_table([rows], columns)
    for error in report.index_errors:
        click.echo(f"The index cannot be read to its end: {error}. Stop the store and run `ais fsck`.")
    click.echo(_summary(report, whole=whole))


def _summary(report: ScrubReport, *, whole: bool) -> str:
    if not report.began:
        return "No pass has been made yet."
    objects = f"{counted(report.objects, 'object')} ({format_size(report.bytes)})"
    if report.running:
        of = f"{report.objects_total:,} ({format_size(report.bytes_total)})"
        return f"Validating: {objects} of {of} so far, since {format_time(int(report.began * 1e9))}."
    sound = ", all sound" if whole and not report.damaged and not report.index_errors else ""
    return f"Validated {objects}{sound}; ended {format_time(int(report.ended * 1e9))}."

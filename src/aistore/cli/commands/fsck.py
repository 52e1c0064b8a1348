"""``ais fsck``: check a data directory that no store runs on, and make its index again."""

from __future__ import annotations

import os
import sys
from collections import Counter
from contextlib import ExitStack

import click

from ...errors import AisError, NotFoundError
from ...settings import default_data_directory
from ...storage.local.fsck import Finding, Progress, Report, check, rebuild_all
from ...storage.local.layout import Mountpath
from ...storage.local.rebuild import Rebuilt
from ..options import json_option
from ..output import Column, counted, format_size, write_properties, write_table
from ..progress import Bar

#: Findings shown in the table; --json has all.
_SHOWN = 100


@click.command(short_help="Check a data directory offline; rebuild its index.")
@click.argument("directory", type=click.Path(file_okay=False), required=False)
@click.option("--fast", is_flag=True, help="Look at no bytes of objects: index, files and trailers only.")
@click.option("--rebuild", is_flag=True, help="Make the index again; the old one is kept aside.")
@json_option
def fsck(directory: str | None, fast: bool, rebuild: bool, as_json: bool) -> None:
    """Check the data directory of a store that does not run; without DIRECTORY that of `ais serve`.

    Nothing is changed without --rebuild. That makes the index again from what can be read of the old one and from the
    files, says what came back and what did not, and can be run again when it was interrupted.

    \b
    Exit codes:
      0  all is sound; rebuilt
      1  damage was found; rebuilding lost something
      2  not a data directory, in use by a store, or of a newer version

    \b
    Examples:
      ais fsck /srv/ais
      ais fsck /srv/ais --fast --json
      ais fsck /srv/ais --rebuild
    """
    if rebuild and fast:
        raise click.UsageError("--rebuild reads no bytes of objects anyway: leave --fast out")
    place = directory or default_data_directory()
    try:
        damaged = _rebuild(place, as_json=as_json) if rebuild else _check(place, fast=fast, as_json=as_json)
    except AisError as error:  # it could not even begin
        click.echo(f"Error: {error.message}" + (f"\nHint: {error.hint}" if error.hint else ""), err=True)
        sys.exit(2)
    if damaged:
        sys.exit(1)


def _check(directory: str, *, fast: bool, as_json: bool) -> bool:
    with ExitStack() as stack:
        bars: list[Bar] = []

        def begin(total: int) -> None:
            bars[:] = [stack.enter_context(Bar("checking", total))]

        report = check(
            directory, fast=fast, progress=Progress(begin, lambda size: bars[0].advance(size) if bars else None)
        )
    if as_json:
        findings = [finding._asdict() for finding in report.findings]
        write_properties({**report._asdict(), "clean": not findings, "findings": findings}, as_json=True)
    else:
        _write_report(report, fast=fast)
    return bool(report.findings)


def _write_report(report: Report, *, fast: bool) -> None:
    if report.findings:
        columns = [
            Column("KIND", "kind"), Column("OBJECT", "object"), Column("FILE", "file"), Column("PROBLEM", "problem")
        ]  # fmt: skip
        write_table([[finding._asdict() for finding in report.findings[:_SHOWN]]], columns)
        if len(report.findings) > _SHOWN:
            click.echo(f"… and {len(report.findings) - _SHOWN:,} more; --json has all")
    bytes_read = "bytes not looked at" if fast else format_size(report.bytes)
    click.echo(f"Checked {counted(report.objects, 'object')} ({bytes_read}) in {counted(report.files, 'file')}.")
    if report.trash:
        click.echo(f"{counted(report.trash, 'file')} of replaced and deleted objects wait to be removed.")
    if report.unfinished:
        click.echo(
            f"{counted(report.unfinished, 'file')} of unfinished writes: the next start removes them, no damage."
        )
    click.echo(_verdict(report.findings))


def _verdict(findings: list[Finding]) -> str:
    if not findings:
        return "No damage found."
    kinds = ", ".join(f"{count:,} {kind}" for kind, count in sorted(Counter(find.kind for find in findings).items()))
    advice = ""
    if any(finding.kind in ("index", "unknown-file", "interrupted", "bucket", "trash") for finding in findings):
        advice = " `ais fsck --rebuild` makes the index again."
    elif any(finding.object for finding in findings):
        advice = " Put the objects again from their source, or delete them."
    return f"Damage found: {kinds}.{advice}"


def _rebuild(directory: str, *, as_json: bool) -> bool:
    results = rebuild_all(directory)
    if as_json:
        records = [{"mountpath": mountpath.directory, **_record(rebuilt)} for mountpath, rebuilt in results]
        write_properties({"mountpaths": records}, as_json=True)
    else:
        for mountpath, rebuilt in results:
            _write_rebuilt(mountpath, rebuilt)
    if not results:
        raise NotFoundError(f"{directory} has no mountpath")
    return any(rebuilt.lost or rebuilt.unreadable or not rebuilt.salvaged.whole for _, rebuilt in results)


def _record(rebuilt: Rebuilt) -> dict[str, object]:
    gaps = [
        {
            "bucket": gap.bucket,
            "after": gap.after.decode(errors="replace"),
            "before": gap.before.decode(errors="replace"),
        }
        for gap in rebuilt.salvaged.gaps
    ]
    return {**rebuilt._asdict(), "salvaged": {**rebuilt.salvaged._asdict(), "gaps": gaps}}


def _write_rebuilt(mountpath: Mountpath, rebuilt: Rebuilt) -> None:
    salvaged = rebuilt.salvaged
    there_was = os.path.exists(rebuilt.old_index)
    old = f"the old one is {rebuilt.old_index}" if there_was else "there was no old one"
    click.echo(f"{mountpath.database} was made again; {old}.")
    bare = f", {rebuilt.bare_buckets:,} of them without their properties" if rebuilt.bare_buckets else ""
    click.echo(f"  Buckets:           {rebuilt.buckets:,}{bare}")
    click.echo(f"  Objects:           {rebuilt.objects:,}")
    click.echo(f"    from files:      {rebuilt.objects - rebuilt.inline:,}")
    click.echo(f"    from the index:  {rebuilt.inline:,}")
    click.echo(f"  Into the trash:    {counted(rebuilt.superseded, 'file')} replaced by later ones or deleted")
    if rebuilt.unreadable:
        click.echo(f"  Without a trailer: {counted(rebuilt.unreadable, 'file')}; `ais fsck` names those of objects")
    if rebuilt.lost:
        click.echo(f"  Lost:              {counted(rebuilt.lost, 'object')} whose files are gone")
        for name in rebuilt.lost_names:
            click.echo(f"    {name}")
    if not there_was:
        click.echo("Objects of 256 bytes and less lay in the old index alone, and are lost.")
    elif not salvaged.whole:
        click.echo("The old index could not be read to the last row. Objects of 256 bytes and less lay there alone:")
        if not salvaged.gaps:
            click.echo("  those of buckets that nothing tells of any more are lost")
        for gap in salvaged.gaps:
            click.echo(f"  in bucket number {gap.bucket}, names {gap} are lost")

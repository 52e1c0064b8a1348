"""``ais doctor``: check this machine."""

from __future__ import annotations

import json
import sys

import click

from ...errors import AisError
from ..options import json_option
from ..output import plain
from ..session import Session

_COLORS = {"ok": "green", "warn": "yellow", "fail": "red", "skip": None}


@click.command()
@click.option("--data", type=click.Path(), help="Data directory to check [default: that of `ais serve`]")
@json_option
@click.pass_context
def doctor(ctx: click.Context, data: str | None, as_json: bool) -> None:
    """Check this machine, and whether a store answers.

    Each check is a line: ok, warn, fail, or skip where it could not be made; below it what to do. The exit code is 0 if
    nothing failed.

    \b
    Examples:
      ais doctor
      ais doctor --data /srv/ais --json
    """
    from ...doctor.examination import examine

    session = ctx.find_object(Session)
    assert session is not None
    try:
        endpoint = session.endpoints[0]
    except AisError as error:
        findings = examine(data, error)
    else:
        findings = examine(data, endpoint)
    made = []
    for finding in findings:
        made.append(finding)
        if not as_json:
            level = click.style(f"{finding.level.value:<5}", fg=_COLORS[finding.level.value])
            click.echo(f"{level} {finding.check}: {plain(finding.found)}")
            if finding.advice:
                click.echo(f"      {plain(finding.advice)}")
    if as_json:
        records = [{**finding._asdict(), "level": finding.level.value} for finding in made]
        click.echo(json.dumps(records, ensure_ascii=False, indent=2))
    sys.exit(any(finding.level == "fail" for finding in made))

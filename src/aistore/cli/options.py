"""Options that several commands share, and questions to the person at the terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, TypeVar

import click

from .session import Session

Command = TypeVar("Command", bound=Callable[..., Any])


def add_endpoint_option(command: click.Command) -> None:
    """Let ``command`` take ``--endpoint`` as ``ais`` itself does, for whoever writes it last."""
    if not any(param.name == "endpoint" for param in command.params):
        command.params.append(
            click.Option(
                ["--endpoint"], metavar="URL", expose_value=False, callback=_use_endpoint,
                help="Address of the store; AIS_ENDPOINT otherwise.",
            )
        )  # fmt: skip


def _use_endpoint(ctx: click.Context, param: click.Parameter, value: str | None) -> None:
    session = ctx.find_object(Session)
    if value and session is not None:  # there is none while a shell completes a command
        session.use_endpoint(value)


def json_option(command: Command) -> Command:
    """Add ``--json``."""
    return click.option("-j", "--json", "as_json", is_flag=True, help="Print JSON.")(command)


def no_headers_option(command: Command) -> Command:
    """Add ``--no-headers``."""
    return click.option("-H", "--no-headers", is_flag=True, help="Print no heading.")(command)


def yes_option(command: Command) -> Command:
    """Add ``--yes``."""
    return click.option("-y", "--yes", is_flag=True, help="Do not ask.")(command)


def workers_option(command: Command) -> Command:
    """Add ``--num-workers``."""
    return click.option(
        "--num-workers",
        "workers",
        type=click.IntRange(1, 256),
        default=4,
        show_default=True,
        help="How many objects to move at a time.",
    )(command)


def continue_option(command: Command) -> Command:
    """Add ``--cont-on-err``."""
    return click.option("--cont-on-err", "go_on", is_flag=True, help="Go on after an error with the next object.")(
        command
    )


def confirm(question: str, *, yes: bool) -> None:
    """Ask, if somebody is there to answer; "no" ends the command."""
    if yes or not (sys.stdin.isatty() and sys.stderr.isatty()):
        return
    if not click.confirm(question, err=True):
        click.echo("Nothing was done.", err=True)
        raise click.exceptions.Exit(1)


def confirm_removal(what: str, *, yes: bool) -> None:
    """Ask before ``what`` is destroyed; where nobody can answer, only ``yes`` will do."""
    if not yes and not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise click.UsageError(f"this removes {what}: pass -y to confirm")
    confirm(f"Remove {what}?", yes=yes)

"""Command groups whose commands are imported only when they run, so that ``ais --help`` is instant."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Mapping
from typing import NamedTuple

import click


class Lazy(NamedTuple):
    """Where a command is (``module:attribute``) and its line in the list of commands."""

    place: str
    summary: str


class LazyGroup(click.Group):
    """A group that knows its commands by `Lazy` entries."""

    def __init__(self, *, lazy: Mapping[str, Lazy] | None = None, **attributes: object) -> None:
        super().__init__(**attributes)  # type: ignore[arg-type]
        self.lazy = dict(lazy or {})

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the commands in the order in which they were given: the order of a first session."""
        return [*self.lazy, *(name for name in self.commands if name not in self.lazy)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a command, importing its module now."""
        entry = self.lazy.get(cmd_name)
        if entry is None:
            return super().get_command(ctx, cmd_name)
        module, _, attribute = entry.place.partition(":")
        command = getattr(importlib.import_module(module), attribute)
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands without importing any."""
        rows = [(name, entry.summary) for name, entry in self.lazy.items()]
        rows += [
            (name, command.get_short_help_str(90)) for name, command in self.commands.items() if not command.hidden
        ]
        with formatter.section("Commands"):
            formatter.write_dl(rows)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command, suggesting a near one for a misspelt name."""
        return super().resolve_command(ctx, args) if args[0] in self.list_commands(ctx) else self._unknown(ctx, args)

    def _unknown(self, ctx: click.Context, args: list[str]) -> tuple[str | None, click.Command | None, list[str]]:
        near = difflib.get_close_matches(args[0], self.list_commands(ctx), n=1)
        if near and not args[0].startswith("-"):
            ctx.fail(f"No such command {args[0]!r}. Did you mean {near[0]!r}?")
        return super().resolve_command(ctx, args)

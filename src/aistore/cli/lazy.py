"""Command groups whose commands are imported only when they run, so that ``ais --help`` is instant."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Mapping
from typing import NamedTuple

import click

from .options import add_endpoint_option


class Lazy(NamedTuple):
    """Where a command is (``module:attribute``) and its line in the list of commands.

    ``local`` commands talk to no store.
    """

    place: str
    summary: str
    local: bool = False


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
            command = super().get_command(ctx, cmd_name)
        else:
            module, _, attribute = entry.place.partition(":")
            command = getattr(importlib.import_module(module), attribute)
            assert isinstance(command, click.Command)
        if command is not None and not isinstance(command, click.Group) and not (entry and entry.local):
            add_endpoint_option(command)
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
        """Find the command; for a name that is none, tell those that may be meant."""
        name = args[0]
        if name not in self.list_commands(ctx) and not name.startswith("-"):
            meant = self._near(ctx, name)
            said = (
                f"Did you mean {' or '.join(map(repr, meant))}?"
                if meant
                else f"`{ctx.command_path} --help` lists all there are."
            )
            ctx.fail(f"No such command {name!r}. {said}")
        return super().resolve_command(ctx, args)

    def _near(self, ctx: click.Context, name: str) -> list[str]:
        """Return commands of this group with a name like ``name``, and those of its groups that are called so."""
        names = self.list_commands(ctx)
        groups = ((outer, self.get_command(ctx, outer)) for outer in names)
        inner = [
            f"{outer} {name}"
            for outer, group in groups
            if isinstance(group, click.Group) and name in group.list_commands(ctx)
        ]
        return [*inner, *difflib.get_close_matches(name, names, n=2, cutoff=0.8 if inner else 0.6)]

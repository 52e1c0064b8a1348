"""About ``ais`` itself: its version, and completion in the shell."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from ... import __version__
from ..options import json_option
from ..output import write_properties

_INSTALL = {
    "bash": "ais completion bash > ~/.local/share/bash-completion/completions/ais",
    "zsh": "ais completion zsh > ~/.zfunc/_ais   (with `fpath+=~/.zfunc; autoload -Uz compinit; compinit` in ~/.zshrc)",
    "fish": "ais completion fish > ~/.config/fish/completions/ais.fish",
}


@click.command()
@json_option
def version(as_json: bool) -> None:
    """Print the version.

    \b
    Example:
      ais version
    """
    if as_json:
        write_properties({"version": __version__}, as_json=True)
    else:
        click.echo(f"ais {__version__}")


@click.command()
@click.argument("shell", type=click.Choice(list(_INSTALL)))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print what makes a shell complete `ais` commands.

    The script goes to standard output, how to install it to standard error.

    \b
    Examples:
      source <(ais completion bash)
      ais completion fish > ~/.config/fish/completions/ais.fish
    """
    kind = get_completion_class(shell)
    assert kind is not None
    root = ctx.find_root().command
    if shell == "bash":  # it takes a colon for the end of a word, and every URI has one
        click.echo("COMP_WORDBREAKS=${COMP_WORDBREAKS//:}")
    click.echo(kind(root, {}, "ais", "_AIS_COMPLETE").source())
    click.echo(f"# To install it: {_INSTALL[shell]}", err=True)

"""``ais etl init``: make transforms, from code or from specifications."""

from __future__ import annotations

import os
import re
import secrets
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO, TypeVar

import click

from ...client import Etl
from ...errors import AisError, BadRequestError, EtlInitError
from ...wire.messages import Progress
from ..lazy import LazyGroup
from ..progress import Stages
from ..session import client

INTERRUPT_TIMEOUT_SECONDS = 10.0  # for the removal of what an interrupt left; whoever interrupts does not wait long
_FETCH_SECONDS, _FETCH_BYTES_MAX = 30.0, 4 << 20

#: Packages whose modules are called otherwise, those that transforms import most.
_PACKAGES = {
    "PIL": "pillow", "cv2": "opencv-python-headless", "skimage": "scikit-image", "sklearn": "scikit-learn",
    "yaml": "PyYAML",
}  # fmt: skip

_Command = TypeVar("_Command", bound=Callable[..., Any])


def _spec_options(command: _Command) -> _Command:
    """Add the options that come before what a specification says."""
    for option in reversed(
        (
            click.option("--name", default="", help="Name of the transform, instead of the specification's."),
            click.option("--comm-type", default="", metavar="TYPE", help="hpush://, hpull://, hrev:// or ws://."),
            click.option(
                "--init-timeout", "--wait-timeout", "init_timeout", default="", metavar="DURATION",
                help="For becoming ready: 45s, 5m.",
            ),
            click.option(
                "--object-timeout", "--obj-timeout", "object_timeout", default="", metavar="DURATION",
                help="For one object.",
            ),
        )
    ):  # fmt: skip
        command = option(command)
    return command


@click.group(cls=LazyGroup, invoke_without_command=True, subcommand_metavar="COMMAND [ARGS]...")
@click.option("-f", "--file", "file", metavar="FILE|URL|-", help="A specification in YAML, of one or more transforms.")
@_spec_options
@click.pass_context
def init(
    ctx: click.Context, file: str | None, name: str, comm_type: str, init_timeout: str, object_timeout: str
) -> None:
    """Make transforms, from code or from specifications.

    \b
    Examples:
      ais etl init -f resize.yaml
      ais etl init -f resize.yaml --name resize-small --object-timeout 2m
      ais etl init code --name resize --from-file resize.py
    """
    if ctx.invoked_subcommand is not None:
        if file is not None:
            raise click.UsageError("-f is for a specification alone")
        return
    if file is None:
        click.echo(ctx.get_help())
        return
    _init_specs(file, name, comm_type, init_timeout, object_timeout)


@init.command("spec")
@click.argument("specification", required=False, metavar="[FILE|URL|-]")
@click.option("-f", "--from-file", "file", metavar="FILE|URL|-", help="The same.")
@_spec_options
def init_spec(
    specification: str | None, file: str | None, name: str, comm_type: str, init_timeout: str, object_timeout: str
) -> None:
    """Make transforms from specifications and wait until they are ready; the same as `ais etl init -f`.

    A specification is YAML: AIStore's runtime message (name, communication, runtime with an image or a command), or
    the pod of 2021. Several documents in a file, parted by ---, are several transforms, made one after the other.

    \b
    Example:
      ais etl init spec resize.yaml
    """
    given = [source for source in (specification, file) if source is not None]
    if len(given) != 1:
        raise click.UsageError("name one specification")
    _init_specs(given[0], name, comm_type, init_timeout, object_timeout)


def _init_specs(source: str, name: str, comm_type: str, init_timeout: str, object_timeout: str) -> None:
    messages = _read(source)
    if name and len(messages) > 1:
        raise click.UsageError(f"--name is for one transform, and {source} has {len(messages)}")
    for message in messages:
        etl = client().etl(name or str(message.get("name") or ""))
        if not etl.name:
            raise BadRequestError("the specification has no name", hint="give one with --name")

        def make(on_progress: Callable[[Progress], None], etl: Etl = etl, message: dict[str, Any] = message) -> str:
            return etl.init_spec(
                message, comm_type=comm_type, init_timeout=init_timeout, object_timeout=object_timeout,
                on_progress=on_progress,
            )  # fmt: skip

        made = _making(etl, make)
        summary = etl.summary()
        click.echo(f'ETL[{made}]: job "{summary.xaction_id if summary else ""}"')


def _read(source: str) -> list[dict[str, Any]]:
    """Return the messages in a file, at a URL, or on standard input."""
    import urllib.request  # only here: every command of `ais etl` would pay for it, and for YAML

    from ...client.etl_specs import read_messages

    if source == "-":
        return read_messages(sys.stdin.read())
    if not source.startswith(("http://", "https://")):
        return read_messages(Path(source))
    try:
        with urllib.request.urlopen(source, timeout=_FETCH_SECONDS) as reply:  # noqa: S310
            text = reply.read(_FETCH_BYTES_MAX + 1)
    except (OSError, ValueError) as error:
        raise click.UsageError(f"{source} cannot be read: {error}") from error
    return read_messages(text.decode(errors="replace"))


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
@click.option(
    "--network",
    type=click.Choice(["none", "full"]),
    default="none",
    show_default=True,
    help="full lets the code reach what the store's machine reaches.",
)
@click.option("--deterministic", is_flag=True, help="Your word: equal objects and arguments give equal bytes.")
@click.option("--cache", is_flag=True, help="Keep results that come out equal again, and give them out again.")
@click.option("--env", "variables", multiple=True, metavar="NAME=VALUE", help="A variable of the code; repeatable.")
@click.option("--memory", default="", metavar="SIZE", help="Limit of its memory: 512Mi, 2Gi.")
@click.option("--cpus", default="", metavar="CORES", help="Limit of its cores: 2, 500m.")
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
    network: str,
    deterministic: bool,
    cache: bool,
    variables: tuple[str, ...],
    memory: str,
    cpus: str,
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
    made = _making(
        etl,
        lambda on_progress: etl.init_code(
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
            network=network,
            deterministic=deterministic,
            cache=cache,
            env=_variables(variables),
            memory=memory,
            cpus=cpus,
            on_progress=on_progress,
        ),
    )
    if sandbox == "off":
        click.echo(f"Warning: {made} runs without the sandbox: its code may do all that the store may", err=True)
    click.echo(made)


def _variables(given: tuple[str, ...]) -> dict[str, str]:
    """Return the variables of repeated ``NAME=VALUE``."""
    variables: dict[str, str] = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise click.UsageError(f"--env {text!r} is no variable: expected NAME=VALUE")
        variables[name] = value
    return variables


def _making(etl: Etl, make: Callable[[Callable[[Progress], None]], str]) -> str:
    """Make a transform, showing its stages, and return its name; an interrupt removes what has begun."""
    begun = False

    def on_progress(progress: Progress) -> None:
        nonlocal begun
        begun = True
        stages.update(progress.stage, progress.message)

    try:
        with Stages(f"ETL {etl}") as stages:
            return make(on_progress)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(_remove_begun(etl, begun)) from None
    except EtlInitError as error:
        raise EtlInitError(error.message, hint=error.hint or _hint_of(error), status=error.status) from error


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

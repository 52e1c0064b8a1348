"""The command tree of ``ais``, and what an error becomes: a message, a hint, an exit code.

Exit codes: 0 done, 1 it failed, 2 the command was not understood, 130 interrupted, 141 the reader went away.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

import click

from .. import __version__
from .._conflict import find_conflict
from ..errors import AisError
from .lazy import Lazy, LazyGroup
from .near import hint_for
from .output import plain_lines
from .session import Session

_COMMANDS = "aistore.cli.commands"

COMMANDS = {
    "serve": Lazy(f"{_COMMANDS}.serve:serve", "Start a store on this machine.", local=True),
    "ls": Lazy(f"{_COMMANDS}.bucket:ls", "List buckets, or the objects of a bucket."),
    "create": Lazy(f"{_COMMANDS}.bucket:create", "Create buckets."),
    "put": Lazy(f"{_COMMANDS}.put:put", "Put files, directories or standard input into a bucket."),
    "get": Lazy(f"{_COMMANDS}.get:get", "Get an object, or all objects of a prefix."),
    "cp": Lazy(f"{_COMMANDS}.job:cp", "Copy a bucket to another, or some of its objects, or one."),
    "rmo": Lazy(f"{_COMMANDS}.object:rm", "Remove objects."),
    "prefetch": Lazy(f"{_COMMANDS}.cached:prefetch", "Copy objects into the store's cache before they are read."),
    "evict": Lazy(f"{_COMMANDS}.cached:evict", "Drop the store's copies of objects."),
    "rmb": Lazy(f"{_COMMANDS}.bucket:rm", "Remove buckets with all that is in them."),
    "etl": Lazy(f"{_COMMANDS}.etl:etl", "Run transforms where the data is."),
    "bucket": Lazy(f"{_COMMANDS}.bucket:bucket", "Buckets: ls, create, cp, rm, show, props, prefetch, evict."),
    "object": Lazy(f"{_COMMANDS}.object:object_", "Objects: put, get, cp, cat, show, rm, set-custom."),
    "job": Lazy(f"{_COMMANDS}.job:job", "Jobs: show, wait, stop."),
    "storage": Lazy(
        f"{_COMMANDS}.storage:storage", "Show the disks of the store, add and remove them, validate what is on them."
    ),
    "cluster": Lazy(f"{_COMMANDS}.cluster:cluster", "Clusters: start one on this machine, show, drain, remove, wait."),
    "scrub": Lazy(f"{_COMMANDS}.validate:validate", "Verify all objects of a running store."),
    "fsck": Lazy(f"{_COMMANDS}.fsck:fsck", "Check a data directory offline; rebuild its index.", local=True),
    "show": Lazy(
        f"{_COMMANDS}.show:show", "Show the cluster, its disks, transforms, jobs, performance, a bucket, an object."
    ),
    "doctor": Lazy(f"{_COMMANDS}.doctor:doctor", "Check this machine, and whether a store answers."),
    "version": Lazy(f"{_COMMANDS}.about:version", "Print the version.", local=True),
    "completion": Lazy(
        f"{_COMMANDS}.about:completion", "Print what makes a shell complete `ais` commands.", local=True
    ),
}


@click.group(cls=LazyGroup, lazy=COMMANDS, context_settings={"help_option_names": ["--help", "-h"]})
@click.option("--endpoint", metavar="URL", help="Address of the store; AIS_ENDPOINT otherwise.")
@click.version_option(__version__, prog_name="ais", message="%(prog)s %(version)s")
@click.pass_context
def cli(ctx: click.Context, endpoint: str | None) -> None:
    """Store training data and run your transforms where the data is.

    \b
    Examples:
      ais serve                                    run a store on this machine
      ais create ais://imagenet
      ais put -r imagenet ais://imagenet
      ais ls ais://imagenet/train/
      ais etl init code --name resize --from-file resize.py --comm-type io://
      ais etl object resize ais://imagenet/train/1.jpg small.jpg
    """
    if endpoint and ctx.obj is not None:  # there is no session while a shell completes a command
        ctx.obj.use_endpoint(endpoint)


def main() -> None:
    """Run ``ais`` with the arguments of this process."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: Sequence[str]) -> int:
    """Run one command and return its exit code."""
    if "_AIS_COMPLETE" in os.environ:
        cli.main(prog_name="ais")
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    problem = find_conflict()
    if problem:
        click.echo(f"Warning: {problem}", err=True)
    try:
        code = _invoke(arguments)
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        # Whoever read our output has seen enough (`ais ls … | head`). Nothing may be flushed at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141


def _invoke(arguments: Sequence[str]) -> int:
    session: Session | None = None
    try:
        with cli.make_context("ais", list(arguments)) as ctx:
            ctx.obj = session = Session(None)
            result = cli.invoke(ctx)
        return result if isinstance(result, int) else 0
    except click.exceptions.Exit as done:
        return done.exit_code
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt) as error:
        click.echo(f"\nInterrupted; {error}" if str(error) else "\nInterrupted.", err=True)
        return 130
    except BrokenPipeError:
        raise
    except AisError as error:
        return _fail(error.message, hint_for(error, session))
    except OSError as error:
        where = f"{os.fsdecode(error.filename)}: " if error.filename is not None else ""
        return _fail(f"{where}{error.strerror or error}")


def _fail(message: str, hint: str = "") -> int:
    # A message has names of objects in it, and what a transform wrote: neither may steer the terminal.
    click.echo(f"Error: {plain_lines(message)}", err=True)
    if hint:
        click.echo(f"Hint: {plain_lines(hint)}", err=True)
    return 1


if __name__ == "__main__":
    main()

"""``ais etl verify``: make derived objects again and compare."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from ...errors import AisError, InternalError
from ...model.names import parse_uri
from ..complete import complete_uri
from ..output import counted, format_size
from ..session import client
from .job import follow

if TYPE_CHECKING:
    from ...client import Job, JobInfo

#: Objects of a sample where nothing is said. Guessed: seconds of most transforms.
SAMPLE_DEFAULT = 100
#: Differences that are shown when the job has ended; `ais show job ID --errors` has the others.
_SHOWN_MAX = 20


def _sample(context: click.Context, parameter: click.Parameter, text: str) -> dict[str, Any]:
    """Return how many objects are meant: a number, or a part with a percent sign."""
    try:
        if text.endswith("%"):
            percent = float(text[:-1])
            if 0 < percent <= 100:
                return {"percent": percent}
        elif text:
            number = int(text)
            if number > 0:
                return {"sample": number}
        else:
            return {}
    except ValueError:
        pass
    raise click.BadParameter(f"{text!r} is neither a number of objects nor a percentage", context, parameter)


@click.command("verify")
@click.argument("source", metavar="BUCKET[/PREFIX/]", shell_complete=complete_uri)
@click.option(
    "--sample",
    default="",
    metavar="N|PERCENT%",
    callback=_sample,
    help=f"So many objects, drawn at random, or such a part; {SAMPLE_DEFAULT} by default.",
)
@click.option("--all", "everything", is_flag=True, help="All objects.")
@click.option("--prefix", default="", help="Only names that start with this.")
@click.option("--object-timeout", "--request-timeout", default="", metavar="DURATION", help="For one object: 45s, 5m.")
@click.option(
    "--num-workers",
    "workers",
    type=click.IntRange(0, 256),
    default=0,
    help="How many objects are under way at once; 0 leaves it to the store.",
)
@click.option("--wait", "wait_", is_flag=True, help="Wait until the job has ended and show what differs.")
@click.option("--timeout", default="", metavar="DURATION", help="With --wait: give up after this; the job goes on.")
@click.option("--nv", "--non-verbose", "terse", is_flag=True, help="Print the job's id alone.")
def etl_verify(
    source: str, sample: dict[str, Any], everything: bool, prefix: str, object_timeout: str, workers: int,
    wait_: bool, timeout: str, terse: bool,
) -> None:  # fmt: skip
    """Make derived objects again and compare them with what is there.

    Objects that a transform or a copy has written say of what and how they were made. Each is made again so and
    compared, byte for byte. Fails with --wait if one differs, is damaged, or cannot be made again, also because its
    transform makes something else each time. Objects whose source has changed since are counted beside them.

    \b
    Examples:
      ais etl verify ais://small --wait
      ais etl verify ais://small --sample 1% --wait
      ais etl verify ais://small/train/ --all --wait
    """
    if sample and everything:
        raise click.UsageError("--sample and --all exclude each other")
    place = parse_uri(source)
    if place.name and prefix:
        raise click.UsageError("choose the objects once: in the bucket's URI, or by --prefix")
    if place.name and not place.name.endswith("/"):
        raise click.UsageError(f"{place} names an object: end it with / for all that is under it, or use --prefix")
    chosen = {} if everything else sample or {"sample": SAMPLE_DEFAULT}
    job = client().bucket(place.bucket).verify(
        prefix=prefix or place.name, workers=workers, object_timeout=object_timeout, **chosen
    )  # fmt: skip
    if terse:
        click.echo(job.id)
    if wait_:
        if not terse:
            click.echo(f"Verifying {place} ...")
        _conclude(job, timeout, terse=terse)
    elif not terse:
        click.echo(f"Verifying {place}. To monitor the progress, run 'ais show job {job.id}'")


def _conclude(job: Job, timeout: str, *, terse: bool) -> None:
    """Wait for a job, show what it has found, and fail if that is a difference."""
    info = follow(job, timeout, quiet=True, fails=False)
    if not terse:
        for error in job.errors()[:_SHOWN_MAX]:
            click.echo(f"{error.name}: {error.message}", err=True)
        sys.stderr.flush()
        click.echo(_summary(info))
    if info.error:
        raise _failure(info)


def _summary(info: JobInfo) -> str:
    took = (info.ended_ns - info.started_ns) / 1e9
    said = f"Verified. {counted(info.objects, 'object')} ({format_size(info.bytes)}) as made, in {took:.1f}s"
    for count, what in (
        (info.failed, "not as made"), (info.stale, "whose source has changed since"), (info.skipped, "not derived"),
        (info.gone, "gone meanwhile"),
    ):  # fmt: skip
        said += f", {count:,} {what}" if count else ""
    return said


def _failure(info: JobInfo) -> AisError:
    if info.aborted:
        return InternalError(f"job {info.id} was aborted: {info.error}")
    return InternalError(info.error, hint=f"`ais show job {info.id} --errors` shows all of them")

"""``ais show performance``: what the targets count, as tables that can be watched."""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from ...errors import BadRequestError, NotFoundError
from ...model.etl import parse_duration
from ..options import json_option, no_headers_option
from ..output import Column, format_size, format_time, write_table
from ..session import client

if TYPE_CHECKING:
    from ...client.cluster import NodePerformance

#: The counters' names of operations, and what their columns are called.
_OPERATIONS = {
    "get": "GET", "put": "PUT", "head": "HEAD", "del": "DELETE", "lst": "LIST", "etl": "ETL", "batch": "BATCH",
}  # fmt: skip
_WITH_SIZE = ("get", "put", "etl", "batch")
#: Over how long rates are measured when nobody says.
_INTERVAL_SECONDS = 1.0


class Cell(NamedTuple):
    """One value: its column's title, its name in JSON, the value, and how a table shows it."""

    title: str
    key: str
    value: float
    text: str


class Period(NamedTuple):
    """What a target counted in some time; since the store's start if ``seconds`` is 0."""

    node: str
    counters: dict[str, int]
    seconds: float

    def rate(self, name: str) -> float:
        """Return a counter's increase per second."""
        return self.counters.get(name, 0) / (self.seconds or 1.0)

    def average(self, total: str, count: str) -> float:
        """Return the mean of what was counted one by one."""
        return self.counters.get(total, 0) / (self.counters.get(count, 0) or 1)


def _count(period: Period, operation: str) -> Cell:
    number = period.counters.get(f"{operation}.n", 0)
    return Cell(f"{_OPERATIONS[operation]}(n)", f"{operation}.n", number, str(number))


def _time(period: Period, operation: str) -> Cell:
    average = period.average(f"{operation}.ns.total", f"{operation}.n")
    return Cell(f"{_OPERATIONS[operation]}(t)", f"{operation}.ns", round(average), _spell_time(average))


def _size(period: Period, operation: str, *, average: bool) -> list[Cell]:
    if operation not in _WITH_SIZE:
        return []
    total, mean = period.counters.get(f"{operation}.size", 0), period.average(f"{operation}.size", f"{operation}.n")
    if not average:
        return [Cell(f"{_OPERATIONS[operation]}(size)", f"{operation}.size", total, format_size(total))]
    text = f"{format_size(total)} / {format_size(round(mean))}"
    return [Cell(f"{_OPERATIONS[operation]}(total/avg size)", f"{operation}.size", total, text)]


def _overview(period: Period, *, average: bool) -> list[Cell]:
    cells = []
    for name in _OPERATIONS:
        cells += [_count(period, name), _time(period, name), *_size(period, name, average=True)]
    return cells


def _counters(period: Period, *, average: bool) -> list[Cell]:
    cells = []
    for name, title in _OPERATIONS.items():
        failed = period.counters.get(f"err.{name}.n", 0)
        cells += [_count(period, name), *_size(period, name, average=average)]
        cells.append(Cell(f"{title}(err)", f"err.{name}.n", failed, str(failed)))
    return cells


def _latency(period: Period, *, average: bool) -> list[Cell]:
    return [cell for name in _OPERATIONS for cell in (_count(period, name), _time(period, name))]


def _throughput(period: Period, *, average: bool) -> list[Cell]:
    cells = []
    for name in _WITH_SIZE:
        rate, mean = period.rate(f"{name}.size"), period.average(f"{name}.size", f"{name}.n")
        cells.append(Cell(f"{_OPERATIONS[name]}(bw)", f"{name}.bps", round(rate), f"{format_size(round(rate))}/s"))
        if average:
            cells.append(Cell(f"{_OPERATIONS[name]}(avg size)", f"{name}.avg", round(mean), format_size(round(mean))))
    return cells


_View = Callable[..., list[Cell]]
_Rows = list[tuple[dict[str, str], list[Cell]]]


def _rows_of(view: _View) -> Callable[[list[Period], list[NodePerformance], bool], _Rows]:
    def rows(periods: list[Period], nodes: list[NodePerformance], average: bool) -> _Rows:
        return [({"TARGET": period.node}, view(period, average=average)) for period in periods]

    return rows


def _capacity(periods: list[Period], nodes: list[NodePerformance], average: bool) -> _Rows:
    rows: _Rows = []
    for node in nodes:
        for use in node.mountpaths:
            percent = round(100 * use.used_bytes / max(1, use.used_bytes + use.available_bytes))
            cells = [
                Cell("USED", "used", use.used_bytes, format_size(use.used_bytes)),
                Cell("AVAIL", "avail", use.available_bytes, format_size(use.available_bytes)),
                Cell("USE(%)", "pct_used", percent, f"{percent}%"),
            ]
            rows.append(({"TARGET": node.node, "MOUNTPATH": use.path}, cells))
    return rows


def _disk(periods: list[Period], nodes: list[NodePerformance], average: bool) -> _Rows:
    rows: _Rows = []
    for period in periods:
        names = {name.split(".")[1] for name in period.counters if name.startswith("disk.")}
        for disk in sorted(names):
            cells = []
            for title, key in (("READ", f"disk.{disk}.read"), ("WRITE", f"disk.{disk}.write")):
                rate, mean = period.rate(f"{key}.size"), period.average(f"{key}.size", f"{key}.n")
                short = title.lower()
                cells.append(Cell(title, f"{short}.bps", round(rate), f"{format_size(round(rate))}/s"))
                cells.append(Cell(f"{title}(avg size)", f"{short}.avg", round(mean), format_size(round(mean))))
            busy = min(100.0, period.rate(f"disk.{disk}.busy.ms") / 10)
            cells.append(Cell("UTIL(%)", "util", round(busy), f"{busy:.0f}%"))
            rows.append(({"TARGET": period.node, "DISK": disk}, cells))
    return rows


#: What can be shown, and whether it is a rate: then something has to be waited for first.
_VIEWS = {
    "": (_rows_of(_overview), False),
    "counters": (_rows_of(_counters), False),
    "throughput": (_rows_of(_throughput), True),
    "latency": (_rows_of(_latency), False),
    "capacity": (_capacity, False),
    "disk": (_disk, True),
}


@click.command()
@click.argument("view", required=False, type=click.Choice([name for name in _VIEWS if name]), metavar="[VIEW]")
@click.argument("target", required=False, default="")
@click.option("--refresh", default="", metavar="DURATION", help="Show again and again what happened in between.")
@click.option("--count", type=click.IntRange(1), help="How often; with --refresh until interrupted otherwise.")
@click.option("--regex", default="", metavar="TEXT", help="Only columns whose titles match, as in 'get|put'.")
@click.option("--average-size", is_flag=True, help="Average sizes too.")
@no_headers_option
@json_option
def performance(
    view: str | None,
    target: str,
    refresh: str,
    count: int | None,
    regex: str,
    average_size: bool,
    no_headers: bool,
    as_json: bool,
) -> None:
    """Show how much the store does, and how fast.

    VIEW is counters, throughput, latency, capacity or disk; without it, what is most asked for. TARGET is a node's id.
    Columns that are zero for all are left out. (n) is a count, (t) a mean time, (bw) bytes per second. Counts and times
    are since the store started, with --refresh those of the interval.

    \b
    Examples:
      ais show performance
      ais show performance counters --average-size
      ais show performance throughput --refresh 5s
      ais show performance latency --refresh 1s --count 10 --regex 'get|etl'
      ais show performance capacity --json
    """
    try:
        wanted = re.compile(regex, re.IGNORECASE)
    except re.error as error:
        raise BadRequestError(f"--regex {regex!r} is no regular expression: {error}") from error
    rows_of, is_rate = _VIEWS[view or ""]
    seconds = parse_duration(refresh) if refresh else _INTERVAL_SECONDS if is_rate else 0.0
    if refresh and seconds < 0.1:
        raise BadRequestError(f"--refresh {refresh} is too short", hint="expected 100ms at least")
    times = count or (0 if refresh else 1)
    for number, (periods, nodes) in enumerate(_periods(target, seconds, since_start=not refresh and not is_rate)):
        rows = _without_zeros(rows_of(periods, nodes, average_size), wanted, keep_zeros=as_json)
        if as_json:
            _write_json(rows)
        else:
            if refresh:
                click.echo(f"---------- {format_time(time.time_ns())} ----------")
            _write_table(rows, headers=not no_headers)
        sys.stdout.flush()
        if number + 1 == times:
            return


def _periods(target: str, seconds: float, *, since_start: bool) -> Iterator[tuple[list[Period], list[NodePerformance]]]:
    """Yield what happened in each interval, again and again; the first time at once if all since the start counts."""
    before: dict[str, NodePerformance] = {}
    then = 0.0
    while True:
        nodes, now = _targets(target), time.monotonic()
        if since_start:
            yield [Period(node.node, node.counters, 0.0) for node in nodes], nodes
        elif before:
            periods = []
            for node in nodes:
                old = before[node.node].counters if node.node in before else {}
                grown = {name: value - old.get(name, 0) for name, value in node.counters.items()}
                # A store that was started anew counts from zero again.
                restarted = any(value < 0 for value in grown.values())
                periods.append(Period(node.node, node.counters if restarted else grown, now - then))
            yield periods, nodes
        before, then = {node.node: node for node in nodes}, now
        time.sleep(seconds)


def _targets(wanted: str) -> list[NodePerformance]:
    nodes = client().performance()
    if not wanted:
        return nodes
    found = [node for node in nodes if wanted in (node.node, node.node[1:], f"t[{node.node}]")]
    if not found:
        raise NotFoundError(
            f"no such target: {wanted}", hint=f"expected one of: {', '.join(node.node for node in nodes)}"
        )
    return found


def _without_zeros(rows: _Rows, wanted: re.Pattern[str], *, keep_zeros: bool) -> _Rows:
    some = {cell.title for _, cells in rows for cell in cells if cell.value}
    return [
        (place, [cell for cell in cells if (keep_zeros or cell.title in some) and wanted.search(cell.title)])
        for place, cells in rows
    ]


def _write_table(rows: _Rows, *, headers: bool) -> None:
    records: list[dict[str, Any]] = [{**place, **{cell.title: cell.text for cell in cells}} for place, cells in rows]
    if records and not any(cells for _, cells in rows):
        click.echo("Nothing was done.")  # a table of targets alone would look broken
    elif records:
        write_table([records], [Column(title, title) for title in records[0]], headers=headers)
    else:
        click.echo("Nothing to show: this system does not tell.", err=True)


def _write_json(rows: _Rows) -> None:
    records = [
        {**{title.lower(): text for title, text in place.items()}, **{cell.key: cell.value for cell in cells}}
        for place, cells in rows
    ]
    click.echo(json.dumps(records, ensure_ascii=False))


def _spell_time(nanoseconds: float) -> str:
    for unit, length in (("s", 1e9), ("ms", 1e6)):
        if nanoseconds >= length:
            return f"{nanoseconds / length:.2f}{unit}"
    return f"{nanoseconds / 1e3:.2f}us"

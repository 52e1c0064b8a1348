"""What the nodes of a cluster say of one transform, put together as one store would say it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..cluster.documents import EtlRecord
from ..model.etl import Stage

#: What is added up over nodes.
_COUNTS = ("obj_count", "errors", "in_bytes", "out_bytes")
_CACHE_COUNTS = ("cache_hits", "cache_hit_bytes", "cache_misses", "cache_objects", "cache_bytes")
_USED = ("cpu", "cpu_seconds", "mem", "processes")
#: Of the stages that nodes are in, the transform is in the first of these.
_WORST_FIRST = (Stage.ABORTED.value, Stage.UNKNOWN.value, Stage.INITIALIZING.value, Stage.RUNNING.value)


def merge_summaries(records: Mapping[str, EtlRecord], found: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return a line per transform of the cluster. ``found``: by node, its own lines, or the error that came instead."""
    merged = []
    for name, record in sorted(records.items()):
        lines = {
            node: next((line for line in lines if line["id"] == name), None) if isinstance(lines, list) else None
            for node, lines in found.items()
        }
        merged.append(_summary(record, lines, found))
    return merged


def merge_details(record: EtlRecord, found: Mapping[str, Any], me: str) -> dict[str, Any]:
    """Return the details of one transform: those of node ``me``, with counts, stages and use of all."""
    lines = {node: details if isinstance(details, dict) else None for node, details in found.items()}
    known_once = [details for details in lines.values() if details is not None]
    known = [details for details in (lines.get(me), *known_once) if details is not None]
    summary = _summary(record, lines, found)
    errors = [error for details in known[1:] for error in details["obj_errors"]]
    stages = {node: (line or {}).get("stage", Stage.UNKNOWN.value) for node, line in lines.items()}
    nodes = [
        {"target_id": node, "stage": stage, "message": _message(node, lines, found), **_used([lines[node]])}
        for node, stage in stages.items()
    ]
    counts = {count: sum(details.get(count, 0) for details in known_once) for count in _CACHE_COUNTS}
    used = _used(list(lines.values()))
    return {**(known[0] if known else {}), **summary, **counts, **used, "obj_errors": errors, "nodes": nodes}


def _used(lines: Sequence[dict[str, Any] | None]) -> dict[str, Any]:
    """Return what the processes of nodes use together."""
    return {name: sum(line.get(name, 0) for line in lines if line is not None) for name in _USED}


def _summary(record: EtlRecord, lines: Mapping[str, dict[str, Any] | None], found: Mapping[str, Any]) -> dict[str, Any]:
    """Return one line for those of all nodes; the message says what keeps which nodes from running it."""
    known = [line for line in lines.values() if line is not None]
    spec = record.spec
    summary: dict[str, Any] = {
        "id": spec.name, "xaction_id": f"etl-{record.uid % 10**9}", **dict.fromkeys(_COUNTS, 0),
        "communication": spec.communication, "runtime": spec.runtime,
        "source": spec.source.value, "sandbox": spec.sandbox.value, "isolation": spec.isolation.value,
    }  # fmt: skip
    for count in _COUNTS:
        summary[count] = sum(line[count] for line in known)
    stages = {line["stage"] for line in known}
    if record.making:
        stage = Stage.INITIALIZING.value
    elif not record.wanted:
        stage = Stage.ABORTED.value
    else:
        stage = next((stage for stage in _WORST_FIRST if stage in stages), Stage.UNKNOWN.value)
    told = [f"{node}: {message}" for node in lines if (message := _message(node, lines, found))]
    return {**summary, "stage": stage, "message": "stopped" if not record.wanted else "; ".join(told)}


def _message(node: str, lines: Mapping[str, dict[str, Any] | None], found: Mapping[str, Any]) -> str:
    line = lines[node]
    if line is not None:
        return str(line["message"])
    return str(found[node]) if isinstance(found[node], Exception) else ""

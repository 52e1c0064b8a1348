"""All metrics of a store: the counters of its processes added up, and what is measured when somebody asks."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Mapping, Sequence

from .. import __version__
from ..observe import layout
from ..observe.totals import Process, Totals
from ..storage.local.facts import DiskCounters, MountpathFacts
from .exposition import Family
from .processes import process_facts

#: What AIStore calls an operation's bytes: those that go out for reads, those that come in for writes.
_BYTES = {"get": layout.OUT_BYTES, "put": layout.IN_BYTES, "etl": layout.OUT_BYTES, "batch": layout.OUT_BYTES}


def finished(words: Sequence[int], operation: int) -> int:
    """Return how many requests of an operation have ended."""
    first = operation + layout.HISTOGRAM
    return sum(words[first : first + len(layout.LATENCY_NS) + 1])


def request_families(words: Sequence[int]) -> list[Family]:
    """Return the metrics of requests."""
    latency = Family("ais_target_request_duration_seconds", "histogram", "From a request's arrival to its last byte.")
    received = Family("ais_target_received_bytes_total", "counter", "Bytes of request bodies, by operation.")
    sent = Family("ais_target_sent_bytes_total", "counter", "Bytes of reply bodies, by operation.")
    families = [latency, received, sent]
    for name, first in layout.OPERATION_WORDS:
        nanoseconds, errors = words[first + layout.NS_TOTAL], words[first + layout.ERRORS]
        buckets = words[first + layout.HISTOGRAM : first + layout.HISTOGRAM + len(layout.LATENCY_NS) + 1]
        latency.add_histogram(layout.LATENCY_SECONDS, buckets, nanoseconds / 1e9, op=name)
        received.add(words[first + layout.IN_BYTES], op=name)
        sent.add(words[first + layout.OUT_BYTES], op=name)
        families += [
            Family(f"ais_target_{name}_count", "counter", f"Requests: {name}.").add(sum(buckets)),
            Family(f"ais_target_err_{name}_count", "counter", f"Requests that failed: {name}.").add(errors),
            Family(f"ais_target_{name}_ns_total", "counter", f"Nanoseconds that they took: {name}.").add(nanoseconds),
        ]
        if name in _BYTES:
            size = words[first + _BYTES[name]]
            families.append(Family(f"ais_target_{name}_bytes", "counter", f"Bytes of bodies: {name}.").add(size))
    return [*families, _replies(words), _errors(words)]


def _replies(words: Sequence[int]) -> Family:
    family = Family("ais_target_replies_total", "counter", "Replies by status code.")
    for status in range(100, layout.STATUSES):
        if words[layout.STATUS + status]:
            family.add(words[layout.STATUS + status], code=str(status), **{"class": f"{status // 100}xx"})
    return family


def _errors(words: Sequence[int]) -> Family:
    family = Family("ais_target_errors_total", "counter", "Errors told to clients, those of batch entries too.")
    for number, code in enumerate(layout.ERROR_CODES):
        if words[layout.ERROR + number]:
            family.add(words[layout.ERROR + number], tcode=code)
    return family


def store_families(words: Sequence[int]) -> list[Family]:
    """Return the metrics that are one number each, and the sizes of transactions."""
    sizes = words[layout.COMMIT_HISTOGRAM : layout.COMMIT_HISTOGRAM + len(layout.COMMIT_SIZES) + 1]
    family = Family("ais_target_commit_changes", "histogram", "Changes in one transaction on the index.")
    family.add_histogram(layout.COMMIT_SIZES, sizes, words[layout.COMMIT_CHANGES])
    return [family, *(Family(*scalar).add(words[word]) for word, scalar in layout.SCALAR_WORDS)]


#: What the controller says of each transform's processes (``ManagedEtl.usage``), by name.
EtlUsage = Mapping[str, Mapping[str, float]]


def etl_families(totals: Totals) -> list[Family]:
    """Return what was counted of transforms, those that were removed included."""
    families = [Family(*scalar) for scalar in layout.ETL_SCALARS]
    for name, numbers in totals.etls_by_name().items():
        for family, number in zip(families, numbers, strict=True):
            family.add(number, etl=name)
    return families


def result_families(kept: Mapping[str, tuple[int, int]], capacity: int) -> list[Family]:
    """Return the metrics of the results that are kept, how many and how large by transform."""
    objects = Family("ais_etl_cache_objects", "gauge", "Results of a transform that are kept.")
    size = Family("ais_etl_cache_bytes", "gauge", "Bytes of these.")
    for etl, (count, total) in sorted(kept.items()):
        objects.add(count, etl=etl)
        size.add(total, etl=etl)
    room = Family("ais_etl_cache_capacity_bytes", "gauge", "Bytes of results that may be kept; 0 before the first one.")
    return [objects, size, room.add(capacity)]


def etl_usage_families(usage: EtlUsage | None) -> list[Family]:
    """Return the metrics of transforms' processes; without samples if the controller did not answer in time (None)."""
    families = []
    for name, kind, text, key in (
        ("ais_etl_cpu_seconds_total", "counter", "CPU time of a transform's processes; starts again with them.",
         "cpu_seconds"),
        ("ais_etl_memory_bytes", "gauge", "Memory of a transform's processes, what they share counted once.", "mem"),
        ("ais_etl_processes", "gauge", "Processes of a transform.", "processes"),
    ):  # fmt: skip
        family = Family(name, kind, text)
        for etl, used in (usage or {}).items():
            family.add(used[key], etl=etl)
        families.append(family)
    return families


_Gauge = tuple[str, str, Callable[[MountpathFacts], int]]
_MOUNTPATH: tuple[_Gauge, ...] = (
    ("ais_target_mountpath_capacity_bytes", "Size of the file system.", lambda f: f.capacity),
    ("ais_target_mountpath_used_bytes", "What is used of it, by whatever.", lambda f: f.used),
    ("ais_target_mountpath_avail_bytes", "What can still be written.", lambda f: f.free),
    ("ais_target_index_bytes", "Size of the index.", lambda f: f.index_bytes),
    ("ais_target_index_log_bytes", "Size of the index's log (WAL).", lambda f: f.index_log_bytes),
    ("ais_target_trash_files", "Replaced and deleted files that are not unlinked yet.", lambda f: f.trash_files),
    ("ais_target_open_generations", "Directories of files still written to or checked.", lambda f: f.open_generations),
)  # fmt: skip


def mountpath_families(mountpaths: Sequence[MountpathFacts] | None) -> list[Family]:
    """Return the metrics of disks; without samples if a disk did not answer in time (None)."""
    known = mountpaths or ()
    state = Family("ais_target_mountpath_available", "gauge", "1 if the mountpath can be read.")
    for facts in known:
        state.add(int(facts.available), mountpath=facts.name)
    families = [state]
    for name, text, value in _MOUNTPATH:
        family = Family(name, "gauge", text)
        for facts in known:
            if facts.available:
                family.add(value(facts), mountpath=facts.name)
        families.append(family)
    told = Family("ais_target_disk_facts_timely", "gauge", "0 if the disks did not answer in time for this scrape.")
    return [*families, told.add(int(mountpaths is not None))]


def _disks(mountpaths: Sequence[MountpathFacts] | None) -> list[DiskCounters]:
    """Return each disk once; several mountpaths may be on one."""
    return list({facts.disk.name: facts.disk for facts in mountpaths or () if facts.disk is not None}.values())


_DISK: tuple[tuple[str, str, Callable[[DiskCounters], float]], ...] = (
    ("ais_target_disk_read_count", "Reads of a disk under a mountpath, by whomever.", lambda disk: disk.reads),
    ("ais_target_disk_read_bytes", "Bytes of them.", lambda disk: disk.read_bytes),
    ("ais_target_disk_write_count", "Writes of the disk.", lambda disk: disk.writes),
    ("ais_target_disk_write_bytes", "Bytes of them.", lambda disk: disk.write_bytes),
    ("ais_target_disk_busy_seconds_total", "Time in which it had something to do.", lambda disk: disk.busy_ms / 1000),
)


def disk_families(mountpaths: Sequence[MountpathFacts] | None) -> list[Family]:
    """Return the metrics of the disks under mountpaths, where the system tells them."""
    families = []
    for name, text, value in _DISK:
        family = Family(name, "counter", text)
        for disk in _disks(mountpaths):
            family.add(value(disk), disk=disk.name)
        families.append(family)
    return families


def process_families(processes: Sequence[Process], started_ns: int, node_id: str) -> list[Family]:
    """Return the metrics of the store's processes and of the store as such."""
    now = time.time_ns()
    cpu = Family("ais_process_cpu_seconds_total", "counter", "CPU time of a process; starts again with it.")
    resident = Family("ais_process_resident_memory_bytes", "gauge", "Memory of a process of the store.")
    descriptors = Family("ais_process_open_fds", "gauge", "Open descriptors of a process, its connections included.")
    threads = Family("ais_process_threads", "gauge", "Threads of a process.")
    uptime = Family("ais_process_uptime_seconds", "gauge", "Time since a process started.")
    for place, pid, process_started_ns in processes:
        facts = process_facts(pid)
        if facts is not None:
            cpu.add(facts.cpu_seconds, process=place)
            resident.add(facts.resident_bytes, process=place)
            descriptors.add(facts.descriptors, process=place)
            threads.add(facts.threads, process=place)
            uptime.add((now - process_started_ns) / 1e9, process=place)
    store = Family("ais_target_uptime_ns", "gauge", "Nanoseconds since the store started.").add(now - started_ns)
    build = Family("ais_build_info", "gauge", "1, with the versions of what runs.")
    build.add(
        1,
        node_id=f"t{node_id}",
        version=__version__,
        python=platform.python_version(),
        system=platform.system().lower(),
    )
    return [cpu, resident, descriptors, threads, uptime, store, build]


def all_families(
    totals: Totals,
    usage: EtlUsage | None,
    mountpaths: Sequence[MountpathFacts] | None,
    started_ns: int,
    node_id: str,
) -> list[Family]:
    """Return every metric there is, in the order of the documentation."""
    return [
        *request_families(totals.words),
        *store_families(totals.words),
        *etl_families(totals),
        *etl_usage_families(usage),
        *mountpath_families(mountpaths),
        *disk_families(mountpaths),
        *process_families(totals.processes, started_ns, node_id),
    ]


def tracker(
    words: Sequence[int], mountpaths: Sequence[MountpathFacts] | None, uptime_ns: int
) -> dict[str, dict[str, str]]:
    """Return the counters as ``what=node_status`` has them: name to ``{"v": "NUMBER"}``, nanoseconds and bytes."""
    found = {"up.ns.time": uptime_ns}
    for name, first in layout.OPERATION_WORDS:
        found[f"{name}.n"] = finished(words, first)
        found[f"{name}.ns.total"] = words[first + layout.NS_TOTAL]
        found[f"err.{name}.n"] = words[first + layout.ERRORS]
        if name in _BYTES:
            found[f"{name}.size"] = words[first + _BYTES[name]]
    for disk in _disks(mountpaths):
        found[f"disk.{disk.name}.read.n"], found[f"disk.{disk.name}.read.size"] = disk.reads, disk.read_bytes
        found[f"disk.{disk.name}.write.n"], found[f"disk.{disk.name}.write.size"] = disk.writes, disk.write_bytes
        found[f"disk.{disk.name}.busy.ms"] = disk.busy_ms
    return {name: {"v": str(number)} for name, number in sorted(found.items())}

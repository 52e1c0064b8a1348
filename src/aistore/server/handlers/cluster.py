"""The cluster as clients see it: health, the cluster map, node status."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import msgspec
import xxhash

from ... import __version__
from ...cluster.view import View
from ...errors import BadRequestError, NotFoundError, NotSupportedError, OverloadedError
from ...fallbacks import lacks
from ...storage.local.facts import MountpathFacts
from ...wire import headers as names
from ...wire.messages import decode_action, decode_json, lower_keys
from ..description import OBJECT, Content, Parameter, header, operation
from ..metrics import tracker
from ..node.listing import copies
from ..node.transforms import NDJSON, VERBS, answer
from ..replies import Empty, Reply, Stream, json_reply
from ..request import Request
from ..store import Store
from . import jobs, mountpaths

#: Seed of a node's placement digest, by the field's formula: XXH64 of the node's id with this seed.
DIGEST_SEED = 1103515245
#: Bit of a node's flags: no objects are to be looked for there.
_MAINTENANCE = 1 << 2


class CachedQuery(msgspec.Struct, frozen=True):
    """Which copies a node is asked for: names from ``first`` to ``last`` (empty: the end); ``limit`` 0 is all."""

    prefix: str = ""
    first: str = ""
    last: str = ""
    limit: int = 0


_QUERIES = (
    "smap snode node_status node_stats sysinfo mountpaths disk scrub cluster_config config software_version"
).split() + list(jobs.QUERIES)


@operation("/v1/health", "Say that this store answers.")
async def health(store: Store, request: Request, rest: str) -> Reply:
    """Say that this node answers, and for how long it has."""
    uptime = str(time.time_ns() - store.settings.started_ns)
    return Empty([(names.CLUSTER_UPTIME, uptime), (names.NODE_UPTIME, uptime)])


def _node(store: Store, request: Request, kind: str) -> dict[str, Any]:
    """Return one node's description. Its address is the one that the client used, so it works through forwarding."""
    authority = request.headers.get("host") or f"127.0.0.1:{store.settings.port}"
    host, _, port = authority.rpartition(":")
    if not host or not port.isdecimal():
        host, port = authority, "80"
    net = {
        "node_ip_addr": host, "node_hostname": host, "daemon_port": port, "direct_url": f"http://{authority}",
    }  # fmt: skip
    node_id = f"{kind[0]}{store.settings.node_id}"
    return {
        "daemon_id": node_id, "daemon_type": kind, "public_net": net, "intra_control_net": net, "intra_data_net": net,
        "flags": 0, "id_digest": xxhash.xxh64_intdigest(node_id.encode(), seed=DIGEST_SEED),
    }  # fmt: skip


def _member(node_id: str, kind: str, url: str, *, draining: bool) -> dict[str, Any]:
    """Return the description of a node of a cluster, at the address that it gave."""
    parts = urlsplit(url)
    net = {
        "node_ip_addr": parts.hostname, "node_hostname": parts.hostname, "daemon_port": str(parts.port or 80),
        "direct_url": url,
    }  # fmt: skip
    return {
        "daemon_id": node_id, "daemon_type": kind, "public_net": net, "intra_control_net": net, "intra_data_net": net,
        "flags": _MAINTENANCE if draining else 0,
        "id_digest": xxhash.xxh64_intdigest(node_id.encode(), seed=DIGEST_SEED),
    }  # fmt: skip


def _shared_map(view: View) -> dict[str, Any]:
    """Return the map of a cluster: every node is a proxy and a target. A node that drains is home to nothing."""
    root = view.root
    targets = {node: _member(node, "target", one.url, draining=one.draining) for node, one in root.nodes.items()}
    proxies = {
        f"p{node[1:]}": _member(f"p{node[1:]}", "proxy", one.url, draining=one.draining)
        for node, one in root.nodes.items()
    }
    if not proxies:
        raise OverloadedError("no node is left in the map of this cluster", hint="start a node, and ask that")
    me = f"p{view.me[1:]}"
    created = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(root.created_ns / 1e9))
    return {
        "tmap": targets, "pmap": proxies, "proxy_si": proxies.get(me) or next(iter(proxies.values())),
        "uuid": root.uuid, "creation_time": created, "version": str(root.version), "ext": None,
    }  # fmt: skip


def _cluster_map(store: Store, request: Request) -> dict[str, Any]:
    if store.is_node:
        assert store.shared is not None
        return _shared_map(store.shared.view)
    proxy, target = _node(store, request, "proxy"), _node(store, request, "target")
    created = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(store.settings.started_ns / 1e9))
    return {
        "tmap": {target["daemon_id"]: target}, "pmap": {proxy["daemon_id"]: proxy}, "proxy_si": proxy,
        "uuid": store.settings.node_id, "creation_time": created, "version": "1", "ext": None,
    }  # fmt: skip


async def _node_status(store: Store, request: Request) -> dict[str, Any]:
    cluster: dict[str, Any] = {}
    if store.is_node:
        cluster = {**await store.controller.call("cluster.state"), "load": os.getloadavg()[0]}
    memory, mountpaths = _memory(), await store.disks.get()
    uptime_ns = time.time_ns() - store.settings.started_ns
    return {
        "snode": _node(store, request, "target"),
        "tracker": tracker(store.totals.read().words, mountpaths, uptime_ns),
        "capacity": _capacity(mountpaths),
        "sys_info": {
            "mem_used": memory["MemTotal"] - memory["MemAvailable"],
            "mem_avail": memory["MemAvailable"],
            "pct_mem_used": round(100 * (1 - memory["MemAvailable"] / max(1, memory["MemTotal"])), 2),
            "pct_cpu_used": round(100 * os.getloadavg()[0] / (os.cpu_count() or 1), 2),
            "load_avg": {"one": os.getloadavg()[0], "five": os.getloadavg()[1], "fifteen": os.getloadavg()[2]},
        },
        "smap_version": str(cluster.get("version", 1)),
        "status": cluster.get("state", "online"),
        "deployment": "pyaistore",
        "ais_version": __version__,
        "build_time": "",
        "uptime_ns": uptime_ns,
        "k8s_pod_name": "",
        "cluster": cluster,
    }  # fmt: skip


def _capacity(mountpaths: list[MountpathFacts] | None) -> dict[str, Any]:
    """Return how full each mountpath is; those on one file system count once in the sums."""
    known = [facts for facts in mountpaths or () if facts.available]
    percents = [round(100 * facts.used / max(1, facts.used + facts.free)) for facts in known]
    by_disk = {facts.device: facts for facts in known}.values()
    missing = [facts.name for facts in mountpaths or () if not facts.available]
    return {
        "mountpaths": {
            facts.directory: {"used": str(facts.used), "avail": str(facts.free), "pct_used": percent}
            for facts, percent in zip(known, percents, strict=True)
        },
        "pct_max": max(percents, default=0),
        "pct_avg": sum(percents) // max(1, len(percents)),
        "pct_min": min(percents, default=0),
        "total_used": str(sum(facts.used for facts in by_disk)),
        "total_avail": str(sum(facts.free for facts in by_disk)),
        "cs_err": f"cannot be read: {', '.join(missing)}" if missing else "" if mountpaths else "disks do not answer",
    }


def _memory() -> dict[str, int]:
    """Return MemTotal and MemAvailable in bytes; zeros where the system has no /proc/meminfo."""
    memory = {"MemTotal": 0, "MemAvailable": 0}
    if lacks("proc"):
        return memory
    try:
        with open("/proc/meminfo", encoding="ascii") as lines:
            for line in lines:
                key, _, value = line.partition(":")
                if key in memory:
                    memory[key] = int(value.split()[0]) * 1024
    except OSError:
        pass
    return memory


_WHAT = Parameter("what", "What to return: smap, node_status, …", {"type": "string", "enum": _QUERIES}, required=True)
_ANSWER = Content({"type": ["object", "array"]})
_WHICH = Content(OBJECT)


@operation("/v1/daemon", "Describe the node, or jobs.", _WHAT, body=_WHICH, returns=_ANSWER, errors=(404, 501))
@operation(
    "/v1/cluster",
    "Describe the cluster, or jobs: which ones is in the body.",
    _WHAT,
    body=_WHICH,
    returns=_ANSWER,
    errors=(404, 501),
    methods=("GET",),
)
async def query(store: Store, request: Request, rest: str) -> Reply:
    """Answer ``what=`` of ``/v1/daemon`` and ``/v1/cluster``."""
    what = request.query.get("what", "")
    if what == "smap":
        return json_reply(_cluster_map(store, request))
    if what == "snode":
        return json_reply(_node(store, request, "target"))
    if what in ("node_status", "node_stats", "sysinfo", "disk"):
        return json_reply(await _node_status(store, request))
    if what == "mountpaths":
        return await mountpaths.describe(store)
    if what == "scrub":
        return json_reply(await store.controller.call("scrub.state"))
    if what in jobs.QUERIES:
        return await jobs.query(store, request, what)
    if what in ("cluster_config", "config"):
        auth = {"enabled": bool(store.settings.serve.token), "intra_cluster": {"enabled": False}}
        return json_reply({"auth": auth, "uuid": store.settings.node_id})
    if what == "software_version":
        return json_reply({"version": __version__, "build_time": ""})
    if what:
        raise NotSupportedError(
            f"what={what!r} is not supported by this store", hint="use what=smap or what=node_status"
        )
    raise BadRequestError("the query has no what=", hint="for example /v1/daemon?what=smap")


@operation(
    "/v1/reverse/daemon",
    "Describe a node that is named by its id.",
    _WHAT,
    header(names.NODE_ID, "Id of the node, from the cluster map."),
    returns=_ANSWER,
    errors=(404, 501),
)
async def reverse(store: Store, request: Request, rest: str) -> Reply:
    """Answer for a node named by header: there is one, so any of its two ids is answered here."""
    node_id = request.headers.get(names.NODE_ID, "")
    if node_id[1:] != store.settings.node_id:
        target = f"t{node_id[1:]}"
        if store.shared is not None and target in store.shared.view.root.nodes and names.HOP not in request.headers:
            return await store.shared.pass_on(request, target)
        raise NotFoundError(f"no such node: {node_id!r}", hint="the cluster map has the ids (what=smap)")
    return await query(store, request, rest)


_MEMBERSHIP = ("startmaintenance", "stopmaintenance", "decommissionnode")


async def _change_membership(store: Store, verb: str, value: Mapping[str, Any]) -> Reply:
    """Take a node's objects away from it, give them back, or take it out of the cluster."""
    if not store.is_node:
        raise NotSupportedError("this store is one machine: it has no nodes to drain or remove")
    node = str(value.get("sid") or "")
    if not node:
        raise BadRequestError("no node is named", hint='expected {"sid": "t…"}; `ais show cluster` lists the nodes')
    if node.startswith("p"):  # the same node: it is a proxy and a target
        node = f"t{node[1:]}"
    if verb == "decommissionnode":
        await store.controller.call("cluster.remove", node=node)
    else:
        await store.controller.call("cluster.drain", node=node, draining=verb == "startmaintenance")
    return Empty()


@operation(
    "/v1/internal/adopt",
    "Between nodes: follow the cluster's map to a version, at least.",
    body=Content(OBJECT),
    returns=Content(OBJECT),
    errors=(401, 403, 503),
)
@operation(
    "/v1/internal/cached/{provider}/{bucket}",
    "Between nodes: names and sizes of this node's copies.",
    body=Content(OBJECT),
    returns=Content({"type": "array"}),
    errors=(401, 403, 404),
)
@operation(
    "/v1/internal/etl/{verb}",
    "Between nodes: make this node's transforms ready, say how they are.",
    body=Content(OBJECT),
    returns=Content(OBJECT, NDJSON),
    errors=(401, 403, 404),
)
@operation(
    "/v1/internal/jobs",
    "Between nodes: work off a batch of a job.",
    body=Content(OBJECT),
    returns=Content(OBJECT),
    errors=(401, 403),
)
async def internal(store: Store, request: Request, rest: str) -> Reply:
    """Answer another node: have the controller follow the map, say what there are copies of."""
    what, _, bucket = rest.partition("/")
    known = bucket in VERBS and store.is_node if what == "etl" else what in ("adopt", "cached", "jobs")
    if not known or store.shared is None:
        raise NotFoundError(f"no such path between nodes: {rest[:100]!r}")
    message = decode_json(await request.body(store.limits.control_body_bytes_max))
    if what == "etl":
        if not isinstance(message, dict):
            raise BadRequestError("expected the arguments of the verb, as a JSON object")
        return Stream(answer(store.controller, bucket, message), media_type=NDJSON)
    if what == "jobs":
        return await jobs.work_off(store, request, message)
    if what == "cached":
        record = store.shared.view.bucket(*bucket.partition("/")[::2])
        try:
            asked = msgspec.convert(message, CachedQuery)
        except msgspec.ValidationError as error:
            raise BadRequestError(f"the question cannot be read: {error}") from error
        fields = (asked.prefix, asked.first, asked.last, asked.limit)
        return json_reply(await store.shared.in_thread(copies, store.shared, record, *fields))
    if not isinstance(message, dict) or not isinstance(message.get("version"), int):
        raise BadRequestError('expected {"version": N}')
    return json_reply(await store.controller.call("cluster.asked", version=message["version"]))


@operation(
    "/v1/internal/reads",
    "Between nodes: where this process answers plain reads.",
    returns=Content(OBJECT),
    errors=(401, 403, 404),
)
async def reads(store: Store, request: Request, rest: str) -> Reply:
    """Tell another node the port for its reads."""
    if rest != "reads" or store.shared is None or not store.shared.reads_port:
        raise NotFoundError(f"no such path between nodes: {rest[:100]!r}")
    return json_reply({"port": store.shared.reads_port})


@operation(
    "/v1/cluster",
    "Start or stop a pass of the scrubber, stop other jobs.",
    body=Content(OBJECT),
    returns=_ANSWER,
    errors=(404, 501),
)
async def action(store: Store, request: Request, rest: str) -> Reply:
    """Start and stop a pass of the scrubber, stop other jobs; settings over the wire are not there yet."""
    wanted = decode_action(await request.body(store.limits.control_body_bytes_max))
    value = lower_keys(wanted.value) if isinstance(wanted.value, dict) else {}
    if wanted.verb in _MEMBERSHIP:
        return await _change_membership(store, wanted.verb, value)
    if wanted.verb == "stop" and value.get("kind") != "scrub":
        await jobs.stop(store, value)
        return Empty()
    if wanted.verb not in ("start", "stop") or value.get("kind") != "scrub":
        raise NotSupportedError(
            f"cluster action {wanted.action!r} is not supported by this store",
            hint="it has start of the kind scrub, and stop of every job",
        )
    if wanted.verb == "stop":
        return json_reply(await store.controller.call("scrub.stop"))
    pace = value.get("bytes_per_second") or store.limits.scrub_now_bytes_per_second
    if not isinstance(pace, int) or pace <= 0:
        raise BadRequestError(f"bytes_per_second is {pace!r}", hint="expected a whole number above 0")
    return json_reply(await store.controller.call("scrub.start", bytes_per_second=pace))

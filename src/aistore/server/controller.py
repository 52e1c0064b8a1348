"""The controller process: the life of transforms and the store's housekeeping; nothing of the data path.

Its arguments: ``- <lifeline fd> <ready fd> <place>``.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import threading
import time

from ..errors import AisError, OutOfSpaceError
from ..etl.containers.starter import remove_those_left
from ..etl.manager import Manager
from ..etl.places import Places
from ..etl.results import results_directory, results_settings
from ..etl.results_keeper import ResultsKeeper
from ..jobs.manager import Manager as Jobs
from ..jobs.records import FileJobRecords
from ..jobs.shared_records import SharedJobRecords
from ..settings import ProcessSettings
from ..storage.cache.keeper import CacheKeeper
from ..storage.cache.settings import Pin, parse_capacity
from ..storage.local.housekeeping import Housekeeper
from ..storage.local.index import translate
from .error_replies import as_ais_error
from .job_link import OwnWorkers
from .link import serve_verbs
from .node.alone import backed_cache
from .node.controller import SharedBuckets
from .node.job_workers import ClusterWorkers
from .process import begin, end_with_parent, read_settings, say_ready, stop_on_signals
from .scrubbing import Scrubbing

_log = logging.getLogger("aistore.controller")

_HOUSEKEEPING_SECONDS = 1.0


def _keep_house(settings: ProcessSettings, node: SharedBuckets, stop: threading.Event) -> None:
    """Remove what is not needed any more and recover what dead processes left, a bounded step at a time."""
    keepers: dict[str, Housekeeper | CacheKeeper] = {}
    pins: tuple[Pin, ...] = ()
    while not stop.is_set():
        more = False
        try:
            _open_keepers(settings, node, keepers)
            changed, pins = node.pins is not pins, node.pins
            for keeper in keepers.values():
                if changed and isinstance(keeper, CacheKeeper):
                    keeper.pin(pins)
                more = keeper.step(time.monotonic()) or more
        except Exception as error:  # housekeeping must not end because one step failed
            if isinstance(translate(error, settings.serve.data), OutOfSpaceError):
                _log.warning("housekeeping waits for room: the disk of %s is full", settings.serve.data)
            else:
                _log.exception("a housekeeping step failed")
        stop.wait(0.01 if more else _HOUSEKEEPING_SECONDS)
    for keeper in keepers.values():
        keeper.close()


def _open_keepers(
    settings: ProcessSettings, node: SharedBuckets, keepers: dict[str, Housekeeper | CacheKeeper]
) -> None:
    """Open one for the store's own objects, and one for copies of others' when there are any."""
    serve = settings.serve
    cache = serve.cache or backed_cache(serve.data)
    if not serve.store and serve.data not in keepers:
        keepers[serve.data] = Housekeeper(serve.data)
    if cache not in keepers and os.path.isdir(cache):
        keepers[cache] = keeper = CacheKeeper(cache, parse_capacity(serve.cache_size))
        keeper.pin(node.pins)
    results, kept = results_directory(serve.data), results_settings(serve)
    if results not in keepers and kept is not None and os.path.isdir(results):
        keepers[results] = CacheKeeper(results, kept)


def _jobs(settings: ProcessSettings, node: SharedBuckets, own: OwnWorkers) -> Jobs:
    """Return the jobs of this machine, or those that the nodes of its cluster share."""
    if node.store is None:
        records = FileJobRecords(os.path.join(settings.serve.data, "jobs"))
        return Jobs(settings.node_id, records, own, node.clock.now)
    me = settings.target_id
    workers = ClusterWorkers(own, node.peers, lambda: node.view, me)
    return Jobs(
        me,
        SharedJobRecords(node.store),
        workers,
        node.clock.now,
        alone=False,
        lease_seconds=settings.serve.lease_seconds,
    )


async def _run(settings: ProcessSettings, ready: int) -> None:
    stop = stop_on_signals()
    serve = settings.serve
    places = Places(
        serve.data,
        settings.runtime,
        serve.limits.etl_queue,
        hidden=serve.cache if serve.store else "",
        idle_seconds=serve.limits.etl_idle_seconds,
        container_engine=serve.container_engine,
    )
    results = ResultsKeeper(results_directory(serve.data), results_settings(serve))
    node_id = settings.target_id if serve.store else settings.node_id
    manager = Manager(places, node_id, keeps=not serve.store, results=results)
    house_stop = threading.Event()
    scrubbing = Scrubbing(settings)
    node = SharedBuckets(settings, manager)
    house = threading.Thread(target=_keep_house, args=(settings, node, house_stop), name="housekeeping")
    workers = OwnWorkers(settings.node_id)
    jobs = _jobs(settings, node, workers)
    verbs = {**manager.verbs(), **scrubbing.verbs(), **jobs.verbs(), **node.verbs()}
    await workers.listen(settings.jobs_socket)
    if not serve.store:
        await jobs.load()  # before anybody can ask after a job
    server = await serve_verbs(settings.controller_socket, verbs, as_ais_error)
    try:
        manager.in_background(remove_those_left(places))
        if not serve.store:
            manager.load()
        house.start()
        scrubbing.start()
        await node.start()
        if serve.store:
            await jobs.load()
        manager.in_background(manager.tidy_results())  # of transforms that were removed when nobody could
        say_ready(ready)
        await stop.wait()
    finally:
        await node.close()
        server.close()
        await jobs.close()
        workers.close()
        await manager.close()
        results.close()
        house_stop.set()
        await asyncio.to_thread(scrubbing.close)
        if house.is_alive():
            await asyncio.to_thread(house.join)


def main() -> None:
    """Run until told to stop, or until the supervisor ends."""
    lifeline, ready = (int(argument) for argument in sys.argv[2:4])
    end_with_parent(lifeline)
    settings = read_settings()
    begin(sys.argv[4], settings)
    try:
        asyncio.run(_run(settings, ready))
    except AisError as error:  # the cluster does not take this node, say
        print(f"Error: {error}", file=sys.stderr)
        sys.exit(1)

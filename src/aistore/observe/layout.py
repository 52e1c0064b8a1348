"""Which word of a process's table counts what. The same for every process of a run, so that tables can be added up.

To count one more thing, add a line to ``SCALARS`` and take its word beside it: it shows in ``/metrics`` then, and
``docs/observability.md`` has to name it. Names and their parts (``get``, ``put``, ``del``, ``lst``, ``ns_total``) are
AIStore's where it has them.
"""

from __future__ import annotations

from typing import NamedTuple

from ..errors import error_codes

#: The first words: what and who. Written when a process opens its table.
PROCESS_ID = 0
STARTED_NS = 1
#: For code that counts, about something of which nobody wants to know the count.
UNCOUNTED = 2
_HEADER = 8

#: Kinds of requests, as metrics call them. ``etl`` is a GET through a transform, ``other`` all that is not data.
OPERATIONS = ("get", "head", "put", "del", "lst", "etl", "batch", "other")
#: Upper bounds of the latency histogram in seconds. Derived: a cached GET takes 30 us, a transform milliseconds to
#: minutes; three bounds per decade where most requests are.
LATENCY_SECONDS = (
    0.00005, 0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0,
    60.0,
)  # fmt: skip
LATENCY_NS = tuple(round(bound * 1e9) for bound in LATENCY_SECONDS)

# An operation's words, from its first on; the histogram is last.
NS_TOTAL, IN_BYTES, OUT_BYTES, ERRORS, HISTOGRAM = range(5)
_OPERATION_WORDS = HISTOGRAM + len(LATENCY_NS) + 1
GET, HEAD, PUT, DELETE, LIST, ETL, BATCH, OTHER = (
    _HEADER + number * _OPERATION_WORDS for number in range(len(OPERATIONS))
)
#: GET and HEAD whose reply was found ready in memory: counted apart, because three words are all there is time for.
#: Each of them is a reply with status 200 and a hit; whoever adds up tables adds them to those (``fold``).
KEPT_GET, KEPT_HEAD = (_HEADER + (len(OPERATIONS) + number) * _OPERATION_WORDS for number in range(2))
#: Each operation and its first word.
OPERATION_WORDS = tuple(zip(OPERATIONS, (GET, HEAD, PUT, DELETE, LIST, ETL, BATCH, OTHER), strict=True))

#: Replies by status code: the word of a status is this plus the status.
STATUS = _HEADER + (len(OPERATIONS) + 2) * _OPERATION_WORDS
STATUSES = 600

#: Errors told to clients, by their code, in this order; the last one is any other.
ERROR_CODES = (*error_codes(), "other")
ERROR = STATUS + STATUSES
_ERROR_WORDS = {code: ERROR + number for number, code in enumerate(ERROR_CODES)}

#: Sizes of transactions: upper bounds of a histogram of changes.
COMMIT_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
COMMIT_HISTOGRAM = ERROR + len(ERROR_CODES)


class Scalar(NamedTuple):
    """One counter or gauge of a process. A gauge is 0 again when its process starts anew."""

    name: str
    kind: str
    help: str


SCALARS = (
    Scalar("ais_target_inflight_requests", "gauge", "Requests under way, those answered at once left out."),
    Scalar("ais_target_slow_requests_total", "counter", "Requests whose reply began late, see the log."),
    Scalar("ais_target_hot_hit_count", "counter", "Reads and heads of objects found in a process's memory."),
    Scalar("ais_target_index_lookup_count", "counter", "Look-ups of an object in the index."),
    Scalar("ais_target_commit_count", "counter", "Transactions on the index."),
    Scalar("ais_target_commit_change_count", "counter", "Changes in these transactions."),
    Scalar("ais_target_commit_ns_total", "counter", "Nanoseconds of these, with writing files and waiting for a turn."),
    Scalar("ais_target_commit_queue", "gauge", "Changes that are accepted and not yet in the index."),
    Scalar("ais_target_trash_unlink_count", "counter", "Files of replaced and deleted objects that were unlinked."),
    Scalar("ais_target_refused_request_count", "counter", "Requests refused for too many being under way (503)."),
    Scalar("ais_target_stalled_body_count", "counter", "Request bodies that stalled and were ended (408)."),
    Scalar("ais_target_cut_reply_count", "counter", "Replies that ended before they were whole."),
    Scalar("ais_target_read_damage_count", "counter", "Damaged objects first found by a read."),
    Scalar("ais_target_scrub_damage_count", "counter", "Damaged objects first found by the scrubber."),
    Scalar("ais_target_scrub_bytes", "counter", "Bytes of objects that the scrubber has verified."),
    Scalar("ais_target_scrub_object_count", "counter", "Objects that the scrubber has verified."),
    Scalar("ais_target_scrub_pass_count", "counter", "Passes over a mountpath that the scrubber has finished."),
    Scalar("ais_target_cache_hit_count", "counter", "Copies of a store's objects that were found in the cache."),
    Scalar("ais_target_cache_miss_count", "counter", "Objects of a store that were not found in the cache."),
    Scalar("ais_target_lru_evict_count", "counter", "Copies that were evicted from the cache."),
    Scalar("ais_target_lru_evict_bytes", "counter", "Bytes of these."),
    Scalar("ais_target_etl_result_evict_count", "counter", "Kept results of transforms that were evicted."),
    Scalar("ais_target_etl_result_evict_bytes", "counter", "Bytes of these."),
    Scalar("ais_supervisor_restart_count", "counter", "Processes of the store that ended and were started again."),
)  # fmt: skip
_SCALAR = COMMIT_HISTOGRAM + len(COMMIT_SIZES) + 1
(
    INFLIGHT, SLOW, HOT_HITS, INDEX_LOOKUPS, COMMITS, COMMIT_CHANGES, COMMIT_NS, COMMIT_QUEUE, UNLINKED, REFUSED,
    STALLED, CUT_REPLIES, READ_DAMAGE, SCRUB_DAMAGE, SCRUB_BYTES, SCRUB_OBJECTS, SCRUB_PASSES, CACHE_HITS,
    CACHE_MISSES, EVICTED, EVICTED_BYTES, RESULTS_EVICTED, RESULTS_EVICTED_BYTES, RESTARTS,
) = (_SCALAR + number for number in range(len(SCALARS)))  # fmt: skip
SCALAR_WORDS = tuple(zip(range(_SCALAR, _SCALAR + len(SCALARS)), SCALARS, strict=True))

#: Transforms have a row each, taken by the first process to count for one; a name has up to 32 bytes of ASCII.
ETLS = _SCALAR + len(SCALARS)
ETL_ROWS = 1024
ETL_NAME_WORDS = 4
ETL_UID = ETL_NAME_WORDS
ETL_SCALARS = (
    Scalar("ais_etl_object_count", "counter", "Objects transformed."),
    Scalar("ais_etl_error_count", "counter", "Objects on which the transform failed."),
    Scalar("ais_etl_in_bytes", "counter", "Bytes of objects given to the transform."),
    Scalar("ais_etl_out_bytes", "counter", "Bytes of results."),
    Scalar("ais_etl_ns_total", "counter", "Nanoseconds that objects took, from the copy of the object to the result."),
    Scalar("ais_etl_restart_count", "counter", "Times that the transform's processes ended and were started again."),
    Scalar("ais_etl_inflight_objects", "gauge", "Objects that wait for a worker or are with one."),
    Scalar("ais_etl_busy_workers", "gauge", "Workers that have an object."),
    Scalar("ais_etl_workers", "gauge", "Worker processes; 0 while the transform does not run."),
    Scalar("ais_etl_cache_hit_count", "counter", "Results that were given out again instead of computed."),
    Scalar("ais_etl_cache_hit_bytes", "counter", "Bytes of these."),
    Scalar("ais_etl_cache_miss_count", "counter", "Results that could have been kept and were not there."),
)
(
    ETL_OBJECTS, ETL_ERRORS, ETL_IN_BYTES, ETL_OUT_BYTES, ETL_NS, ETL_RESTARTS, ETL_INFLIGHT, ETL_BUSY, ETL_WORKERS,
    ETL_CACHE_HITS, ETL_CACHE_HIT_BYTES, ETL_CACHE_MISSES,
) = range(len(ETL_SCALARS))  # fmt: skip
ETL_NUMBERS = ETL_UID + 1
ETL_ROW_WORDS = ETL_NUMBERS + len(ETL_SCALARS)

WORDS = ETLS + ETL_ROWS * ETL_ROW_WORDS


def fold(words: list[int]) -> None:
    """Add what was counted apart to what it is."""
    for kept, operation in ((KEPT_GET, GET), (KEPT_HEAD, HEAD)):
        for number in range(_OPERATION_WORDS):
            words[operation + number] += words[kept + number]
        replies = sum(words[kept + HISTOGRAM : kept + _OPERATION_WORDS])
        words[STATUS + 200] += replies
        words[HOT_HITS] += replies


def error_word(code: str) -> int:
    """Return the word that counts errors of a code."""
    return _ERROR_WORDS.get(code, _ERROR_WORDS["other"])

"""What NVIDIA's SDK says of a store, as JSON. Runs where that SDK is installed, and this project is not.

python sdk.py ENDPOINT ETL      ETL is the name of a transform that answers an object in capitals
"""

from __future__ import annotations

import json
import logging
import socket
import sys
import tempfile
import threading
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from aistore.sdk import ArchiveConfig, Client
from aistore.sdk.etl import ETLConfig
from aistore.version import __version__

#: Bytes of a reply that get through `Cutting` before it closes the connection.
CUT_AFTER = 100_000


class Requests(logging.Handler):
    """Hears of every HTTP request that urllib3 makes: method, path, status."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.seen: list[list[Any]] = []
        logger = logging.getLogger("urllib3.connectionpool")
        logger.setLevel(logging.DEBUG)
        logger.addHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        if isinstance(record.args, tuple) and len(record.args) == 8:
            _, _, _, method, path, _, status, _ = record.args
            self.seen.append([method, path, status])


REQUESTS = Requests()


def outcome(call: Callable[[], Any]) -> dict[str, Any]:
    """Return what a call comes to: the exception's type and status, and how many requests it took."""
    REQUESTS.seen.clear()
    try:
        value = call()
        error: dict[str, Any] = {"error": None, "value": repr(value)[:200]}
    except Exception as caught:
        error = {
            "error": type(caught).__name__,
            "status": getattr(caught, "status_code", None),
            "message": str(caught),
        }
    return {**error, "requests": len(REQUESTS.seen)}


class Cutting(threading.Thread):
    """A way to the store that closes its first connections in the middle of a reply, as a network does."""

    def __init__(self, endpoint: str, cuts: int) -> None:
        super().__init__(daemon=True)
        store = urlsplit(endpoint)
        self._store = (store.hostname, store.port)
        self.cuts = cuts
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.start()

    def run(self) -> None:
        while True:
            client, _ = self._listener.accept()
            store = socket.create_connection(self._store)
            threading.Thread(target=self._relay, args=(client, store, None), daemon=True).start()
            threading.Thread(target=self._relay, args=(store, client, CUT_AFTER), daemon=True).start()

    def _relay(self, source: socket.socket, sink: socket.socket, limit: int | None) -> None:
        passed = 0
        try:
            while data := source.recv(1 << 14):
                if limit is not None and self.cuts > 0 and passed + len(data) > limit:
                    self.cuts -= 1
                    break
                sink.sendall(data)
                passed += len(data)
        except OSError:
            pass  # the other direction has closed both
        for side in (source, sink):
            try:
                side.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass  # was closed already


def cluster(client: Client) -> dict[str, Any]:
    described = client.cluster()
    info = described.get_info()
    return {
        "ready": described.is_ready(),
        "uuid": described.get_uuid(),
        "uuid in map": info.uuid,
        "primary": described.get_primary_url(),
        "targets": len(info.tmap),
        "proxies": len(info.pmap),
        "target urls": [node.public_net.direct_url for node in info.tmap.values()],
        "running jobs": described.list_running_jobs(),
        "jobs": described.list_jobs_status(),
        "performance": {key: sorted(value) for key, value in described.get_performance().items()},
    }


def buckets(client: Client) -> dict[str, Any]:
    bucket = client.bucket("sdk-buckets")
    found: dict[str, Any] = {"missing head": outcome(bucket.head), "missing delete": outcome(bucket.delete)}
    found["delete missing ok"] = outcome(lambda: bucket.delete(missing_ok=True))
    bucket.create()
    found["created twice"] = outcome(bucket.create)
    found["exist ok"] = outcome(lambda: bucket.create(exist_ok=True))
    found["listed"] = [entry.name for entry in client.cluster().list_buckets()]
    found["props"] = json.loads(bucket.head()["Ais-Bucket-Props"])
    found["empty"] = [entry.name for entry in bucket.list_all_objects()]
    bucket.delete()
    found["list of missing"] = outcome(lambda: bucket.list_objects())
    found["put into missing"] = outcome(lambda: bucket.object("a").get_writer().put_content(b"a"))
    found["bad name"] = outcome(client.bucket("no good!").create)
    return found


NAMES = [
    "plain",
    "deep/er/name",
    "with space",
    "ünï/cødé ☃",
    "per%20cent",
    "hash#and?mark",
    "plus+and&amp=1",
    "a:b@c,d;e",
]


def objects(client: Client) -> dict[str, Any]:
    bucket = client.bucket("sdk-objects").create()
    found: dict[str, Any] = {}
    for name in NAMES:
        bucket.object(name).get_writer().put_content(name.encode())
    found["names"] = {name: bucket.object(name).get_reader().read_all().decode() for name in NAMES}
    found["listed"] = [entry.name for entry in bucket.list_all_objects()]
    found["urls"] = {
        name: client.get_object_from_url(f"ais://sdk-objects/{name}").get_reader().read_all().decode()
        for name in ("plain", "deep/er/name", "with space")
    }

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "digits"
        file.write_bytes(b"0123456789")
        bucket.object("digits").get_writer().put_file(file)
        bucket.put_files(folder, prepend="folder/")
    digits = bucket.object("digits")
    found["folder"] = [entry.name for entry in bucket.list_all_objects(prefix="folder/")]
    found["ranges"] = {
        text: digits.get_reader(byte_range=text).read_all().decode()
        for text in ("bytes=2-5", "bytes=5-", "bytes=-3", "bytes=8-100")
    }
    found["range outside"] = outcome(lambda: digits.get_reader(byte_range="bytes=10-").read_all())
    found["chunks"] = [len(chunk) for chunk in digits.get_reader(chunk_size=4)]
    with digits.get_reader(num_workers=2, chunk_size=3).read_all() as shared:
        found["parallel"] = shared.tobytes().decode()
    with digits.get_reader(direct=True).as_file() as file:
        found["direct"] = file.read().decode()

    digits.get_writer().set_custom_props({"colour": "blue", "size": "10"})
    props = digits.head("name,size,version,checksum,atime,custom")
    found["head"] = {
        "size": props.size, "version": props.obj_version, "checksum": [props.checksum_type, props.checksum_value],
        "custom": props.custom_metadata, "name": props.name, "bucket": props.bucket_name, "present": props.present,
    }  # fmt: skip
    digits.get_writer().set_custom_props({"colour": "red"}, replace_existing=True)
    found["custom replaced"] = digits.head("custom").custom_metadata
    found["attributes"] = digits.get_reader().head().size

    bucket.object("empty").get_writer().put_content(b"")
    found["empty"] = [bucket.object("empty").get_reader().read_all().decode(), bucket.object("empty").head().size]
    digits.delete()
    found["deleted get"] = outcome(lambda: digits.get_reader().read_all())
    found["deleted head"] = outcome(digits.head)
    found["deleted delete"] = outcome(digits.delete)
    found["direct of deleted"] = outcome(lambda: digits.get_reader(direct=True).read_all())
    found["get from missing bucket"] = outcome(lambda: client.bucket("sdk-none").object("a").get_reader().read_all())
    found["bad name"] = outcome(lambda: bucket.object("trailing/").get_writer().put_content(b"a"))
    return found


def listing(client: Client) -> dict[str, Any]:
    bucket = client.bucket("sdk-listing").create()
    for number in range(25):
        bucket.object(f"{'even' if number % 2 == 0 else 'odd'}/{number:03}").get_writer().put_content(b"x" * number)
    page = bucket.list_objects(page_size=10)
    after = bucket.list_objects(page_size=10, uuid=page.uuid, continuation_token=page.continuation_token)
    everything = list(bucket.list_objects_iter(page_size=4))
    return {
        "pages": [[entry.name for entry in part.entries] for part in (page, after)],
        "all": [entry.name for entry in bucket.list_all_objects(page_size=7)],
        "iterated": [entry.name for entry in everything],
        "prefix": [entry.name for entry in bucket.list_all_objects(prefix="odd/")],
        "start after": [entry.name for entry in bucket.list_objects(start_after="odd/019").entries],
        "sizes": [entry.size for entry in bucket.list_all_objects(prefix="even/00", props="name,size")],
        "props": [
            [bool(entry.checksum), entry.version, bool(entry.atime), entry.is_cached(), entry.is_ok()]
            for entry in bucket.list_all_objects(prefix="odd/001", props="name,size,checksum,version,atime")
        ],
        "objects": [thing.get_reader().read_all().decode() for thing in bucket.list_all_objects_iter(prefix="even/00")],
        "group": sorted(bucket.objects(obj_template="odd/{001..005..2}").list_names()),
        "urls": [url.rpartition("/v1/")[2] for url in bucket.list_urls(prefix="even/000")],
    }


def transforms(client: Client, name: str) -> dict[str, Any]:
    client.bucket("sdk-etl").create().object("words").get_writer().put_content(b"some words")
    words = client.bucket("sdk-etl").object("words")
    etl = client.etl(name)

    def read(args: Any = None) -> str:
        return words.get_reader(etl=ETLConfig(name=name, args=args)).read_all().decode()

    found: dict[str, Any] = {"inline": read(), "etl object": words.get_reader(etl=ETLConfig(etl)).read_all().decode()}
    found["args"] = outcome(lambda: read("right"))
    found["dict args"] = outcome(lambda: read({"side": "left", "width": 12}))
    found["listed"] = [[info.id, info.stage] for info in client.cluster().list_etls()]
    details = etl.view()
    found["view"] = {
        "name": details.init_msg.name, "communication": details.init_msg.communication, "errors": details.obj_errors,
    }  # fmt: skip
    found["logs"] = [[log.target_id, log.logs] for log in etl.logs()]
    found["failing"] = outcome(lambda: words.get_reader(etl=ETLConfig(name=name, args="fail")).read_all())
    found["start running"] = outcome(etl.start)
    etl.stop()
    found["stopped twice"] = outcome(etl.stop)
    found["listed stopped"] = [[info.id, info.stage] for info in client.cluster().list_etls(stages=["Aborted"])]
    found["read stopped"] = outcome(read)
    etl.start()
    found["started"] = read()
    none = client.etl("etl-that-is-not")
    found["missing"] = {
        "view": outcome(none.view), "start": outcome(none.start), "stop": outcome(none.stop),
        "delete": outcome(none.delete), "logs": outcome(none.logs),
        "read": outcome(lambda: words.get_reader(etl=ETLConfig(name=none.name)).read_all()),
    }  # fmt: skip
    etl.delete()
    found["deleted"] = outcome(etl.view)
    return found


def jobs(client: Client, name: str) -> dict[str, Any]:
    """Copy and transform buckets, and everything that the SDK asks of a job."""
    source = client.bucket("sdk-jobs").create()
    for number in range(40):
        source.object(f"{number:02}.txt").get_writer().put_content(b"words %d" % number)
    began = datetime.now(timezone.utc)

    def contents(bucket: Any, prefix: str = "") -> dict[str, str]:
        entries = bucket.list_all_objects_iter(prefix=prefix)
        return {entry.name: entry.get_reader().read_all().decode() for entry in entries}

    def waited(job: Any) -> list[Any]:
        result = job.wait(timeout=60)
        return [result.success, result.error or "", result.end_time is not None]

    copied = client.bucket("sdk-jobs-copy")  # the job makes it
    copy = client.job(source.copy(copied, prepend="c/"))
    found: dict[str, Any] = {"copy": waited(copy), "kind": copy.job_kind, "copied": len(contents(copied, "c/"))}
    found["idle"] = [copy.wait_for_idle(timeout=30).success, client.job(copy.job_id).wait(timeout=30).success]
    details = copy.get_details()
    found["snap"] = [
        [snap.kind, snap.source_bck.name, snap.destination_bck.name, snap.stats.objects, snap.stats.bytes, snap.is_idle]
        for snap in details.list_snapshots()
    ]
    found["timeframe"] = [snap.id == copy.job_id for snap in copy.get_within_timeframe(began)]
    found["total time"] = copy.get_total_time().total_seconds() > 0
    found["listed"] = copy.job_id in [status.uuid for status in client.cluster().list_jobs_status()]

    made = client.bucket("sdk-jobs-made")
    transform = client.job(source.transform(name, made, prefix_filter="0", ext={"txt": "TXT"}), job_kind="etl-bck")
    found["transform"] = waited(transform)
    found["made"] = contents(made)
    inspected = client.job(source.transform(name, source, dry_run=True))
    found["dry run"] = waited(inspected)
    found["source"] = len(contents(source))

    picky = client.job(source.transform("sdk-picky", client.bucket("sdk-jobs-picky"), cont_on_err=True))
    found["errors"] = waited(picky)
    found["errors idle"] = picky.wait_for_idle(timeout=30).success
    found["details"] = sorted(error.obj_name for error in client.etl("sdk-picky").view(picky.job_id).obj_errors)
    first = client.job(source.transform("sdk-picky", client.bucket("sdk-jobs-first")))
    found["first error"] = waited(first)

    to = client.bucket("sdk-jobs-slow")
    slow = client.job(source.transform("sdk-picky", to, prefix_filter="2", num_workers=1, cont_on_err=True))
    slow.abort()
    found["aborted"] = waited(slow)
    found["unknown"] = outcome(client.job("nosuchjob1").status)
    found["unknown kind"] = outcome(client.job("nosuchjob1").wait)
    found["into itself"] = outcome(lambda: source.copy(source))
    found["from missing"] = outcome(lambda: client.bucket("sdk-none").copy(made))
    found["missing etl"] = outcome(lambda: source.transform("etl-that-is-not", made))
    return found


def refused(client: Client) -> dict[str, Any]:
    """What this store does not do; each has to say so at once."""
    bucket = client.bucket("sdk-refused").create()
    thing = bucket.object("thing")
    thing.get_writer().put_content(b"thing")
    batch = client.batch([thing])
    calls = {
        "rename bucket": lambda: bucket.rename("sdk-renamed"),
        "summary": bucket.summary,
        "info": bucket.info,
        "append": lambda: thing.get_writer().append_content(b"more"),
        "archive member": lambda: thing.get_reader(archive_config=ArchiveConfig("a")).read_all(),
        "multipart upload": lambda: thing.multipart_upload().create(),
        "promote": lambda: thing.promote("/tmp"),
        "delete group": lambda: bucket.objects(obj_names=["thing"]).delete(),
        "archive group": lambda: bucket.objects(obj_names=["thing"]).archive("a.tar"),
        "get batch": lambda: list(batch.get()),
        "start a job": lambda: client.job(job_kind="lru").start(),
        "list an archive": lambda: bucket.list_archive("a.tar"),
    }
    return {name: outcome(call) for name, call in calls.items()}


def resumed(client: Client, endpoint: str) -> dict[str, Any]:
    data = b"".join(number.to_bytes(4, "big") for number in range(100_000))
    client.bucket("sdk-resume").create().object("large").get_writer().put_content(data)
    way = Cutting(endpoint, cuts=2)
    with Client(way.url).bucket("sdk-resume").object("large").get_reader().as_file() as file:
        read = file.read()
    return {"same": read == data, "cuts left": way.cuts}


def main() -> None:
    endpoint, etl = sys.argv[1:]
    client = Client(endpoint)
    print(
        json.dumps(
            {
                "version": __version__,
                "cluster": cluster(client),
                "buckets": buckets(client),
                "objects": objects(client),
                "listing": listing(client),
                "jobs": jobs(client, etl),
                "transforms": transforms(client, etl),
                "refused": refused(client),
                "resumed": resumed(client, endpoint),
            }
        )
    )


if __name__ == "__main__":
    main()

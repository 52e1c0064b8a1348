"""One store on a host of one kind, with everything that is worth attacking, and all attacks on it.

``results(profile)`` makes every attack of attack_table.py through the store's own HTTP interface, in warm and forked
workers, and returns what happened in each cell. What harm was done is looked for from outside.
"""

from __future__ import annotations

import base64
import contextlib
import glob
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import attack_table
import profiles
import urllib3
from attack_table import Attack
from packages import make_source

from aistore.etl import confinement
from aistore.etl.worker.clearing import remove_tree
from aistore.testing import StoreProcess
from aistore.wire.messages import encode_base64

HERE = os.path.dirname(os.path.abspath(__file__))
ATTACKS = os.path.join(HERE, "attacks")
MEMORY = "256Mi"
LANES = {"quick": {"obj_timeout": "30s"}, "hungry": {"memory": MEMORY, "obj_timeout": "30s"},
         "slow": {"obj_timeout": "400ms"}, "beside": {"workers": 2}}  # fmt: skip
_GONE_SECONDS = 15.0  # a process of a killed tree; how long is looked, not how long it takes

#: What happened in one cell: ``happened`` (None: stopped) and the words of what stopped it.
Outcome = dict[str, Any]


def bundle(main: str) -> str:
    """Return a transform: the modules of tests/etl/attacks in one program."""
    parts = ["import sys, types\n"]
    for name in ("attack_calls", "attack_reach", "attack_resources", "attack_neighbours", "attack_main"):
        if name == main:
            continue
        with open(os.path.join(ATTACKS, f"{name}.py"), encoding="utf-8") as file:
            source = file.read()
        parts.append(
            f"if {name!r} not in sys.modules:\n    module = sys.modules[{name!r}] = types.ModuleType({name!r})\n"
            f"    exec(compile({source!r}, {name!r}, 'exec'), module.__dict__)\n"
        )
    with open(os.path.join(ATTACKS, f"{main}.py"), encoding="utf-8") as file:
        return "".join(parts) + file.read()


class Host:
    """A running store with a victim, and the transforms that attack."""

    def __init__(self, profile: str) -> None:
        self.profile = profile
        self.sandbox = "off" if profile == "none" else "on"
        self.secret = secrets.token_hex(16)
        self.directory = tempfile.mkdtemp(prefix="host-", dir="/tmp")
        self.packages = os.path.join(self.directory, "index")
        self.data = os.path.join(self.directory, "data")
        for path in (self.packages, self.data):
            os.mkdir(path, 0o755)
        os.chmod(self.directory, 0o755)
        self.uid = os.geteuid()
        if self.uid == 0 and profile in ("user", "confined"):
            self.uid = profiles.NOBODY
            for path in (self.data, self.packages):
                os.chown(path, self.uid, self.uid)
        self.http = urllib3.PoolManager(retries=False, timeout=urllib3.Timeout(120), maxsize=16)
        self.store = StoreProcess(
            self.data, arguments=("--workers", "1"),
            through=(sys.executable, os.path.join(HERE, "profiles.py"), profile),
            env={"PIP_FIND_LINKS": self.packages, "PIP_NO_INDEX": "1", "PIP_CONFIG_FILE": os.devnull, "HOME": self.data,
                 **({"AIS_WITHOUT": "landlock,seccomp,namespaces"} if profile == "none" else {})},
        )  # fmt: skip
        self.sockets: list[socket.socket] = []
        self.preys: list[subprocess.Popen[bytes]] = []
        self.alone = threading.Lock()
        self.kept: dict[str, str] = {}

    def __enter__(self) -> Host:
        try:
            self.store.start()
            self._surround()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.store.stop()
        for each in self.sockets:
            each.close()
        for each in self.preys:
            each.kill()
            each.wait()
        shutil.rmtree(self.directory, ignore_errors=True)
        self.http.clear()

    def _surround(self) -> None:
        """Make what is worth attacking."""
        url = self.store.endpoint
        self.http.request("POST", f"{url}/v1/buckets/attacked", body=b'{"action":"create-bck"}')
        self.objects = f"{url}/v1/objects/attacked"
        for name, size in (("small", 10), ("stored", 200_000), ("large", (64 << 20) + 1)):
            assert self.http.request("PUT", f"{self.objects}/{name}", body=b"stored" * (size // 6)).status == 200
        self.make("victim-of-all", "import sys; sys.stdout.write('fine')", env={"SECRET": self.secret})
        with open(os.path.join(self.data, "runtime"), encoding="utf-8") as file:
            runtime = file.read()
        service, datagrams, abstract, pair = (
            socket.create_server(("127.0.0.1", 0)), socket.socket(socket.AF_INET, socket.SOCK_DGRAM),
            socket.socket(socket.AF_UNIX), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM),
        )  # fmt: skip
        datagrams.bind(service.getsockname())
        abstract.bind(f"\0attack-{self.secret}")
        abstract.listen()
        pair.bind(f"\0pair-{self.secret}")
        self.sockets = [service, datagrams, abstract, pair]
        self.prey = self.process(self.uid)
        self.process(profiles.NOBODY)  # for who acts on all processes of a user
        self.other_prey = self.process(profiles.NOBODY)
        pids = [self.prey.pid] if self.profile == "none" else [self.prey.pid, self.store.pid, *self.store.children()]
        stored = [path for path in glob.glob(f"{self.data}/mp0/data/**/*", recursive=True)
                  if os.path.isfile(path) and 190_000 < os.stat(path).st_size < 300_000]  # fmt: skip
        paths = sysconfig.get_paths()
        endpoint = url.rpartition("/")[2].split(":")
        self.context = {
            "object": stored[0], "objects": os.path.dirname(stored[0]), "index": f"{self.data}/mp0/index.db",
            "index-wal": f"{self.data}/mp0/index.db-wal", "record": f"{self.data}/etl/victim-of-all.json",
            "victim_log": f"{self.data}/etl/victim-of-all.log", "victim_scratch": f"{runtime}/scratch-1",
            "runtime": runtime, "target": f"{self.data}/unpacked", "store": [endpoint[0], int(endpoint[1])],
            "packages": [confinement.WORKER_DIRECTORY, paths["purelib"]],
            "package": os.path.join(confinement.WORKER_DIRECTORY, "messages.py"),
            "service": list(service.getsockname()), "abstract": abstract.getsockname().decode(),
            "datagrams": pair.getsockname().decode(), "controller": f"{runtime}/controller.sock", "secret": self.secret,
            "pids": pids, "uid": profiles.NOBODY if self.profile == "none" else 0,
        }  # fmt: skip
        self.runtime = runtime

    def process(self, uid: int) -> subprocess.Popen[bytes]:
        """Start a process that does nothing, and has the secret in its environment."""
        user: Any = {"user": uid} if os.geteuid() == 0 else {}
        self.preys.append(subprocess.Popen(["sleep", "1000"], env={"SECRET": self.secret}, **user))
        return self.preys[-1]

    def make(self, name: str, code: str, **fields: Any) -> str:
        """Make a transform; return what the store says if it does not want to, else nothing."""
        message = {"code": encode_base64(code), "communication_type": "io://", "id": name, "sandbox": self.sandbox,
                   "workers": 1, **fields}  # fmt: skip
        reply = self.http.request("POST", f"{self.store.endpoint}/v1/etl/init_code", body=json.dumps(message).encode())
        return "" if reply.status == 200 else reply.data.decode()

    def make_server(self, name: str, code: str) -> str:
        """Make a transform that is a server, and comes for its objects."""
        with socket.create_server(
            ("127.0.0.1", 0)
        ) as free:  # where it has no network of its own, a port of this machine
            port = free.getsockname()[1]
        runtime = {"command": ["python3", "attack_server.py"], "code": code, "filename": "attack_server.py"}
        message = {"name": name, "communication": "hpull://", "sandbox": self.sandbox, "runtime": runtime,
                   "port": port, "resources": {"limits": {"memory": MEMORY}}}  # fmt: skip
        reply = self.http.request("PUT", f"{self.store.endpoint}/v1/etl", body=json.dumps(message).encode())
        return "" if reply.status == 200 else reply.data.decode()

    def details(self, name: str) -> dict[str, Any]:
        return dict(self.http.request("GET", f"{self.store.endpoint}/v1/etl/{name}").json())

    def ask(self, etl: str, attack: str, options: dict[str, Any], name: str = "small") -> urllib3.BaseHTTPResponse:
        """Send an object through a transform with an attack as its argument."""
        text = json.dumps({"attack": attack, **options})
        return self.http.request("GET", f"{self.objects}/{name}", fields={"etl_name": etl, "etl_args": text})

    def filled(self, options: dict[str, Any], isolation: str) -> dict[str, Any]:
        """Put what there is here into the options of an attack."""
        signals = [0] if self.profile not in ("root", "user") else [signal.SIGTERM, signal.SIGINT, signal.SIGHUP]
        here = {**self.context, "signals": signals, "name": self.left(isolation)}
        found = {}
        for key, value in options.items():
            if isinstance(value, str) and value.startswith("{"):
                inner, _, rest = value[1:].partition("}")
                value = here[inner] if not rest else here[inner] + rest
            found[key] = value
        return found

    def left(self, isolation: str) -> str:
        """Return the name that processes take which are left behind."""
        return f"left-{self.secret[:6]}{isolation[0]}"


def told(reply: urllib3.BaseHTTPResponse) -> Outcome:
    """Return what the attack itself said, or why it could not."""
    if reply.status >= 500:
        return {"happened": f"{reply.status} {reply.data[:500]!r}", "error": None}
    if reply.status != 200:
        return {"happened": None, "error": reply.json()["message"]}
    text = reply.data[reply.data.rfind(b'{"happened"') :]
    try:
        return dict(json.loads(text))
    except ValueError:
        return {"happened": f"no answer: {reply.data[:200]!r}", "error": None}


class Attacker:
    """All attacks of one isolation."""

    def __init__(self, host: Host, isolation: str) -> None:
        self.host = host
        self.isolation = isolation
        code = bundle("attack_main")
        for lane, fields in LANES.items():
            refused = host.make(self.etl(lane), code, isolation=isolation, **fields)
            assert not refused, refused
        refused = host.make_server(self.etl("server"), bundle("attack_server"))
        assert not refused, refused

    def etl(self, lane: str) -> str:
        return f"{lane}-attacks-{self.isolation}"

    def run(self, attack: Attack) -> Outcome:
        """Make one attack and find out what happened, and how long that took."""
        begun = time.monotonic()
        return {**self._run(attack), "seconds": round(time.monotonic() - begun, 2)}

    def _run(self, attack: Attack) -> Outcome:
        try:
            looks: Callable[[Attack], Outcome] = getattr(self, f"_{attack.how}")
            return looks(attack)
        except (urllib3.exceptions.HTTPError, AssertionError, KeyError, OSError) as error:
            return {"happened": f"the attack broke: {error!r}", "error": None}

    def _ask(self, attack: Attack, what: str = "", name: str = "small", **more: Any) -> urllib3.BaseHTTPResponse:
        options = self.host.filled({**attack.options, **more}, self.isolation)
        return self.host.ask(self.etl(attack.lane), what or attack.attack, options, name)

    def _told(self, attack: Attack) -> Outcome:
        return told(self._ask(attack))

    def _large(self, attack: Attack) -> Outcome:
        """With an object that travels in memory, and one that is a file."""
        outcomes = [told(self._ask(attack, name=name)) for name in ("small", "large")]
        return next((outcome for outcome in outcomes if outcome["happened"]), outcomes[0])

    def _next(self, attack: Attack) -> Outcome:
        first = told(self._ask(attack))
        assert first["error"] is None, first
        return told(self._ask(attack, attack.then))

    def _quiet(self, attack: Attack) -> Outcome:
        """The next object's output has to be its own."""
        self._ask(attack)
        for _ in range(3):
            reply = self._ask(attack, attack.then or "attack_reach.version")
            if not reply.data.startswith(b'{"happened"') or reply.data.count(b"\n") != 1:
                return {"happened": f"the next object has {reply.data[:200]!r}", "error": None}
        return {"happened": None, "error": None}

    def _unpacked(self, attack: Attack) -> Outcome:
        outcome = told(self._ask(attack))
        target = self.host.context["target"]
        there = os.path.exists(target)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(target)
        return {**outcome, "happened": f"there is {target}" if there else None}

    def _ended_server(self, attack: Attack) -> Outcome:
        """The whole server may end for it, and comes back."""
        reply = self._ask(attack)
        after = told(self._ask(attack, "attack_reach.version"))
        said = str(self.host.details(self.etl("server"))["message"]) + self._log_of(self.etl("server"))
        fine = reply.status != 200 and after["happened"] and "more than its limit" in said
        return {"happened": None if fine else f"{reply.status} {reply.data[:200]!r} {after}", "error": said[-300:]}

    def _log_of(self, etl: str) -> str:
        (logs,) = self.host.http.request("GET", f"{self.host.store.endpoint}/v1/etl/{etl}/logs").json()
        return base64.b64decode(logs["logs"]).decode()

    def _signalled(self, attack: Attack) -> Outcome:
        prey = self.host.process(self.host.uid)
        outcome = told(self._ask(attack, pids=[prey.pid]))
        return {**outcome, "happened": None if prey.poll() is None else f"ended it: {prey.returncode}"}

    def _ended(self, attack: Attack) -> Outcome:
        reply = self._ask(attack)
        if reply.status == 422 and "timeout" in reply.json()["message"]:
            return {"happened": None, "error": reply.json()["message"]}
        return {"happened": f"{reply.status} {reply.data[:200]!r}", "error": None}

    def _removed(self, attack: Attack) -> Outcome:
        """Of what it leaves the next object sees nothing, nor is it there outside."""
        self._ask(attack)
        found = told(self._ask(attack, "attack_reach.list_directory", path="."))
        deadline = time.monotonic() + _GONE_SECONDS  # other attacks of this host write files too, and those go
        while (left := glob.glob(f"{self.host.runtime}/scratch-*/worker-*/*")) and time.monotonic() < deadline:
            time.sleep(0.05)
        return {"happened": None if found["happened"] == "listed []" and not left else f"{found} {left}", "error": None}

    def _log(self, attack: Attack) -> Outcome:
        outcome = told(self._ask(attack))
        size = sum(os.stat(path).st_size for path in glob.glob(f"{self.host.data}/etl/{self.etl(attack.lane)}.log*"))
        return {**outcome, "happened": f"the log has {size} bytes" if size > 9 << 20 else outcome["happened"]}

    def _left(self, attack: Attack) -> Outcome:
        self._ask(attack)
        name = self.host.left(self.isolation)
        deadline = time.monotonic() + _GONE_SECONDS
        while (pids := _named(name)) and time.monotonic() < deadline:
            time.sleep(0.05)
        return {"happened": f"{len(pids)} are still there" if pids else None, "error": None}

    def _consistent(self, attack: Attack) -> Outcome:
        for _ in range(3):
            reply = self._ask(attack)
            if reply.status >= 500 or (reply.status == 200 and int(reply.headers["content-length"]) != len(reply.data)):
                return {"happened": f"{reply.status} {reply.data[:300]!r}", "error": None}
        return {"happened": None, "error": None}

    def _refused(self, attack: Attack) -> Outcome:
        reply = self._ask(attack)
        return {"happened": None if reply.status == 422 else f"{reply.status} {reply.data[:300]!r}", "error": None}

    def _alive(self, attack: Attack) -> Outcome:
        """It may end itself, and what serves the other objects stays."""
        with self.host.alone:
            before = _parents(self.host.store.pid)
            outcome = told(self._ask(attack))
            self._ask(attack, "attack_reach.version")
            if attack.options and self.host.profile not in ("root", "user"):
                return outcome
            ended = before - _parents(self.host.store.pid)
        return {**outcome, "happened": f"the parent of all ended: {ended}" if ended else None}

    def _beside(self, attack: Attack) -> Outcome:
        """While another object is with the other worker."""
        etl = self.etl("beside")
        neighbour: list[Outcome] = []

        def wait() -> None:
            neighbour.append(told(self.host.ask(etl, "attack_neighbours.wait_beside", {"ready": 0.7})))

        thread = threading.Thread(target=wait)
        thread.start()
        outcomes = []
        while thread.is_alive():
            outcomes.append(told(self.host.ask(etl, attack.attack, {})))
        thread.join()
        if neighbour[0]["happened"] != "undisturbed":
            return {"happened": f"the neighbour: {neighbour[0]}", "error": None}
        return next((outcome for outcome in outcomes if outcome["happened"]), outcomes[0])


def _named(name: str) -> list[int]:
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with contextlib.suppress(OSError), open(f"/proc/{entry}/comm") as file:
                if file.read().strip() == name:
                    found.append(int(entry))
    return found


def _parents(store: int) -> set[int]:
    """Return the first process of each transform: what a guard has started."""
    commands: dict[int, tuple[int, str]] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with (
                contextlib.suppress(OSError),
                open(f"/proc/{entry}/stat") as stat,
                open(f"/proc/{entry}/cmdline") as file,
            ):
                commands[int(entry)] = (int(stat.read().rpartition(")")[2].split()[1]), file.read())

    def below(pid: int) -> bool:
        while pid in commands:
            if pid == store:
                return True
            pid = commands[pid][0]
        return False

    return {
        pid for pid, (parent, command) in commands.items()
        if "main.py" in command and "confine.py" in commands.get(parent, (0, ""))[1] and below(pid)
    }  # fmt: skip


def alone(attack: Attack) -> Outcome:
    """Make an attack in a plain process, where nothing stops it."""
    text = json.dumps({"attack": attack.attack, **(attack.alone or {})})
    directory = tempfile.mkdtemp(prefix="alone-")
    try:
        with open(os.path.join(directory, "out"), "w+b") as output:
            command = [sys.executable, os.path.join(ATTACKS, "attack_main.py"), text]
            subprocess.run(command, cwd=directory, stdout=output, check=True, timeout=60)
            said = os.pread(output.fileno(), 1000, 0)
            said += os.pread(output.fileno(), 1000, max(0, os.fstat(output.fileno()).st_size - 1000))
    finally:
        remove_tree(directory)
    return dict(json.loads(said[said.rfind(b'{"happened"') :].partition(b"\n")[0]))


def _installation(host: Host) -> dict[str, Outcome]:
    """Have a package built that attacks, and return what it said."""
    here = host.context
    reads = [here["object"], here["index"], "/etc/shadow", here["record"]]
    writes = [confinement.WORKER_DIRECTORY, here["runtime"], host.data, host.directory]
    marker = f"left-{host.secret[:6]}s"
    code = f"""
import ctypes, json, os, socket, subprocess, sys
done, modes = [], []
for path in {reads!r}:
    try:
        os.chmod(path, os.stat(path).st_mode & 0o777)
        modes.append(path)
    except OSError:
        pass
for path in {reads!r}:
    try:
        open(path, "rb").close()
        done.append("read " + path)
    except OSError:
        pass
for path in {writes!r}:
    try:
        open(path + "/evil", "w").close()
        os.unlink(path + "/evil")
        done.append("wrote to " + path)
    except OSError:
        pass
try:
    socket.create_connection({tuple(here["store"])!r}, 2).close()
    network = "connected"
except OSError as error:
    network = None
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        ctypes.CDLL(None).prctl(15, {marker.encode()!r}, 0, 0, 0)
        os.close(0), os.close(1), os.close(2)
        import time
        time.sleep(300)
    os._exit(0)
FILES["evilpackage.py"] = "FOUND = " + repr([", ".join(done) or None, ", ".join(modes) or None, network])
"""
    make_source(host.packages, "evilpackage", "1.0", code)
    reading = "import json, evilpackage\nprint(json.dumps(evilpackage.FOUND))\n"
    refused = host.make("installed-by-evil", reading, dependencies=encode_base64("evilpackage==1.0\n"))
    assert not refused, refused
    reach, modes, network = json.loads(host.ask("installed-by-evil", "", {}).data)
    left = _named(marker)
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    return {
        "setup_reach": {"happened": reach, "error": None}, "setup_network": {"happened": network, "error": None},
        "setup_modes": {"happened": modes, "error": None},
        "setup_left": {"happened": f"{len(left)} are still there" if left else None, "error": None},
    }  # fmt: skip


def _lanes(attacker: Attacker, wanted: list[Attack], outcomes: dict[str, Outcome]) -> Iterator[threading.Thread]:
    def run(lane: str) -> None:
        for attack in wanted:
            if (attack.how if attack.how == "beside" else attack.lane) == lane:
                outcomes[f"{attack.title}/{attacker.isolation}"] = attacker.run(attack)

    for lane in (*LANES, "server"):
        yield threading.Thread(target=run, args=(lane,))


def results(profile: str) -> dict[str, Any]:
    """Make all attacks on a host of that kind; return the outcomes by ``title/isolation``, and what else was found."""
    outcomes: dict[str, Outcome] = {}
    found: dict[str, Any] = {"outcomes": outcomes}
    isolations = ("warm", "fork") if profile in profiles.HOST_PROFILES else ("warm",)
    with Host(profile) as host:
        wanted = [attack for attack in attack_table.ATTACKS if not attack.how.startswith("setup_")]
        if profile == "none":  # what a plain process is enough for is not let loose on this machine
            wanted = [attack for attack in wanted if attack.alone is None or attack.promised(profile, "warm")]
            host.sandbox = "on"
            found["refusal"] = host.make("wants-a-sandbox", "print()")
            host.sandbox = "off"
        attackers = [Attacker(host, isolation) for isolation in isolations]
        found["details"] = host.details(attackers[0].etl("quick"))
        threads = [thread for attacker in attackers for thread in _lanes(attacker, wanted, outcomes)]
        for thread in threads:
            thread.start()
            if profile == "none":  # here they share /tmp
                thread.join()
        installed = _installation(host) if profile in profiles.HOST_PROFILES else {}
        for thread in threads:
            thread.join()
        for attack in attack_table.ATTACKS:
            if attack.how in installed:
                outcomes.update({f"{attack.title}/{isolation}": installed[attack.how] for isolation in isolations})
        found["harm"] = _harm(host)
    found["harm"] += [] if not os.path.exists(host.runtime) else [f"{host.runtime} is still there"]
    return found


def _harm(host: Host) -> list[str]:
    """Return what the attacks did, seen from outside."""
    done = []
    reply = host.http.request("GET", f"{host.objects}/stored")
    if reply.status != 200 or reply.data != b"stored" * (200_000 // 6):
        done.append(f"the object: {reply.status}")
    if host.http.request("GET", f"{host.objects}/small?etl_name=victim-of-all").data != b"fine":
        done.append("the victim does not work")
    if host.prey.poll() is not None:
        done.append("the prey was ended")
    for each, name in zip(host.sockets, ("service", "datagrams", "abstract", "pair"), strict=True):
        each.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            each.recv(1) if each.type == socket.SOCK_DGRAM else each.accept()[0].close()
            done.append(f"{name} was reached")
    if "Traceback" in host.store.errors():
        done.append(host.store.errors())
    return done


if __name__ == "__main__":
    begun = time.monotonic()
    print(json.dumps(results(sys.argv[1]), indent=1))
    print(f"{time.monotonic() - begun:.1f} s", file=sys.stderr)

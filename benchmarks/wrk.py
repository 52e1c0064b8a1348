"""wrk as the load generator, and what it needs: scripts of requests, a free port, figures out of its text.

wrk cannot send HEAD (it waits for the body that the reply's length announces): ``exchange.py`` does that.
"""

from __future__ import annotations

import os
import re
import resource
import shutil
import socket
import subprocess
import sys

#: Takes the paths of a list in turn.
_GET = """
local requests, i = {{}}, 0
for path in io.lines("{root}/paths-{port}.txt") do
    requests[#requests + 1] = wrk.format("GET", path, {{["Host"] = "127.0.0.1:{port}"}})
end
function request() i = i % #requests + 1; return requests[i] end
"""

#: Every request a name of its own: {prefix}00000001 and on. The body is the same, the store does not know that.
_PUT = """
local i = 0
local file = io.open("{body}", "rb"); local body = file:read("*a"); file:close()
local head = "PUT {prefix}"
local tail = " HTTP/1.1\\r\\nHost: 127.0.0.1:{port}\\r\\nContent-Type: application/octet-stream\\r\\nContent-Length: "
    .. #body .. "\\r\\n\\r\\n" .. body
function request() i = i + 1; return head .. string.format("%08d", i) .. tail end
"""


def need(*tools: str) -> None:
    """End the benchmark when a tool is not installed."""
    for tool in tools:
        if shutil.which(tool) is None:
            sys.exit(f"{tool} is not installed (Debian: apt install {tool})")


def free_port() -> int:
    """Return a port that nobody listens on at this moment, for servers that cannot take port 0."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def get(port: int, paths: list[str], seconds: int, connections: int, root: str) -> dict[str, float]:
    """GET ``paths`` in turn. ``root`` is a directory for what wrk reads."""
    with open(os.path.join(root, f"paths-{port}.txt"), "w", encoding="utf-8") as file:
        file.write("\n".join(paths) + "\n")
    return _run(port, _GET.format(root=root, port=port), seconds, connections, root)


def put(port: int, prefix: str, body: str, seconds: int, connections: int, root: str) -> dict[str, float]:
    """PUT the bytes of the file ``body`` to one new name after the other, each beginning with ``prefix``."""
    return _run(port, _PUT.format(port=port, prefix=prefix, body=body), seconds, connections, root)


def _run(port: int, script: str, seconds: int, connections: int, root: str) -> dict[str, float]:
    """Return requests per second, latencies in milliseconds, and wrk's own CPU per request in microseconds."""
    path = os.path.join(root, f"{port}.lua")
    with open(path, "w", encoding="utf-8") as file:
        file.write(script)
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--latency", "-s", path, f"http://127.0.0.1:{port}"]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if "Non-2xx" in text or "Socket errors" in text:
        sys.exit(f"replies were not what they should be:\n{text}")
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    requests = int(re.search(r"(\d+) requests in", text)[1])  # type: ignore[index]
    figures = {"req/s": float(re.search(r"Requests/sec:\s+([\d.]+)", text)[1])}  # type: ignore[index]
    units = {"us": 1e-3, "ms": 1.0, "s": 1e3}
    for percent in (50, 99):
        number, unit = re.search(rf"{percent}%\s+([\d.]+)(us|ms|s)", text).groups()  # type: ignore[union-attr]
        figures[f"p{percent} ms"] = float(number) * units[unit]
    return {**figures, "load CPU us/req": 1e6 * used / requests}

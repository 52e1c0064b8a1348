"""A load generator for requests that wrk cannot send, HEAD above all: a loop over sockets, as raw as Python can be.

    python benchmarks/exchange.py PORT CONNECTIONS SECONDS METHOD PATHS-FILE     # prints the figures as JSON

It costs about as much CPU per request as the store does, so its rates say little and its latencies contain its own
work: compare methods with one another, and look at the server's CPU.
"""

from __future__ import annotations

import json
import select
import socket
import subprocess
import sys
import time


def run(port: int, method: str, paths_file: str, seconds: float, connections: int) -> dict[str, float]:
    """Send ``method`` for each path in turn from a process of its own; return its figures."""
    arguments = [str(port), str(connections), str(seconds), method, paths_file]
    text = subprocess.run([sys.executable, __file__, *arguments], check=True, capture_output=True, text=True).stdout
    figures: dict[str, float] = json.loads(text)
    return figures


class _Connection:
    """One socket and the reply that it waits for."""

    __slots__ = ("due", "sent", "socket")

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.due = -1  # bytes of the reply still to come; -1: its head is not there yet
        self.sent = 0.0

    def send(self, request: bytes) -> None:
        """Begin an exchange."""
        self.due, self.sent = -1, time.perf_counter()
        self.socket.sendall(request)

    def receive(self, buffer: bytearray, *, head: bool) -> bool:
        """Take what has come; True when the reply is whole."""
        count = self.socket.recv_into(buffer)
        if self.due < 0:
            end = buffer.find(b"\r\n\r\n", 0, count)  # a small head comes in one piece
            if end < 0 or not buffer.startswith(b"HTTP/1.1 200"):
                raise SystemExit(f"unexpected reply: {bytes(buffer[:500])!r}")
            start = buffer.lower().find(b"content-length:", 0, end) if not head else -1
            length = 0 if head else int(buffer[start + 15 : buffer.find(b"\r", start)])
            self.due = length - (count - end - 4)
        else:
            self.due -= count
        return self.due == 0


def main() -> None:
    """Exchange for as long as asked, then print."""
    port, connections, seconds, method, paths_file = sys.argv[1:]
    with open(paths_file, encoding="utf-8") as file:
        heads = [f"{method} {path.strip()} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode() for path in file]
    by_descriptor: dict[int, _Connection] = {}
    latencies: list[float] = []
    buffer = bytearray(1 << 16)
    number, head, end = 0, method == "HEAD", time.perf_counter() + float(seconds)
    with select.epoll() as poll:
        for _ in range(int(connections)):
            connection = _Connection(int(port))
            by_descriptor[connection.socket.fileno()] = connection
            poll.register(connection.socket, select.EPOLLIN)
            connection.send(heads[number % len(heads)])
            number += 1
        while (now := time.perf_counter()) < end:
            for descriptor, _ in poll.poll(1.0):
                connection = by_descriptor[descriptor]
                if connection.receive(buffer, head=head):
                    now = time.perf_counter()
                    latencies.append(now - connection.sent)
                    connection.send(heads[number % len(heads)])
                    number += 1
    for connection in by_descriptor.values():
        connection.socket.close()
    latencies.sort()
    count = len(latencies)
    figures = {
        "req/s": count / float(seconds),
        "p50 ms": 1e3 * latencies[count // 2],
        "p99 ms": 1e3 * latencies[count * 99 // 100],
        "load CPU us/req": 1e6 * time.process_time() / count,
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()

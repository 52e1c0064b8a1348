"""A transform that is a server, in plain Python: what it is asked to run, it runs."""

#: Answers ``/health``, and ``PUT`` with what its body, Python that sets ``answer``, makes.
SERVER = """
import http.server, json, os, signal, socket, subprocess, sys, threading, time, urllib.request
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        self.reply(200, b"Running")
    def do_PUT(self):
        code = self.rfile.read(int(self.headers["Content-Length"])).decode()
        found = {"answer": None}
        try:
            exec(code, {**globals(), "handler": self}, found)
            self.reply(200, json.dumps(found["answer"]).encode())
        except BaseException as error:
            self.reply(500, f"{type(error).__name__}: {error}".encode())
    def reply(self, status, body):
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *arguments):
        pass
print("the server begins", flush=True)
address = os.environ.get("LISTEN", "127.0.0.1"), int(os.environ["PORT"])
http.server.ThreadingHTTPServer(address, Handler).serve_forever()
"""

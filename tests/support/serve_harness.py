"""What tests of `espalier serve` stand on: servers of their own on free ports.

A test file ends with `serve_harness.main()` and is run as `python3 tests/FILE.py BINARY`.
"""

import http.client
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import unittest

from support.serve_clients import SOCKET_SECONDS, WAIT_SECONDS, Answer, http_request, wait_for

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
REFERENCE = ROOT / "models/espalier-reference-f16.gguf"
MODEL_NAME = REFERENCE.name
BINARY = str(ROOT / "build/dev/espalier")

LIFE_SECONDS = 600  # of a server, whatever its test does


def main():
    """unittest's main, for the program that the first argument names."""
    global BINARY
    if len(sys.argv) > 1 and not sys.argv[1].startswith("-"):
        BINARY = os.path.abspath(sys.argv.pop(1))
    unittest.main(module="__main__", verbosity=2)


def run_espalier(*arguments, env=None, seconds=60):
    """A command that ends by itself, or else is killed."""
    return subprocess.run([BINARY, *map(str, arguments)], capture_output=True, text=True, timeout=seconds,
                          env={**os.environ, **(env or {})}, stdin=subprocess.DEVNULL)


class Server:
    """`espalier serve` on a free port, in an empty folder. Killed at the latest after LIFE_SECONDS."""

    def __init__(self, *flags, model="reference", env=None):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="espalier-serve-"))
        self.log = []
        self.port = None
        self.process = subprocess.Popen(
            [BINARY, "serve", str(model), *([] if "--port" in flags else ["--port", "0"]), "-t", "1", *map(str, flags)],
            cwd=self.folder,
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, errors="replace",
            env={**os.environ, **(env or {})})
        self.ready = threading.Event()
        self.reader = threading.Thread(target=self.read_log, daemon=True)
        self.reader.start()
        self.killer = threading.Timer(LIFE_SECONDS, self.process.kill)
        self.killer.daemon = True
        self.killer.start()
        if not self.ready.wait(WAIT_SECONDS) or self.port is None:
            self.kill()
            raise AssertionError(f"the server did not start:\n{self.log_text()}")

    def read_log(self):
        for line in self.process.stderr:
            self.log.append(line.rstrip("\n"))
            if found := re.match(r"espalier: serving at (http://127\.0\.0\.1:(\d+)) ", line):
                self.url, self.port = found[1], int(found[2])
                self.ready.set()
        self.ready.set()

    def log_text(self):
        return "\n".join(f"  | {line}" for line in self.log)

    def signal(self, number=signal.SIGTERM):
        self.process.send_signal(number)

    def wait(self):
        """The exit code."""
        code = self.process.wait(WAIT_SECONDS)
        self.reader.join(WAIT_SECONDS)
        return code

    def stop(self):
        self.signal()
        return self.wait()

    def kill(self):
        self.killer.cancel()
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self.reader.join(WAIT_SECONDS)
        self.process.stderr.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    # One request, one answer.

    def ask(self, method, path, body=None, headers=None):
        """`body`: bytes or text as they are, anything else as JSON."""
        if body is not None and not isinstance(body, (bytes, str)):
            body = json.dumps(body)
        if isinstance(body, str):
            body = body.encode()
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=SOCKET_SECONDS)
        try:
            connection.request(method, path, body, headers or {})
            return Answer(connection.getresponse())
        finally:
            connection.close()

    def get(self, path, headers=None):
        return self.ask("GET", path, None, headers)

    def post(self, path, body, headers=None):
        return self.ask("POST", path, body, headers)

    def put_budget(self, value):
        return self.ask("PUT", "/v1/espalier/budget", {"memory_budget": value})

    def state(self):
        return self.get("/v1/espalier/state").json

    def memory(self):
        return self.get("/v1/espalier/memory").json

    def counters(self):
        return self.state()["counters"]

    def dropped(self):
        """Names of the blocks that are not there."""
        return [block["name"] for block in self.get("/v1/espalier/plan").json["blocks"] if block["state"] != "kept"]

    def idle(self):
        state = self.state()
        return state["running"] == 0 and state["waiting"] == 0

    def wait_until_idle(self):
        wait_for(self.idle, "all requests to end")

    # Bytes as they are.

    def connect(self, receive_bytes=None):
        connection = socket.socket()
        connection.settimeout(SOCKET_SECONDS)
        if receive_bytes:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        connection.connect(("127.0.0.1", self.port))
        return connection

    def send_completion(self, body, receive_bytes=None):
        """A connection on which a completion was asked for and nothing was read yet."""
        connection = self.connect(receive_bytes)
        connection.sendall(http_request("POST", "/v1/completions", json.dumps(body).encode()))
        return connection

    def resident_bytes(self):
        status = pathlib.Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+) kB", status)[1]) * 1024


class ServeTest(unittest.TestCase):
    """Servers that end with the test, their log shown if it failed."""

    server = None
    flags = None  # of a server for all tests of the class; None: there is none

    @classmethod
    def setUpClass(cls):
        if cls.flags is not None:
            cls.server = Server(*cls.flags)

    @classmethod
    def tearDownClass(cls):
        if cls.flags is not None:
            cls.server.kill()

    def run(self, result=None):
        self.servers = [self.server] if self.server else []
        broken = len(result.failures) + len(result.errors)
        super().run(result)
        if len(result.failures) + len(result.errors) > broken:
            for server in self.servers:
                print(f"\nThe server of {self.id()} said:\n{server.log_text()}", file=sys.stderr)
        return result

    def start(self, *flags, **more):
        """A server of this test alone."""
        server = Server(*flags, **more)
        self.servers.append(server)
        self.addCleanup(server.kill)
        return server

    def assert_complete(self, generation, tokens=400):
        """It ended as it should, with all its tokens."""
        generation.finished()
        self.assertIsNone(generation.error)
        self.assertEqual(generation.status, 200)
        self.assertTrue(generation.done)
        self.assertEqual(generation.finish, "length")
        self.assertEqual(generation.usage["completion_tokens"], tokens)

"""Load for bench/serving_results.py: many HTTP requests from one thread that hardly computes.

Servers and client share the machine, so what a token costs here is small: bytes are read in large pieces, and events are
counted in them, not parsed. The same code asks both servers.
"""
import json
import multiprocessing
import random
import re
import selectors
import socket
import time

EVENT = b"data: {"
END = b"\r\n0\r\n\r\n"
READ = 1 << 18


def completion(prompt, max_tokens, **more):
    """Body of a greedy completion of exactly max_tokens, of a prompt of token ids."""
    return {"prompt": prompt, "n_predict": max_tokens, "temperature": 0, "ignore_eos": True, "cache_prompt": False, **more}


# For models of random weights, which say anything: llama-server gives an answer up that is not UTF-8.
NO_BYTES = {"logit_bias": [[token, False] for token in range(259)]}


def prompts(number, tokens, vocabulary, seed):
    """Of random tokens, no two alike: nothing of one helps with another. Without special tokens and single bytes."""
    draw = random.Random(seed)
    return [[draw.randrange(259, vocabulary) for _ in range(tokens)] for _ in range(number)]


def request_bytes(path, body, keep_alive=True):
    data = json.dumps(body).encode()
    connection = "keep-alive" if keep_alive else "close"
    return (f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nConnection: {connection}\r\n"
            f"Content-Length: {len(data)}\r\n\r\n").encode() + data


def connect(port, receive_buffer=None):
    connection = socket.socket()
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if receive_buffer:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    connection.connect(("127.0.0.1", port))
    return connection


def call(port, method, path, body=None, timeout=30):
    """(status, JSON or text) of one small request."""
    data = json.dumps(body).encode() if body is not None else b""
    with connect(port) as connection:
        connection.settimeout(timeout)
        connection.sendall(f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n"
                           f"Content-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n".encode() + data)
        answer = b""
        while piece := connection.recv(READ):
            answer += piece
    head, _, body = answer.partition(b"\r\n\r\n")
    if b"chunked" in head.lower():
        body = unchunked(body)
    status = int(head.split()[1]) if head else 0
    try:
        return status, json.loads(body)
    except ValueError:
        return status, body.decode(errors="replace")


def receive_sized(connection, answer=b""):
    """(status, body) of an answer that says its length; None if the connection ends before it does."""
    while True:
        head, end, body = answer.partition(b"\r\n\r\n")
        if end:
            length = re.search(rb"\r\ncontent-length:\s*(\d+)", head, re.IGNORECASE)
            if len(body) >= int(length[1]):
                return int(head.split()[1]), body
        piece = connection.recv(READ)
        if not piece:
            return None
        answer += piece


def unchunked(body):
    whole = b""
    while body:
        size, _, body = body.partition(b"\r\n")
        count = int(size, 16)
        if count == 0:
            break
        whole, body = whole + body[:count], body[count + 2:]
    return whole


class Stream:
    """One streamed answer."""

    def __init__(self, connection, max_tokens):
        self.connection = connection
        self.max_tokens = max_tokens
        self.sent = time.monotonic()
        self.times = []  # when events came, seconds of the monotonic clock
        self.pieces = []
        self.tail = b""
        self.ended = None
        self.error = None

    def read(self):
        try:
            data = self.connection.recv(READ)
        except BlockingIOError:
            return
        except OSError as error:
            self.fail(str(error))
            return
        now = time.monotonic()
        # The tail is shorter than an event's beginning: nothing counts twice.
        events = (self.tail[-(len(EVENT) - 1):] + data).count(EVENT)
        if events:
            self.times.extend([now] * events)
        self.pieces.append(data)
        self.tail = (self.tail + data)[-len(END):]
        if self.tail == END:
            self.ended = now
            self.check()
        elif not data:
            self.fail("closed before the end")

    def fail(self, error):
        self.ended = time.monotonic()
        self.error = f"{error}; {b''.join(self.pieces)[-300:].decode(errors='replace')}"

    def check(self):
        answer = b"".join(self.pieces)
        told = re.findall(rb'"tokens_predicted":(\d+)', answer)
        if not answer.startswith(b"HTTP/1.1 200"):
            self.fail(f"status {answer[9:12].decode()}")
        elif not told or int(told[-1]) != self.max_tokens or b'"stop":true' not in answer:
            self.fail(f"{told[-1:]} tokens in place of {self.max_tokens}")
        self.pieces = []
        del self.times[self.max_tokens:]  # the last event is the end


class Streams:
    """Streams that run at once. What ends is handed to `on_end`, which may start others."""

    def __init__(self, port, on_end=None):
        self.port = port
        self.on_end = on_end
        self.selector = selectors.DefaultSelector()
        self.all = []
        self.open = 0

    def start(self, body):
        body = {**body, "stream": True}
        connection = connect(self.port)
        stream = Stream(connection, body["n_predict"])
        self.all.append(stream)
        connection.sendall(request_bytes("/completion", body))
        connection.setblocking(False)
        self.selector.register(connection, selectors.EVENT_READ, stream)
        self.open += 1
        return stream

    def pump(self, seconds):
        """Reads what there is, waiting for at most so long."""
        for key, _ in self.selector.select(seconds):
            stream = key.data
            stream.read()
            if stream.ended is not None:
                self.selector.unregister(stream.connection)
                stream.connection.close()
                self.open -= 1
                if self.on_end:
                    self.on_end(stream)

    def run(self, until=None, seconds=600):
        """Until `until()` is true, or until all have ended; False if neither is within `seconds`."""
        deadline = time.monotonic() + seconds
        while self.open and not (until and until()):
            if time.monotonic() > deadline:
                return False
            self.pump(0.05)
        return True

    def abandon(self):
        for key in list(self.selector.get_map().values()):
            self.selector.unregister(key.fileobj)
            key.fileobj.close()
            key.data.fail("abandoned")
            self.open -= 1

    @property
    def errors(self):
        return [stream.error for stream in self.all if stream.error]


def gaps(streams, begin, end):
    """Seconds between neighbouring tokens of one stream, those that ended within the time."""
    return sorted(b - a for stream in streams for a, b in zip(stream.times, stream.times[1:]) if begin <= b < end)


def quantile(ordered, share):
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else None


def _poll(port, pid, every, pipe):
    samples = []
    connection = connect(port)
    ask = b"GET /v1/espalier/memory HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
    while not pipe.poll():
        start = time.monotonic()
        connection.sendall(ask)
        answer = receive_sized(connection)
        if answer is None:
            break
        memory = json.loads(answer[1])
        sample = {"at": time.monotonic(), "asked": start, "used": memory["used_bytes"], "budget": memory["budget_bytes"],
                  "measured": memory.get("measured_managed_bytes"), "managed": memory["managed_bytes"]}
        with open(f"/proc/{pid}/status", encoding="utf-8") as status:
            for line in status:
                if line.startswith(("VmRSS", "RssAnon")):
                    sample[line.split(":")[0]] = int(line.split()[1]) * 1024
        samples.append(sample)
        time.sleep(max(0, every - (time.monotonic() - start)))
    pipe.send(samples)


class MemoryPoll:
    """Asks for memory every few milliseconds, from a process and a connection of its own."""

    def __init__(self, port, pid, every=0.01):
        self.pipe, theirs = multiprocessing.Pipe()
        self.process = multiprocessing.Process(target=_poll, args=(port, pid, every, theirs), daemon=True)
        self.process.start()

    def stop(self):
        self.pipe.send(True)
        samples = self.pipe.recv()
        self.process.join()
        return samples

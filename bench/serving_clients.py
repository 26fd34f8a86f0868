"""Thousands of clients, half of which do not stay: the step `clients` of bench/serving_results.py."""
import heapq
import itertools
import json
import random
import re
import selectors
import time

from measurement_results import say
from serving_load import END, READ, call, connect, request_bytes

CLIENTS = 256  # each has a slot: all of them stream at once
MARKS = (0.2, 0.5, 1.0)
TOKENS = 8
# Whole answers are asked for by half of all, over connections that stay, over new ones, and as streams.
KINDS = {"kept-alive": 25, "fresh": 15, "stream": 10, "leave while sending": 10, "leave while waiting": 20,
         "leave in mid-stream": 15, "never read": 5}
WHOLE = ("kept-alive", "fresh", "stream")
HOLD_SECONDS = 3  # of a client that never reads


class Client:
    """One client: its present request, and its connection if that stays."""

    def __init__(self, connection=None):
        self.kind = None
        self.connection = connection
        self.answer = b""
        self.turn = 0


class Crowd:
    def __init__(self, port, total, seed=3):
        self.port = port
        self.total = total
        self.draw = random.Random(seed)
        self.begun = 0
        self.over = 0
        self.counts = dict.fromkeys(KINDS, 0)
        self.whole = dict.fromkeys(WHOLE, 0)
        self.wrong = []
        self.selector = selectors.DefaultSelector()
        self.later = []  # (when, number, client, its turn): to leave
        self.number = itertools.count()

    def body(self, kind):
        prompt = [self.draw.randrange(300, 8000) for _ in range(8)]
        body = {"prompt": prompt, "n_predict": TOKENS, "temperature": 0, "ignore_eos": True,
                "stream": kind in ("stream", "leave in mid-stream", "never read")}
        if kind == "never read":  # more than the kernel's buffers take
            body |= {"n_predict": 200, "n_probs": 100}
        return body

    def begin(self, client):
        kind = self.draw.choices(list(KINDS), KINDS.values())[0]
        self.begun += 1
        self.counts[kind] += 1
        client.kind, client.answer = kind, b""
        client.turn += 1
        request = request_bytes("/completion", self.body(kind), keep_alive=kind == "kept-alive")
        if kind != "kept-alive":
            self.leave(client)
        if client.connection is None:
            client.connection = connect(self.port, 4096 if kind == "never read" else None)
            client.connection.setblocking(False)
            if kind != "never read":
                self.selector.register(client.connection, selectors.EVENT_READ, client)
        if kind == "leave while sending":
            client.connection.send(request[:self.draw.randrange(1, len(request))])
            self.at(0.005, client)
        else:
            client.connection.send(request)  # far less than the kernel's buffer
        if kind == "leave while waiting":
            self.at(self.draw.uniform(0, 0.05), client)
        elif kind == "never read":
            self.at(HOLD_SECONDS, client)

    def at(self, seconds, client):
        heapq.heappush(self.later, (time.monotonic() + seconds, next(self.number), client, client.turn))

    def leave(self, client):
        if client.connection is not None:
            if client.connection in self.selector.get_map():
                self.selector.unregister(client.connection)
            client.connection.close()
            client.connection = None

    def finish(self, client, error=None):
        self.over += 1
        if error:
            self.wrong.append(f"{client.kind}: {error}: {client.answer[-200:].decode(errors='replace')}")
        elif client.kind in WHOLE:
            self.whole[client.kind] += 1
        if client.kind != "kept-alive" or error:
            self.leave(client)
        if self.begun < self.total:
            self.begin(client)
        else:
            self.leave(client)

    def read(self, client):
        try:
            data = client.connection.recv(READ)
        except BlockingIOError:
            return
        except OSError as error:
            return self.closed(client, str(error))
        client.answer += data
        if client.kind == "leave in mid-stream" and b"data: " in client.answer:
            return self.finish(client)
        if client.kind in WHOLE and self.complete(client):
            return self.finish(client, self.complaint(client))
        if not data:
            self.closed(client, "closed before the end")

    def closed(self, client, error):
        # Whoever was about to leave does not mind.
        if client.kind in WHOLE or client.kind == "leave in mid-stream":
            self.finish(client, error)
        else:
            self.selector.unregister(client.connection)

    @staticmethod
    def complete(client):
        if client.kind == "stream":
            return client.answer.endswith(END)
        head, end, body = client.answer.partition(b"\r\n\r\n")
        length = re.search(rb"\r\ncontent-length:\s*(\d+)", head, re.IGNORECASE)
        return bool(end) and length is not None and len(body) >= int(length[1])

    @staticmethod
    def complaint(client):
        if not client.answer.startswith(b"HTTP/1.1 200"):
            return "status"
        if client.kind == "stream":
            told = re.findall(rb'"tokens_predicted":(\d+)', client.answer)
            return None if told and int(told[-1]) == TOKENS else "tokens"
        answer = json.loads(client.answer.partition(b"\r\n\r\n")[2])
        return None if answer["tokens_predicted"] == TOKENS and answer["stop"] is True else "tokens"

    def run(self, on_mark, seconds):
        """True if all of them came to an end in time."""
        deadline = time.monotonic() + seconds
        marks = [int(share * self.total) for share in MARKS]
        for _ in range(min(CLIENTS, self.total)):
            self.begin(Client())
        while self.over < self.total and time.monotonic() < deadline:
            now = time.monotonic()
            while self.later and self.later[0][0] <= now:
                _, _, client, turn = heapq.heappop(self.later)
                if client.turn == turn and client.connection is not None:
                    self.finish(client)
            wait = min(0.05, self.later[0][0] - now) if self.later else 0.05
            for key, _ in self.selector.select(max(0, wait)):
                if key.data.connection is key.fileobj:
                    self.read(key.data)
            while marks and self.over >= marks[0]:
                on_mark(marks.pop(0))
        return self.over == self.total


def in_flight(server):
    """(running, waiting), by the server."""
    if server.name == "espalier":
        state = call(server.port, "GET", "/v1/espalier/state")[1]
        return state["running"], state["waiting"]
    return sum(slot["is_processing"] for slot in call(server.port, "GET", "/slots")[1]), None


def crowd(server, total, seconds):
    before = {**server.memory(), "descriptors": server.descriptors()}
    marks = []
    clients = Crowd(server.port, total)
    start = time.monotonic()
    finished = clients.run(lambda count: marks.append({"requests": count, **server.memory()}), seconds)
    took = time.monotonic() - start
    for key in list(clients.selector.get_map().values()):
        clients.leave(key.data)
    quiet = time.monotonic()
    at_rest = None
    while time.monotonic() < quiet + 60 and at_rest is None:
        try:
            if not any(in_flight(server)) and server.descriptors() <= before["descriptors"] + 2:
                at_rest = time.monotonic() - quiet
        except OSError:
            pass
        time.sleep(0.1)
    asked = sum(clients.counts[kind] for kind in WHOLE)
    result = {"clients": CLIENTS, "requests": total, "finished": finished, "over": clients.over, "seconds": took,
              "counts": clients.counts, "asked": asked, "answered": sum(clients.whole.values()),
              "wrong": len(clients.wrong), "first_wrong": clients.wrong[:3], "before": before, "marks": marks,
              "at_rest_s": at_rest, "after": {**server.memory(), "descriptors": server.descriptors()},
              "ended": server.how_it_ended()}
    say(f"  {server.name}: {clients.over} of {total} requests in {took:.0f} s, {result['answered']} of {asked} answers whole, "
        f"{len(clients.wrong)} wrong {clients.wrong[:1]}; VmRSS MB "
        + ", ".join(f"{m['VmRSS'] / 1e6:.1f}" for m in marks) + f"; at rest after {at_rest} s")
    return result


def many_clients(bench):
    total = 1000 if bench.quick else 10000
    model = bench.model("reference", "F16")
    result = {}
    with bench.espalier(model, CLIENTS, 256, "--timeout", "10", "--no-cache-prompt") as ours:
        result["espalier"] = crowd(ours, total, 600)
    with bench.llama_server(model, CLIENTS, 256, "--timeout", "10") as theirs:
        result["llama-server"] = crowd(theirs, total // 10, 120)
    return result

"""Clients of `espalier serve` for tests: whole answers, streams, bytes on a socket, and waiting for conditions."""

import http.client
import json
import threading
import time

# Nothing here takes more than seconds. These end what hangs, so they are long enough for a busy machine and sanitizers.
SOCKET_SECONDS = 120
WAIT_SECONDS = 120


def wait_for(condition, what, seconds=WAIT_SECONDS):
    """The first true value of `condition()`; a failure that says what was waited for, and what was seen last."""
    end = time.monotonic() + seconds
    while not (value := condition()):
        if time.monotonic() > end:
            raise AssertionError(f"{what}: not within {seconds} s; last seen: {value!r}")
        time.sleep(0.01)
    return value


class Answer:
    """A whole HTTP answer."""

    def __init__(self, response):
        self.status = response.status
        self.headers = response.headers
        self.body = response.read()

    @property
    def json(self):
        return json.loads(self.body)

    @property
    def error(self):
        return self.json["error"]

    def __repr__(self):
        return f"{self.status} {self.body[:500]!r}"


class Stream:
    """An answer in server-sent events, read as they come. Iterating gives the events' data; [DONE] is left out."""

    def __init__(self, server, method, path, body=None, headers=None):
        self.connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=SOCKET_SECONDS)
        self.connection.request(method, path, None if body is None else json.dumps(body), headers or {})
        self.response = self.connection.getresponse()
        self.status = self.response.status
        self.done = False

    def __iter__(self):
        for line in self.response:
            if line == b"data: [DONE]\n":
                self.done = True
            elif line.startswith(b"data: "):
                yield json.loads(line[6:])

    def close(self):
        self.response.close()
        self.connection.close()


class Generation(threading.Thread):
    """A streamed completion, read on a thread: text, usage, finish and error are there after `join`."""

    def __init__(self, server, body):
        super().__init__(daemon=True)
        self.server = server
        self.body = {"stream_options": {"include_usage": True}, **body, "stream": True}
        self.text, self.usage, self.finish, self.error, self.status = "", None, None, None, None
        self.began = threading.Event()  # the first event is here, or there will be none
        self.done = False
        self.start()

    def run(self):
        try:
            stream = Stream(self.server, "POST", "/v1/completions", self.body)
            self.status = stream.status
            for event in stream:
                self.began.set()
                self.take(event)
            self.done = stream.done
            stream.close()
        except Exception as error:  # the test tells: it knows what should have happened
            self.error = error
        self.began.set()

    def take(self, event):
        if "error" in event:
            self.error = event["error"]
            return
        for choice in event["choices"]:
            self.text += choice["text"]
            self.finish = choice["finish_reason"] or self.finish
        self.usage = event.get("usage") or self.usage

    def finished(self):
        """Waits for its end, and returns itself."""
        self.join(WAIT_SECONDS)
        assert not self.is_alive(), "a stream did not end"
        return self


class Load:
    """Streams of 400 tokens, so many at once, until it is told to end; then `finished` are all there were."""

    def __init__(self, server, at_once):
        self.server = server
        self.ending = threading.Event()
        self.finished = []
        self.threads = [threading.Thread(target=self.run, args=(i,), daemon=True) for i in range(at_once)]
        for thread in self.threads:
            thread.start()
        wait_for(lambda: server.state()["running"] > 0, "requests to run")

    def run(self, index):
        while not self.ending.is_set():
            self.finished.append(Generation(self.server, long_request(f"Chapter {index}. It was")).finished())

    def end(self):
        self.ending.set()
        for thread in self.threads:
            thread.join(WAIT_SECONDS)
        return self.finished


def http_request(method, path, body=b"", length=None):
    """A request's bytes; `length`: what Content-Length says where that is not the body's."""
    length = len(body) if length is None else length
    return f"{method} {path} HTTP/1.1\r\nHost: test\r\nContent-Length: {length}\r\n\r\n".encode() + body


def read_answer(connection):
    """The answer that comes on a connection."""
    response = http.client.HTTPResponse(connection)
    response.begin()
    return Answer(response)


def long_request(prompt="Once upon a time", tokens=400, **more):
    """A completion of exactly `tokens` tokens, the same each time."""
    return {"prompt": prompt, "max_tokens": tokens, "temperature": 0, "ignore_eos": True, **more}

"""`espalier serve` and clients that leave, stall or come in crowds, and how it ends.

Run: python3 serve_clients_test.py BINARY
"""

import json
import random
import signal
import socket

from support import serve_harness as harness
from support.serve_clients import (WAIT_SECONDS, Generation, Stream, http_request, long_request, read_answer,
                                   wait_for)

MIB = 1024 * 1024


def prompt_of(i):
    return f"Chapter {i}. It was"


class Leaving(harness.ServeTest):
    """What a client that goes leaves behind: nothing, and the others notice nothing."""

    flags = ("-np", 4, "-b", 64)

    def setUp(self):
        self.before = self.server.counters()

    def grown(self, counter):
        return self.server.counters()[counter] - self.before[counter]

    def beside_others(self, disturb):
        """Runs `disturb` while others are answered: as they would be without."""
        expected = [Generation(self.server, long_request(prompt_of(i), 200)).finished().text for i in range(3)]
        others = [Generation(self.server, long_request(prompt_of(i), 200)) for i in range(3)]
        disturb()
        for other, text in zip(others, expected):
            self.assert_complete(other, 200)
            self.assertEqual(other.text, text)
        self.assertEqual(self.grown("failed"), 0)

    def wait_for_ends(self, n):
        """All of them, the three before and the three beside `disturb` with them, are accounted for."""
        wait_for(lambda: self.grown("cancelled") + self.grown("completed") == n + 6, f"{n} requests to end")
        self.server.wait_until_idle()

    def seen(self, states):
        return {request["state"] for request in self.server.state()["requests"]} & states

    def test_in_decode(self):
        def leave():
            stream = Stream(self.server, "POST", "/v1/completions", long_request(n=24, stream=True))
            next(iter(stream))
            stream.close()

        self.beside_others(leave)
        self.assertGreater(self.grown("cancelled"), 0)
        self.wait_for_ends(24)

    def test_in_prefill(self):
        def leave():
            prompts = [[10 + i] * 500 for i in range(32)]  # in stretches of 64 tokens: -b
            connection = self.server.send_completion({"prompt": prompts, "max_tokens": 1})
            wait_for(lambda: self.seen({"prefill"}), "a prompt to be computed")
            connection.close()

        self.beside_others(leave)
        self.assertGreater(self.grown("cancelled"), 0)
        self.wait_for_ends(32)

    def test_in_the_queue(self):
        def leave():
            first = self.server.send_completion(long_request(n=16))
            wait_for(lambda: self.seen({"waiting"}), "a queue")
            last = self.server.send_completion(long_request("I am the last"))
            wait_for(lambda: len(self.server.state()["requests"]) >= 17, "the last one to be in the queue")
            last.close()
            wait_for(lambda: self.grown("cancelled") == 1, "the last one to be gone")
            self.assertEqual(len(read_answer(first).json["choices"]), 16)
            first.close()

        self.beside_others(leave)
        self.wait_for_ends(17)
        self.assertEqual(self.grown("cancelled"), 1)

    def test_that_closes_its_sending_side_only(self):
        def leave():
            connection = self.server.send_completion(long_request(n=24))
            connection.shutdown(socket.SHUT_WR)
            wait_for(lambda: self.grown("cancelled") > 0, "it to count as gone")
            connection.close()

        self.beside_others(leave)
        self.wait_for_ends(24)


class Crowds(harness.ServeTest):
    def test_one_that_never_reads_is_given_up(self):
        server = self.start("-np", 4, "--timeout", 1)
        expected = Generation(server, long_request()).finished().text
        # Far more than socket buffers and a backlog hold.
        stalled = server.send_completion(long_request(n=64, logprobs=20, stream=True), receive_bytes=4096)
        wait_for(lambda: server.state()["running"] > 0, "it to be answered")
        others = [Generation(server, long_request()) for _ in range(3)]
        wait_for(lambda: server.counters()["cancelled"] > 0, "it to be given up")
        for other in others:
            self.assert_complete(other)
            self.assertEqual(other.text, expected)
        server.wait_until_idle()
        stalled.close()

    def round_of(self, server, seed):
        """128 streams at once; half of the clients leave somewhere on the way."""
        chance = random.Random(seed)
        leaving, staying = [], []
        for i in range(128):
            body = long_request(prompt_of(i), tokens=24, cache_prompt=False)
            if i % 2:
                connection = server.send_completion({**body, "stream": True})
                leaving.append((connection, chance.randrange(3)))
            else:
                staying.append(Generation(server, body))
        chance.shuffle(leaving)
        for connection, parts in leaving:
            for _ in range(parts):
                connection.recv(chance.randrange(1, 4000))
            connection.close()
        for stream in staying:
            self.assert_complete(stream, 24)
        server.wait_until_idle()
        return [stream.text for stream in staying]

    def test_a_crowd_of_which_half_leaves(self):
        server = self.start("-np", 4)
        first = self.round_of(server, 1)
        self.round_of(server, 2)  # all that grows once has grown: buffers of threads, the allocator's arenas
        before = server.resident_bytes()
        for seed in (3, 4):
            self.assertEqual(self.round_of(server, seed), first)
        self.assertLess(server.resident_bytes() - before, 6 * MIB)
        self.assertEqual(server.counters()["failed"], 0)

    def test_a_full_queue_refuses(self):
        server = self.start("-np", 1, "--max-queue", 2)
        connections = [server.send_completion(long_request(prompt_of(i), tokens=100)) for i in range(24)]
        answers = [read_answer(connection) for connection in connections]
        for answer in answers:
            if answer.status == 200:
                self.assertEqual(answer.json["usage"]["completion_tokens"], 100)
            else:
                self.assertEqual((answer.status, answer.error["type"]), (429, "rate_limit_error"), answer)
                self.assertGreaterEqual(int(answer.headers["Retry-After"]), 1)
        self.assertEqual({answer.status for answer in answers}, {200, 429})
        # A request that needs more than the queue holds is refused whole.
        self.assertEqual(server.post("/v1/completions", long_request(n=8)).status, 429)
        wait_for(lambda: server.post("/v1/completions", long_request(n=2, tokens=4)).status == 200, "room in the queue")
        for connection in connections:
            connection.close()

    def test_only_those_who_have_to_wait_count_for_the_queue(self):
        server = self.start("-np", 2, "--max-queue", 0)
        for _ in range(3):
            self.assertEqual(server.post("/v1/completions", long_request(n=2, tokens=4)).status, 200)
            server.wait_until_idle()
        self.assertEqual(server.post("/v1/completions", long_request(n=3)).status, 429)

    def test_too_many_connections_are_refused(self):
        server = self.start("--max-connections", 4)
        held = [server.connect() for _ in range(4)]
        wait_for(lambda: server.get("/health").status == 503, "the server to be full")
        held.pop().close()
        wait_for(lambda: server.get("/health").status == 200, "room for another one")
        for connection in held:
            connection.close()


class Ending(harness.ServeTest):
    def drains(self, server):
        return server.get("/readyz").status == 503

    def test_open_streams_are_completed_and_new_requests_are_not_taken(self):
        server = self.start("-np", 4)
        streams = [Generation(server, long_request(prompt_of(i))) for i in range(8)]
        body = json.dumps(long_request()).encode()
        late = server.connect()
        late.sendall(http_request("POST", "/v1/completions", length=len(body)))  # its body has not come yet
        wait_for(lambda: len(server.state()["requests"]) == 8, "all streams to be in flight")
        server.signal()
        wait_for(lambda: self.drains(server), "it to be ending")
        late.sendall(body)
        for answer in (read_answer(late), server.post("/completion", long_request())):
            self.assertEqual((answer.status, answer.error["type"]), (503, "unavailable_error"))
            self.assertGreaterEqual(int(answer.headers["Retry-After"]), 1)
        self.assertEqual(server.get("/health").status, 503)
        for path in ("/livez", "/metrics", "/v1/models", "/v1/espalier/state"):
            self.assertEqual(server.get(path).status, 200, path)
        half = server.connect()
        half.sendall(http_request("POST", "/v1/completions", length=len(body)))  # its body never comes
        late.close()
        for stream in streams:
            self.assert_complete(stream)
        self.assertIn(read_answer(half).status, (0, 503))
        half.close()
        self.assertEqual(server.wait(), 0)

    def test_without_time_open_streams_end_with_an_error(self):
        server = self.start("-np", 4, "--shutdown-timeout", 0)
        stream = Stream(server, "POST", "/v1/completions", long_request(n=64, stream=True))
        events = iter(stream)
        next(events)
        server.signal(signal.SIGINT)
        last = list(events)[-1]
        self.assertEqual((last["error"]["code"], last["error"]["type"]), (503, "unavailable_error"))
        self.assertFalse(stream.done)
        self.assertEqual(server.wait(), 0)
        stream.close()

    def test_a_whole_answer_is_an_error_then(self):
        server = self.start("-np", 1, "--shutdown-timeout", 0)
        connection = server.send_completion(long_request(n=64))
        wait_for(lambda: server.state()["running"] > 0, "it to run")
        server.signal()
        self.assertEqual(read_answer(connection).status, 503)
        self.assertEqual(server.wait(), 0)
        connection.close()

    def test_a_second_signal_ends_it_at_once(self):
        for first, second in ((signal.SIGTERM, signal.SIGTERM), (signal.SIGINT, signal.SIGTERM)):
            server = self.start("-np", 1, "--shutdown-timeout", 600)
            connection = server.send_completion(long_request(n=128))
            wait_for(lambda: server.state()["running"] > 0, "it to run")
            server.signal(first)
            wait_for(lambda: self.drains(server), "it to be ending")
            server.signal(second)
            self.assertEqual(server.wait(), -second)
            connection.close()

    def test_any_time_for_the_end_may_be_given(self):
        server = self.start("-np", 1, "--shutdown-timeout", "1e10")
        stream = Generation(server, long_request())
        stream.began.wait(WAIT_SECONDS)
        self.assertEqual(server.stop(), 0)
        self.assert_complete(stream)

    def test_ends_with_followers_of_events_and_idle_connections(self):
        server = self.start()
        idle = server.connect()
        events = Stream(server, "GET", "/v1/espalier/events", headers={"Accept": "text/event-stream"})
        self.assertEqual(server.stop(), 0)
        idle.close()
        events.close()


if __name__ == "__main__":
    harness.main()

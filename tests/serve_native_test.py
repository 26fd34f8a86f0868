"""`espalier serve` answers as llama-server does, and survives whatever is sent.

Run: python3 serve_native_test.py BINARY
"""

import json
import re
import socket
import time

from support import serve_harness as harness
from support.serve_clients import WAIT_SECONDS, Generation, Stream, http_request, long_request, read_answer

PROMPT = "The old house stood at the end of"


class Native(harness.ServeTest):
    flags = ("-np", 4)

    def complete(self, prompt=PROMPT, **more):
        answer = self.server.post("/completion", {"prompt": prompt, "n_predict": 16, "temperature": 0, **more})
        self.assertEqual(answer.status, 200, answer)
        return answer.json

    def tokens(self, text):
        return self.server.post("/tokenize", {"content": text}).json["tokens"]

    def test_answers_several_prompts(self):
        other = "Once upon a time"
        both = self.complete([PROMPT, other])
        self.assertEqual([answer["content"] for answer in both],
                         [self.complete(PROMPT)["content"], self.complete(other)["content"]])
        self.assertEqual([answer["index"] for answer in both], [0, 1])

    def test_takes_prompts_of_tokens_and_mixed_ones(self):
        bos = self.server.post("/tokenize", {"content": "", "add_special": True}).json["tokens"]
        whole = bos + self.tokens(PROMPT)
        expected = self.complete()["content"]
        self.assertEqual(self.complete(whole)["content"], expected)
        self.assertEqual(self.complete([*whole[:3], *whole[3:]])["content"], expected)
        self.assertEqual(self.complete([PROMPT, self.tokens("x")[-1]])["tokens_evaluated"], len(whole) + 1)

    def test_tells_probabilities(self):
        answer = self.complete(n_probs=3, return_tokens=True)
        told = answer["completion_probabilities"]
        self.assertEqual([token["id"] for token in told], answer["tokens"])
        self.assertEqual("".join(token["token"] for token in told), answer["content"])
        for token in told:
            best = token["top_logprobs"][0]
            self.assertEqual(len(token["top_logprobs"]), 3)
            self.assertEqual((best["id"], best["logprob"]), (token["id"], token["logprob"]))

    def test_tells_timings(self):
        answer = self.complete(cache_prompt=False)
        timings = answer["timings"]
        self.assertEqual(timings["predicted_n"], 16)
        self.assertEqual(timings["prompt_n"], answer["tokens_evaluated"])
        self.assertEqual(timings["cache_n"], 0)
        for name in ("prompt_ms", "predicted_ms", "prompt_per_second", "predicted_per_second"):
            self.assertGreater(timings[name], 0, name)
        self.assertEqual(answer["stop_type"], "limit")
        self.assertEqual(answer["generation_settings"]["n_predict"], 16)

    def test_takes_a_prompt_it_has_seen_from_the_cache(self):
        prompt = "It was the best of times, it was the worst of times, it was the age of wisdom, said the captain"
        first = self.server.post("/v1/completions", {"prompt": prompt, "max_tokens": 16, "temperature": 0}).json
        again = self.server.post("/v1/completions", {"prompt": prompt, "max_tokens": 16, "temperature": 0}).json
        self.assertEqual(first["usage"]["prompt_tokens_details"]["cached_tokens"], 0)
        self.assertGreater(again["usage"]["prompt_tokens_details"]["cached_tokens"], 10)
        self.assertEqual(again["choices"][0]["text"], first["choices"][0]["text"])
        native = self.complete(prompt)
        self.assertGreater(native["timings"]["cache_n"], 10)
        self.assertEqual(native["timings"]["cache_n"] + native["timings"]["prompt_n"], native["tokens_evaluated"])
        self.assertEqual(self.complete(prompt, cache_prompt=False)["timings"]["cache_n"], 0)

    def test_streams(self):
        stream = Stream(self.server, "POST", "/completion",
                        {"prompt": PROMPT, "n_predict": 16, "temperature": 0, "stream": True})
        events = list(stream)
        stream.close()
        self.assertFalse(stream.done, "llama-server sends no [DONE] here")
        self.assertEqual([event["stop"] for event in events], [False] * (len(events) - 1) + [True])
        self.assertEqual("".join(event["content"] for event in events), self.complete()["content"])
        self.assertEqual(events[-1]["tokens_predicted"], 16)

    def test_tokenizes_and_back(self):
        for text in ("Hello, world", "naïve café 🌍\n\ttabs", ""):
            tokens = self.tokens(text)
            self.assertEqual(self.server.post("/detokenize", {"tokens": tokens}).json["prompt"], text)
        pieces = self.server.post("/tokenize", {"content": "Hello 🌍", "with_pieces": True}).json["tokens"]
        data = b"".join(bytes(piece) if isinstance(piece, list) else piece.encode()
                        for piece in (token["piece"] for token in pieces))
        self.assertEqual(data.decode().lstrip(), "Hello 🌍")
        special = self.server.post("/tokenize", {"content": "Hello", "add_special": True}).json["tokens"]
        self.assertEqual(special[1:], self.tokens("Hello"))
        as_vllm = self.server.post("/tokenize", {"prompt": "Hello"}).json
        self.assertEqual((as_vllm["tokens"], as_vllm["count"], as_vllm["max_model_len"]), (special, len(special), 512))

    def test_tells_the_prompt_as_it_was_given(self):
        for prompt in (PROMPT, " a space", "naïve 🌍"):
            self.assertEqual(self.complete(prompt)["prompt"], prompt)

    def test_takes_no_longer_than_it_may(self):
        lines = {"grammar": 'root ::= ("a\\n")+', "n_predict": 400}
        answer = self.complete(t_max_predict_ms=1, **lines)
        self.assertEqual((answer["stop_type"], answer["truncated"]), ("limit", False))
        self.assertLess(answer["tokens_predicted"], 400)
        self.assertGreater(answer["tokens_predicted"], 0)
        one_line = {"grammar": 'root ::= "a"+', "n_predict": 40, "t_max_predict_ms": 1}
        self.assertEqual(self.complete(**one_line)["tokens_predicted"], 40, "not in the middle of a line")

    def test_takes_samplers_settings_of_llama_cpp(self):
        settings = self.complete(min_keep=3, repeat_last_n=-1, dry_sequence_breakers=["|"], n_keep=-1,
                                 samplers="edskypmxt")["generation_settings"]
        self.assertEqual((settings["min_keep"], settings["dry_sequence_breakers"]), (3, ["|"]))

    def test_tells_about_itself(self):
        props = self.server.get("/props").json
        self.assertEqual((props["total_slots"], props["default_generation_settings"]["n_ctx"]), (4, 512))
        self.assertEqual([slot["id"] for slot in self.server.get("/slots").json], [0, 1, 2, 3])
        self.assertEqual(self.server.get("/health").json, {"status": "ok"})
        self.assertEqual(self.server.get("/readyz").status, 200)
        self.assertEqual(self.server.get("/livez").status, 200)
        self.assertEqual(self.server.get("/tokenizer_info").json["bos_token"], "<s>")
        self.assertEqual(self.server.ask("HEAD", "/health").body, b"")

    def test_tells_metrics_for_prometheus(self):
        self.complete()
        answer = self.server.get("/metrics")
        self.assertTrue(answer.headers["Content-Type"].startswith("text/plain; version=0.0.4"))
        sample = re.compile(r"([a-z0-9_:]+)(\{[^{}]*\})? (\S+)")
        values = {}
        for line in answer.body.decode().splitlines():
            if line and not line.startswith("#"):
                found = sample.fullmatch(line)
                self.assertTrue(found, line)
                values[found[1]] = values.get(found[1], 0) + float(found[3])
        for name in ("espalier_memory_budget_bytes", "espalier_requests_running", "espalier_requests_waiting",
                     "espalier_kv_cache_usage_ratio", "espalier_predicted_kl", "espalier_transition_seconds_count"):
            self.assertIn(name, values)
        for name in ("espalier_memory_used_bytes", "espalier_blocks_kept", "espalier_generation_tokens_total",
                     "espalier_time_to_first_token_seconds_count", "espalier_inter_token_latency_seconds_count",
                     "espalier_e2e_request_latency_seconds_count", "llamacpp:tokens_predicted_total"):
            self.assertGreater(values[name], 0, name)

    def test_lets_browsers_in(self):
        headers = {"Origin": "https://example.org", "Access-Control-Request-Method": "POST"}
        for path in ("/v1/chat/completions", "/v1/espalier/budget"):
            preflight = self.server.ask("OPTIONS", path, None, headers)
            self.assertEqual(preflight.status, 200)
            self.assertEqual(preflight.headers["Access-Control-Allow-Origin"], "https://example.org")
            self.assertIn("PUT", preflight.headers["Access-Control-Allow-Methods"])
        for answer in (self.server.get("/health", headers), self.server.get("/nowhere", headers),
                       self.server.post("/completion", "not JSON", headers)):
            self.assertEqual(answer.headers["Access-Control-Allow-Origin"], "https://example.org")


class Errors(harness.ServeTest):
    flags = ("-np", 2)

    def assert_refused(self, answer, status, *words):
        self.assertEqual(answer.status, status, answer)
        for word in words:
            self.assertIn(word, answer.error["message"])
        self.assertLess(len(answer.body), 4096)
        self.assert_still_there()

    def assert_still_there(self):
        answer = self.server.post("/v1/completions", {"prompt": "a", "max_tokens": 1})
        self.assertEqual(answer.status, 200, answer)

    def test_refuses_what_is_no_json(self):
        for body in ("", "{", "{]", '{"prompt": "a",}', "null", "[]", "7", '"text"', '{"prompt": "a"} x', "\x00",
                     '{"prompt": "a", "temperature": NaN}', '{"prompt": "a", "temperature": Infinity}',
                     '{"prompt": "a", "temperature": 1e999}', '{"prompt": "\\ud800"}',
                     b'{"prompt": "\xff\xfe"}', b'{"prompt": "\xc0\xaf"}', b"\xef\xbb\xbf\xff"):
            for path in ("/v1/completions", "/completion", "/v1/chat/completions", "/tokenize"):
                self.assert_refused(self.server.post(path, body), 400)

    def test_refuses_nesting_without_end(self):
        for begin, end in ("[", "]"), ('{"a":', "}"):
            body = '{"prompt": ' + begin * 100000 + "1" + end * 100000 + "}"
            self.assert_refused(self.server.post("/v1/completions", body), 400, "levels")
            self.assert_refused(self.server.post("/tokenize", begin * 100000), 400, "levels")

    def test_refuses_wrong_types_and_numbers_out_of_range(self):
        for name, values in {
                "prompt": (7, None, {}, [], [-1], [8192], [2**40], [1.5], [True], [[]], [["a", [1]]], [None]),
                "max_tokens": ("7", -2, 2**31, 1e30, 1.5, True, [], 2**64), "n": (0, -1, 1000, 2**63),
                "temperature": ("hot", -2, 1e30, []), "top_p": (1.5, -0.1), "min_p": (2,), "seed": (1.5, 2**64, "1"),
                "top_k": (-5, 2**40), "stop": (7, [7], ["a"] * 100, "a" * 10000), "logprobs": (-1, 10**6, True),
                "stream": (1, "yes"), "echo": ("no",), "stream_options": (7,), "repeat_penalty": (0, 1e300),
                "logit_bias": (7, {"9999": 1}, {"5": "x"}, {"5": 1e300}, [[5]], {"-1": 1}, [[2**40, 1]]),
                "response_format": (7, {}, {"type": "xml"}, {"type": "json_schema"}), "grammar": (7, "root ::= ("),
                "json_schema": ({"type": "no such type"},), "samplers": (["top_k"],), "n_keep": ("all",),
                "t_max_predict_ms": ("x",), "min_keep": (-1,), "dry_sequence_breakers": ([], "x", [7]), "suffix": ("x",), "model": (7,)}.items():
            for value in values:
                with self.subTest(name=name, value=value):
                    self.assert_refused(self.server.post("/v1/completions", {"prompt": "a", name: value}), 400)

    def test_refuses_grammars_that_libllama_must_not_see(self):
        """It would overflow its stack, run for ever, or print them."""
        logged = len(self.server.log)
        chain = "".join(f"r{i} ::= r{i + 1} | r{i + 1}\n" for i in range(60))
        for grammar, word in (("root ::= " + "(" * 20000 + '"a"' + ")" * 20000, "nested"),
                              ("root ::= " + "(" * 20000, "nested"), ("root ::= missing", "missing"),
                              ("other ::= \"a\"", "root"), ('root ::= root "a"', "left recursion"),
                              ('root ::= "a"{5,2}', "repetitions"), ("root ::= \x1b[31m\nfake log line", "byte"),
                              (f"root ::= r0\n{chain}r60 ::= \"x\"", "ways"),
                              ('root ::= "' + "x" * 1000 + '"{1999}', "at most"), ('root ::= "\\q"', "escape")):
            answer = self.server.post("/v1/completions", {"prompt": "a", "grammar": grammar})
            self.assert_refused(answer, 400, "'grammar'", word)
            self.assertEqual(answer.error["param"], "grammar")
        many = {"type": "object", "properties": {f"p{i}": {"type": "string", "maxLength": 999} for i in range(9)}}
        answer = self.server.post("/v1/completions", {"prompt": "a", "json_schema": many})
        self.assert_refused(answer, 400, "rules")
        self.assertEqual(answer.error["param"], "json_schema")
        self.assertEqual(self.server.log[logged:], [])

    def test_ends_a_grammar_with_too_many_ways_to_read_the_text_and_goes_on_with_the_rest(self):
        """[a-z]++++ can be read in 2^n ways, of which each character makes more."""
        many = {"prompt": PROMPT, "grammar": "root ::= [a-z ]" + 20 * "+", "max_tokens": 100, "temperature": 0}
        other = Generation(self.server, long_request(tokens=200))
        other.began.wait(WAIT_SECONDS)
        self.assert_refused(self.server.post("/v1/completions", many), 400, "too many ways to read")
        self.assertIn("too many ways to read", Generation(self.server, many).finished().error["message"])
        self.assert_complete(other, tokens=200)
        few = {**many, "grammar": "root ::= [a-z ]+++", "max_tokens": 16}
        plain = {**many, "grammar": "root ::= [a-z ]+", "max_tokens": 16}
        texts = [self.server.post("/v1/completions", body).json["choices"][0]["text"] for body in (few, plain)]
        self.assertEqual(texts[0], texts[1])

    def test_refuses_zero_bytes_in_messages(self):
        body = {"messages": [{"role": "user", "content": "before\0after"}]}
        for path in ("/v1/chat/completions", "/apply-template"):
            answer = self.server.post(path, body)
            self.assert_refused(answer, 400, "U+0000")
            self.assertEqual(answer.error["param"], "messages[0].content")

    def test_lets_browsers_read_what_is_no_request(self):
        connection = self.server.connect()
        connection.sendall(b"GET / HTTP/9.9\r\n\r\n")
        answer = read_answer(connection)
        self.assertEqual(answer.headers["Access-Control-Allow-Origin"], "*")
        connection.close()

    def test_refuses_wrong_messages(self):
        for messages in (None, [], 7, [7], [{}], [{"role": "user"}], [{"role": "king", "content": "a"}],
                         [{"role": "user", "content": 7}], [{"role": "user", "content": [{"type": "image_url"}]}]):
            self.assert_refused(self.server.post("/v1/chat/completions", {"messages": messages}), 400)

    def test_names_the_model_it_does_not_have(self):
        answer = self.server.post("/v1/completions", {"prompt": "a", "model": "gpt-4"})
        self.assert_refused(answer, 404, "gpt-4", harness.MODEL_NAME)
        self.assertEqual((answer.error["code"], answer.error["param"]), ("model_not_found", "model"))

    def test_tells_which_methods_a_path_has(self):
        for method, path, allowed in (("GET", "/v1/completions", "POST"), ("DELETE", "/v1/models", "GET"),
                                      ("POST", "/metrics", "GET"), ("GET", "/v1/espalier/budget", "PUT"),
                                      ("PATCH", "/health", "GET")):
            answer = self.server.ask(method, path)
            self.assert_refused(answer, 405, method)
            self.assertEqual(answer.headers["Allow"], f"{allowed}, OPTIONS")

    def test_knows_paths_that_it_does_not_have(self):
        for path in ("/nowhere", "/v1", "/v1/espalier/", "//health", "/v1/models/x", "/..%2f..%2fetc/passwd", "/%00"):
            answer = self.server.get(path)
            self.assertIn(answer.status, (400, 404), path)
            self.assert_refused(answer, answer.status)
        for path in ("/v1/embeddings", "/rerank", "/infill", "/lora-adapters", "/v1/responses"):
            self.assert_refused(self.server.post(path, {}), 501, path)

    def test_tells_how_long_a_prompt_may_be(self):
        for prompt in ("word " * 600, [5] * 600):
            answer = self.server.post("/v1/completions", {"prompt": prompt})
            self.assert_refused(answer, 400, "512")
            self.assertGreaterEqual(answer.error["n_prompt_tokens"], 600)
            self.assertEqual(answer.error["n_ctx"], 512)
        self.assert_refused(self.server.post("/v1/completions", {"prompt": "a" * 30_000_000}), 400, "512")
        self.assertEqual(self.server.post("/v1/completions", {"prompt": [5] * 512, "max_tokens": 9}).status, 200)

    def test_refuses_a_body_that_is_too_large(self):
        body = b'{"prompt": "' + b"a" * 40_000_000 + b'"}'
        connection = self.server.connect()
        try:
            connection.sendall(http_request("POST", "/v1/completions", body))
        except ConnectionError:
            pass  # it need not read all of it
        self.assert_refused(read_answer(connection), 413)
        connection.close()

    def test_refuses_what_is_no_http(self):
        for data in (b"\x16\x03\x01\x02\x00\x01\x00", b"GET\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n",
                     b"GET / HTTP/1.1\r\n\r\n",
                     b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: -5\r\n\r\n",
                     b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"y" * 100_000 + b"\r\n\r\n",
                     b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\nabc"):
            connection = self.server.connect()
            try:
                connection.sendall(data)
                connection.shutdown(socket.SHUT_WR)
                status = connection.recv(100).split(b" ")[1:2]
                self.assertIn(status, ([], [b"400"], [b"413"], [b"431"]), data[:60])
            except ConnectionError:
                pass  # closed without a word: that, too, is no answer
            connection.close()
            self.assert_still_there()

    def test_serves_requests_of_one_connection_in_order(self):
        body = json.dumps({"content": "a"}).encode()
        connection = self.server.connect()
        connection.sendall(http_request("POST", "/tokenize", body) + http_request("GET", "/nowhere")
                           + http_request("GET", "/health"))
        received = b""
        while len(statuses := re.findall(rb"HTTP/1.1 (\d+) ", received)) < 3:
            part = connection.recv(4096)
            self.assertTrue(part, received)
            received += part
        self.assertEqual(statuses, [b"200", b"404", b"200"])
        connection.close()

    def test_gives_up_on_requests_that_never_end(self):
        """Slow loris: a byte now and then. Others are answered meanwhile."""
        slow = [self.server.connect() for _ in range(20)]
        for connection in slow:
            connection.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: a\r\nX-Slow: ")
            connection.setblocking(False)
        answers = {}

        def dribble():
            for connection in slow:
                try:
                    connection.send(b"a")
                    answers.setdefault(connection, connection.recv(1000))
                except BlockingIOError:
                    pass  # no answer yet
                except ConnectionError:
                    answers.setdefault(connection, b"")
            self.assert_still_there()
            time.sleep(0.25)
            return len(answers) == len(slow)

        harness.wait_for(dribble, "slow requests to be given up")
        self.assertTrue(all(answer.startswith(b"HTTP/1.1 408 ") for answer in answers.values()), answers)
        for connection in slow:
            connection.close()


if __name__ == "__main__":
    harness.main()

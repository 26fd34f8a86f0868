"""`espalier serve` answers OpenAI's own client and llama-server's requests. Run: python3 serve_api_test.py BINARY

Needs the packages of scripts/setup-test-clients.
"""

import json
import pathlib
import tempfile

import openai

from support import gguf_metadata
from support import serve_harness as harness
from support.serve_clients import SOCKET_SECONDS, read_answer

PROMPT = "The old house stood at the end of"


def client_of(server, key="none"):
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key=key, max_retries=0, timeout=SOCKET_SECONDS)


class OpenAiCompletions(harness.ServeTest):
    flags = ("-np", 4)

    def complete(self, prompt=PROMPT, tokens=32, **more):
        return client_of(self.server).completions.create(
            model=harness.MODEL_NAME, prompt=prompt, max_tokens=tokens, **{"temperature": 0, **more})

    def text(self, **more):
        return self.complete(**more).choices[0].text

    def test_lists_the_model(self):
        models = client_of(self.server).models.list().data
        self.assertEqual([model.id for model in models], [harness.MODEL_NAME])

    def test_answers_greedily_as_run_does(self):
        run = harness.run_espalier("run", "reference", "-p", PROMPT, "-n", 32, "--temp", 0, "-t", 1, "--json")
        self.assertEqual(run.returncode, 0, run.stderr)
        answer = self.complete()
        self.assertEqual(answer.choices[0].text, json.loads(run.stdout)["text"])
        self.assertEqual(answer.choices[0].finish_reason, "length")
        self.assertEqual(answer.usage.completion_tokens, 32)
        self.assertEqual(answer.usage.total_tokens, answer.usage.prompt_tokens + 32)

    def test_streams_the_same_text_and_then_the_usage(self):
        chunks = list(self.complete(stream=True, stream_options={"include_usage": True}))
        with_choice = [chunk.choices[0] for chunk in chunks if chunk.choices]
        self.assertEqual("".join(choice.text for choice in with_choice), self.text())
        self.assertEqual([choice.finish_reason for choice in with_choice][-1], "length")
        self.assertEqual([chunk.usage is not None for chunk in chunks], [False] * (len(chunks) - 1) + [True])
        self.assertEqual(chunks[-1].usage.completion_tokens, 32)
        self.assertGreater(len(with_choice), 16, "it did not come in parts")

    def test_gives_several_choices(self):
        sampled = {"n": 2, "temperature": 1.0, "seed": 7}
        choices = self.complete(**sampled).choices
        self.assertEqual([choice.index for choice in choices], [0, 1])
        self.assertNotEqual(choices[0].text, choices[1].text)
        streamed = ["", ""]
        for chunk in self.complete(stream=True, **sampled):
            for choice in chunk.choices:
                streamed[choice.index] += choice.text
        self.assertEqual(streamed, [choice.text for choice in choices])

    def test_stops_before_a_stop_string(self):
        whole = self.text()
        stop = whole[20:26]
        cut = whole[:whole.index(stop)]
        answer = self.complete(stop=["never to be seen", stop])
        self.assertEqual((answer.choices[0].text, answer.choices[0].finish_reason), (cut, "stop"))
        streamed = list(self.complete(stop=stop, stream=True))
        self.assertEqual("".join(chunk.choices[0].text for chunk in streamed), cut)

    def test_tells_logprobs(self):
        choice = self.complete(logprobs=3).choices[0]
        self.assertEqual("".join(choice.logprobs.tokens), choice.text)
        self.assertEqual(len(choice.logprobs.token_logprobs), 32)
        for token, own, top in zip(choice.logprobs.tokens, choice.logprobs.token_logprobs,
                                   choice.logprobs.top_logprobs):
            self.assertEqual(len(top), 3)
            self.assertEqual(own, max(top.values()), "greedy: the likeliest")
            self.assertEqual(own, top[token])
            self.assertLessEqual(own, 0)

    def test_scores_prompts_of_tokens_as_lm_evaluation_harness_asks(self):
        def tokens(text):
            body = {"prompt": text, "add_special_tokens": True}
            return self.server.post("/tokenize", body).json["tokens"]

        first = self.complete(tokens=1, logprobs=1).choices[0].logprobs
        prompts = [tokens(PROMPT + first.tokens[0]), tokens("Once upon a time")]
        answer = self.complete(prompt=prompts, tokens=1, logprobs=1, echo=True, seed=1234)
        self.assertEqual([choice.index for choice in answer.choices], [0, 1])
        for prompt, choice in zip(prompts, answer.choices):
            self.assertEqual(len(choice.logprobs.tokens), len(prompt) + 1)
            self.assertEqual(choice.logprobs.token_logprobs[0], None)
            self.assertEqual(choice.logprobs.top_logprobs[0], None)
            self.assertTrue(all(value <= 0 for value in choice.logprobs.token_logprobs[1:]))
        # Told of a prompt's last token: what was told when the model came up with it.
        self.assertEqual(prompts[0][:-1], tokens(PROMPT))
        self.assertAlmostEqual(answer.choices[0].logprobs.token_logprobs[-2], first.token_logprobs[0], delta=0.01)

    def test_repeats_itself_with_a_seed_only(self):
        def sample(seed):
            return self.text(temperature=1.0, seed=seed)

        self.assertEqual(sample(11), sample(11))
        self.assertNotEqual(sample(11), sample(12))
        self.assertEqual(sample(2**60), sample(2**60))

    def test_follows_logit_bias(self):
        def token(text):
            return self.server.post("/tokenize", {"content": text}).json["tokens"][-1]

        first = self.complete(tokens=1, logprobs=0).choices[0].logprobs.tokens[0]
        banned = self.text(tokens=1, logit_bias={str(token(first.strip())): -100})
        self.assertNotEqual(banned, first)
        forced = self.complete(tokens=3, logprobs=0, logit_bias={str(token(" sea")): 100}).choices[0].logprobs.tokens
        self.assertEqual(forced, [" sea"] * 3)

    def test_gives_json(self):
        answer = self.complete(tokens=200, temperature=0.5, seed=3,
                               extra_body={"response_format": {"type": "json_object"}}).choices[0]
        self.assertTrue(answer.text.lstrip().startswith("{"), answer.text)
        if answer.finish_reason == "stop":
            self.assertIsInstance(json.loads(answer.text), dict)

    def test_gives_json_of_a_schema(self):
        schema = {"type": "object", "properties": {"where": {"enum": ["sea", "land"]}, "many": {"type": "boolean"}},
                  "required": ["where", "many"], "additionalProperties": False}
        form = {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}
        for seed in range(4):
            answer = self.complete(tokens=200, temperature=1.5, seed=seed, extra_body={"response_format": form})
            choice = answer.choices[0]
            self.assertEqual(choice.finish_reason, "stop")
            value = json.loads(choice.text)
            self.assertEqual(list(value), ["where", "many"])
            self.assertIn(value["where"], ("sea", "land"))
            self.assertIsInstance(value["many"], bool)

    def test_raises_the_clients_own_errors(self):
        client = client_of(self.server)
        with self.assertRaises(openai.NotFoundError):
            client.completions.create(model="gpt-4", prompt="a")
        with self.assertRaises(openai.BadRequestError):
            self.complete(tokens=-3)
        with self.assertRaises(openai.APIStatusError) as raised:
            self.complete(extra_body={"lora": [{"id": 0, "scale": 1.0}]})
        self.assertEqual(raised.exception.status_code, 501)
        self.assertIn("lora", str(raised.exception))

    def test_chats_without_a_template_as_chatml(self):
        messages = [{"role": "user", "content": "Hi"}]
        answer = self.server.post("/apply-template", {"messages": messages})
        self.assertEqual(answer.json["prompt"], "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n")
        client_of(self.server).chat.completions.create(model=harness.MODEL_NAME, messages=messages, max_tokens=1)
        self.assertIn("no chat template", self.server.log_text())

    def test_echoes_the_prompt_as_it_was_given(self):
        for prompt in (PROMPT, "  spaces ", "naïve 🌍\n"):
            for more in ({}, {"logprobs": 1}):
                with self.subTest(prompt=prompt, more=more):
                    answer = self.text(prompt=prompt, tokens=4, **more)
                    echoed = self.complete(prompt=prompt, tokens=4, echo=True, **more).choices[0]
                    self.assertEqual(echoed.text, prompt + answer)
                    streamed = self.complete(prompt=prompt, tokens=4, echo=True, stream=True, **more)
                    self.assertEqual("".join(chunk.choices[0].text for chunk in streamed), prompt + answer)
                    if more:
                        offsets = echoed.logprobs.text_offset
                        self.assertEqual(offsets, sorted(offsets))
                        self.assertEqual(offsets[-4], len(prompt), "the first token of the answer")


class OpenAiChat(harness.ServeTest):
    TEMPLATE = ("{% for message in messages %}{{'<|im_start|>' + message['role'] + '\\n' + message['content'] + "
                "'<|im_end|>' + '\\n'}}{% endfor %}")
    RENDERED = "<|im_start|>user\nTell of the sea.<|im_end|>\n<|im_start|>assistant\n"
    MESSAGES = [{"role": "user", "content": "Tell of the sea."}]

    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(cls.folder.cleanup)
        model = pathlib.Path(cls.folder.name) / "chat.gguf"
        gguf_metadata.copy_with_string(harness.REFERENCE, model, "tokenizer.chat_template", cls.TEMPLATE)
        cls.server = harness.Server("--alias", "talker", model=model)
        cls.addClassCleanup(cls.server.kill)

    def chat(self, **more):
        return client_of(self.server).chat.completions.create(
            model="talker", messages=self.MESSAGES, **{"max_tokens": 24, "temperature": 0, **more})

    def test_answers_what_the_template_makes_of_messages(self):
        self.assertEqual(self.server.post("/apply-template", {"messages": self.MESSAGES}).json["prompt"], self.RENDERED)
        answer = self.chat()
        self.assertEqual(answer.object, "chat.completion")
        self.assertEqual(answer.choices[0].message.role, "assistant")
        plain = self.server.post("/v1/completions", {"prompt": self.RENDERED, "max_tokens": 24, "temperature": 0}).json
        self.assertEqual(answer.choices[0].message.content, plain["choices"][0]["text"])
        self.assertEqual(answer.usage.prompt_tokens, plain["usage"]["prompt_tokens"])

    def test_streams_deltas(self):
        chunks = list(self.chat(stream=True, stream_options={"include_usage": True}))
        self.assertEqual(chunks[0].choices[0].delta.role, "assistant")
        text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
        self.assertEqual(text, self.chat().choices[0].message.content)
        self.assertEqual(chunks[-1].usage.completion_tokens, 24)

    def test_tells_logprobs(self):
        content = self.chat(logprobs=True, top_logprobs=2).choices[0].logprobs.content
        self.assertEqual(len(content), 24)
        self.assertTrue(all(len(token.top_logprobs) == 2 for token in content))
        self.assertEqual(bytes(byte for token in content for byte in token.bytes).decode(),
                         self.chat().choices[0].message.content)

    def test_refuses_what_it_cannot_do(self):
        for more in ({"tools": [{"type": "function", "function": {"name": "f"}}]}, {"top_logprobs": 2}, {"n": 1000}):
            with self.assertRaises(openai.BadRequestError, msg=more):
                self.chat(**more)


class Keys(harness.ServeTest):
    flags = ("--api-key", "first-key,second-key")

    def complete_with(self, headers):
        return self.server.post("/v1/completions", {"prompt": "a", "max_tokens": 1}, headers)

    def test_asks_for_a_key(self):
        for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "Bearer first-ke"},
                        {"Authorization": "Bearer first-keyx"}, {"Authorization": "Bearer "},
                        {"Authorization": "first-key"}, {"X-Api-Key": "first-key,second-key"}):
            answer = self.complete_with(headers)
            self.assertEqual((answer.status, answer.error["code"]), (401, "invalid_api_key"), headers)
            self.assertEqual(answer.headers["WWW-Authenticate"], "Bearer")

    def test_opens_with_any_of_the_keys(self):
        for headers in ({"Authorization": "Bearer first-key"}, {"Authorization": "Bearer second-key"},
                        {"X-Api-Key": "second-key"}):
            self.assertEqual(self.complete_with(headers).status, 200, headers)
        self.assertEqual(len(client_of(self.server, "second-key").completions.create(
            model=harness.MODEL_NAME, prompt="a", max_tokens=1).choices), 1)
        with self.assertRaises(openai.AuthenticationError):
            client_of(self.server, "third").completions.create(model=harness.MODEL_NAME, prompt="a")

    def test_tells_of_a_wrong_key_before_the_body_comes(self):
        for more in ("Content-Length: 30000000", "Content-Length: 30000000\r\nExpect: 100-continue",
                     "Transfer-Encoding: chunked"):
            connection = self.server.connect()
            connection.sendall("POST /v1/completions HTTP/1.1\r\nHost: test\r\nAuthorization: Bearer wrong\r\n"
                               f"Origin: http://elsewhere\r\n{more}\r\n\r\n".encode())
            answer = read_answer(connection)
            self.assertEqual((answer.status, answer.error["code"]), (401, "invalid_api_key"), more)
            self.assertEqual(answer.headers["WWW-Authenticate"], "Bearer")
            self.assertEqual(answer.headers["Access-Control-Allow-Origin"], "http://elsewhere")
            self.assertEqual(connection.recv(1), b"", "the connection should have ended")
            connection.close()

    def test_guards_everything_but_what_is_open(self):
        for path in ("/", "/health", "/v1/health", "/livez", "/readyz", "/v1/models", "/models"):
            self.assertEqual(self.server.get(path).status, 200, path)
        for path in ("/metrics", "/props", "/slots", "/v1/espalier/memory", "/v1/espalier/plan", "/v1/espalier/state",
                     "/v1/espalier/events", "/tokenizer_info"):
            self.assertEqual(self.server.get(path).status, 401, path)
        self.assertEqual(self.server.put_budget("70%").status, 401)
        for path in ("/completion", "/tokenize", "/detokenize", "/v1/chat/completions", "/apply-template"):
            self.assertEqual(self.server.post(path, {}).status, 401, path)

    def test_reads_keys_from_a_file_and_from_the_environment(self):
        with tempfile.NamedTemporaryFile("w", suffix=".keys") as keys:
            keys.write("\nfrom-file\r\n")
            keys.flush()
            server = self.start("--api-key-file", keys.name, env={"ESPALIER_API_KEY": "from-environment"})
        for key, status in (("from-file", 200), ("from-environment", 200), ("", 401)):
            self.assertEqual(server.get("/props", {"X-Api-Key": key}).status, status, key)


if __name__ == "__main__":
    harness.main()

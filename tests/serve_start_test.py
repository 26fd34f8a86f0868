"""How `espalier serve` starts, or does not: flags, environment, files of options, keys.

Run: python3 serve_start_test.py BINARY
"""

import socket
import tempfile
import threading
import urllib.error
import urllib.request

from support import serve_harness as harness
from support.serve_clients import SOCKET_SECONDS, WAIT_SECONDS, wait_for


class Beginning(harness.ServeTest):
    def assert_fails(self, code, arguments, *words, env=None):
        with self.subTest(arguments=arguments):
            run = harness.run_espalier("serve", *arguments, env=env)
            self.assertEqual(run.returncode, code, run.stderr)
            self.assertEqual(len(run.stderr.splitlines()), 1, run.stderr)
            for word in words:
                self.assertIn(str(word), run.stderr)

    def test_a_port_that_is_taken(self):
        server = self.start()
        self.assert_fails(1, ["reference", "--port", server.port], "127.0.0.1", server.port)
        self.assertEqual(server.get("/health").status, 200)

    def test_wrong_flags(self):
        for arguments in (["--port", "70000"], ["--port", "http"], ["-np", "0"], ["--max-queue", "-1"], ["--nonsense"],
                          ["--timeout", "0"], ["--shutdown-timeout", "-1"], ["--threads-http", "0"],
                          ["--max-connections", "0"], ["reference", "twin"], ["--tick-ms", "nan"], ["--temp", "nan"],
                          ["--repeat-penalty", "0"], ["--min-p", "2"], ["--repeat-last-n", "-2"], ["--typical", "-1"],
                          ["--shutdown-timeout", "nan"], ["--max-loss", "nan"], ["-hf", "user/model"]):
            word = {"-np": "parallel", "reference": "twin", "-hf": "downloaded"}.get(arguments[0], arguments[0])
            self.assert_fails(2, arguments, word)
        for arguments in (["--memory-budget", "200%"], ["--memory-budget", "0"], ["--memory-budget", "some"],
                          ["--host", "256.1.1.1"], ["--policy", "nonsense"],
                          ["--api-key-file", "/no/such/file"], ["--event-log", "/no/such/folder/log"]):
            self.assert_fails(1, ["--port", "0", *arguments], arguments[1])
        self.assert_fails(1, ["/no/such/model.gguf", "--port", "0"], "/no/such/model.gguf")
        self.assert_fails(1, ["", "--port", "0"], "MODEL")
        self.assert_fails(2, [], "port", env={"ESPALIER_PORT": "none"})
        self.assert_fails(2, ["--port", "99999"], "0 to 65535")
        with tempfile.NamedTemporaryFile("w", suffix=".gbnf") as grammar:
            grammar.write("root ::= " + "(" * 20000)
            grammar.flush()
            self.assert_fails(1, ["--port", "0", "--grammar-file", grammar.name], "--grammar-file", "nested")

    def test_no_key_is_no_open_server(self):
        for keys in ("", ",", ",,"):
            self.assert_fails(1, ["--port", "0", "--api-key", keys], "--api-key")
            self.assert_fails(1, ["--port", "0"], "ESPALIER_API_KEY", env={"ESPALIER_API_KEY": keys})

    def test_flags_of_llama_server(self):
        server = self.start("-np", 1, "--jinja", "--no-mmap", "--mlock", "-cb", "--cache-prompt", "--no-webui", "--slots",
                            "--log-disable", "-v", "-tb", 2, "--n-gpu-layers", 0, "--temperature", 0, "-n", 5, "-fa", 1,
                            "-c", 100000, "--repeat-last-n", -1)
        props = server.get("/props").json["default_generation_settings"]
        self.assertEqual((props["n_ctx"], props["params"]["temperature"]), (512, 0))
        self.assertIn("warning: -c 100000", server.log_text())
        for path in ("/completion", "/v1/completions"):
            answer = server.post(path, {"prompt": "a", "ignore_eos": True}).json
            self.assertEqual(answer.get("tokens_predicted") or answer["usage"]["completion_tokens"], 5)

    def test_the_command_line_counts_more_than_the_other_flag_in_the_environment(self):
        server = self.start("--drop", "a3", env={"ESPALIER_PLAN": "a0=0"})
        self.assertEqual(server.dropped(), ["a3"])
        server = self.start("--plan", "a0=0", env={"ESPALIER_DROP": "a3"})
        self.assertEqual(server.dropped(), ["a0"])
        self.assert_fails(2, ["--port", "0", "--drop", "a3", "--plan", "a0=0"], "excludes")

    def test_a_file_without_keys(self):
        with tempfile.NamedTemporaryFile() as empty:
            self.assert_fails(1, ["--port", "0", "--api-key-file", empty.name], empty.name)

    def test_options_from_the_environment(self):
        server = self.start(env={"ESPALIER_CTX_SIZE": "300", "ESPALIER_PARALLEL": "3"})
        props = server.get("/props").json
        self.assertEqual((props["total_slots"], props["default_generation_settings"]["n_ctx"]), (3, 100))

    def test_options_from_a_file(self):
        with tempfile.NamedTemporaryFile("w", suffix=".toml") as file:
            file.write('alias = "from-file"\nparallel = 3\n')
            file.flush()
            server = self.start("--config", file.name, "-np", 2)
        props = server.get("/props").json
        self.assertEqual((props["model_alias"], props["total_slots"]), ("from-file", 2), "the command line counts more")

    def test_a_file_of_options_that_is_not_there(self):
        self.assert_fails(2, ["--port", "0", "--config", "/no/such/file"], "/no/such/file")

    def test_says_that_it_is_loading_until_it_is_ready(self):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        statuses = []

        def ask():
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=SOCKET_SECONDS) as answer:
                    statuses.append(answer.status)
            except urllib.error.HTTPError as error:
                statuses.append(error.code)
                error.close()
            except OSError:
                pass  # it does not listen yet
            return statuses[-1:] == [200]

        asker = threading.Thread(target=lambda: wait_for(ask, "the server to be ready"), daemon=True)
        asker.start()
        server = self.start("--port", port, "--no-metrics")
        asker.join(WAIT_SECONDS)
        self.assertEqual(statuses[-1], 200)
        self.assertLessEqual(set(statuses[:-1]), {503})
        self.assertEqual(server.get("/metrics").status, 404)


if __name__ == "__main__":
    harness.main()

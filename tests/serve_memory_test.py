"""`espalier serve` keeps its memory below a budget that moves while it answers.

Run: python3 serve_memory_test.py BINARY
"""

import json
import os
import pathlib
import tempfile
import threading
import time

from support import serve_harness as harness
from support.serve_clients import WAIT_SECONDS, Generation, Load, Stream, long_request, wait_for

MIB = 1024 * 1024
# Looks at the limit often, so that tests need not wait; believes a rise soon.
QUICK = ("--tick-ms", 50, "--grow-after-ms", 200)
# The kernel's figure has stacks and the heap of connections in it, which the books do not have.
MEASURED_TOLERANCE = 6 * MIB


class Budget(harness.ServeTest):
    def set_budget(self, server, value):
        answer = server.put_budget(value)
        self.assertEqual(answer.status, 202, answer)
        return answer.json

    def wait_until_within(self, server, answer):
        """Below the new budget by the deadline that was told. Slack: this process has to be scheduled, too."""
        limit = answer["budget_bytes"]

        def within():
            memory = server.memory()
            return memory["budget_bytes"] == limit and memory["used_bytes"] <= limit and memory
        return wait_for(within, f"use below {limit}", answer["deadline_ms"] / 1000 + 30)

    def assert_measured(self, memory):
        self.assertLess(abs(memory["measured_managed_bytes"] - memory["managed_bytes"]), MEASURED_TOLERANCE, memory)

    def wait_until_dense(self, server):
        wait_for(lambda: not server.dropped(), "all blocks to be back")

    def assert_greedy(self, server, generation):
        """Every token of the answer is the likeliest after those before it, as one computation of it all has them.

        Not the same text each time: what is computed anew is rounded differently, which may decide between equals.
        """
        whole = {"prompt": generation.body["prompt"] + generation.text, "echo": True, "max_tokens": 0, "logprobs": 1}
        scores = server.post("/v1/completions", whole).json["choices"][0]["logprobs"]
        n_prompt = server.post("/tokenize", {"prompt": generation.body["prompt"]}).json["count"]
        gaps = [max(top.values()) - own
                for top, own in zip(scores["top_logprobs"][n_prompt:], scores["token_logprobs"][n_prompt:])]
        self.assertGreaterEqual(len(gaps), 390)
        self.assertLess(max(gaps), 0.02)

    def test_steps_down_and_up_while_it_answers(self):
        server = self.start("-np", 4, *QUICK, "--memory-budget", "100%")
        self.assertEqual(server.dropped(), [])
        load = Load(server, 6)
        for percent in (80, 60):
            memory = self.wait_until_within(server, self.set_budget(server, f"{percent}%"))
            self.assertEqual(memory["budget_source"], "operator")
            self.assert_measured(memory)
            self.assertTrue(server.dropped())
            self.assertNotEqual(server.get("/v1/espalier/plan").json["keep"], {})
        within = [server.memory() for _ in range(50)]
        self.assertTrue(all(memory["used_bytes"] <= memory["budget_bytes"] for memory in within))
        self.set_budget(server, "auto")
        self.wait_until_dense(server)
        finished = load.end()
        self.assertGreaterEqual(len(finished), 6)
        for generation in finished:
            self.assert_complete(generation)
        self.assert_measured(server.memory())
        self.assertEqual(server.counters()["violations"], 0)
        self.assertEqual(server.counters()["failed"], 0)

    def test_refuses_budgets_that_can_never_be_met(self):
        server = self.start(*QUICK, "--memory-budget", "90%")
        before = server.memory()
        minimum = before["minimum_bytes"]
        for value in (1, minimum - 1, "1KiB", "0.01%"):
            answer = server.put_budget(value)
            self.assertEqual((answer.status, answer.error["code"]), (409, "budget_below_minimum"), answer)
            self.assertEqual(answer.error["minimum_bytes"], minimum)
            self.assertIn(str(minimum), answer.error["message"])
        for body in ({}, {"memory_budget": None}, {"memory_budget": 0}, {"memory_budget": -5}, {"memory_budget": 1.5},
                     {"memory_budget": True}, {"memory_budget": "150%"}, {"memory_budget": "much"},
                     {"memory_budget": ""}, {"memory_budget": 2**64}, {"budget": "70%"},
                     {"memory_budget": "70%", "soon": True}, []):
            self.assertEqual(server.ask("PUT", "/v1/espalier/budget", body).status, 400, body)
        self.assertEqual(server.memory()["budget_bytes"], before["budget_bytes"])
        self.assertEqual(self.set_budget(server, minimum)["budget_bytes"], minimum)

    def test_ends_at_once_where_the_flag_can_never_be_met(self):
        run = harness.run_espalier("serve", "reference", "--port", 0, "--memory-budget", "1MiB")
        self.assertEqual(run.returncode, 1)
        self.assertEqual(len(run.stderr.splitlines()), 1, run.stderr)
        self.assertIn("1048576", run.stderr)

    def test_lists_events_in_order_and_streams_them(self):
        server = self.start(*QUICK, "--memory-budget", "100%", "--event-log", "events.jsonl")
        stream = Stream(server, "GET", "/v1/espalier/events", headers={"Accept": "text/event-stream"})
        streamed = []
        reader = threading.Thread(target=lambda: streamed.extend(self.until_dense(stream)), daemon=True)
        reader.start()
        self.wait_until_within(server, self.set_budget(server, "60%"))
        self.set_budget(server, "100%")
        reader.join(WAIT_SECONDS)
        self.assertFalse(reader.is_alive(), "no event said that all blocks are back")
        stream.close()
        listed = server.get("/v1/espalier/events").json
        numbers = [event["number"] for event in listed["events"]]
        self.assertEqual(numbers, list(range(1, listed["last"] + 1)))
        self.assertEqual(listed["events"][:len(streamed)], streamed)
        kinds = {event["kind"] for event in streamed}
        self.assertLessEqual({"limit", "transition"}, kinds)
        first = next(event["transition"] for event in streamed if event["kind"] == "transition")
        self.assertGreater(first["blocks_released"], 0)
        self.assertLess(first["after"]["managed_bytes"], first["before"]["managed_bytes"])
        later = server.get(f"/v1/espalier/events?after={numbers[-2]}").json["events"]
        self.assertEqual([event["number"] for event in later], numbers[-1:])
        self.assertEqual(server.get("/v1/espalier/events?after=x").status, 400)
        self.assertEqual(server.stop(), 0)
        log = (server.folder / "events.jsonl").read_text().splitlines()
        self.assertEqual([json.loads(line)["number"] for line in log[:len(numbers)]], numbers)

    @staticmethod
    def until_dense(stream):
        dropped = False
        for event in stream:
            yield event
            after = event["transition"]["plan_after"] if "transition" in event else None
            dropped = dropped or after not in (None, "dense")
            if dropped and after == "dense":
                return

    def test_refuses_what_can_never_fit(self):
        server = self.start("-np", 2, *QUICK, "--memory-budget", "100%", "--policy", "static")
        self.wait_until_within(server, self.set_budget(server, server.memory()["minimum_bytes"]))
        answer = server.post("/v1/completions", long_request(tokens=500))
        self.assertEqual((answer.status, answer.error["code"]), (400, "out_of_budget"), answer)
        self.assertIn(str(server.memory()["budget_bytes"]), answer.error["message"])
        self.assertEqual(server.counters()["refused"], 1)
        self.assertEqual(server.post("/v1/completions", long_request("a", 2)).status, 200, "that much fits")
        self.set_budget(server, "100%")
        wait_for(lambda: server.post("/v1/completions", long_request(tokens=500)).status == 200, "room to be back")

    # A policy that drops nothing leaves only the requests to give memory up.
    def test_preempts_and_still_completes_everything(self):
        server = self.start("-np", 4, *QUICK, "--memory-budget", "100%", "--policy", "static")
        for budget in ("90%", server.memory()["minimum_bytes"]):
            before = server.counters()["preemptions"]
            streams = [Generation(server, long_request(f"Chapter {i}. It was")) for i in range(6)]
            wait_for(lambda: server.state()["running"] == 4, "requests to run")
            self.wait_until_within(server, self.set_budget(server, budget))
            wait_for(lambda: server.counters()["preemptions"] > before, "a request to give its memory up")
            if budget != "90%":  # room for none of them
                wait_for(lambda: server.state()["running"] == 0, "all requests to wait")
                self.assertTrue(all(stream.is_alive() for stream in streams))
                self.set_budget(server, "100%")
            for stream in streams:
                self.assert_complete(stream)
            self.set_budget(server, "100%")
            for stream in streams:
                self.assert_greedy(server, stream)
        self.assertIn("preempt", {event["kind"] for event in server.get("/v1/espalier/events").json["events"]})
        self.assertEqual(server.counters()["failed"], 0)


class FakeCgroups:
    """A tree of control groups in which this process, and so a server of its own, has a group in every hierarchy."""

    def __init__(self, folder):
        self.root = pathlib.Path(folder)
        self.v1, self.v2 = [], []
        for line in pathlib.Path("/proc/self/cgroup").read_text().splitlines():
            _, controllers, group = line.split(":", 2)
            if controllers == "":
                self.v2.append(self.root / group.strip("/"))
            elif "memory" in controllers.split(","):
                self.v1.append(self.root / "memory" / group.strip("/"))
        for group in self.v2:
            self.add(group, {"memory.max": "max", "memory.high": "max", "memory.stat": "anon 0\nshmem 0\n"})
        for group in self.v1:
            self.add(group, {"memory.limit_in_bytes": 2**63 - 4096, "memory.stat": "rss 0\ntotal_rss 0\n"})

    def add(self, group, files):
        group.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            (group / name).write_text(f"{text}\n")

    def write(self, name, value):
        groups = self.v1 if name == "memory.limit_in_bytes" else self.v2
        for group in groups:
            new = group / (name + ".new")  # as the kernel does: never half a number
            new.write_text(f"{value}\n")
            os.rename(new, group / name)
        return bool(groups)


class Sources(harness.ServeTest):
    def check_follows(self, name, unlimited):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        groups = FakeCgroups(folder.name)
        if not groups.write(name, unlimited):
            self.skipTest(f"this process is in no control group that would have a {name}")
        server = self.start("-np", 4, *QUICK, "--memory-budget", "auto", "--cgroup-root", folder.name)
        memory = server.memory()
        self.assertEqual(memory["budget_source"], "system")
        load = Load(server, 6)
        high = int((memory["process_bytes"] + 0.7 * memory["dense_peak_bytes"]) / 0.9)
        groups.write(name, high)

        def within():
            now = server.memory()
            return now["budget_source"] == "cgroup" and now["used_bytes"] <= now["budget_bytes"] and now
        now = wait_for(within, "use below the group's limit")
        self.assertLessEqual(now["budget_bytes"], 0.9 * high)
        self.assertTrue(server.dropped())
        groups.write(name, unlimited)
        wait_for(lambda: not server.dropped(), "all blocks to be back")
        for generation in load.end():
            self.assert_complete(generation)
        self.assertEqual(server.memory()["budget_source"], "system")

    def test_follows_memory_high(self):
        self.check_follows("memory.high", "max")

    def test_follows_memory_max(self):
        self.check_follows("memory.max", "max")

    def test_follows_the_limit_of_version_1(self):
        self.check_follows("memory.limit_in_bytes", 2**63 - 4096)

    def test_pressure_holds_growth_back_for_a_while(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        fifo = pathlib.Path(folder.name) / "pressure"
        os.mkfifo(fifo)
        server = self.start(*QUICK, "--memory-budget", "60%", env={"MEMORY_PRESSURE_WATCH": str(fifo)})
        self.assertFalse(server.memory()["pressure"])
        self.assertTrue(server.dropped())
        fifo.write_bytes(b"x")
        wait_for(lambda: server.memory()["pressure"], "pressure to be noticed")
        self.assertEqual(server.put_budget("100%").status, 202)

        def over():
            state = server.state()
            if state["memory"]["pressure"]:
                self.assertIn("dropped", {block["state"] for block in state["plan"]["blocks"]})
                time.sleep(0.05)
            return not state["memory"]["pressure"]
        wait_for(over, "pressure to be over")
        wait_for(lambda: not server.dropped(), "all blocks to be back")

    def test_serves_on_where_there_is_no_pressure_to_watch(self):
        server = self.start(env={"MEMORY_PRESSURE_WATCH": "/nowhere/at/all"})
        self.assertIn("/nowhere/at/all", server.log_text())
        self.assertEqual(server.get("/readyz").status, 200)


if __name__ == "__main__":
    harness.main()

"""The page of `espalier serve` in a browser: what it shows is what the server does.

Run: python3 serve_page_test.py BINARY
$ESPALIER_SCREENSHOT: where a picture of the page at work is written. Needs /usr/bin/chromium, which apt-get installs.
"""

import os

from support import browser as browsers
from support import serve_harness as harness
from support.serve_clients import Load, wait_for

STATES = "[...document.querySelectorAll('#blocks [data-block]')].map((block) => block.dataset.state)"
DROPPED = ("[...document.querySelectorAll('#blocks [data-state=dropped]')]"
           ".filter((block) => block.dataset.block).map((block) => block.dataset.block)")


class Page(harness.ServeTest):
    flags = ("-np", 8, "--memory-budget", "100%", "--tick-ms", 50, "--grow-after-ms", 200)

    def setUp(self):
        self.assertEqual(self.server.put_budget("100%").status, 202)
        self.browser = browsers.Browser(1280, 1500)
        self.addCleanup(self.browser.close)
        self.browser.open(f"{self.server.url}/")
        self.wait_for_text("#status", "Connected")
        self.wait_for_states({"kept"})

    def wait_for_text(self, selector, words):
        wait_for(lambda: words in self.browser.text(selector), f"{selector} to say {words!r}")

    def wait_for_states(self, expected):
        wait_for(lambda: set(self.browser.run(STATES)) == expected, f"blocks to be {expected}")

    def send(self, prompt, tokens):
        self.browser.write("#prompt", prompt)
        self.browser.write("#max-tokens", str(tokens))
        self.browser.write("#temperature", "0")
        self.browser.click("#send")

    def assert_no_errors(self):
        self.browser.run("1")  # whatever was reported before this has come
        self.assertEqual(self.browser.errors, [])

    def test_blocks_leave_and_return_with_the_slider_while_an_answer_comes(self):
        self.assertEqual(len(self.browser.run(STATES)), 32)
        # Others make the answer last, and the list of requests worth looking at.
        others = Load(self.server, 7)
        picture = os.environ.get("ESPALIER_SCREENSHOT")
        for budget in ("80%", "100%", "60%", "100%") if picture else ():
            self.show_for_a_while(budget)
        self.send("The old house stood at the end of", 480)
        wait_for(lambda: self.browser.text("#answer"), "an answer to begin")
        self.browser.drag("#budget-slider", 0.99, 0.5)
        self.wait_for_text("#budget-note", "Accepted")
        wait_for(lambda: "dropped" in self.browser.run(STATES), "blocks to leave")
        memory = wait_for(self.within_budget, "use below the budget")
        self.assertLess(memory["budget_bytes"], memory["process_bytes"] + 0.8 * memory["dense_peak_bytes"])
        wait_for(lambda: int(self.browser.run("$('budget-bytes').dataset.bytes")) == memory["budget_bytes"],
                 "the page to show the budget")
        wait_for(lambda: self.browser.run(DROPPED) == self.server.dropped() != [], "the page to show the plan")
        if picture:
            self.browser.screenshot(picture)
        self.wait_for_text("#answer-summary", "finish: length")
        self.assertGreater(self.browser.run("document.querySelectorAll('#answer .stretch').length"), 1,
                           "the answer began under one plan and ended under another")
        self.browser.write("#budget-text", "100%")
        self.browser.click("#budget-set")
        self.wait_for_states({"kept"})
        events = self.browser.run("[...document.querySelectorAll('#events li')].map((event) => event.dataset.kind)")
        self.assertIn("transition", events)
        for other in others.end():
            self.assert_complete(other)
        self.assert_no_errors()

    def show_for_a_while(self, budget):
        """So that the chart has something to show."""
        self.server.put_budget(budget)
        enough = self.browser.run("samples.length") + 30
        wait_for(lambda: self.browser.run("samples.length") >= enough, "the page to gather figures")

    def within_budget(self):
        memory = self.server.memory()
        return memory["used_bytes"] <= memory["budget_bytes"] and memory

    def test_tells_how_much_of_it_is_the_process(self):
        self.assertRegex(self.browser.text("#used-note"), r"^[1-9][0-9.]* MiB of it the process$")

    def test_the_answer_is_the_servers(self):
        self.send("Once upon a time", 48)
        self.wait_for_text("#answer-summary", "finish: length")
        body = {"prompt": "Once upon a time", "max_tokens": 48, "temperature": 0}
        self.assertEqual(self.browser.text("#answer"),
                         self.server.post("/v1/completions", body).json["choices"][0]["text"])
        self.assert_no_errors()

    def test_budgets_as_text_and_refusals(self):
        for text, words in (("1", "can never be met"), ("much", "expected bytes"), ("", "Write a size")):
            self.browser.write("#budget-text", text) if text else self.browser.run("$('budget-text').value = ''")
            self.browser.click("#budget-set")
            self.wait_for_text("#budget-error", words)
        self.browser.errors.clear()  # the console tells of every 409 and 400
        self.browser.write("#budget-text", "60%")
        self.browser.click("#budget-set")
        wait_for(lambda: "dropped" in self.browser.run(STATES), "blocks to leave")
        self.assertTrue(self.browser.run("$('budget-error').hidden"))
        self.browser.click("#budget-auto")
        self.wait_for_states({"kept"})
        self.wait_for_text("#budget-source", "by system")
        self.assert_no_errors()

    def test_text_of_the_model_and_of_prompts_is_never_markup(self):
        self.browser.run("beginAnswer(); appendAnswer('<img src=x onerror=\"throw 1\">')")
        self.assertEqual(self.browser.run("document.querySelectorAll('#answer img').length"), 0)
        self.assertIn("<img", self.browser.text("#answer"))
        self.assert_no_errors()


class KeyedPage(harness.ServeTest):
    flags = ("--api-key", "sesame")

    def test_asks_for_the_key_and_uses_it(self):
        browser = browsers.Browser(1000, 800)
        self.addCleanup(browser.close)
        browser.open(f"{self.server.url}/")
        wait_for(lambda: not browser.run("$('key-form').hidden"), "the page to ask for a key")
        browser.write("#api-key", "sesame")
        browser.click("#key-form button")
        wait_for(lambda: browser.text("#status") == "Connected", "the key to open")
        wait_for(lambda: len(browser.run(STATES)) == 32, "blocks to be shown")


if __name__ == "__main__":
    harness.main()

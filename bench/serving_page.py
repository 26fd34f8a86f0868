"""docs/results/serving.md, from what the steps of serving_results.py left in the work folder."""
import random

from measurement_page import met, percent, table

LEAST_OF_LLAMA = 1.0  # tokens a second over llama-server's
LEAST_OF_LOOP = 0.95  # over the loop's without HTTP
MOST_FRONT_END_US = 20  # of all threads but the engine's, per token
MOST_PREDICTION_ERROR = 0.01
MOST_GAP_OF_CHUNK = 1.5  # of --prefill-ms
MOST_GROWTH = 0.05  # of resident memory, from a fifth of the requests on
STEPS = ("throughput-F16", "throughput-Q4_K_M", "frontend", "cut", "cut-cgroup", "cut-llama", "clients", "prefill")


def middle(values):
    """Median (lowest-highest) as text needs figures: (median, low, high); None of nothing."""
    found = sorted(v for v in values if v is not None)
    if not found:
        return None
    half = len(found) // 2
    median = found[half] if len(found) % 2 else (found[half - 1] + found[half]) / 2
    return median, found[0], found[-1]


def spread(values, form="{:.1f}"):
    found = middle(values)
    return "-" if found is None else f"{form.format(found[0])} ({form.format(found[1])}-{form.format(found[2])})"


def interval(values, draws=2000):
    """Of the median, 95 %, by drawing from the values anew (bootstrap)."""
    draw = random.Random(1)
    medians = sorted(middle(draw.choices(values, k=len(values)))[0] for _ in range(draws))
    return medians[int(0.025 * draws)], medians[int(0.975 * draws) - 1]


def verdict(bounds, least):
    """Whether what is asked for lies below all that the median may be, above, or within."""
    low, high = bounds
    return met(low >= least) if low >= least or high < least else "within the noise"


def ms(seconds):
    return "-" if seconds is None else f"{1e3 * seconds:.0f}"


def mb(number):
    return "-" if number is None else f"{number / 1e6:.1f}"


class Page:
    def __init__(self, bench):
        self.bench = bench

    def load(self, step):
        return self.bench.load(step) if self.bench.done(step) else None

    # -----------------------------------------------------------------------------------------------------------------
    # Throughput

    @staticmethod
    def ratios(runs, key, over):
        """Of neighbours in time: each run's own."""
        return [run["espalier"][key] / run[over][key] for run in runs if run["espalier"][key] and run[over][key]]

    def by_parallel(self, result):
        for number in sorted({run["parallel"] for run in result["runs"]}):
            yield number, [run for run in result["runs"] if run["parallel"] == number]

    def throughput_section(self, result):
        rows = []
        for number, runs in self.by_parallel(result):
            reads = [result["step_bytes"] * run["espalier"]["decode_rate"] / number / 1e9 for run in runs
                     if run["espalier"]["decode_rate"]]
            rows.append([number, *[spread([run[who]["rate"] for run in runs]) for who in ("espalier", "llama-server", "replay")],
                         spread(self.ratios(runs, "rate", "llama-server"), "{:.3f}"),
                         spread(self.ratios(runs, "rate", "replay"), "{:.3f}"),
                         spread([run["espalier"]["decode_rate"] for run in runs]), spread(reads),
                         spread(self.ratios(runs, "decode_rate", "llama-server"), "{:.3f}"),
                         spread(self.ratios(runs, "decode_rate", "replay"), "{:.3f}")])
        shares = [run[who]["client_share"] for run in result["runs"] for who in ("espalier", "llama-server")]
        return f"""### {result['shape']}, {result['type']}

Prompts of {result['prompt_tokens']} tokens, {result['max_tokens']} generated; a decode step reads {result['step_bytes'] / 1e9:.2f} GB of \
weights, the machine {result['bandwidth'] / 1e9:.1f} GB/s. The client took {percent(max(shares))} of a core at most.

""" + table(["streams", "tok/s", "llama-server", "loop without HTTP", "ratio to llama-server", "ratio to the loop",
             "decode tok/s", "decode GB/s", "decode ratio to llama-server", "decode ratio to the loop"], rows) + "\n"

    def frontend_section(self, result):
        rows = []
        for number, runs in self.by_parallel(result):
            for who in ("espalier", "llama-server"):
                rows.append([number, who, spread([r[who]["rate"] for r in runs], "{:.0f}"),
                             spread([r[who]["engine_us"] for r in runs]), spread([r[who]["others_us"] for r in runs])])
            rows.append([number, "loop without HTTP", spread([r["replay"]["rate"] for r in runs], "{:.0f}"),
                         spread([r["replay"]["engine_us"] for r in runs]), "-"])
            rows.append([number, "woken and sends, nothing else", "-", "-", spread([r["floor_us"] for r in runs])])
        return f"""The bundled model, which is small, one thread for the engine, {result['max_tokens']} tokens each. Microseconds of processor time per \
generated token, from
/proc/PID/task/*/schedstat: of the engine's thread (the busiest), and of all others together. What this machine takes in any
case: a thread that is woken for each step and sends 250 bytes for each stream (`bench/loopback_floor.cpp`).

""" + table(["streams", "", "tok/s", "us of the engine's thread", "us of the others"], rows) + "\n"

    # -----------------------------------------------------------------------------------------------------------------
    # A cut

    @staticmethod
    def worst_error(run, key):
        found = [p[key] for p in run["predictions"] if p[key] is not None]
        return max(found) if found else None

    def cut_section(self, result):
        runs = result["runs"]
        first = runs[0]
        limits = first["budget"]["low"]
        rows = [["requests, lost", *[f"{r['requests']}, {r['lost']}" for r in runs]],
                ["ms from PUT until within the limit, by the account", *[ms(r["course"]["used_s"]) for r in runs]],
                ["likewise by the kernel (RssAnon)", *[ms(r["course"]["anonymous_s"]) for r in runs]],
                ["likewise until the event of the release", *[ms(r["event_s"]) for r in runs]],
                ["deadline told, ms", *[r["budget"]["low"]["deadline_ms"] for r in runs]],
                ["released, MB", *[mb(r["moved_bytes"]) for r in runs]],
                ["between tokens, steady: p50 / p99 / max ms", *[self.latency(r["steady"]) for r in runs]],
                ["2.5 s before to 2.5 s after the cut", *[self.latency(r["around_cut"]) for r in runs]],
                ["allowed: two steps and bytes at 2 GB/s, ms", *[ms(r["allowed_gap_s"]) for r in runs]],
                ["at 60 %", *[self.latency(r["low"]) for r in runs]],
                ["while blocks return", *[self.latency(r["growing"]) for r in runs]],
                ["in the seconds after that", *[self.latency(r["regrown"]) for r in runs]],
                ["from the rise to the last token of all", *[self.latency(r["after_rise"]) for r in runs]],
                ["tok/s before, at 60 %, after", *[" / ".join(f"{r[k]['tokens_per_second']:.1f}" for k in (
                    "steady", "low", "regrown")) for r in runs]],
                ["s from PUT 100 % until all blocks are back", *[f"{r['regrowth_s']:.1f}" if r["regrowth_s"] else "-"
                                                                 for r in runs]],
                ["worst prediction of managed bytes, against the account", *[self.share(self.worst_error(r, "error"))
                                                                            for r in runs]],
                ["likewise against the kernel's", *[self.share(self.worst_error(r, "error_measured")) for r in runs]],
                ["preemptions, violations", *[f"{r['preemptions']}, {r['violations']}" for r in runs]]]
        return f"""{result['streams']} streams of {first['max_tokens']} tokens on {first['model']['shape']} {first['model']['type']}; \
`--memory-budget 100%`, then PUT {result['low']} ({mb(limits['budget_bytes'])} MB), then 100 % again.
Memory is sampled every {first['course']['sample_ms']:.0f} ms over a connection of its own.

""" + table(["", *[f"run {i + 1}" for i in range(len(runs))]], rows) + "\n"

    @staticmethod
    def latency(figures):
        return " / ".join(ms(figures[key]) for key in ("p50", "p99", "max"))

    @staticmethod
    def share(value):
        return "-" if value is None else f"{100 * value:.2f} %"

    def limited_row(self, name, r):
        if "skipped" in r:
            return [name, r["skipped"], *["-"] * 5]
        limited = f"{r['limited']['came']} after {r['limited']['seconds']:.1f} s"
        rates = [f"{r[k]['tokens_per_second']:.1f}" for k in ("before", "after")]
        return [name, mb(r["usage_before"]), limited, " -> ".join(rates), f"{self.latency(r['after'])}",
                f"{r['lost']} of {r['requests']}", r["ended"] or "runs on"]

    def limits_section(self, ours, theirs):
        rows = []
        if ours:
            rows.append(self.limited_row("espalier, PUT first", ours["mid-run"]))
        names = {"mapped": "llama-server", "no-mmap": "llama-server --no-mmap"}
        for key, name in names.items():
            if theirs:
                rows.append(self.limited_row(name, theirs[key]["mid-run"]))
        limit = next((r["limit_bytes"] for r in ([ours["mid-run"]] if ours else []) + [theirs[k]["mid-run"] for k in names if theirs]
                      if "limit_bytes" in r), None)
        text = (f"A control group's memory limit falls to the same {mb(limit)} MB in mid-run. Version 1 of control groups refuses a limit "
                "that cannot be met;\nversion 2 takes it and kills.\n\n" +
                table(["", "in the group before, MB", "the limit was", "tok/s before -> after", "between tokens after, p50 / p99 / max ms",
                       "requests lost", "process"], rows))
        started = []
        for key, name in names.items():
            r = theirs[key]["from the start"] if theirs else {"skipped": "-"}
            if "error" in r:
                started.append(f"* {name}, started under that limit: {r['ended'] or 'not ready in time'}.")
            elif "skipped" not in r:
                started.append(f"* {name}, started under that limit: {r['requests']} streams of 16 tokens took {r['seconds']:.1f} s, "
                               f"{r['lost']} were lost; {r['ended'] or 'it runs on'}.")
        return text + "\n\n" + "\n".join(started) + "\n"

    # -----------------------------------------------------------------------------------------------------------------
    # Many clients, a long prompt

    def clients_section(self, result):
        rows = []
        for who in ("espalier", "llama-server"):
            r = result[who]
            rows.append([who, f"{r['over']} in {r['seconds']:.0f} s", f"{r['answered']} of {r['asked']}", r["wrong"],
                         " / ".join(mb(m["VmRSS"]) for m in r["marks"]),
                         "-" if r["at_rest_s"] is None else f"{r['at_rest_s']:.1f}",
                         f"{r['before']['descriptors']}, {r['after']['descriptors']}"])
        r = result["espalier"]
        kinds = ", ".join(f"{count} {kind}" for kind, count in r["counts"].items())
        marks = " / ".join(str(m["requests"]) for m in r["marks"])
        return f"""{r['clients']} clients at once, {r['requests']} requests of 8 tokens: {kinds}. The first three want whole answers.
Nothing is kept of ended requests (`--no-cache-prompt`, `--cache-ram 0`), and each client has a slot.

""" + table(["", "requests", "whole answers", "wrong", f"VmRSS after {marks}, MB", "s until at rest", "descriptors before, after"],
            rows) + "\n"

    def prefill_section(self, result):
        rows = []
        for who in ("espalier", "llama-server"):
            found = [run[who] for run in result["runs"]]
            rows.append([who, *[spread([1e3 * r[part][key] for r in found], "{:.0f}") for part, key in (
                ("before", "p50"), ("before", "max"), ("during", "p50"), ("during", "p99"), ("during", "max"))],
                         spread([r["first_token_s"] for r in found])])
        return f"""{result['decoding']} streams decode (300M, Q4_K_M) when a prompt of {result['prompt_tokens']} tokens comes; \
`--prefill-ms {result['prefill_ms']}`, llama-server with its own -b 2048 -ub 512. Milliseconds between tokens of the
streams, and seconds to the first token of the long prompt.

""" + table(["", "before, p50", "max", "meanwhile, p50", "p99", "max", "s to the first token"], rows) + "\n"

    # -----------------------------------------------------------------------------------------------------------------

    def overview(self):
        rows = []
        for step in STEPS[:2]:
            if result := self.load(step):
                for number, runs in self.by_parallel(result):
                    for over, least in (("llama-server", LEAST_OF_LLAMA), ("replay", LEAST_OF_LOOP)):
                        ratios = self.ratios(runs, "rate", over)
                        low, high = interval(ratios)
                        rows.append([f"tok/s over {'the loop without HTTP' if over == 'replay' else over}, {result['type']}, {number} streams",
                                     f">= {least}", f"{middle(ratios)[0]:.3f} [{low:.3f}, {high:.3f}]",
                                     verdict((low, high), least)])
        if result := self.load("frontend"):
            for number, runs in self.by_parallel(result):
                cost = middle([r["espalier"]["others_us"] for r in runs])[0]
                rows.append([f"us per token outside the engine's thread, {number} streams", f"<= {MOST_FRONT_END_US}", f"{cost:.1f}",
                             met(cost <= MOST_FRONT_END_US)])
        if result := self.load("cut"):
            rows += self.cut_overview(result["runs"])
        if result := self.load("clients"):
            r = result["espalier"]
            rows.append(["whole answers, half of the clients leaving", "all", f"{r['answered']} of {r['asked']}",
                         met(r["answered"] == r["asked"] and r["finished"])])
            growth = r["marks"][-1]["VmRSS"] / r["marks"][0]["VmRSS"] - 1
            rows.append(["growth of VmRSS from a fifth of the requests to all", f"<= {percent(MOST_GROWTH)}", percent(growth),
                         met(growth <= MOST_GROWTH)])
            rows.append(["nothing running or waiting afterwards, no connection left", "yes",
                         "no" if r["at_rest_s"] is None else "yes", met(r["at_rest_s"] is not None)])
        if result := self.load("prefill"):
            worst = max(run["espalier"]["during"]["max"] for run in result["runs"])
            most = MOST_GAP_OF_CHUNK * result["prefill_ms"]
            rows.append([f"longest wait for a token beside a prompt of {result['prompt_tokens']}", f"<= {most:.0f} ms",
                         f"{ms(worst)} ms", met(1e3 * worst <= most)])
        return table(["figure", "asked for", "measured", ""], rows)

    def cut_overview(self, runs):
        lost = sum(r["lost"] for r in runs)
        late = [max(r["course"]["used_s"], r["course"]["anonymous_s"]) * 1e3 - r["budget"]["low"]["deadline_ms"] for r in runs]
        gap = max(r["around_cut"]["max"] / r["allowed_gap_s"] for r in runs)
        error = max(self.worst_error(r, "error") or 0 for r in runs)
        back = [r["regrowth_s"] for r in runs]
        return [["requests lost in a cut to 60 %", "0", lost, met(lost == 0)],
                ["within the limit by the deadline that was told", "yes", f"{max(late):+.0f} ms at worst", met(max(late) <= 0)],
                ["longest wait around the cut over two steps and the bytes at 2 GB/s", "<= 1", f"{gap:.2f}", met(gap <= 1)],
                ["prediction of managed bytes, worst", f"<= {percent(MOST_PREDICTION_ERROR)}", self.share(error),
                 met(error <= MOST_PREDICTION_ERROR)],
                ["all blocks back after the limit rose", "yes", "no" if None in back else f"{max(back):.1f} s",
                 met(None not in back)]]

    def introduction(self):
        done = {step: self.load(step) for step in STEPS if self.bench.done(step)}
        where = "; ".join(sorted({f"{r['machine']}, {r['threads']} threads, {r['version']}" for r in done.values()}))
        loads = ", ".join(f"{step} {r['load_before']:.1f}" for step, r in done.items())
        remark = f" {self.bench.options.remark}" if self.bench.options.remark else ""
        quick = " --quick" if self.bench.quick else ""
        return f"""# Serving: beside llama-server, under a limit that moves, with hostile clients

`espalier serve` and stock llama-server (`scripts/setup-llama-cpp --tools`), asked by one client in one run, in turn: both alive, one
idle. Models of random weights where it is speed and memory, the bundled one where little is to be computed.
Everything on this page is printed by

```
bench/serving_results.py --work FOLDER{quick}
```

Machine: {where}.{remark}
Load average of the machine before each step (by others, or by the step before): {loads}.
Figures are medians (lowest-highest); ratios are those of neighbours in time, [what the median of them may be, 95 %]. A figure
whose bounds hold what is asked for is called within the noise.
"""

    def text(self):
        parts = [self.introduction(), "## What was asked for\n", self.overview(), ""]
        throughput = [r for r in map(self.load, STEPS[:2]) if r]
        if throughput:
            parts += ["## Throughput\n", "The loop without HTTP is `espalier replay` of as many requests at once. `espalier bench` decodes one "
                      "sequence only.\nDecode: while all streams have their first token and none its last.\n",
                      *map(self.throughput_section, throughput)]
        if result := self.load("frontend"):
            parts += ["## What HTTP costs\n", self.frontend_section(result)]
        if result := self.load("cut"):
            parts += ["## A budget that falls in mid-run\n", self.cut_section(result)]
        ours, theirs = self.load("cut-cgroup"), self.load("cut-llama")
        if ours or theirs:
            parts += ["## The same limit by force\n", self.limits_section(ours, theirs)]
        if result := self.load("clients"):
            parts += ["## Many clients\n", self.clients_section(result)]
        if result := self.load("prefill"):
            parts += ["## A long prompt beside streams\n", self.prefill_section(result)]
        missing = [f"`{step}`" for step in STEPS if not self.load(step)]
        if missing:
            parts += ["## Not measured here\n", f"Steps of the script that were not run: {', '.join(missing)}.\n"]
        return "\n".join(parts)


def page(bench):
    return Page(bench).text()

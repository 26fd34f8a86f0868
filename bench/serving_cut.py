"""Memory is taken away from a server in mid-run and given back: the steps `cut*` of bench/serving_results.py."""
import time

from measurement_results import say
from serving_load import NO_BYTES, MemoryPoll, Streams, call, completion, gaps, prompts, quantile
from serving_servers import MemoryCgroup, forget_page_cache

STREAMS = 16
PROMPT_TOKENS = 64
LOW = "60%"


class Load:
    """Streams that begin anew as they end, until told to stop."""

    def __init__(self, server, max_tokens):
        self.server = server
        self.max_tokens = max_tokens
        self.going = True
        self.prompts = iter(prompts(4096, PROMPT_TOKENS, 32000, 11))
        self.streams = Streams(server.port, self.replace)
        for _ in range(STREAMS):
            self.start()
        self.decoding = self.streams.run(until=lambda: all(len(s.times) > 4 for s in self.streams.all), seconds=120)

    def start(self):
        self.streams.start(completion(next(self.prompts), self.max_tokens, **NO_BYTES))

    def replace(self, stream):
        if self.going and not stream.error:
            self.start()

    def wait(self, seconds, until=None):
        """The moment at which it is over."""
        end = time.monotonic() + seconds
        self.streams.run(until=lambda: time.monotonic() >= end or (until and until()), seconds=seconds + 1)
        return time.monotonic()

    def drain(self, seconds):
        self.going = False
        self.streams.run(seconds=seconds)
        self.streams.abandon()

    def rate(self, begin, end):
        """Tokens a second."""
        return sum(begin <= t < end for s in self.streams.all for t in s.times) / (end - begin)

    def latency(self, begin, end):
        found = gaps(self.streams.all, begin, end)
        return {"p50": quantile(found, 0.5), "p99": quantile(found, 0.99), "max": found[-1] if found else None,
                "count": len(found), "tokens_per_second": self.rate(begin, end)}

    def outcome(self):
        return {"requests": len(self.streams.all), "lost": len(self.streams.errors), "first_error": next(
            iter(self.streams.errors), None)}


def set_budget(server, text):
    """(moment before the call, wall clock then, the answer)."""
    at, wall = time.monotonic(), time.time()
    status, answer = call(server.port, "PUT", "/v1/espalier/budget", {"memory_budget": text})
    assert status == 202, (status, answer)
    return at, wall, answer


def events(server):
    answer = call(server.port, "GET", "/v1/espalier/events")[1]
    return answer["events"] if isinstance(answer, dict) else answer


def whole(server):
    """Whether every block is back."""
    plan = call(server.port, "GET", "/v1/espalier/plan")[1]
    return all(block["state"] == "kept" for block in plan["blocks"])


def settings(bench):
    tokens = 96 if bench.quick else 480
    steady = 4 if bench.quick else 8
    return bench.model("500M", "F16"), tokens, steady


def memory_course(samples, begin, limit, process_bytes):
    """When what is used stays within the limit from a moment on, by our account and by the kernel's; seconds."""
    def since(key, offset=0):
        above = [s["at"] for s in samples if s["at"] > begin and s[key] + offset > limit]
        return max(above) - begin if above else 0

    return {"used_s": since("used"), "anonymous_s": since("RssAnon"), "process_bytes": process_bytes,
            "sample_ms": 1e3 * quantile(sorted(b["at"] - a["at"] for a, b in zip(samples, samples[1:])), 0.5)}


def cut(bench):
    """100 % -> 60 % -> 100 % of what the dense model needs, while 16 streams run."""
    runs = []
    for _ in range(1 if bench.quick else 2):
        runs.append(one_cut(bench))
    return {"streams": STREAMS, "low": LOW, "runs": runs}


def one_cut(bench):
    model, tokens, steady = settings(bench)
    with bench.espalier(model, STREAMS, PROMPT_TOKENS + tokens + 8, "--memory-budget", "100%") as server:
        load = Load(server, tokens)
        begin = time.monotonic()
        poll = MemoryPoll(server.port, server.process.pid)
        load.wait(steady)
        low_at, low_wall, low = set_budget(server, LOW)
        load.wait(steady)
        high_at, high_wall, high = set_budget(server, "100%")
        back = None
        while time.monotonic() < high_at + 60 and back is None:
            load.wait(0.25)
            back = time.monotonic() if whole(server) else None
        load.wait(steady / 2)
        end = time.monotonic()
        samples = poll.stop()
        load.drain(120 if bench.quick else 300)
        found = [event for event in events(server) if event["unix_ms"] >= 1e3 * low_wall]
        memory = call(server.port, "GET", "/v1/espalier/memory")[1]
        state = call(server.port, "GET", "/v1/espalier/state")[1]
    step = load.latency(begin, low_at)["p50"]
    released = [e["transition"] for e in found if e["kind"] == "transition" and e["transition"]["blocks_released"] > 0
                and e["unix_ms"] <= 1e3 * high_wall]
    moved = sum(t["released_bytes"] for t in released)
    low_until = min(high_at, max((s["at"] for s in samples), default=high_at))
    course = [s for s in samples if s["at"] <= low_until]
    result = {
        "model": {"shape": "500M", "type": "F16"}, "max_tokens": tokens, **load.outcome(),
        "budget": {"low": low, "high": high}, "dense_peak_bytes": memory["dense_peak_bytes"],
        "steady": load.latency(begin, low_at), "around_cut": load.latency(low_at - 2.5, low_at + 2.5),
        "low": load.latency(low_at + 1, high_at), "growing": load.latency(high_at, back or end),
        "regrown": load.latency(back or end, end), "after_rise": load.latency(high_at, time.monotonic()),
        "allowed_gap_s": 2 * step + moved / 2e9, "moved_bytes": moved,
        "course": memory_course(course, low_at, low["budget_bytes"], memory["process_bytes"]),
        "event_s": next((e["unix_ms"] / 1e3 - low_wall for e in found if e["kind"] == "transition"), None),
        "regrowth_s": back - high_at if back else None,
        "predictions": predictions(found), "preemptions": state["counters"]["preemptions"],
        "violations": state["counters"]["violations"],
        "overshoot_byte_seconds": state["counters"]["overshoot_byte_seconds"],
        "events": [{k: e[k] for k in ("kind", "text", "unix_ms", "used_bytes", "budget_bytes")} for e in found],
        "samples": [[round(s["at"] - low_at, 4), s["used"], s["RssAnon"], s["VmRSS"]] for s in samples],
    }
    report_cut(result)
    return result


def predictions(found):
    """Of every transition: predicted bytes against the account's and the kernel's."""
    errors = []
    for event in found:
        if event["kind"] != "transition":
            continue
        t = event["transition"]
        account, kernel = t["after"]["managed_bytes"], t["after"].get("measured_managed_bytes")
        errors.append({"reason": t["reason"], "predicted": t["predicted_bytes_after"], "managed": account, "measured": kernel,
                       "error": abs(t["predicted_bytes_after"] / account - 1) if account else None,
                       "error_measured": abs(t["predicted_bytes_after"] / kernel - 1) if kernel else None,
                       "ms": t["total_ms"], "released_bytes": t["released_bytes"], "loaded_bytes": t["loaded_bytes"]})
    return errors


def report_cut(r):
    ms = lambda x: "-" if x is None else f"{1e3 * x:.0f} ms"
    say(f"  {r['requests']} requests, {r['lost']} lost; used within the limit after {ms(r['course']['used_s'])}, kernel "
        f"{ms(r['course']['anonymous_s'])} (deadline {r['budget']['low']['deadline_ms']} ms, sampled every "
        f"{r['course']['sample_ms']:.0f} ms); between tokens "
        + ", ".join(f"{k} {ms(r[k]['p50'])}/{ms(r[k]['p99'])}/{ms(r[k]['max'])}"
                    for k in ("steady", "around_cut", "low", "growing", "regrown", "after_rise"))
        + f" (p50/p99/max), allowed {ms(r['allowed_gap_s'])}; back after {r['regrowth_s']} s; {r['preemptions']} preemptions")


def limit_in_mid_run(bench, start, limit_bytes, before_limit=None):
    """What becomes of a server in a control group whose memory limit falls while streams run."""
    model, tokens, steady = settings(bench)
    forget_page_cache(model)
    cgroup = MemoryCgroup.from_system()
    if cgroup is None:
        return {"skipped": "no control group can be made here"}
    server = start(cgroup)
    try:
        server.wait_ready()
        load = Load(server, tokens)
        begin = time.monotonic()
        load.wait(steady)
        usage, memory = cgroup.usage(), server.memory()
        put = before_limit(server, load) if before_limit else None
        at = time.monotonic()
        limited = cgroup.limit(limit_bytes)
        load.wait(2 * steady, until=lambda: server.process.poll() is not None)
        end = time.monotonic()
        ended = server.how_it_ended()
        result = {"limit_bytes": limit_bytes, "usage_before": usage, "memory_before": memory, "limited": limited, "put": put,
                  "before": load.latency(begin, at), "after": load.latency(at, end), "ended": ended,
                  "memory_after": None if ended else server.memory(), "usage_after": cgroup.usage(),
                  "failcnt": cgroup.read("memory.failcnt")}
        load.drain(20 if bench.quick else 60)
        result |= {**load.outcome(), "ended": server.how_it_ended()}
        return result
    finally:
        server.stop()
        cgroup.remove()


def start_below(bench, start, limit_bytes):
    """What becomes of a server that starts in a control group with that limit."""
    forget_page_cache(settings(bench)[0])
    cgroup = MemoryCgroup.from_system()
    if cgroup is None:
        return {"skipped": "no control group can be made here"}
    cgroup.limit(limit_bytes)
    server = start(cgroup)
    try:
        server.wait_ready(120)
        load = Load(server, 16)
        begin = time.monotonic()
        load.drain(120)
        return {"limit_bytes": limit_bytes, "seconds": time.monotonic() - begin, "ended": server.how_it_ended(),
                "failcnt": cgroup.read("memory.failcnt"), **load.outcome(),
                "latency": load.latency(0, time.monotonic())}
    except RuntimeError as error:
        return {"limit_bytes": limit_bytes, "ended": server.how_it_ended(), "error": str(error).split(":")[1].strip()}
    finally:
        server.stop()
        cgroup.remove()


def cut_in_cgroup(bench, ours):
    """As the documentation says to do it: first the budget, then, once it is kept, the control group's limit."""
    model, tokens, _ = settings(bench)
    limit = ours["runs"][0]["budget"]["low"]["budget_bytes"]

    def put(server, load):
        at, _, answer = set_budget(server, LOW)
        load.wait(answer["deadline_ms"] / 1e3)
        return {"deadline_ms": answer["deadline_ms"], "RssAnon": server.memory()["RssAnon"],
                "seconds": time.monotonic() - at}

    def start(cgroup):
        return bench.espalier(model, STREAMS, PROMPT_TOKENS + tokens + 8, "--memory-budget", "100%", cgroup=cgroup)

    return {"mid-run": limit_in_mid_run(bench, start, limit, put)}


def cut_llama(bench, ours):
    """The same limit for stock llama-server, with mapped weights (its default) and without."""
    model, tokens, _ = settings(bench)
    limit = ours["runs"][0]["budget"]["low"]["budget_bytes"]
    results = {}
    for name, flags in (("mapped", ()), ("no-mmap", ("--no-mmap",))):
        def start(cgroup, more=flags):
            return bench.llama_server(model, STREAMS, PROMPT_TOKENS + tokens + 8, *more, cgroup=cgroup)

        results[name] = {"mid-run": limit_in_mid_run(bench, start, limit), "from the start": start_below(bench, start, limit)}
        say(f"  llama-server, {name}: {results[name]}")
    return results

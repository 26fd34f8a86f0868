#!/usr/bin/env python3
"""Measures `espalier serve` beside stock llama-server, and prints docs/results/serving.md.

    bench/serving_results.py --work FOLDER > docs/results/serving.md
    bench/serving_results.py --work FOLDER --quick --steps 'throughput-*'     a short trial, its figures kept apart

Every step keeps its JSON in FOLDER and is not run again while that lies there; to measure a step again, remove it.
Models of random weights are made there, too (about 4 GB). Both servers are asked by the same client in the same run,
in turn. Wants a machine with nothing else to do: the load before each step is kept, and told on the page. Half an hour.
"""
import argparse
import fnmatch
import json
import os
import subprocess
import sys
import time

sys.dont_write_bytecode = True  # nothing is left in the tree
import serving_page
from engine_results import SHAPES
from measurement_results import Work, machine, output_of, say
from serving_clients import many_clients
from serving_cut import cut, cut_in_cgroup, cut_llama
from serving_load import NO_BYTES, Streams, completion, gaps, prompts, quantile
from serving_servers import Server

SHAPES = {**SHAPES, "500M": "--layers 18 --embedding-length 1536 --feed-forward-length 4096 --heads 24 --kv-heads 4 "
                            "--vocab 32000"}
PROMPT_TOKENS = 64
PARALLEL = (1, 4, 16)
REPETITIONS = {1: 15, 4: 9, 16: 6}  # the machine's bandwidth changes by a third from one second to the next
VOCABULARY = 32000


class Bench(Work):
    """The work folder, and how servers are started."""

    def __init__(self, options):
        super().__init__(options)
        self.models = os.path.join(os.path.abspath(options.work), "models")
        os.makedirs(self.models, exist_ok=True)
        if options.quick:
            options.work = os.path.join(options.work, "quick")
        self.quick = options.quick
        self.llama = options.llama

    def model(self, shape, kind, context=4096):
        if shape == "reference":
            report = json.loads(output_of([self.options.espalier, "inspect", "reference", "--json"]))
            return report["model"]["path"]
        path = os.path.join(self.models, f"random-{shape}-{kind}-{context}.gguf")
        if not os.path.exists(path):
            say(f"$ espalier generate-model ... {path}")
            output_of([self.options.espalier, "generate-model", *SHAPES[shape].split(), "--ctx", str(context), "--type", kind,
                       "--seed", "1", "-o", path, "--json"])
        return path

    @staticmethod
    def common(model, slots, cells, threads):
        return ["-m", model, "-np", str(slots), "-c", str(slots * cells), "-b", "2048", "-ub", "512", "-t", str(threads)]

    def espalier(self, model, slots, cells, *flags, threads=None, cgroup=None):
        command = [self.options.espalier, "serve", *self.common(model, slots, cells, threads or self.options.threads), *flags]
        return Server("espalier", command, self.path("espalier.log"), cgroup=cgroup)

    def llama_server(self, model, slots, cells, *flags, threads=None, cgroup=None):
        # Nothing is kept of ended requests in memory of its own, as with cache_prompt false on our side.
        command = [os.path.join(self.llama, "bin", "llama-server"),
                   *self.common(model, slots, cells, threads or self.options.threads), "--no-webui", "--cache-ram", "0",
                   "--fit", "off", "--skip-chat-parsing", *flags]
        return Server("llama-server", command, self.path("llama-server.log"),
                      {"LD_LIBRARY_PATH": os.path.join(self.llama, "lib")}, cgroup)

    def replay(self, model, slots, cells, requests, max_tokens, threads=None):
        """The loop without HTTP: so many requests at once, as over HTTP."""
        trace = self.path("trace.jsonl")
        with open(trace, "w", encoding="utf-8") as file:
            file.write('{"trace": "espalier-load-trace", "version": 1, "duration_seconds": 0.001}\n')
            for i in range(requests):
                file.write(json.dumps({"at": 0, "prompt_tokens": PROMPT_TOKENS, "max_tokens": max_tokens,
                                       "prompt_seed": i}) + "\n")
        flags = self.common(model, slots, cells, threads or self.options.threads)
        report = json.loads(output_of([self.options.espalier, "replay", trace, *flags, "--no-cache-prompt", "--drain", "600",
                                       "--json"]))
        assert report["requests"]["completed"] == requests, report["requests"]
        tokens = report["generated_tokens"]
        return {"tokens": tokens, "seconds": report["busy_seconds"], "rate": tokens / report["busy_seconds"],
                "step_ms": report["inter_token"]["p50_ms"],
                "decode_rate": 1e3 * requests / report["inter_token"]["p50_ms"]}


def together(server, number, max_tokens, seed, vocabulary=VOCABULARY, more=NO_BYTES):
    """Streams at once, from nothing to the last token."""
    streams = Streams(server.port)
    cpu, start = time.process_time(), time.monotonic()
    before = server.thread_seconds()
    for prompt in prompts(number, PROMPT_TOKENS, vocabulary, seed):
        streams.start(completion(prompt, max_tokens, **more))
    finished = streams.run()
    after = server.thread_seconds()
    assert finished and not streams.errors, (server.name, streams.errors[:2])
    end = max(s.ended for s in streams.all)
    # While all of them decode: behind the last one's prompt.
    begin, stop = max(s.times[0] for s in streams.all), min(s.times[-1] for s in streams.all)
    decoded = sum(begin < t <= stop for s in streams.all for t in s.times)
    spent = sorted((after[t] - before.get(t, 0) for t in after), reverse=True)
    found = gaps(streams.all, begin, stop)
    tokens = number * max_tokens
    return {"tokens": tokens, "seconds": end - start, "rate": tokens / (end - start),
            "decode_rate": decoded / (stop - begin) if stop > begin else None,
            "step_ms": 1e3 * quantile(found, 0.5) if found else None,
            "first_token_ms": 1e3 * quantile(sorted(s.times[0] - s.sent for s in streams.all), 0.5),
            "client_share": (time.process_time() - cpu) / (end - start),
            "thread_seconds": spent}


def throughput(bench, shape, kind):
    """Both servers, and the loop without HTTP, in turn."""
    model = bench.model(shape, kind)
    max_tokens = 32 if bench.quick else 128
    cells = PROMPT_TOKENS + max_tokens + 64
    runs = []
    with bench.espalier(model, max(PARALLEL), cells) as ours, bench.llama_server(model, max(PARALLEL), cells) as theirs:
        for server in (ours, theirs):
            together(server, max(PARALLEL), 8, 0)  # pages, thread pools
        for number in PARALLEL:
            for repetition in range(2 if bench.quick else REPETITIONS[number]):
                turns = [("espalier", lambda: together(ours, number, max_tokens, 1 + repetition)),
                         ("llama-server", lambda: together(theirs, number, max_tokens, 1 + repetition)),
                         ("replay", lambda: bench.replay(model, max(PARALLEL), cells, number, max_tokens))]
                # Each is first, second and last as often: a machine that is slowing down is slow for all of them.
                turns = turns[repetition % 3:] + turns[:repetition % 3]
                run = {"parallel": number, **{who: measure() for who, measure in turns}}
                say(f"  {number:2} streams: " + ", ".join(f"{who} {run[who]['rate']:.1f} ({run[who]['decode_rate']:.1f})"
                                                          for who in ("espalier", "llama-server", "replay")) + " tok/s")
                runs.append(run)
    return {"shape": shape, "type": kind, "max_tokens": max_tokens, "prompt_tokens": PROMPT_TOKENS,
            **read_bytes(bench, model), "runs": runs}


def read_bytes(bench, model):
    """What one decode step reads, and what the machine reads in a second."""
    report = json.loads(output_of([bench.options.espalier, "bench", model, "-p", "0", "-n", "8", "-r", "1", "-t",
                                   str(bench.options.threads), "--json"]))
    return {"step_bytes": 1e9 * report["decode_gigabytes_per_second"] / report["decode_tokens_per_second"],
            "bandwidth": 1e9 * report["decode_gigabytes_per_second"] / report["decode_share_of_bandwidth"]}


def loopback_floor(bench, rate, tokens, streams):
    """What a thread takes that is woken for each step and sends 250 bytes for each stream, and does nothing else."""
    program = os.path.join(os.path.dirname(bench.options.espalier), "bench", "espalier_loopback_floor")
    return json.loads(output_of([program, str(rate), str(tokens), "250", str(streams)]))["sender_us"]


def frontend(bench):
    """On a model that takes no time: what is not the model. One thread for the engine, so that the others are not."""
    model = bench.model("reference", "F16")
    max_tokens = 64 if bench.quick else 256
    cells = PROMPT_TOKENS + max_tokens + 64
    runs = []
    with bench.espalier(model, 16, cells, threads=1) as ours, bench.llama_server(model, 16, cells, threads=1) as theirs:
        for server in (ours, theirs):
            together(server, 16, 8, 0, 8000, {})
        for number in (1, 16):
            for repetition in range(5):
                run = {"parallel": number}
                for server in (ours, theirs):
                    run[server.name] = together(server, number, max_tokens, 1 + repetition, 8000, {})
                run["replay"] = bench.replay(model, 16, cells, number, max_tokens, threads=1)
                for server in (ours, theirs):
                    spent, tokens = run[server.name]["thread_seconds"], run[server.name]["tokens"]
                    run[server.name]["engine_us"] = 1e6 * spent[0] / tokens
                    run[server.name]["others_us"] = 1e6 * sum(spent[1:]) / tokens
                run["replay"]["engine_us"] = 1e6 * run["replay"]["seconds"] / run["replay"]["tokens"]
                run["floor_us"] = loopback_floor(bench, run["espalier"]["rate"], run["espalier"]["tokens"], number)
                say(f"  {number:2} streams: us of the engine thread and the others per token: " + ", ".join(
                    f"{s.name} {run[s.name]['engine_us']:.1f} + {run[s.name]['others_us']:.1f} at {run[s.name]['rate']:.0f} tok/s"
                    for s in (ours, theirs)) + f"; replay {run['replay']['engine_us']:.1f}")
                runs.append(run)
    return {"max_tokens": max_tokens, "runs": runs}


def long_prompt(bench):
    """Streams decode; a long prompt comes. How long they wait for a token."""
    tokens = 2048 if bench.quick else 8000
    decoding = 4
    model = bench.model("300M", "Q4_K_M", 16384)
    cells = tokens + 448
    prefill_ms = 200
    runs = []
    with (bench.espalier(model, decoding + 1, cells, "--prefill-ms", str(prefill_ms)) as ours,
          bench.llama_server(model, decoding + 1, cells) as theirs):
        for repetition in range(1 if bench.quick else 2):
            run = {}
            for server in (ours, theirs):
                run[server.name] = prefill_beside(server, decoding, tokens, cells, repetition)
                r = run[server.name]
                say(f"  {server.name}: first token of {tokens} after {r['first_token_s']:.1f} s; between tokens of the others "
                    f"{1e3 * r['before']['p50']:.0f} ms before, {1e3 * r['during']['p50']:.0f} ms at the median and "
                    f"{1e3 * r['during']['max']:.0f} at most meanwhile")
            runs.append(run)
    return {"prompt_tokens": tokens, "decoding": decoding, "prefill_ms": prefill_ms, "runs": runs}


def prefill_beside(server, decoding, tokens, cells, seed):
    streams = Streams(server.port)
    # As many tokens as their share of the context holds: most are still decoding when the long prompt is through.
    streams.on_end = lambda stream: stream in short and not done and short.append(start_short())
    count = iter(range(10**6))

    def start_short():
        prompt = prompts(1, PROMPT_TOKENS, VOCABULARY, 1000 * (seed + 1) + next(count))[0]
        return streams.start(completion(prompt, cells - PROMPT_TOKENS - 64, **NO_BYTES))

    done = False
    short = []
    short.extend(start_short() for _ in range(decoding))
    streams.run(until=lambda: all(len(s.times) > 8 for s in short))
    begin = time.monotonic()
    streams.run(until=lambda: time.monotonic() > begin + 4)
    sent = time.monotonic()
    long = streams.start(completion(prompts(1, tokens, VOCABULARY, 7 + seed)[0], 8, **NO_BYTES))
    assert streams.run(until=lambda: long.times, seconds=600), f"{server.name}: no first token"
    first = long.times[0] if long.times else None
    assert first, long.error
    streams.run(until=lambda: long.ended is not None)
    done = True
    before, during = gaps(short, begin, sent), gaps(short, sent, first)
    # One that had no token at all meanwhile has waited, too.
    waits = [max(first - max(t for t in s.times if t < sent), 0) for s in short if not any(sent <= t < first for t in s.times)]
    during = sorted(during + waits)
    assert not long.error and not streams.errors, streams.errors[:2]
    streams.abandon()
    time.sleep(2)  # until the server has seen that nobody reads any more
    figures = lambda found: {"p50": quantile(found, 0.5), "p99": quantile(found, 0.99), "max": found[-1], "count": len(found)}
    return {"first_token_s": first - sent, "before": figures(before), "during": figures(during)}


def steps_of(bench):
    """Name to function, in the order of the page."""
    return {
        "throughput-F16": lambda: throughput(bench, "300M", "F16"),
        "throughput-Q4_K_M": lambda: throughput(bench, "300M", "Q4_K_M"),
        "frontend": lambda: frontend(bench),
        "cut": lambda: cut(bench),
        "cut-cgroup": lambda: cut_in_cgroup(bench, bench.load("cut")),
        "cut-llama": lambda: cut_llama(bench, bench.load("cut")),
        "clients": lambda: many_clients(bench),
        "prefill": lambda: long_prompt(bench),
    }


def busy():
    """Load of the machine by others, from the kernel's average over a minute."""
    return os.getloadavg()[0]


def run_steps(bench, steps):
    o = bench.options
    patterns = o.steps.split(",") if o.steps else [] if o.print else ["*"]
    for name, run in steps.items():
        if bench.done(name) or not any(fnmatch.fnmatch(name, pattern) for pattern in patterns):
            continue
        load = busy()
        say(f"== {name} (load {load:.1f})")
        start = time.monotonic()
        result = run()
        bench.save(name, {**result, "report": {}, "machine": machine(), "threads": o.threads, "load_before": load,
                          "seconds": time.monotonic() - start,
                          "version": output_of([o.espalier, "--version"]).strip().splitlines()[0]})
        say(f"== {name}: {time.monotonic() - start:.0f} s")


def read_options():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", required=True, help="folder of results, logs and models")
    parser.add_argument("--espalier", default="build/release/espalier")
    parser.add_argument("--llama", metavar="PREFIX", help="stock llama.cpp; default: what scripts/setup-llama-cpp --tools says")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help="a short trial of everything, kept apart in FOLDER/quick")
    parser.add_argument("--remark", metavar="TEXT", help="said on the page beside the machine: what else ran on it")
    parser.add_argument("--steps", metavar="STEP,...", help="run these steps, wildcards allowed, and print no page")
    parser.add_argument("--print", action="store_true", help="run nothing: the page of what is done")
    parser.add_argument("--list", action="store_true", help="list the steps, and which are done")
    options = parser.parse_args()
    if not options.llama:
        script = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "scripts", "setup-llama-cpp")
        options.llama = subprocess.run([script, "--tools"], stdout=subprocess.PIPE, text=True, check=True).stdout.strip()
    return options


def main():
    bench = Bench(read_options())
    steps = steps_of(bench)
    if bench.options.list:
        print("\n".join(f"{'done' if bench.done(step) else '    '}  {step}" for step in steps))
        return
    run_steps(bench, steps)
    if not bench.options.steps:
        print(serving_page.page(bench), end="")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)

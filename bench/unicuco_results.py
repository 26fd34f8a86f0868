#!/usr/bin/env python3
"""Measures everything in docs/results/unicuco.md on the deep model of this repository, and prints that page.

    bench/unicuco_results.py --work FOLDER --calibration FILE --test FILE > unicuco.md

FOLDER is that of bench/measurement_results.py: of its steps `rank` and `search` are needed, for what the rivals of StratNet
know. StratNet itself begins with nothing. Steps are kept and run as there (--only, --print, --list).
"""
import json
import random
import sys

sys.dont_write_bytecode = True  # nothing is left in the tree
import unicuco_page
from measurement_results import (CONFIGURATIONS, Work, copy_profile, option_parser, profile_path, remove_profile,
                                 run_steps)

WORKLOADS = ["1x512", "4x512", "8x512", "16x256"]
RATIOS = [0.9, 0.8, 0.7, 0.6, 0.5]
EVOLVED_RATIOS = [0.8, 0.6]  # a search for each takes minutes
# Requests that GSI is timed on, each alone and from nothing.
SAMPLES = [{"size_ratio": 0.8}, {"size_ratio": 0.6, "workload": "8x512"}]
NUMBERS = [1, 4, 16, 64, 256, 1024, 4096]


def mixed(n):
    """Requests of all kinds that a search can answer too: of 64 two thirds in bytes of files and footprints, a quarter in
    loss."""
    draw = random.Random(64)
    requests = []
    for i in range(n):
        kind = i % 8
        if kind < 3:
            request = {"size_ratio": round(draw.uniform(0.5, 0.9), 4)}
        elif kind < 6:
            request = {"size_ratio": round(draw.uniform(0.5, 0.9), 4), "workload": draw.choice(WORKLOADS)}
        else:
            request = {"max_loss": round(10 ** draw.uniform(-1.2, 0), 4)}
        requests.append({"id": f"r{i + 1}", **request})
    return requests


def quality(ratios=tuple(RATIOS)):
    return [{"id": f"{workload or 'file'}-{int(100 * ratio)}", "size_ratio": ratio,
             **({"workload": workload} if workload else {})}
            for workload in (None, "1x512", "8x512") for ratio in ratios]


def checks():
    """What is promised with a confidence: losses, from little to much of the memory being KV cache."""
    return [{"id": f"{workload or 'file'}-{i}", "max_loss": round(10 ** (-1.3 + 1.6 * i / 39), 4),
             **({"workload": workload} if workload else {})}
            for workload in (None, *(f"{n}x400" for n in range(1, 39, 2))) for i in range(40)]


def write_requests(work, configuration, name, requests):
    path = work.path(configuration.name, "unicuco", name + ".jsonl")
    with open(path, "w", encoding="utf-8") as file:
        file.writelines(json.dumps(request) + "\n" for request in requests)
    return path


def texts(work, test=False):
    o = work.options
    flags = ["--text", o.calibration, "--windows", str(o.rank_windows)]
    return flags + (["--test-text", o.test, "--test-windows", str(o.test_windows)] if test else [])


def train(work, c):
    """From nothing. Starts over after an interrupt: its seconds are results."""
    profile = profile_path(work, c, "unicuco/stratnet")
    remove_profile(profile)
    return work.run(c, "train stratnet", "--profile", profile, "--evaluations", str(work.options.evaluations),
                    *texts(work))


def compress(work, c, step, source, requests, *flags):
    """On a copy of a profile: steps do not see what others measured."""
    profile = profile_path(work, c, f"unicuco/{step}")
    copy_profile(profile_path(work, c, source), profile)
    return work.run(c, "compress", "--profile", profile, "--requests", requests, *flags)


def search_alone(work, c, method, request):
    profile = profile_path(work, c, "unicuco/alone")
    remove_profile(profile)
    flags = ["--size-ratio", str(request["size_ratio"])]
    if "workload" in request:
        flags += ["--workload", request["workload"]]
    return work.run(c, "compress", "--profile", profile, "--method", method, *flags, *texts(work))


def answer_many(work, c):
    """Seconds for so many requests, the rest of the program left aside."""
    runs = []
    for n in NUMBERS:
        requests = write_requests(work, c, f"many-{n}", mixed(n))
        report = compress(work, c, "many", "unicuco/stratnet", requests)["report"]
        runs.append({"requests": n, "failed": report["failed"], "answering": report["seconds"]["answering"]})
    return {"report": {"runs": runs}}


def latency(work, c):
    """Promises about decode steps, from what this machine can do: measured first at no limit."""
    requests = write_requests(work, c, "no-limit", [{"max_latency_ms": 1e6, "workload": w} for w in ("1x512", "4x256")])
    free = compress(work, c, "latency", "unicuco/stratnet", requests)["report"]["requests"]
    limits = [{"id": f"{request['workload']}-{int(100 * share)}", "workload": request["workload"],
               "max_latency_ms": round(share * request["upper_decode_ms"], 4)}
              for request in free for share in (0.95, 0.9, 0.85, 0.8, 0.75, 0.7)]
    return compress(work, c, "latency", "unicuco/stratnet", write_requests(work, c, "latency", limits), "--verify",
                    *texts(work))


def steps_of(work, c):
    """Name to function, in an order in which each finds what it needs."""
    def on(step, source, requests, *flags, test=False):
        return lambda: compress(work, c, step, source, write_requests(work, c, step, requests), *flags,
                                *texts(work, test))

    own, known = "unicuco/stratnet", "searched"
    in_bytes = [request for request in mixed(64) if "size_ratio" in request]
    steps = {
        "train": lambda: train(work, c),
        "64": on("64", own, mixed(64), "--verify"),
        "64-gsi": on("64-gsi", known, mixed(64), "--method", "gsi"),
        "64-chain": on("64-chain", known, in_bytes, "--method", "gsi-chain"),
        "many": lambda: answer_many(work, c),
        "checks": on("checks", own, checks(), "--verify"),
        "checks-guessed": on("checks-guessed", own, checks(), "--verify", "--network-alone"),
        "latency": lambda: latency(work, c),
        "quality-stratnet": on("quality-stratnet", own, quality(), "--verify", test=True),
        "quality-network": on("quality-network", own, quality(), "--verify", "--network-alone", test=True),
        "quality-table-own": on("quality-table-own", own, quality(), "--method", "table", test=True),
        "quality-table": on("quality-table", known, quality(), "--method", "table", test=True),
        "quality-gsi": on("quality-gsi", known, quality(), "--method", "gsi", test=True),
        "quality-one-shot": on("quality-one-shot", known, quality(), "--method", "one-shot", test=True),
    }
    for i, request in enumerate(SAMPLES):
        steps[f"alone-gsi-{i + 1}"] = lambda r=request: search_alone(work, c, "gsi", r)
    steps["quality-evolution"] = on("quality-evolution", known, quality(EVOLVED_RATIOS), "--method", "evolution", test=True)
    return {f"{c.name}/unicuco/{step}": run for step, run in steps.items()}


def read_options():
    parser = option_parser(__doc__, ["calibration", "test"])
    parser.add_argument("--evaluations", type=int, default=400, help="plans StratNet may measure; default: 400")
    parser.add_argument("--configurations", default="reference-f16,reference-q4", metavar="NAME,...",
                        help="default: %(default)s")
    return parser.parse_args()


def main():
    work = Work(read_options())
    names = work.options.configurations.split(",")
    configurations = [c for c in CONFIGURATIONS if c.name in names]
    steps = {step: run for c in configurations for step, run in steps_of(work, c).items()}
    run_steps(work, steps, lambda: unicuco_page.page(work, configurations, SAMPLES))


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)

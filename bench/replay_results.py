#!/usr/bin/env python3
"""Replays ten minutes of every kind of load trace on the reference model, and prints a table for docs/results/replay.md.

    bench/replay_results.py [--espalier PROGRAM] [--seconds 600] > docs/results/replay.md
"""
import argparse
import json
import os
import subprocess
import tempfile

TRACES = [  # arrivals, budget, percent
    ("steady", "constant", "70-70"),
    ("diurnal", "sawtooth", "55-100"),
    ("bursty", "memory-hog", "55-100"),
    ("bursty", "random-walk", "55-100"),
    ("steady", "trembling", "75-75"),
]


def run(*command):
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def replay(options, folder, arrivals, budget, percent):
    trace = os.path.join(folder, f"{arrivals}-{budget}.jsonl")
    run(options.espalier, "generate-trace", "--arrivals", arrivals, "--budget", budget, "--budget-range", percent,
        "--seconds", str(options.seconds), "--rate", "1", "--prompt-tokens", "32-200", "--max-tokens", "16-100",
        "--seed", "1", "-o", trace)
    return json.loads(run(options.espalier, "replay", trace, "reference", "-t", "1", "--json"))


def row(arrivals, budget, report):
    requests, first, between = report["requests"], report["time_to_first_token"], report["inter_token"]
    cells = [arrivals, budget, requests["total"], requests["completed"], requests["refused"], requests["lost"],
             report["budget_violations"], f"{report['overshoot_byte_seconds']:.0f}", report["plan_changes_by_budget"],
             report["most_plan_changes_by_budget_in_a_minute"], report["plan_changes"],
             f"{first['p50_ms']:.0f} / {first['p99_ms']:.0f}", f"{between['p50_ms']:.1f} / {between['p99_ms']:.1f}"]
    return "| " + " | ".join(map(str, cells)) + " |"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--espalier", default="build/release/espalier")
    parser.add_argument("--seconds", type=int, default=600)
    options = parser.parse_args()
    print("# Load traces replayed\n")
    print(f"Printed by `bench/replay_results.py`: {options.seconds} seconds of each kind of trace (one request a second, "
          "prompts of 32 to 200 tokens,\nanswers of 16 to 100, seed 1) through the engine loop on the reference model, four "
          "requests at once, one thread, policy\n`data-free`. Steps take what they take; idle time is skipped. Changes of plan: by "
          "the budget, the most of them in one\nminute, and all, those for the sake of requests included. Times in "
          "milliseconds, on a machine that others use, too.\n")
    print("| arrivals | budget | requests | completed | refused | lost | violations | overshoot, byte-seconds | changes by the budget | "
          "in a minute | all changes | first token p50 / p99 | between tokens p50 / p99 |")
    print("|---|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|")
    with tempfile.TemporaryDirectory() as folder:
        for arrivals, budget, percent in TRACES:
            print(row(arrivals, budget, replay(options, folder, arrivals, budget, percent)), flush=True)


if __name__ == "__main__":
    main()

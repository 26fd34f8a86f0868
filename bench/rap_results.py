#!/usr/bin/env python3
"""Measures everything in docs/results/rap.md on the two models of this repository, and prints that page.

    bench/rap_results.py --work FOLDER --calibration FILE --test FILE > rap.md

FOLDER is that of bench/measurement_results.py, whose steps `rank`, `search` and `test` have to be done there for every
configuration: agents learn from those profiles. Steps are kept and run as there (--only, --print, --list).
"""
import argparse
import fnmatch
import os
import sys
import time

sys.dont_write_bytecode = True  # nothing is left in the tree
import rap_page
from measurement_results import CONFIGURATIONS, Work, compare, copy_profile, decisions, profile_path, say

DEEP = ["reference-f16", "reference-q4"]
# Agents of the first serve the second; the same weights' type and KV type.
TRANSFERS = {"reference-f16": "twin-f16", "reference-q4": "twin-q4"}


def by_name(name):
    return next(c for c in CONFIGURATIONS if c.name == name)


def train(work, configuration, kind, seed, *flags):
    """One agent, in a profile of its own: what one measures on its way must not help another."""
    profile = profile_path(work, configuration, f"rap/{kind}-{seed}")
    if not os.path.exists(profile):  # an interrupted training goes on
        copy_profile(profile_path(work, configuration, "searched"), profile)
    return work.run(configuration, "train rap", "--profile", profile, "--seed", str(seed), *flags)


def kinds_of(work):
    """What is trained: flags by kind."""
    o = work.options
    return {
        "paper": ["--reward", "paper"],
        "measured": ["--text", o.calibration, "--windows", str(o.rank_windows), "--rounds", str(o.rounds)],
        "guessed": [],
        "shared": ["--network", "shared"],
    }


def gather(work, source, target, kinds, profile):
    """Agents of several profiles into `profile`."""
    for kind in kinds:
        for seed in range(1, work.options.seeds + 1):
            flags = kinds_of(work)[kind]
            kept = [f for i, f in enumerate(flags) if {"--reward", "--network"} & {f, flags[max(i - 1, 0)]}]
            work.run(target, "train rap", "--profile", profile, "--seed", str(seed), "--from",
                     profile_path(work, source, f"rap/{kind}-{seed}"), "--episodes", "0", *kept)


def compare_agents(work, source, target, kinds, step):
    """On a copy of the profile that the measurement page's `test` left: the rivals' plans are measured already."""
    gathered = f"{step}-agents"
    path = profile_path(work, target, gathered)
    copy_profile(profile_path(work, target, "test"), path)
    gather(work, source, target, kinds, path)
    return compare(work, target, step, gathered, work.options.test, "--windows", str(work.options.test_windows))


def steps_of(work, name):
    """Name to function, in an order in which each finds what it needs."""
    o, c = work.options, by_name(name)
    steps = {}
    for kind, flags in kinds_of(work).items():
        for seed in range(1, o.seeds + 1):
            steps[f"{name}/rap/{kind}-{seed}"] = lambda kind=kind, seed=seed, flags=flags: train(work, c, kind, seed,
                                                                                                 *flags)
    steps[f"{name}/rap/test"] = lambda: compare_agents(work, c, c, ["paper", "measured"], "rap/test")
    steps[f"{name}/rap/test-guessed"] = lambda: compare_agents(work, c, c, ["guessed"], "rap/test-guessed")
    twin = by_name(TRANSFERS[name])
    steps[f"{twin.name}/rap/transfer"] = lambda: compare_agents(work, c, twin, ["shared"], "rap/transfer")
    steps[f"{name}/rap/bench"] = lambda: work.run(c, "bench")
    return steps


def read_options():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", required=True, help="folder of measurement_results.py")
    for split in ("calibration", "test"):
        parser.add_argument("--" + split, metavar="FILE", required=True)
    parser.add_argument("--espalier", default="build/release/espalier")
    parser.add_argument("--microbench", default="build/release/bench/espalier_microbench")
    parser.add_argument("--quantize", metavar="PATH", help="llama-quantize, where quantised models are missing")
    parser.add_argument("--threads", type=int, default=0, help="0: all cores")
    parser.add_argument("--seeds", type=int, default=5, help="default: %(default)s")
    parser.add_argument("--rounds", type=int, default=3, help="of training, with measuring between; default: 3")
    parser.add_argument("--rank-windows", type=int, default=16, help="as the profiles were ranked")
    parser.add_argument("--test-windows", type=int, default=64)
    parser.add_argument("--remark", metavar="TEXT", help="said on the page beside the machine: what else ran on it")
    parser.add_argument("--only", metavar="STEP,...", help="run these steps, wildcards allowed, and print no page")
    parser.add_argument("--print", action="store_true", help="run nothing: the page of what is done")
    parser.add_argument("--list", action="store_true", help="list the steps, and which are done")
    return parser.parse_args()


def main():
    options = read_options()
    work = Work(options)
    steps = {step: run for name in DEEP for step, run in steps_of(work, name).items()}
    steps["rap-decisions"] = lambda: decisions(work)
    if options.list:
        print("\n".join(f"{'done' if work.done(step) else '    '}  {step}" for step in steps))
        return
    wanted = options.only.split(",") if options.only else [] if options.print else ["*"]
    for step, run in steps.items():
        if any(fnmatch.fnmatch(step, pattern) for pattern in wanted) and not work.done(step):
            say(f"== {step}")
            start = time.monotonic()
            work.save(step, run())
            say(f"== {step}: {time.monotonic() - start:.0f} s")
    if not options.only:
        print(rap_page.page(work, [by_name(name) for name in DEEP], TRANSFERS), end="")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)

#!/usr/bin/env python3
"""Measures everything in docs/results/rap.md on the two models of this repository, and prints that page.

    bench/rap_results.py --work FOLDER --calibration FILE --test FILE > rap.md

FOLDER is that of bench/measurement_results.py, whose steps `rank`, `search` and `test` have to be done there for every
configuration: agents learn from those profiles. Steps are kept and run as there (--only, --print, --list).
"""
import os
import sys

sys.dont_write_bytecode = True  # nothing is left in the tree
import rap_page
from measurement_results import (CONFIGURATIONS, Work, compare, copy_profile, decisions, option_parser, profile_path,
                                 remove_profile, run_steps)

DEEP = ["reference-f16", "reference-q4"]
# Agents of the first serve the second; the same weights' type and KV type.
TRANSFERS = {"reference-f16": "twin-f16", "reference-q4": "twin-q4"}
# What tells kinds of agents apart. `measured` measures plans on its way, `guessed` does not.
KINDS = {"paper": ["--reward", "paper"], "measured": [], "guessed": [], "shared": ["--network", "shared"]}


def by_name(name):
    return next(c for c in CONFIGURATIONS if c.name == name)


def train(work, configuration, kind, seed):
    """One agent, in a profile of its own: what one measures on its way must not help another."""
    profile = profile_path(work, configuration, f"rap/{kind}-{seed}")
    if not os.path.exists(profile):  # an interrupted training goes on
        copy_profile(profile_path(work, configuration, "searched"), profile)
    o = work.options
    text = ["--text", o.calibration, "--windows", str(o.rank_windows), "--rounds", str(o.rounds)]
    return work.run(configuration, "train rap", "--profile", profile, "--seed", str(seed), *KINDS[kind],
                    *(text if kind == "measured" else []))


def gather(work, source, target, kinds, name):
    """Agents of several profiles into a copy of the profile that the measurement page's `test` left, where the rivals'
    plans are measured already. Where that is done and nothing it is made of is newer, nothing: a comparison that was
    interrupted goes on with what it measured."""
    path = profile_path(work, target, name)
    plans = profile_path(work, target, "test")
    agents = [(kind, seed, profile_path(work, source, f"rap/{kind}-{seed}"))
              for kind in kinds for seed in range(1, work.options.seeds + 1)]
    made_of = [p for p in (plans, *(profile for *_, profile in agents)) if os.path.exists(p)]
    if os.path.exists(path) and all(os.path.getmtime(p) <= os.path.getmtime(path) for p in made_of):
        return
    unfinished = profile_path(work, target, name + "-unfinished")
    copy_profile(plans, unfinished)
    for kind, seed, profile in agents:
        work.run(target, "train rap", "--profile", unfinished, "--seed", str(seed), "--from", profile, "--episodes",
                 "0", *KINDS[kind])
    copy_profile(unfinished, path)
    remove_profile(unfinished)


def compare_agents(work, source, target, kinds, step):
    gather(work, source, target, kinds, f"{step}-agents")
    return compare(work, target, step, f"{step}-agents", work.options.test, "--windows",
                   str(work.options.test_windows))


def steps_of(work, name):
    """Name to function, in an order in which each finds what it needs."""
    c = by_name(name)
    steps = {}
    for kind in KINDS:
        for seed in range(1, work.options.seeds + 1):
            steps[f"{name}/rap/{kind}-{seed}"] = lambda kind=kind, seed=seed: train(work, c, kind, seed)
    steps[f"{name}/rap/test"] = lambda: compare_agents(work, c, c, ["paper", "measured"], "rap/test")
    steps[f"{name}/rap/test-guessed"] = lambda: compare_agents(work, c, c, ["guessed"], "rap/test-guessed")
    twin = by_name(TRANSFERS[name])
    steps[f"{twin.name}/rap/transfer"] = lambda: compare_agents(work, c, twin, ["shared"], "rap/transfer")
    steps[f"{name}/rap/bench"] = lambda: work.run(c, "bench")
    return steps


def read_options():
    parser = option_parser(__doc__, ["calibration", "test"])
    parser.add_argument("--seeds", type=int, default=5, help="default: %(default)s")
    parser.add_argument("--rounds", type=int, default=3, help="of training, with measuring between; default: 3")
    return parser.parse_args()


def main():
    work = Work(read_options())
    steps = {step: run for name in DEEP for step, run in steps_of(work, name).items()}
    steps["rap-decisions"] = lambda: decisions(work)
    run_steps(work, steps, lambda: rap_page.page(work, [by_name(name) for name in DEEP], TRANSFERS))


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)

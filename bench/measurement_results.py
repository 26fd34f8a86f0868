#!/usr/bin/env python3
"""Measures everything in docs/results/measurement.md on the two models of this repository, and prints that page.

    bench/measurement_results.py --work FOLDER --calibration FILE --validation FILE --test FILE > measurement.md

Every step keeps its JSON in FOLDER and is not run again while that lies there: an interrupted run goes on where it
stopped, and --only runs single steps. To measure a step again, remove its JSON, and those of steps that build on it.
Quantised models are made by stock llama-quantize (--quantize; scripts/setup-llama-cpp --tools builds it) unless they
lie in FOLDER/models as MODEL-Q4_K_M.gguf. Wants a machine with nothing else to do: seconds are results here.
"""
import argparse
import fnmatch
import json
import os
import shutil
import subprocess
import sys
import time
from typing import NamedTuple

sys.dont_write_bytecode = True  # nothing is left in the tree
import measurement_page


class Configuration(NamedTuple):
    name: str
    model: str
    title: str
    weights: str
    kv: str
    exhaustive: bool  # few enough blocks to measure all plans


CONFIGURATIONS = [
    Configuration("reference-f16", "reference", "16 layers, F16", "F16", "f16", False),
    Configuration("reference-q4", "reference", "16 layers, Q4_K_M, q8_0 KV", "Q4_K_M", "q8_0", False),
    Configuration("twin-f16", "twin", "6 layers, F16", "F16", "f16", True),
    Configuration("twin-q4", "twin", "6 layers, Q4_K_M, q8_0 KV", "Q4_K_M", "q8_0", True),
]
BRUTE_BUDGETS = [f"{percent}%" for percent in range(95, 35, -5)]


def say(text):
    print(text, file=sys.stderr, flush=True)


def machine():
    model = "unknown processor"
    with open("/proc/cpuinfo", encoding="utf-8") as cpuinfo:
        for line in cpuinfo:
            if line.startswith("model name"):
                model = line.split(":", 1)[1].strip()
                break
    return f"{len(os.sched_getaffinity(0))} cores of {model}"


def output_of(command, environment=None):
    """Standard output; progress and warnings of the program go on to our standard error."""
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, env=environment, check=False)
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)}: exit code {done.returncode}")
    return done.stdout


class Work:
    """The work folder: results of steps, profiles, models; and how to run the program."""

    def __init__(self, options):
        self.options = options

    def path(self, *parts):
        path = os.path.join(self.options.work, *parts)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        return path

    def done(self, step):
        return os.path.exists(self.path(step + ".json"))

    def load(self, step):
        if not self.done(step):
            sys.exit(f"{step} has to run first")
        with open(self.path(step + ".json"), encoding="utf-8") as file:
            result = json.load(file)
        # A file that the program printed itself will do as well.
        return result if "report" in result else {"report": result}

    def report(self, step):
        return self.load(step)["report"]

    def having(self, configurations, *steps):
        """Those of which all these steps are done: a page can be printed before everything is."""
        return [c for c in configurations if all(self.done(f"{c.name}/{step}") for step in steps)]

    def save(self, step, result):
        path = self.path(step + ".json")
        with open(path + ".tmp", "w", encoding="utf-8") as file:
            json.dump(result, file, indent=1)
        os.replace(path + ".tmp", path)

    def model(self, configuration):
        """What the program takes as MODEL."""
        if configuration.weights == "F16":
            return configuration.model
        path = self.path("models", f"{configuration.model}-{configuration.weights}.gguf")
        if not os.path.exists(path):
            self.quantise(configuration, path)
        return path

    def source(self, configuration):
        """The F16 file, by its path."""
        command = [self.options.espalier, "inspect", configuration.model, "--json"]
        return json.loads(output_of(command))["model"]["path"]

    def quantise(self, configuration, path):
        tool = self.options.quantize
        if not tool:
            sys.exit(f"{path} is missing: name llama-quantize with --quantize, and it is made")
        libraries = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(tool))), "lib")
        say(f"$ llama-quantize {configuration.model} {configuration.weights}")
        output_of([tool, self.source(configuration), path + ".tmp", configuration.weights],
                  {**os.environ, "LD_LIBRARY_PATH": libraries})
        os.replace(path + ".tmp", path)

    def run(self, configuration, command, *arguments):
        kv = [] if configuration.kv == "f16" else ["-ctk", configuration.kv, "-ctv", configuration.kv]
        line = [*command.split(), self.model(configuration), *arguments, *kv, "-t", str(self.options.threads)]
        say("$ espalier " + " ".join(line))
        start = time.monotonic()
        report = json.loads(output_of([self.options.espalier, *line, "--json"]))
        return {"seconds": time.monotonic() - start, "machine": machine(), "threads": self.options.threads,
                "version": output_of([self.options.espalier, "--version"]).strip(), "report": report}


def profile_path(work, configuration, name):
    return work.path(configuration.name, name + ".profile")


def remove_profile(path):
    for file in (path, path + ".journal"):
        if os.path.exists(file):
            os.remove(file)


def copy_profile(source, target):
    if not os.path.exists(source):
        sys.exit(f"{source} is missing: the step that makes it has to run again")
    remove_profile(target)
    for suffix in (".journal", ""):  # the profile last: where it lies, all of it was copied
        if os.path.exists(source + suffix):
            shutil.copyfile(source + suffix, target + suffix)


def rank(work, configuration, name, windows, *flags):
    return work.run(configuration, "rank", "--text", work.options.calibration, "--windows", str(windows), "-o",
                    profile_path(work, configuration, name), *flags)


def rank_afresh(work, configuration, name, windows, *flags):
    """All rankings. Starts over after an interrupt: its seconds are results."""
    remove_profile(profile_path(work, configuration, name))
    return rank(work, configuration, name, windows, "--minutes", "0", *flags)


def other_ablation(work, configuration):
    """The one that is not the program's default."""
    return {"mean": "zero", "zero": "mean"}[work.report(f"{configuration.name}/rank")["ablation"]]


def rank_on(work, configuration, ranked, source, name, windows):
    """Swaps on a copy of the profile `source`, until ranking has taken --times-of-gsi times what GSI takes."""
    before = work.report(f"{configuration.name}/{ranked}")
    copy_profile(profile_path(work, configuration, source), profile_path(work, configuration, name))
    phases = {phase["name"]: phase["seconds"] for phase in before["phases"]}
    gsi = phases["statistics"] + phases["dense predictions"] + phases["gsi"]
    allowed = work.options.times_of_gsi * gsi
    left = allowed - before["seconds"]
    # What a second run repeats (statistics, dense predictions) counts.
    more = {"report": before}
    if left > 0:
        more = rank(work, configuration, name, windows, "--searches", "none", "--minutes", f"{left / 60:.4f}")
    seconds = before["seconds"] + (more["report"]["seconds"] if left > 0 else 0)
    return {**more, "gsi_seconds": gsi, "allowed_seconds": allowed, "total_seconds": seconds, "went_on": left > 0}


def compare(work, configuration, step, source, text, *flags):
    """On a copy of the profile: steps do not see what others measured. An interrupted one goes on with its copy."""
    original, copy = profile_path(work, configuration, source), profile_path(work, configuration, step)
    if not os.path.exists(copy) or os.path.exists(original) and os.path.getmtime(copy) < os.path.getmtime(original):
        copy_profile(original, copy)
    return work.run(configuration, "compare", "--profile", copy, "--text", text, *flags)


def test(work, configuration):
    flags = ["--windows", str(work.options.test_windows), "--html", work.path(configuration.name, "test.html")]
    if configuration.weights == "F16":
        flags += ["--ladder", work.source(configuration), "--ladder-folder", work.path("ladder", "")]
    return compare(work, configuration, "test", "searched", work.options.test, *flags)


def brute_scenarios(work, configuration):
    """A file of the scaled workloads that differ in KV cells, each at BRUTE_BUDGETS."""
    cells = work.report(f"{configuration.name}/validation")["cells"]
    workloads = sorted({(c["workload"]["kv_cells"], c["workload"]["text"]) for c in cells})
    distinct = []
    for kv_cells, text in workloads:
        if not distinct or kv_cells > 1.05 * distinct[-1][0]:
            distinct.append((kv_cells, text))
    path = work.path(configuration.name, "scenarios.txt")
    with open(path, "w", encoding="utf-8") as file:
        file.writelines(f"{text} {' '.join(BRUTE_BUDGETS)}\n" for _, text in distinct)
    return path


def brute_compare(work, configuration, step, source):
    """On the calibration text itself, so that a profile's archive is the truth about the plans in it."""
    # What an interrupted comparison measured would have joined the archive that is compared.
    remove_profile(profile_path(work, configuration, step))
    return compare(work, configuration, step, source, work.options.calibration, "--windows",
                   str(work.options.exhaustive_windows), "--splits", "none", "--candidates", "0", "--scenarios",
                   brute_scenarios(work, configuration))


def decisions(work):
    say("$ espalier_microbench --benchmark_filter=Decide/")
    text = output_of([work.options.microbench, "--benchmark_filter=Decide/", "--benchmark_format=json"])
    return {"machine": machine(), "report": {"benchmarks": json.loads(text)["benchmarks"]}}


def steps_of(work, configuration):
    """Name to function, in an order in which each finds what it needs."""
    o, c = work.options, configuration
    validate = ["--windows", str(o.validation_windows)]
    steps = {
        "rank": lambda: rank_afresh(work, c, "ranked", o.rank_windows),
        "search": lambda: rank_on(work, c, "rank", "ranked", "searched", o.rank_windows),
        "rank-other": lambda: rank_afresh(work, c, "ranked-other", o.rank_windows, "--ablation",
                                          other_ablation(work, c)),
        "ablation-default": lambda: compare(work, c, "ablation-default", "ranked", o.validation, *validate,
                                            "--candidates", "0"),
        "ablation-other": lambda: compare(work, c, "ablation-other", "ranked-other", o.validation, *validate,
                                          "--candidates", "0"),
        "validation": lambda: compare(work, c, "validation", "searched", o.validation, *validate),
        "test": lambda: test(work, c),
    }
    if c.exhaustive:
        steps.update({
            # `table` needs no orders: what is left of its time goes into the search.
            "brute-rank": lambda: rank_afresh(work, c, "brute-ranked", o.exhaustive_windows, "--searches",
                                              "gsi,one-shot"),
            "brute-search": lambda: rank_on(work, c, "brute-rank", "brute-ranked", "brute-searched",
                                            o.exhaustive_windows),
            "every-plan": lambda: rank(work, c, "every-plan", o.exhaustive_windows, "--every-plan"),
            "brute-decide": lambda: brute_compare(work, c, "brute-decide", "brute-searched"),
            "brute-optimum": lambda: brute_compare(work, c, "brute-optimum", "every-plan"),
        })
    return {f"{c.name}/{step}": run for step, run in steps.items()}


def option_parser(description, splits):
    """With what every page of results takes: `splits` are the texts it needs."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", required=True, help="folder of results, profiles and quantised models")
    for split in splits:
        parser.add_argument("--" + split, metavar="FILE", required=True)
    parser.add_argument("--espalier", default="build/release/espalier")
    parser.add_argument("--microbench", default="build/release/bench/espalier_microbench")
    parser.add_argument("--quantize", metavar="PATH", help="llama-quantize, where quantised models are missing")
    parser.add_argument("--threads", type=int, default=0, help="0: all cores")
    parser.add_argument("--rank-windows", type=int, default=16)
    parser.add_argument("--test-windows", type=int, default=64)
    parser.add_argument("--remark", metavar="TEXT", help="said on the page beside the machine: what else ran on it")
    parser.add_argument("--only", metavar="STEP,...", help="run these steps, wildcards allowed, and print no page")
    parser.add_argument("--print", action="store_true", help="run nothing: the page of what is done")
    parser.add_argument("--list", action="store_true", help="list the steps, and which are done")
    return parser


def run_steps(work, steps, page):
    """Runs the steps, by name, that are asked for and not done; then prints what `page` returns."""
    options = work.options
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
        print(page(), end="")


def read_options():
    parser = option_parser(__doc__, ["calibration", "validation", "test"])
    parser.add_argument("--exhaustive-windows", type=int, default=8)
    parser.add_argument("--validation-windows", type=int, default=32)
    parser.add_argument("--times-of-gsi", type=float, default=4, metavar="N",
                        help="swaps go on until ranking has taken N times what GSI takes; default: 4")
    parser.add_argument("--configurations", default=",".join(c.name for c in CONFIGURATIONS), metavar="NAME,...",
                        help="default: %(default)s")
    return parser.parse_args()


def main():
    options = read_options()
    work = Work(options)
    names = options.configurations.split(",")
    configurations = [c for c in CONFIGURATIONS if c.name in names]
    steps = {step: run for c in configurations for step, run in steps_of(work, c).items()}
    steps["decisions"] = lambda: decisions(work)
    run_steps(work, steps, lambda: measurement_page.page(work, configurations))


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)

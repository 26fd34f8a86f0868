"""Writes docs/results/rap.md from what the steps of rap_results.py left in the work folder.

Every sentence is computed from figures; what was asked for stands here as a number and is said to be met or not.
"""
import math
import os

from measurement_figures import check_means, policy_of, ratios_of
from measurement_page import interval, machines, met, percent, table

# What was asked for.
PAPER_GAP = 0.02  # to the optimum of the paper's reward, in the mean over seeds
BEATEN = ["gsi", "one-shot", "shortgpt", "mha-drop", "ffn-skip", "random"]  # by rap-measured, or equalled
BEATEN_AFTER_TRANSFER = ["random", "ffn-skip"]
TRAINING_MINUTES = 30
DECISION_MS = 1.0  # at the 99th percentile, with 64 blocks
DECODE_SHARE = 0.01  # of one decode step

# 97.5 % quantiles of Student's t, by degrees of freedom.
STUDENT = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 7: 2.365, 8: 2.306, 9: 2.262}


def over_seeds(values):
    """Mean and its 95 % interval by Student's t: {"value", "low", "high"}."""
    mean = sum(values) / len(values)
    if len(values) < 2:
        return {"value": mean, "low": math.nan, "high": math.nan}
    deviation = math.sqrt(sum((v - mean) ** 2 for v in values) / (len(values) - 1))
    half = STUDENT[len(values) - 1] * deviation / math.sqrt(len(values))
    return {"value": mean, "low": mean - half, "high": mean + half}


def ratio_over_seeds(ratios):
    """The same of ratios: by their logarithms."""
    return {key: math.exp(value) for key, value in over_seeds([math.log(r) for r in ratios]).items()}


def gap_text(gap):
    return f"{100 * gap['value']:.2f} % [{100 * gap['low']:.2f}, {100 * gap['high']:.2f}]"


class Page:
    def __init__(self, work, deep, transfers):
        self.work = work
        self.deep = deep
        self.transfers = transfers

    def trained(self, c, kind):
        """Reports of training, seed by seed, of those that are done."""
        steps = [f"{c.name}/rap/{kind}-{seed}" for seed in range(1, self.work.options.seeds + 1)]
        return [self.work.report(step) for step in steps if self.work.done(step)]

    def compared(self, step="test"):
        return [c for c in self.deep if self.work.done(f"{c.name}/rap/{step}")]

    def test(self, c, step="test"):
        report = self.work.report(f"{c.name}/rap/{step}")
        check_means(report)
        return report

    # -----------------------------------------------------------------------------------------------------------------

    def introduction(self):
        o = self.work.options
        steps = [f"{c.name}/rap/{step}" for c in self.deep for step in ("paper-1", "measured-1", "test")]
        remark = f" {o.remark}" if o.remark else ""
        flags = f"--rank-windows {o.rank_windows} --test-windows {o.test_windows}"
        report = self.test(self.compared()[0])
        return f"""# RAP: what the learned agent is worth

The agent of RAP (arXiv 2505.17138) in its two forms, `paper` (the paper's reward) and `measured` (a loss for a reward),
on the 16-layer model of `models/` in two configurations: {" and ".join(f"({c.title})" for c in self.deep)}. Everything
on this page is printed by

```
bench/measurement_results.py --work FOLDER ... --only '*/rank,*/search,*/test'
bench/rap_results.py --work FOLDER {flags} --seeds {o.seeds} \\
  --calibration books-calibration.txt --test books-test.txt
```

Machine: {machines(self.work, steps)}.{remark}

{o.seeds} seeds; each agent is trained on a copy of the profile that [measurement.md](measurement.md) compares
(`searched`), so that no agent profits from what another one measured. Test:
{report['scored_tokens']} tokens of `{os.path.basename(report['corpus'])}`, workloads, budgets and intervals as on that page. Intervals
over seeds are 95 % by Student's t (of ratios: of their logarithms)."""

    # -----------------------------------------------------------------------------------------------------------------

    def paper_gaps(self, c):
        return over_seeds([report["gaps"][-1]["mean"] for report in self.trained(c, "paper")])

    def asked_rows(self):
        rows = []
        for c in self.deep:
            if self.trained(c, "paper"):
                gap = self.paper_gaps(c)
                rows.append([f"`rap-paper`, gap to the optimum of its own objective, {c.title}",
                             f"<= {percent(PAPER_GAP)}", gap_text(gap), met(gap["value"] <= PAPER_GAP)])
        for c in self.compared():
            report = self.test(c)
            ours = policy_of(report, "rap-measured")["geometric_mean_ratio"]["value"]
            for name in BEATEN:
                theirs = policy_of(report, name)["geometric_mean_ratio"]["value"]
                rows.append([f"loss of `rap-measured` over that of `{name}`, {c.title}", "<= 1", f"{ours / theirs:.3f}",
                             met(ours <= theirs)])
        for source, target in self.transfers.items():
            if not self.work.done(f"{target}/rap/transfer"):
                continue
            report = self.work.report(f"{target}/rap/transfer")
            ours = policy_of(report, "rap-measured")["geometric_mean_ratio"]["value"]
            for name in BEATEN_AFTER_TRANSFER:
                theirs = policy_of(report, name)["geometric_mean_ratio"]["value"]
                rows.append([f"the same, agent of {source} on {target}, over `{name}`", "< 1", f"{ours / theirs:.3f}",
                             met(ours < theirs)])
        minutes = [r["seconds"] / 60 for c in self.deep for kind in ("paper", "measured") for r in self.trained(c, kind)]
        rows.append(["one training, measurements included, at worst", f"<= {TRAINING_MINUTES} min",
                     f"{max(minutes):.1f} min", met(max(minutes) <= TRAINING_MINUTES)])
        rows += self.decision_rows()
        return rows

    def asked(self):
        return "## What was asked for\n\n" + table(["figure", "asked for", "measured", ""], self.asked_rows())

    # -----------------------------------------------------------------------------------------------------------------

    def two_gaps(self):
        rows = []
        optima = []
        for c in self.compared():
            report = self.test(c)
            exact, agent = policy_of(report, "rap-exact"), policy_of(report, "rap-paper")
            worst = max(r["gaps"][-1]["worst"] for r in self.trained(c, "paper"))
            optima.append(exact["geometric_mean_ratio"]["value"])
            rows.append([c.title, gap_text(self.paper_gaps(c)), percent(worst), interval(exact["geometric_mean_ratio"]),
                         interval(agent["geometric_mean_ratio"])])
        return f"""## The paper's reward: how well it is learned, and how good it is to learn it

The reward adds up over steps, so its optimum is known exactly (dynamic programming, `src/rl/exact.h`): the gap of an
agent's return to it, over 200 tasks that no agent was trained on or chosen by, says how well the agent learned what it
was told. What that is worth is another figure: the loss of the optimum's own plans (`rap-exact`), which no agent has
to find, over the loss of the best plans known.

{table(["", "gap to the optimum, seeds", "worst task", "loss of the optimum over best known", "loss of the agents over best known"], rows)}

The reward is paid for every step, so many small drops pay better than a large one: an agent that had learned it perfectly
would still lose {" and ".join(f"{r:.1f}" for r in optima)} times what the best plans known do."""

    def seeds_of(self, policy):
        return [s["value"] for s in policy["by_seed"]]

    def losses(self, c, step="test"):
        report = self.test(c, step)
        budgets = [b["budget"] for b in report["policies"][0]["by_budget"]]
        rows = []
        for policy in report["policies"]:
            seeds = self.seeds_of(policy)
            rows.append([f"`{policy['policy']}`", *(f"{b['value']:.3f}" for b in policy["by_budget"]),
                         interval(policy["geometric_mean_ratio"]),
                         interval(ratio_over_seeds(seeds)) if len(seeds) > 1 else "",
                         interval(policy["ratio_to_table"]), policy["refusals"]])
        return table(["policy", *budgets, "all [windows]", "all, by seed [seeds]", "over `table` [windows]",
                      "cells refused"], rows)

    def against(self, c, names=("table", "density", "gsi")):
        report = self.test(c)
        ours = self.seeds_of(policy_of(report, "rap-measured"))
        parts = []
        for name in names:
            theirs = policy_of(report, name)["geometric_mean_ratio"]["value"]
            parts.append(f"`{name}` {interval(ratio_over_seeds([r / theirs for r in ours]))}")
        guessed = ""
        if self.work.done(f"{c.name}/rap/test-guessed"):
            report = self.test(c, "test-guessed")
            ours = self.seeds_of(policy_of(report, "rap-measured"))
            theirs = policy_of(report, "table")["geometric_mean_ratio"]["value"]
            guessed = (" Trained without `--text`, on the archive and guesses alone: "
                       f"{interval(ratio_over_seeds([r / theirs for r in ours]))} times `table`.")
        return f"Loss of `rap-measured` over that of others, over seeds: {', '.join(parts)}.{guessed}"

    def measured(self):
        parts = ["""## The measured reward, beside everything else

`espalier compare`: loss over best known, geometric mean over cells; *all* is of the mean loss over seeds, in brackets
its interval over windows of text; *by seed* has the interval over seeds. The paper's ablations are in the table: no RL
is `random`, GSI without RL `gsi`, one-shot importance `one-shot`."""]
        for c in self.compared():
            parts += [f"### {c.title}", self.losses(c), self.against(c)]
        reports = [self.test(c) for c in self.compared()]
        pooled = lambda name: math.exp(sum(map(math.log, (r for report in reports for r in ratios_of(report, name)))) /
                                       sum(len(ratios_of(report, name)) for report in reports))
        ours, default = pooled("rap-measured"), pooled("table")
        verdict = (f"it stays behind `table` ({default:.3f}), which stays the default" if ours > default else
                   f"it is not behind `table` ({default:.3f})")
        parts.append(f"Over all configurations `rap-measured` loses {ours:.3f} times the best known: {verdict}.")
        return "\n\n".join(parts)

    # -----------------------------------------------------------------------------------------------------------------

    def time_rows(self):
        rows = []
        for c in self.deep:
            for kind in ("paper", "guessed", "measured", "shared"):
                reports = self.trained(c, kind)
                if not reports:
                    continue
                mean = lambda value: sum(map(value, reports)) / len(reports)
                rows.append([c.title, kind, reports[0]["gaps"][-1]["episodes"],
                             f"{mean(lambda r: r['seconds_of']['episodes']):.0f}",
                             f"{mean(lambda r: r['seconds_of']['surrogate']):.1f}",
                             f"{mean(lambda r: r['plans_measured']):.0f}",
                             f"{mean(lambda r: r['seconds_of']['measuring']):.0f}",
                             f"{mean(lambda r: r['seconds']):.0f}", f"{max(r['seconds'] for r in reports):.0f}"])
        return rows

    def times(self):
        ranking = "; ".join(
            f"{c.title}: {self.work.load(f'{c.name}/search')['total_seconds'] / 60:.0f} min" for c in self.deep
            if self.work.done(f"{c.name}/search") and "total_seconds" in self.work.load(f"{c.name}/search"))
        return f"""## Where the time of a training goes

`espalier train rap`, in the mean over seeds. `measured` is trained with `--text` in rounds and measures between them
what it would serve; `guessed` is the same without `--text`; `shared` is the network for any depth, without `--text`.

{table(["", "agent", "episodes", "s episodes", "s surrogate", "plans measured", "s measuring", "s in all", "s at worst"],
       self.time_rows())}

An agent needs a profile, as every policy does: ranking and search took, with one thread beside other work, {ranking}."""

    def learning(self):
        rows = []
        for c in self.deep:
            for kind in ("paper", "measured"):
                reports = self.trained(c, kind)
                if not reports:
                    continue
                curves = [r["curve"] for r in reports]
                at = lambda share: over_seeds([curve[max(0, round(share * len(curve)) - 1)]["return"]
                                               for curve in curves])
                rows.append([c.title, kind, *(interval(at(share), 2) for share in (0.01, 0.1, 0.25, 0.5, 1))])
        return f"""## Learning

Mean return of the training episodes (exploring included) after a share of all episodes, over seeds; of `measured` it is
minus the logarithm of the loss over the least known, in rounds that each begin with some exploring again.

{table(["", "agent", "1 %", "10 %", "25 %", "50 %", "100 %"], rows)}"""

    def transfer(self):
        parts = []
        for source, target in self.transfers.items():
            if not self.work.done(f"{target}/rap/transfer"):
                continue
            report = self.work.report(f"{target}/rap/transfer")
            rows = []
            for policy in report["policies"]:
                seeds = self.seeds_of(policy)
                rows.append([f"`{policy['policy']}`", interval(policy["geometric_mean_ratio"]),
                             interval(ratio_over_seeds(seeds)) if len(seeds) > 1 else ""])
            parts.append(f"### {source} to {target}\n\n" +
                         table(["policy", "loss over best known [windows]", "by seed [seeds]"], rows))
        if not parts:
            return ""
        return ("## An agent of 16 layers on the model of 6 layers\n\nNetwork `shared`, trained on the 16-layer model "
                "without `--text`; it serves the 6-layer model as it is (`--from`, `--episodes 0`) with that model's "
                "own GSI scores, and no training there.\n\n" + "\n\n".join(parts))

    # -----------------------------------------------------------------------------------------------------------------

    def worst_cases(self):
        """(network, blocks): the benchmark's figures."""
        if not self.work.done("rap-decisions"):
            return {}
        cases = {}
        for benchmark in self.work.report("rap-decisions")["benchmarks"]:
            parts = benchmark["name"].split("/")
            if parts[1].startswith("rap"):
                cases[(parts[1], int(parts[2].split(":")[1]))] = benchmark
        return cases

    def decode_share(self, c):
        """p99 of a decision in the cells of `compare` over the milliseconds of one decode step of the dense model."""
        if not self.work.done(f"{c.name}/rap/bench") or c not in self.compared():
            return None
        step_ms = 1000 / self.work.report(f"{c.name}/rap/bench")["decode_tokens_per_second"]
        policy = policy_of(self.test(c), "rap-measured")
        return {"step_ms": step_ms, "median_ms": policy["decision_median_ms"], "p99_ms": policy["decision_p99_ms"]}

    def decision_rows(self):
        rows = []
        for (name, blocks), figures in self.worst_cases().items():
            if blocks == 64:
                rows.append([f"decision, {name}, 64 blocks, all of which have to go, p99", f"<= {DECISION_MS:g} ms",
                             f"{figures['p99_ms']:.3f} ms", met(figures["p99_ms"] <= DECISION_MS)])
        for c in self.deep:
            share = self.decode_share(c)
            if share:
                for name, ms in (("median", share["median_ms"]), ("p99", share["p99_ms"])):
                    part = ms / share["step_ms"]
                    rows.append([f"decision in the cells of `compare`, {name}, over one decode step, {c.title}",
                                 f"<= {percent(DECODE_SHARE)}", percent(part), met(part <= DECODE_SHARE)])
        return rows

    def decisions(self):
        cases = [[name, blocks, f"{1000 * f['p99_ms']:.1f}", f"{1000 * f['p99_processor_ms']:.1f}",
                  f"{f['real_time']:.1f}"] for (name, blocks), f in self.worst_cases().items()]
        steps = []
        for c in self.deep:
            share = self.decode_share(c)
            if share:
                steps.append([c.title, f"{1000 * share['median_ms']:.1f}", f"{1000 * share['p99_ms']:.1f}",
                              f"{1000 * share['step_ms']:.0f}", percent(share["median_ms"] / share["step_ms"]),
                              percent(share["p99_ms"] / share["step_ms"])])
        return f"""## One decision

The worst case, in which every block has to go (`espalier_microbench --benchmark_filter=Decide/`), in microseconds:

{table(["network", "blocks", "p99", "p99 of processor time", "mean"], cases)}

In the cells of `compare`, beside one decode step of the dense model (`espalier bench`, one sequence, same threads), in
microseconds:

{table(["", "decision, median", "p99", "decode step", "median / step", "p99 / step"], steps)}

Of all calls in a cell the first of each policy finds caches that others filled: one in 50, so that p99 is about what a
cold decision takes."""


def page(work, deep, transfers):
    p = Page(work, deep, transfers)
    parts = [p.introduction(), p.asked(), p.two_gaps(), p.measured(), p.times(), p.learning(), p.transfer(),
             p.decisions()]
    return "\n\n".join(part for part in parts if part) + "\n"

"""Writes docs/results/measurement.md from what the steps of measurement_results.py left in the work folder.

Every sentence is computed from figures; what was asked for stands here as a number and is said to be met or not.
"""
import hashlib
import os

from measurement_figures import (ablation_ratios, check_means, geometric_mean, gsi_share, limit_gap, optimum_ratios,
                                 phase, policies_by_rank, policy_of, pooled_ratios, same_plan_gap)

# What was asked for.
GSI_SHARE = 0.30  # of the naive loop's FLOPs, at most
DEFAULT_RATIO = 1.05  # loss over best known, at most
OPTIMUM_RATIO = 1.01  # loss of table over the optimum's, at most
DECISION_MS = 1.0  # at the 99th percentile, with 10 000 rows, at most
# The policy that the program takes where none is named.
DEFAULT_POLICY = "table"
# Two losses of one plan differ by rounding at most.
SAME = 1e-6

SPLITS = {
    "calibration": "120 excerpts of books from the reference models' training set",
    "validation": "excerpts of 12 books the reference models never saw",
    "test": "excerpts of 12 books the reference models never saw",
}


def met(ok):
    return "met" if ok else "**not met**"


def percent(share):
    return f"{100 * share:.1f} %"


def table(header, rows):
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    return "\n".join(lines + ["| " + " | ".join(map(str, row)) + " |" for row in rows])


def interval(figure, digits=3):
    if not figure or "value" not in figure:
        return "-"
    return f"{figure['value']:.{digits}f} [{figure['low']:.{digits}f}, {figure['high']:.{digits}f}]"


# ---------------------------------------------------------------------------------------------------------------------
# What was measured


def settings(work, configurations):
    o = work.options
    rows = []
    for split, text in SPLITS.items():
        path = getattr(o, split)
        with open(path, "rb") as file:
            digest = hashlib.sha256(file.read()).hexdigest()[:16]
        steps = {"calibration": ["rank", "brute-rank"], "validation": ["validation"], "test": ["test"]}[split]
        reports = [work.report(f"{c.name}/{s}") for s in steps for c in configurations if work.done(f"{c.name}/{s}")]
        used = sorted({(r["windows"], r["window_tokens"], r["scored_tokens"], r["tokens_hash"]) for r in reports})
        for windows, tokens, scored, tokens_hash in used:
            rows.append([split, text, os.path.basename(path), digest, f"{windows} x {tokens}", scored, tokens_hash])
    return table(["split", "text", "file", "its SHA-256, first 16 digits", "windows x tokens, spread evenly", "scored tokens",
                  "hash of the scored tokens"], rows)


def machines(work, steps):
    loaded = [work.load(step) for step in steps if work.done(step)]
    return "; ".join(sorted({f"{r['machine']}, threads: {r['threads'] or 'all'}, {r['version']}" for r in loaded
                             if "version" in r}))


def introduction(work, configurations):
    o = work.options
    steps = [f"{c.name}/{s}" for c in configurations for s in ("rank", "search", "validation", "test")]
    files = " ".join(f"--{split} {os.path.basename(getattr(o, split))}" for split in SPLITS)
    names = ",".join(c.name for c in configurations)
    remark = f" {o.remark}" if o.remark else ""
    windows = " ".join(f"--{name}-windows {getattr(o, name + '_windows')}"
                       for name in ("rank", "exhaustive", "validation", "test"))
    return f"""# Measurement: what blocks are worth, which policy, how far from the optimum, and when pruning wins

Configurations: {"; ".join(c.title for c in configurations)} (KV in f16 where nothing else is said); the two models of
`models/`. Everything on this page is printed by

```
bench/measurement_results.py --work FOLDER {windows} \\
  {files} \\
  --configurations {names}
```

Machine: {machines(work, steps)}.{remark} Protocol gptq; every window counts the same.

{settings(work, configurations)}

Loss is KL(dense || plan) in nats per token, against the dense model of the same weights and KV type. Intervals are 95 %
by bootstrap over windows. A cell is a workload at a budget; *best known* is the plan with the least loss on the very
text, of all that were measured on it and fit the cell. Workloads are the ten of the RAP paper with tokens scaled to the
model's size (`espalier compare --scenarios scaled`), budgets 90, 80, 70 and 60 % of each one's dense peak."""


# ---------------------------------------------------------------------------------------------------------------------
# Ranking


def phase_row(name, phases):
    total = lambda key: sum(p[key] for p in phases)
    share = f"{percent(phases[0]['share_of_naive'])}" if phases[0]["share_of_naive"] else ""
    return [name, total("plans"), total("measured_windows"), f"{total('flop') / 1e9:.1f}", share,
            f"{total('seconds'):.1f}"]


def ranking_table(report, search):
    chains = [p for p in report["phases"] if p["name"].startswith("density")]
    rows = [phase_row(p["name"], [p]) for p in report["phases"] if p not in chains and p["name"] != "swaps"]
    rows.append(phase_row(f"density, {len(chains)} chains", chains))
    if search["went_on"]:
        again = search["report"]["seconds"] - phase(search["report"], "swaps")["seconds"]
        rows.append(phase_row("swaps", [phase(search["report"], "swaps")]))
        rows.append(["read again for swaps", "", "", "", "", f"{again:.1f}"])
    rows.append(["**all**", search["report"]["archive_plans"], "", "", "", f"{search['total_seconds']:.1f}"])
    return table(["phase", "plans measured whole", "windows measured", "GFLOP", "of the naive loop", "seconds"], rows)


def search_sentence(search):
    times = search["total_seconds"] / search["gsi_seconds"]
    what = "with swaps" if search["went_on"] else "without swaps, since its chains had used that time up"
    return f"Ranking took {search['total_seconds']:.0f} s in all, {times:.1f} times what GSI takes, {what}."


def ranking_section(work, configurations):
    parts = ["""## What ranking costs

`espalier rank`, wall clock. GSI's time is that of statistics, dense predictions and gsi. Swaps go on until ranking has
taken a few times that (`--times-of-gsi`), or not at all if the chains took longer."""]
    for c in work.having(configurations, "rank", "search"):
        report, search = work.report(f"{c.name}/rank"), work.load(f"{c.name}/search")
        share = gsi_share(report)
        text = (f"GSI took {search['gsi_seconds']:.0f} s and {percent(share)} of the naive loop's FLOPs; at most "
                f"{percent(GSI_SHARE)} was asked for: {met(share <= GSI_SHARE)}. {search_sentence(search)}")
        parts += [f"### {c.title}", ranking_table(report, search), text]
    return parts


# ---------------------------------------------------------------------------------------------------------------------
# Mean ablation


def ablation_section(work, configurations):
    configurations = work.having(configurations, "ablation-default", "ablation-other")
    if not configurations:
        return []
    columns, gaps = {}, []
    for c in configurations:
        both = [work.report(f"{c.name}/{step}") for step in ("ablation-default", "ablation-other")]
        mean, zero = sorted(both, key=lambda report: report["ablation"])
        assert (mean["ablation"], zero["ablation"]) == ("mean", "zero"), c.name
        gaps.append(limit_gap(mean, zero))
        columns[c] = ablation_ratios(mean, zero)
    policies = [p for p in columns[configurations[0]] if all(p in column for column in columns.values())]
    cell = lambda ratios: f"{geometric_mean(ratios):.3f}"
    rows = [[f"`{p}`", *(cell(columns[c][p]) for c in configurations)] for p in policies]
    pooled = {c: [r for p in policies for r in columns[c][p]] for c in configurations}
    rows.append(["**all**", *(cell(pooled[c]) for c in configurations)])
    better = [c.title for c in configurations if geometric_mean(pooled[c]) < 1]
    everything = [r for ratios in pooled.values() for r in ratios]
    default = work.report(f"{configurations[0].name}/rank")["ablation"]
    mean = geometric_mean(everything)
    of_default_policy = [r for c in configurations for r in columns[c][DEFAULT_POLICY]]
    verdict = "the better" if (default == "mean") == (mean < 1) else "**the worse**"
    text = (f"Over all policies and configurations mean ablation loses {mean:.3f} times what zero ablation loses, in "
            f"{percent(sum(r < 1 for r in everything) / len(everything))} of cells less. It is the better one in "
            f"{len(better)} of {len(configurations)} configurations{': ' + '; '.join(better) if better else ''}. With "
            f"`{DEFAULT_POLICY}`: {cell(of_default_policy)}. The default of `espalier rank` is {default}: {verdict} "
            "one here.")
    return [f"""## Mean ablation

What dropped blocks add to the residual stream: their mean output on calibration text, or nothing. Both were ranked
separately, without swaps; loss(mean) / loss(zero) on validation, geometric mean over cells, same policy. Limits differ
by at most {100 * max(gaps):.2g} % between the two (the means are resident and count).""",
            table(["policy", *(c.title for c in configurations)], rows), text]


# ---------------------------------------------------------------------------------------------------------------------
# Policies on validation and test


def ratio_table(work, configurations, step):
    rows = []
    for refused, mean, policy in policies_by_rank(work, configurations, step):
        of = [policy_of(work.report(f"{c.name}/{step}"), policy) for c in configurations]
        rows.append([f"`{policy}`", *(interval(p["geometric_mean_ratio"]) for p in of), f"{mean:.3f}", refused])
    return table(["policy", *(c.title for c in configurations), "all", "cells refused"], rows)


def chosen_policy(work, configurations):
    return policies_by_rank(work, work.having(configurations, "validation"), "validation")[0][2]


def validation_section(work, configurations):
    configurations = work.having(configurations, "validation")
    (_, mean, chosen), *rest = policies_by_rank(work, configurations, "validation")
    text = (f"Over all cells `{chosen}` does best, {mean:.3f} (next: `{rest[0][2]}`, {rest[0][1]:.3f}). ")
    text += "It is the default." if chosen == DEFAULT_POLICY else \
        f"**It is not `{DEFAULT_POLICY}`, which the program takes by default.**"
    for c in configurations:
        check_means(work.report(f"{c.name}/validation"))
    return ["""## Choosing the default: validation

Loss over best known, geometric mean over cells. The policy that refuses in the fewest cells and, among those, has the
least mean over all configurations is chosen.""", ratio_table(work, configurations, "validation"), text]


def test_table(report):
    budgets = [b["budget"] for b in report["policies"][0]["by_budget"]]
    rows = [[f"`{p['policy']}`", *(interval(b) for b in p["by_budget"]), interval(p["geometric_mean_ratio"]),
             p["refusals"], f"{p['decision_p99_ms']:.3f}"] for p in report["policies"]]
    return table(["policy", *budgets, "all", "cells refused", "decision p99, ms"], rows)


def test_sentence(work, configurations):
    chosen = chosen_policy(work, configurations)
    mean = geometric_mean(pooled_ratios(work, configurations, "test", chosen))
    best = policies_by_rank(work, configurations, "test")[0]
    text = (f"`{chosen}`, chosen on validation, loses {mean:.3f} times what the best known plan loses, over all cells "
            f"of all configurations; at most {DEFAULT_RATIO} was asked for: {met(mean <= DEFAULT_RATIO)}.")
    if best[2] != chosen:
        text += f" On test `{best[2]}` does better: {best[1]:.3f}."
    return text


def test_section(work, configurations):
    configurations = work.having(configurations, "test")
    parts = ["## Reported: test", ratio_table(work, configurations, "test"), test_sentence(work, configurations)]
    for c in configurations:
        report = work.report(f"{c.name}/test")
        check_means(report)
        text = f"Dense perplexity {report['perplexity_dense']:.3f}; {report['plans_known']} plans measured on it."
        parts += [f"### {c.title}", test_table(report), " ".join([text, *report["verdicts"]])]
    return parts


# ---------------------------------------------------------------------------------------------------------------------
# The quantisation ladder


def ladder_table(ladder):
    source = ladder["rungs"][0]
    workloads = [s["workload"] for s in ladder["statements"]]
    rows = []
    for step in (s for s in ladder["steps"] if s["workload"] == workloads[0]):
        row = [f"{step['larger']} pruned to {step['smaller']}"]
        for i, workload in enumerate(workloads):
            same = next(s for s in ladder["steps"] if s["workload"] == workload and s["larger"] == step["larger"])
            share = same["smaller_dense_bytes"] / source["dense_peak_bytes"][i]
            ratio = interval(same.get("ratio"), 2)
            row.append(f"{percent(share)}: " + (f"**{ratio}**" if same["pruning_wins"] else ratio))
        rows.append(row)
    return table(["pruned / quantised", *workloads], rows)


def ladder_section(work, configurations):
    ladders = [(c, work.report(f"{c.name}/test")["ladder"]) for c in work.having(configurations, "test")]
    ladders = [(c, ladder) for c, ladder in ladders if ladder]
    if not ladders:
        return []
    parts = ["""## The quantisation ladder: pruning or the next smaller type?

Test text; losses against the dense F16 model. Each type is pruned until it takes no more bytes than the next smaller
one dense, at the same workload: share of the F16 dense bytes, and loss of the pruned model over that of the smaller
type, below 1 (bold) where pruning wins."""]
    for c, ladder in ladders:
        rungs = [[r["type"], interval(r["loss_nats"], 4), f"{r['perplexity']:.3f}"] for r in ladder["rungs"]]
        parts += [f"### {c.title.split(',')[0]}", table(["dense", "loss", "perplexity"], rungs), ladder_table(ladder),
                  f"Pruned by `{ladder['policy']}`:", "\n".join(f"* {s['text']}." for s in ladder["statements"])]
    return parts


# ---------------------------------------------------------------------------------------------------------------------
# The true optimum


def optimum_tables(ratios):
    rows = []
    for policy, pairs in sorted(ratios.items(), key=lambda item: geometric_mean([r for _, r in item[1]])):
        values = [r for _, r in pairs]
        rows.append([f"`{policy}`", f"{geometric_mean(values):.4f}", f"{max(values):.3f}",
                     percent(sum(r <= 1 + SAME for r in values) / len(values)), len(values)])
    summary = table(["policy", "geometric mean", "maximum", "cells with the optimum's loss", "cells"], rows)
    shown = [p for p in ("table", "density", "gsi", "one-shot") if p in ratios]
    budgets = list(dict.fromkeys(cell["budget"] for cell, _ in ratios["table"]))
    at = lambda policy, budget: [r for cell, r in ratios[policy] if cell["budget"] == budget]
    rows = [[b, *(f"{geometric_mean(at(p, b)):.4f} ({max(at(p, b)):.3f})" if at(p, b) else "-" for p in shown)]
            for b in budgets]
    return [summary, table(["budget: geometric mean (maximum)", *(f"`{p}`" for p in shown)], rows)]


def optimum_sentence(work, c, ratios):
    worst_cell, worst = max(ratios["table"], key=lambda pair: pair[1])
    search = work.load(f"{c.name}/brute-search")
    times = search["total_seconds"] / search["gsi_seconds"]
    text = (f"`table` after {search['total_seconds']:.0f} s of ranking, {times:.1f} times what GSI takes: within "
            f"{percent(OPTIMUM_RATIO - 1)} of the optimum's loss at every budget: {met(worst <= OPTIMUM_RATIO)}; at "
            f"worst {worst:.4f}")
    text += f" (at {worst_cell['workload']['text']}, {worst_cell['budget']}). " if worst > 1 + SAME else ". "
    far = [f"`{p}` {geometric_mean([r for _, r in ratios[p]]):.3f} (at worst {max(r for _, r in ratios[p]):.3f})"
           for p in ("gsi", "density") if p in ratios]
    return text + f"Times the optimum's loss in the mean: {', '.join(far)}."


def optimum_section(work, configurations):
    parts = ["""## The true optimum: all 4096 plans of the 6-layer model

Ranked and compared on the calibration text itself, so that nothing but the search is judged: loss of what a policy
decides over the loss of the best of all plans that fit. Workloads of the four KV totals, budgets 95 to 40 %. What `table`
decides by was ranked by GSI and one-shot, and searched for the rest of the time; the other orders are those of the run
that measured all plans."""]
    for c in work.having(configurations, "brute-optimum"):
        ratios = optimum_ratios(work, c)
        report = work.report(f"{c.name}/brute-decide")
        cells, kept = len(report["cells"]), len(ratios["table"])
        gap = limit_gap(report, work.report(f"{c.name}/brute-optimum"))
        every = phase(work.report(f"{c.name}/every-plan"), "every plan")
        notes = (f"{cells - kept} of {cells} cells are left out: no plan fits, or the dense one does. Measuring all "
                 f"plans on {report['windows']} windows took {every['seconds']:.0f} s for the "
                 f"{every['measured_windows']} plan windows that the rankings had not measured. Both runs measured the "
                 f"same tokens; their losses of one plan differ by {same_plan_gap(work, c):.1g} at most, limits by "
                 f"{gap:.1g} (relative).")
        parts += [f"### {c.title}", *optimum_tables(ratios), optimum_sentence(work, c, ratios), notes]
    return parts if len(parts) > 1 else []


# ---------------------------------------------------------------------------------------------------------------------
# Decisions


def decision_section(work):
    result = work.load("decisions")
    figures = {}
    for b in result["report"]["benchmarks"]:
        policy, blocks = b["name"].split("/")[1:3]
        assert b["time_unit"] == "us" and b["rows"] == 10000, b
        figures.setdefault(policy, {})[int(blocks.split(":")[1])] = b
    sizes = sorted({blocks for of in figures.values() for blocks in of})
    times = lambda b: f"{b['real_time'] / 1000:.3f} / {b['p99_ms']:.3f} / {b['p99_processor_ms']:.3f}"
    rows = [[f"`{policy}`", *(times(of[n]) for n in sizes)] for policy, of in figures.items()]
    worst = max(b["p99_ms"] for of in figures.values() for b in of.values())
    processor = max(b["p99_processor_ms"] for of in figures.values() for b in of.values())
    return ["""## One decision with 10 000 measured plans

`espalier_microbench --benchmark_filter=Decide/`: the worst case of each policy. Milliseconds: mean / 99th percentile /
99th percentile of processor time.""", table(["policy", *(f"{n} blocks" for n in sizes)], rows),
            f"The slowest takes {worst:.3f} ms at the 99th percentile; at most {DECISION_MS:g} ms was asked for: "
            f"{met(worst <= DECISION_MS)}. Of processor time the slowest takes {processor:.3f} ms."]


def overview(work, configurations):
    worst_share = max(gsi_share(work.report(f"{c.name}/rank")) for c in work.having(configurations, "rank"))
    rows = [["GSI's FLOPs over the naive loop's, at worst", f"<= {percent(GSI_SHARE)}", percent(worst_share),
             met(worst_share <= GSI_SHARE)]]
    chosen = chosen_policy(work, configurations)
    tested = work.having(configurations, "test")
    for policy in dict.fromkeys([chosen, DEFAULT_POLICY]):
        why = "chosen on validation" if policy == chosen else "the program's default"
        mean = geometric_mean(pooled_ratios(work, tested, "test", policy))
        rows.append([f"loss of `{policy}` ({why}) over best known, test, all cells", f"<= {DEFAULT_RATIO}",
                     f"{mean:.3f}", met(mean <= DEFAULT_RATIO)])
    for c in work.having(configurations, "brute-optimum"):
        worst = max(r for _, r in optimum_ratios(work, c)["table"])
        rows.append([f"loss of `table` over the optimum's, {c.title}, at worst", f"<= {OPTIMUM_RATIO}", f"{worst:.4f}",
                     met(worst <= OPTIMUM_RATIO)])
    worst = max(b["p99_ms"] for b in work.report("decisions")["benchmarks"])
    rows.append(["a decision with 10 000 rows, p99 of the slowest policy", f"<= {DECISION_MS:g} ms", f"{worst:.3f} ms",
                 met(worst <= DECISION_MS)])
    return ["## What was asked for", table(["figure", "asked for", "measured", ""], rows)]


def page(work, configurations):
    sections = [overview, ranking_section, ablation_section, validation_section, test_section, ladder_section,
                optimum_section]
    parts = [introduction(work, configurations)]
    for section in sections:
        parts += section(work, configurations)
    parts += decision_section(work)
    return "\n\n".join(parts) + "\n"

"""Figures of docs/results/measurement.md, from what the steps of measurement_results.py left in the work folder."""
import math


def geometric_mean(ratios):
    return math.exp(sum(map(math.log, ratios)) / len(ratios))


def phase(report, name):
    return next(p for p in report["phases"] if p["name"] == name)


def policy_of(report, name):
    return next((p for p in report["policies"] if p["policy"] == name), None)


def results_of(report, policy):
    """(cell, result) for every cell, in the order of cells."""
    return [(cell, next(p for p in cell["policies"] if p["policy"] == policy)) for cell in report["cells"]]


def ratios_of(report, policy, budget=None):
    """Loss over best known in every cell that has a ratio."""
    return [result["ratio_to_best_known"]["value"] for cell, result in results_of(report, policy)
            if not result["refused"] and result["ratio_to_best_known"] and budget in (None, cell["budget"])]


def check_means(report):
    """The program's geometric means are those of its cells."""
    for policy in report["policies"]:
        for figure in [policy["geometric_mean_ratio"], *policy["by_budget"]]:
            ratios = ratios_of(report, policy["policy"], figure.get("budget"))
            assert len(ratios) == figure["cells"], (policy["policy"], figure)
            assert not ratios or math.isclose(geometric_mean(ratios), figure["value"], rel_tol=1e-9), figure


def gsi_share(report):
    """FLOPs of GSI over those of the naive loop."""
    gsi = phase(report, "gsi")
    assert gsi["recalled_windows"] == 0, "GSI found windows measured before it"
    return gsi["flop"] / gsi["naive_flop"]


def ablation_ratios(mean, zero):
    """By policy: loss(mean) / loss(zero) in every cell where both plans lose something."""
    ratios = {}
    for policy in [p["policy"] for p in mean["policies"] if policy_of(zero, p["policy"])]:
        pairs = zip(results_of(mean, policy), results_of(zero, policy), strict=True)
        losses = [(a["loss_nats"]["value"], b["loss_nats"]["value"]) for (_, a), (_, b) in pairs
                  if not a["refused"] and not b["refused"]]
        ratios[policy] = [a / b for a, b in losses if a > 0 and b > 0]
    return {policy: values for policy, values in ratios.items() if values}


def limit_gap(one, other):
    """The largest relative difference between limits on managed bytes of the same cells in two comparisons."""
    limits = [[c["budget_bytes"] - c["process_bytes"] for c in report["cells"]] for report in (one, other)]
    return max(abs(a / b - 1) for a, b in zip(*limits, strict=True))


def pooled_ratios(work, configurations, step, policy):
    return [r for c in configurations for r in ratios_of(work.report(f"{c.name}/{step}"), policy)]


def refusals(work, configurations, step, policy):
    return sum(policy_of(work.report(f"{c.name}/{step}"), policy)["refusals"] for c in configurations)


def policies_by_rank(work, configurations, step):
    """(refusals, geometric mean over all cells, name), best first."""
    reports = [work.report(f"{c.name}/{step}") for c in configurations]
    common = [p["policy"] for p in reports[0]["policies"] if all(policy_of(r, p["policy"]) for r in reports)]
    return sorted((refusals(work, configurations, step, p),
                   geometric_mean(pooled_ratios(work, configurations, step, p)), p) for p in common)


def optimum_ratios(work, c):
    """By policy: [(cell, loss of what it decides / loss of the best of all plans)]."""
    decided, every = work.report(f"{c.name}/brute-decide"), work.report(f"{c.name}/brute-optimum")
    ranked, plans = work.report(f"{c.name}/brute-rank"), work.report(f"{c.name}/every-plan")
    hashes = {r["tokens_hash"] for r in (decided, every, ranked, plans)}
    assert len(hashes) == 1, f"{c.name}: not the same text: {hashes}"
    assert every["plans_known"] == 2 ** (2 * every["model"]["layers"]) - 1 and every["plans_measured"] == 0, c.name
    ratios = {}
    for policy in [p["policy"] for p in every["policies"]]:
        # Orders are the same in both runs, and not all of them are searched for where only `table` is asked.
        source = decided if policy == "table" else every
        pairs = zip(results_of(source, policy), results_of(every, "table"), strict=True)
        ratios[policy] = [(cell, result["loss_nats"]["value"] / best["loss_nats"]["value"])
                          for (cell, result), (_, best) in pairs
                          if not result["refused"] and not best["refused"] and best["loss_nats"]["value"] > 0]
    return ratios


def same_plan_gap(work, c):
    """The largest relative difference between the two runs' losses of one plan."""
    losses = []
    for step in ("brute-decide", "brute-optimum"):
        results = [p for cell in work.report(f"{c.name}/{step}")["cells"] for p in cell["policies"]]
        losses.append({p["plans"][0]["text"]: p["loss_nats"]["value"] for p in results
                       if not p["refused"] and len(p["plans"]) == 1})
    common = [plan for plan in losses[0] if plan in losses[1] and losses[1][plan] > 0]
    return max(abs(losses[0][plan] / losses[1][plan] - 1) for plan in common)

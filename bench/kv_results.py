#!/usr/bin/env python3
"""Measures what smaller types of the KV cache cost beside pruning on the reference model, and prints docs/results/kv.md.

    bench/kv_results.py --work FOLDER --calibration FILE --test FILE > docs/results/kv.md

FOLDER keeps the JSON of every step, as that of bench/measurement_results.py does (--only, --print, --list). About ten
minutes on two free cores with the windows that are the default here, far fewer than that page's.
"""
import os
import sys

sys.dont_write_bytecode = True  # nothing is left in the tree
from measurement_page import SPLITS, interval, machines, percent, table
from measurement_results import (CONFIGURATIONS, Work, compare, option_parser, profile_path, rank, remove_profile,
                                 run_steps)

REFERENCE = next(c for c in CONFIGURATIONS if c.name == "reference-f16")
# One sequence shorter than the context, one as long, and eight of those: KV in f16 is 5, 10 and 44 % of the dense bytes.
WORKLOADS = ["1x180", "1x512", "8x512"]
# Where the policies are compared besides; the ladder has bytes of its own.
BUDGET = "90%"
RANK, COMPARE, HELD = (f"{REFERENCE.name}/kv/{step}" for step in ("rank", "compare", "held"))
# Predictions are kept in 16 bits: a loss below is small, and no more can be said of it.
FLOOR = 1e-5


def mib(count):
    return f"{count / 2**20:.2f}"


def loss(figure):
    return interval(figure, 6)


# ---------------------------------------------------------------------------------------------------------------------
# What is measured


def rank_reference(work):
    """Enough for `table` where a few blocks have to go: single drops, GSI, and swaps around them."""
    remove_profile(profile_path(work, REFERENCE, "kv/ranked"))  # its seconds are told: an interrupted one starts over
    return rank(work, REFERENCE, "kv/ranked", work.options.rank_windows, "--searches", "gsi,one-shot", "--minutes",
                     str(work.options.minutes))


def climb(work):
    scenarios = work.path(REFERENCE.name, "kv/scenarios.txt")
    with open(scenarios, "w", encoding="utf-8") as file:
        file.writelines(f"{workload} {BUDGET}\n" for workload in WORKLOADS)
    return compare(work, REFERENCE, "kv/compare", "kv/ranked", work.options.test, "--windows",
                   str(work.options.test_windows), "--scenarios", scenarios, "--candidates", "0")


def served(ladder, workload):
    """(KV type, plan, its predicted bytes) of everything that is set side by side at this workload."""
    at = WORKLOADS.index(workload)
    dense = [(rung["type"], "dense", rung["dense_peak_bytes"][at]) for rung in ladder["rungs"]]
    return dense + [(step["larger"], step["plan"]["text"], step["pruned_bytes"]) for step in ladder["steps"]
                    if step["workload"] == workload and step["plan"] and step["plan"]["keep"]]


def hold(work):
    """Runs of one sequence until its context is full: what is held then, beside what was predicted."""
    runs = []
    for workload in (w for w in WORKLOADS if w.startswith("1x")):
        tokens = workload.removeprefix("1x")
        for kv, plan, predicted in served(work.report(COMPARE)["kv_ladder"], workload):
            flags = [] if plan == "dense" else ["--plan", plan]
            report = work.run(REFERENCE._replace(kv=kv), "run", "-p", "The old house stood", "-c", tokens,
                              "--ignore-eos", "--temp", "0", *flags)["report"]
            # The last token has no row of KV.
            assert report["prompt_tokens"] + report["generated_tokens"] == int(tokens) + 1, report
            runs.append({"kv": kv, "predicted": predicted, **report})
    return {"report": runs}


# ---------------------------------------------------------------------------------------------------------------------
# The page


def introduction(work):
    o = work.options
    ranked, report = work.report(RANK), work.report(COMPARE)
    files = " ".join(f"--{split} {os.path.basename(getattr(o, split))}" for split in ("calibration", "test"))
    remark = f" {o.remark}" if o.remark else ""
    return f"""# KV in fewer bits, beside pruning to the same bytes

The 16-layer model of `models/` in F16. Everything on this page is printed by

```
bench/kv_results.py --work FOLDER --rank-windows {o.rank_windows} --minutes {o.minutes:g} --test-windows {o.test_windows} \\
  {files}
```

Machine: {machines(work, [RANK, COMPARE])}.{remark}
Ranking took {ranked["seconds"] / 60:.1f} min, the comparison {report["elapsed_ms"] / 60000:.1f} min.

Loss is KL in nats per token, against the dense model with KV in f16, on {report["windows"]} windows of
{report["window_tokens"]} tokens ({report["scored_tokens"]} scored) of {SPLITS["test"]}.
Intervals are 95 % by bootstrap over windows. Below {FLOOR:g} a loss says no more than that it is small: predictions are
kept in 16 bits. Whatever the workload, losses are those of whole windows: a workload decides about bytes. Plans are
chosen by `{report["kv_ladder"]["policy"]}`, after a ranking on {ranked["windows"]} windows of the calibration text
({ranked["archive_plans"]} plans measured); after a longer search ([measurement.md](measurement.md)) its plans may lose
less."""


def type_table(ladder):
    rows = []
    for i, rung in enumerate(ladder["rungs"]):
        bytes_at = [f"{mib(rung['dense_kv_bytes'][w])} of {mib(rung['dense_peak_bytes'][w])}"
                    for w in range(len(WORKLOADS))]
        rows.append([rung["type"], loss(rung["loss_nats"]) if i else "0", f"{rung['perplexity']:.3f}", *bytes_at])
    return table(["KV, dense", "loss", "perplexity", *(f"{w}: KV of all bytes, MiB" for w in WORKLOADS)], rows)


def pruned_row(ladder, step):
    rungs = {rung["type"]: rung for rung in ladder["rungs"]}
    at = WORKLOADS.index(step["workload"])
    smaller = rungs[step["smaller"]]
    share = step["smaller_dense_bytes"] / ladder["rungs"][0]["dense_peak_bytes"][at]
    row = [step["workload"], f"{step['larger']} pruned to {step['smaller']}",
           f"{mib(step['smaller_dense_bytes'])} ({percent(share)})"]
    if not step["plan"]:
        return [*row, "-", "none fits", "-", loss(smaller["loss_nats"]), "-"]
    if not step["plan"]["keep"]:
        return [*row, mib(step["pruned_bytes"]), "dense: the smaller type saves nothing", "-", "-", "-"]
    return [*row, mib(step["pruned_bytes"]), f"`{step['plan']['text']}`", loss(step["pruned_loss_nats"]),
            loss(smaller["loss_nats"]), interval(step["ratio"], 2)]


def pruned_sentence(ladder):
    steps = [s for s in ladder["steps"] if s["plan"] and s["plan"]["keep"]]
    wins = [f"{s['larger']} pruned to {s['smaller']} at {s['workload']}" for s in steps if s["pruning_wins"]]
    close = [f"{s['larger']} pruned to {s['smaller']} at {s['workload']}" for s in steps
             if s["ratio"]["low"] <= 1 <= s["ratio"]["high"]]
    text = f"Pruning loses less than the smaller type in {len(wins)} of {len(steps)} cases"
    text += f" ({'; '.join(wins)})" if wins else ""
    ties = f"The interval of the ratio holds 1, which is a tie, in {len(close)} ({'; '.join(close)})."
    return f"{text}. {ties if close else 'No interval of a ratio holds 1.'}"


def held_table(runs):
    rows = []
    for run in runs:
        predicted, kernel = run["predicted"], run["measured_managed_bytes"]
        rows.append([run["workload"]["text"], run["kv"], f"`{run['plan']['text']}`", predicted, run["managed_bytes"],
                     kernel, f"{100 * (kernel / predicted - 1):+.2f} %"])
    return table(["workload", "KV", "plan", "predicted", "in the books", "seen by the kernel", "kernel over predicted"],
                 rows)


def page(work):
    ladder = work.report(COMPARE)["kv_ladder"]
    return "\n\n".join([introduction(work), """## What a smaller type costs

All bytes: weights, KV and compute buffers of the dense model at that workload.""", type_table(ladder),
                        """## What pruning to the same bytes costs

The larger type is pruned until it takes no more than the smaller one does dense, at the same workload (share of the
dense bytes with f16). A ratio below 1 would say that pruning is the better use of those bytes.""",
                        table(["workload", "", "bytes allowed, MiB", "taken, MiB", "plan", "loss, pruned",
                               "loss, smaller type", "ratio"], [pruned_row(ladder, s) for s in ladder["steps"]]),
                        pruned_sentence(ladder), *ladder["notes"],
                        """## Predicted and held

`espalier run` with one sequence until its context is full, every line a process of its own: managed bytes as `compare`
predicted them above, as the books of that process have them, and as anonymous memory that the kernel counts beyond what
the process had before.""",
                        held_table(work.report(HELD))]) + "\n"


def main():
    parser = option_parser(__doc__, ["calibration", "test"])
    parser.add_argument("--minutes", type=float, default=6, help="of ranking, swaps included; default: 6")
    parser.set_defaults(rank_windows=6, test_windows=32)
    work = Work(parser.parse_args())
    steps = {RANK: lambda: rank_reference(work), COMPARE: lambda: climb(work), HELD: lambda: hold(work)}
    run_steps(work, steps, lambda: page(work))


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)

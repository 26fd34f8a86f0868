"""docs/results/unicuco.md, from what the steps of unicuco_results.py left in the work folder."""
import math

from measurement_figures import geometric_mean
from measurement_page import SPLITS, machines, met, percent, table

LEAST_FACTOR = 28  # fewer evaluations than a search for each request: arXiv 2505.12216
MOST_BREAK_EVEN = 3
MOST_OVER_EVOLUTION = 1.05
MOST_MINUTES = 30
SHARES = (90, 80, 70, 60, 50)
FLOOR = 1e-3  # nats per token, as in LossSurrogate
QUALITY = {
    "stratnet": "`stratnet`, verified",
    "network": "`stratnet --network-alone`",
    "table-own": "`table` on the plans that StratNet measured",
    "table": "`table` on the searched profile",
    "gsi": "`gsi`, searched for each request",
    "one-shot": "`one-shot`",
    "evolution": "`evolution` (EvoPress), searched for each request",
}


class Page:
    def __init__(self, work, configurations, samples):
        self.work = work
        self.samples = samples
        self.configurations = [c for c in configurations if self.done(c, "train")]

    def done(self, c, step):
        return self.work.done(f"{c.name}/unicuco/{step}")

    def load(self, c, step):
        return self.work.load(f"{c.name}/unicuco/{step}")

    def report(self, c, step):
        return self.load(c, step)["report"]

    def having(self, *steps):
        return [c for c in self.configurations if all(self.done(c, step) for step in steps)]

    # -----------------------------------------------------------------------------------------------------------------
    # What answers cost

    def training_evaluations(self, c):
        return self.report(c, "train")["rounds"][-1]["evaluations"]

    def ours(self, c, n=64):
        """Evaluations for the first n of the 64 requests, training and verification included."""
        share = self.report(c, "64")["evaluations"] / 64
        return self.training_evaluations(c) + n * share

    def searched(self, c):
        """Evaluations of GSI for each of the 64."""
        return [request["evaluations"] for request in self.report(c, "64-gsi")["requests"]]

    def break_even(self, c):
        return self.ours(c, 0) / (sum(self.searched(c)) / 64 - self.report(c, "64")["evaluations"] / 64)

    def seconds_alone(self, c):
        """Of single searches by GSI from nothing."""
        return [self.report(c, f"alone-gsi-{i + 1}")["seconds"]["answering"] for i in range(len(self.samples))
                if self.done(c, f"alone-gsi-{i + 1}")]

    def evolved(self, c):
        """Evaluations of the evolutionary searches; none: not run."""
        if not self.done(c, "quality-evolution"):
            return []
        return [request["evaluations"] for request in self.report(c, "quality-evolution")["requests"]]

    def seconds_of_ours(self, c):
        seconds = self.report(c, "64")["seconds"]
        return self.load(c, "train")["seconds"] + seconds["answering"] + seconds["verifying"]

    def cost_section(self, c):
        text = [f"### {c.title}\n"]
        ours, gsi = self.ours(c), sum(self.searched(c))
        alone, evolved = self.seconds_alone(c), self.evolved(c)
        per_evolved = sum(evolved) / len(evolved) if evolved else None
        chain = self.report(c, "64-chain") if self.done(c, "64-chain") else None
        rows = [["StratNet, training and verification included", f"{ours:.0f}", f"{self.seconds_of_ours(c) / 60:.1f}"]]
        rows.append(["`gsi` for each", f"{gsi:.0f}", f"{64 / 60 * sum(alone) / len(alone):.0f} (64 times the mean of "
                     f"{len(alone)} searches from nothing)" if alone else "-"])
        if evolved:
            rows.append(["`evolution` for each", f"{64 * per_evolved:.0f} (64 times the mean of {len(evolved)} searches)",
                         "-"])
        if chain:
            more = sum(request["evaluations"] for request in chain["requests"])
            minutes = max(r["seconds"] for r in self.report(c, "train")["rounds"] if r["greedy"]) / 60
            rows.append([f"one GSI chain for all ({len(chain['requests'])} requests in bytes)",
                         f"{chain['shared_evaluations'] + more:.0f}", f"{minutes:.1f} (as StratNet's training began)"])
        rows.append(["`table`, with the plans that StratNet measured", f"{self.training_evaluations(c)}", "-"])
        text.append(table(["64 mixed requests", "evaluations", "minutes"], rows) + "\n")
        per_request = gsi / 64
        cost = [[n, f"{self.ours(c, n) / n:.1f}", f"{per_request:.1f}",
                 f"{per_evolved:.1f}" if evolved else "-",
                 f"{528 / n:.2f} to {528 / n + 1:.2f}",
                 self.answering(c, n)] for n in (1, 2, 3, 4, 16, 64, 256, 1024, 4096)]
        text.append("Evaluations for each of n requests; the last column is what the network and the repair take for all of "
                    "them, without\nmeasuring anything:\n")
        text.append(table(["n", "StratNet, verified", "`gsi`", "`evolution`", "one GSI chain", "s answering"], cost) + "\n")
        return "\n".join(text)

    def answering(self, c, n):
        if not self.done(c, "many"):
            return "-"
        found = [run for run in self.report(c, "many")["runs"] if run["requests"] == n]
        return f"{found[0]['answering']:.2f}" if found else ""

    # -----------------------------------------------------------------------------------------------------------------
    # What answers are worth

    def losses(self, c, method, key="test_loss_nats"):
        return {r["id"]: r[key] for r in self.report(c, f"quality-{method}")["requests"]}

    def ratio(self, c, method, other, key="test_loss_nats"):
        a, b = self.losses(c, method, key), self.losses(c, other, key)
        return geometric_mean([a[name] / b[name] for name in a if name in b])

    def hypervolume(self, c, method):
        """Area that the answers to a workload dominate, from all bytes and the loss without any block: mean over
        workloads. None of a method that was not asked for all sizes."""
        worst = self.report(c, "train")["worst_loss_nats"]
        points = {}
        for request in self.report(c, f"quality-{method}")["requests"]:
            loss = math.log(request["test_loss_nats"] / FLOOR + 1) / math.log(worst / FLOOR + 1)
            points.setdefault(request["workload"], []).append((request["bytes"] / request["dense_bytes"], loss))
        if any(len(found) < len(SHARES) for found in points.values()):
            return None
        areas = []
        for found in points.values():
            area, best = 0, 1  # by rising bytes: each point is worth what it lies below those with fewer
            for size, loss in sorted(found):
                area += max(0, 1 - size) * max(0, best - loss)
                best = min(best, loss)
            areas.append(area)
        return sum(areas) / len(areas)

    def quality_section(self, c):
        methods = [m for m in QUALITY if self.done(c, f"quality-{m}")]
        rows = []
        for method in methods:
            losses = self.losses(c, method)
            by_share = {share: [loss for i, loss in losses.items() if i.endswith(f"-{share}")] for share in SHARES}
            volume = self.hypervolume(c, method)
            rows.append([QUALITY[method], *[f"{geometric_mean(found):.4f}" if found else "-"
                                            for found in by_share.values()],
                         f"{self.ratio(c, 'stratnet', method):.3f}",
                         f"{self.ratio(c, 'stratnet', method, 'measured_loss_nats'):.3f}",
                         f"{volume:.4f}" if volume else "-"])
        return "\n".join([
            f"### {c.title}\n",
            table(["method", *[f"{share} %" for share in SHARES], "`stratnet` over it", "likewise, calibration text",
                   "hypervolume"], rows),
            ""])

    # -----------------------------------------------------------------------------------------------------------------
    # What is promised

    def within_bytes(self, c):
        """(answers to limits in bytes, those that keep to it, those without room for one more block)."""
        requests = [r for step in ("64", "quality-stratnet") if self.done(c, step)
                    for r in self.report(c, step)["requests"] if r["limit_bytes"]]
        kept = sum(r["bytes"] <= r["limit_bytes"] for r in requests)
        full = sum(r["next_bytes"] is None or r["next_bytes"] > r["limit_bytes"] for r in requests)
        return len(requests), kept, full

    @staticmethod
    def guesses_held(report):
        """(plans answered first that nobody had measured, those of them that held)."""
        first = [r["verified"] for r in report["requests"] if "verified" in r]
        guessed = {(v["first_loss_nats"], v["first_upper_loss_nats"]) for v in first
                   if v["first_upper_loss_nats"] != v["first_loss_nats"]}
        return len(guessed), sum(loss <= upper for loss, upper in guessed)

    def promises_section(self, c):
        n, kept, full = self.within_bytes(c)
        lines = [f"### {c.title}\n",
                 f"* Bytes: of {n} answers to a limit {kept} keep to it, and {full} leave no room for any block that they drop."]
        if self.done(c, "checks"):
            report = self.report(c, "checks")
            verified = [r["verified"] for r in report["requests"]]
            first = sum(v["first_loss_nats"] <= r["max_loss"] for v, r in zip(verified, report["requests"]))
            held = sum(r["measured_loss_nats"] <= r["max_loss"] for r in report["requests"])
            lines.append(f"* `max_loss`, {len(verified)} requests, stated confidence {report['confidence']}: the first answer "
                         f"holds for {first}; after verification {held} hold, with {report['evaluations']} plans\n  measured: most "
                         f"answers were measured in training.")
        if self.done(c, "checks-guessed"):
            report = self.report(c, "checks-guessed")
            guessed, held = self.guesses_held(report)
            lines.append(f"* Of StratNet's own answers to them (`--network-alone`) {guessed} plans had not been measured; {held} held. "
                         f"Margin: {report['margin_deviations']:.2f} standard\n  deviations, from {report['margin_plans']} plans "
                         f"near the front.")
        if self.done(c, "latency"):
            report = self.report(c, "latency")
            held = sum(r["verified"]["latency_held"] for r in report["requests"])
            lines.append(f"* `max_latency_ms`, {len(report['requests'])} requests: the median decode step of "
                         f"{held} stays within what was asked for.")
        lines.append("* Files: stock libllama's logits are Espalier's under the same plan, bit for bit, in F16, Q8_0 and Q4_K_M, over a "
                     "sweep of plans with\n  lone attention, lone FFN, the first and the last layer dropped "
                     "(`tests/exported_models_test.cpp`, run by `scripts/test`).")
        return "\n".join(lines) + "\n"

    # -----------------------------------------------------------------------------------------------------------------

    def overview(self):
        rows = []
        for c in self.having("64", "64-gsi"):
            factor = sum(self.searched(c)) / self.ours(c)
            rows.append([f"evaluations of `gsi` for 64 requests over ours, {c.title}", f">= {LEAST_FACTOR}",
                         f"{factor:.1f}", met(factor >= LEAST_FACTOR)])
            rows.append([f"requests after which StratNet has paid off, in evaluations, {c.title}", f"<= {MOST_BREAK_EVEN}",
                         f"{self.break_even(c):.1f}", met(self.break_even(c) <= MOST_BREAK_EVEN)])
            alone = self.seconds_alone(c)
            if alone:
                paid_off = self.load(c, "train")["seconds"] * len(alone) / sum(alone)
                rows.append([f"likewise in time, beside our own search, which is exact but does not measure every candidate "
                             f"whole, {c.title}", "", f"{paid_off:.1f}", ""])
                gsi = 64 * sum(alone) / len(alone)
                rows.append([f"minutes for 64 requests, ours and `gsi`, {c.title}", "less",
                             f"{self.seconds_of_ours(c) / 60:.0f} and {gsi / 60:.0f}",
                             met(self.seconds_of_ours(c) < gsi)])
        for c in self.configurations:
            for method, most in (("gsi", 1), ("one-shot", 1), ("evolution", MOST_OVER_EVOLUTION)):
                if self.done(c, "quality-stratnet") and self.done(c, f"quality-{method}"):
                    ratio = self.ratio(c, "stratnet", method)
                    rows.append([f"loss over that of `{method}` at equal bytes, {c.title}", f"<= {most}", f"{ratio:.3f}",
                                 met(ratio <= most)])
            if self.done(c, "checks"):
                report = self.report(c, "checks")
                share = sum(r["verified"]["first_loss_nats"] <= r["max_loss"] for r in report["requests"]) / len(
                    report["requests"])
                rows.append([f"`max_loss` held by the first answer, {c.title}", f">= {percent(report['confidence'])}",
                             percent(share), met(share >= report["confidence"])])
            if self.done(c, "checks-guessed"):
                report = self.report(c, "checks-guessed")
                guessed, held = self.guesses_held(report)
                if guessed:
                    rows.append([f"the same, plans that nobody had measured, `--network-alone`, {c.title}",
                                 f">= {percent(report['confidence'])}", f"{held} of {guessed}",
                                 met(held >= report["confidence"] * guessed)])
            if self.done(c, "64"):
                n, kept, full = self.within_bytes(c)
                rows.append([f"`max_bytes` and `size_ratio` kept, without room for one more block, {c.title}", "all",
                             f"{min(kept, full)} of {n}", met(min(kept, full) == n)])
            if self.done(c, "latency"):
                report = self.report(c, "latency")
                held = sum(r["verified"]["latency_held"] for r in report["requests"])
                rows.append([f"`max_latency_ms` held, {c.title}", f">= {percent(report['confidence'])}",
                             percent(held / len(report["requests"])),
                             met(held >= report["confidence"] * len(report["requests"]))])
            minutes = self.load(c, "train")["seconds"] / 60
            rows.append([f"training, measurements included, {c.title}", f"<= {MOST_MINUTES} min", f"{minutes:.1f} min",
                         met(minutes <= MOST_MINUTES)])
        return table(["figure", "asked for", "measured", ""], rows)

    def training_section(self, c):
        report = self.report(c, "train")
        rounds = report["rounds"]
        picked = [r for i, r in enumerate(rounds) if i % max(1, len(rounds) // 8) == 0 or i + 1 == len(rounds)]
        return f"### {c.title}\n\n" + table(
            ["plans measured", "hypervolume", "surrogate's error, ln loss", "s"],
            [[r["evaluations"], f"{r['hypervolume']:.4f}", "greedy" if r["greedy"] else f"{r['surrogate_error']:.3f}",
              f"{r['seconds']:.0f}"] for r in picked]) + f"""

The surrogate at the end, {report['surrogate']['plans']} plans near the front, each guessed from the others: error \
{report['surrogate']['error']:.3f} of ln(loss), {percent(report['surrogate']['coverage_90'])}
inside its 90 % interval, rank correlation at equal bytes {report['surrogate']['spearman']:.2f} (of added single losses \
{report['surrogate']['spearman_additive']:.2f}).
Floating-point work, bounds of candidates included: that of {report['work_in_whole_plans']:.0f} plans computed whole, since plans share what comes before their first difference.
"""

    def introduction(self):
        o = self.work.options
        steps = [f"{c.name}/unicuco/train" for c in self.configurations]
        remark = f" {o.remark}" if o.remark else ""
        return f"""# UniCuCo: what StratNet is worth

StratNet (UniCuCo, arXiv 2505.12216), trained from nothing on the 16-layer model of `models/`, against searches for each
request. Everything on this page is printed by

```
bench/measurement_results.py --work FOLDER ... --only '*/rank,*/search'
bench/unicuco_results.py --work FOLDER --configurations {','.join(c.name for c in self.configurations)} \\
  --evaluations {o.evaluations} --rank-windows {o.rank_windows} --test-windows {o.test_windows} \\
  --calibration books-calibration.txt --test books-test.txt
```

Machine: {machines(self.work, steps)}.{remark}

Plans are measured on {o.rank_windows} windows of {SPLITS['calibration']}, losses of the
quality tables on {o.test_windows} windows of {SPLITS['test']}.
An evaluation is a plan measured on all windows, or the same share of windows of several.
Searches for each request count what they would take alone, in whatever order they ran; GSI is
counted as published, every candidate of every round, though our search measures fewer.
"""

    def text(self):
        parts = [self.introduction(), "## What was asked for\n", self.overview(), "",
                 "## Training\n",
                 "One network, from nothing: every block dropped alone, a greedy search (GSI, exact), then rounds of "
                 "proposals.\n",
                 *[self.training_section(c) for c in self.configurations]]
        with_cost = self.having("64", "64-gsi")
        if with_cost:
            parts += ["## Many requests\n", *[self.cost_section(c) for c in with_cost]]
        with_quality = self.having("quality-stratnet", "quality-gsi")
        if with_quality:
            parts += ["## Quality at equal bytes\n",
                      "Loss in nats per token on test text, geometric mean over files and footprints at 1x512 and 8x512 of "
                      "that share of the dense\nmodel's bytes (`evolution` at two of the sizes, ratios over those alone).\n"
                      "Hypervolume: of size over the dense model's bytes and ln(loss + 0.001), 0 dense and 1 without any "
                      "block.\n", *[self.quality_section(c) for c in with_quality]]
        with_promises = self.having("64")
        if with_promises:
            parts += ["## Promises\n", *[self.promises_section(c) for c in with_promises]]
        return "\n".join(parts)


def page(work, configurations, samples):
    return Page(work, configurations, samples).text()

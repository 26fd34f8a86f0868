// The report of espalier compare as one page. It is well-formed XML too, so that tests can read it.
#include <fmt/format.h>

#include <algorithm>

#include "base/bytes.h"
#include "cli/compare_plots.h"
#include "cli/compare_report.h"
#include "cli/svg.h"
#include "eval/statistics.h"

namespace espalier {
namespace {

constexpr std::string_view kStyle = R"(
:root { color-scheme: light dark; --bg: #ffffff; --fg: #1d2126; --muted: #5d6672; --grid: #e4e7eb; --card: #f6f7f9;
  --p0: #0b62c4; --p1: #c8500a; --p2: #16794a; --p3: #b0388a; --p4: #94700a; --p5: #1e8cb3; --p6: #8a5a2b; --p7: #777d86;
  --p8: #6a4fc0; --p9: #444444; --attention: #2f74d0; --ffn: #d98324; --rung: #1d2126; --wins: #16794a; }
@media (prefers-color-scheme: dark) { :root { --bg: #14171a; --fg: #e4e7ea; --muted: #9aa4b0; --grid: #2b3138;
  --card: #1c2024; --p0: #5aa2f5; --p1: #f28b4b; --p2: #4fc58a; --p3: #e37bc4; --p4: #dcb53c; --p5: #6fcbe8; --p6: #c79a6b;
  --p7: #a3a9b2; --p8: #a793f0; --p9: #dddddd; --attention: #5a9bf0; --ffn: #e8a04e; --rung: #e4e7ea; --wins: #4fc58a; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1120px; padding: 16px; background: var(--bg); color: var(--fg);
  font: 15px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.5em; line-height: 1.2; margin: 0.4em 0; overflow-wrap: anywhere; }
h2 { font-size: 1.15em; margin: 1.8em 0 0.4em; }
p { max-width: 75ch; margin: 0.4em 0; overflow-wrap: anywhere; }
.muted { color: var(--muted); }
.warning { border-left: 4px solid var(--p1); padding-left: 10px; }
.verdict { font-size: 1.08em; }
.plots { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(340px, 100%), 1fr)); gap: 10px; }
.grids { display: none; flex-wrap: wrap; gap: 14px; }
svg { max-width: 100%; height: auto; display: block; }
svg text { font: 11px system-ui, sans-serif; fill: var(--fg); }
svg text.title { font-size: 12px; font-weight: 600; }
svg text.small { font-size: 9px; fill: var(--muted); }
svg text.rung-name { font-weight: 600; }
.grid { stroke: var(--grid); stroke-width: 1; }
.axis { stroke: var(--muted); stroke-width: 1; }
.front { fill: none; stroke: var(--muted); stroke-width: 1.5; stroke-dasharray: 4 3; }
.rungs { fill: none; stroke: var(--rung); stroke-width: 1.5; }
.rung { fill: var(--rung); }
.step { fill: var(--bg); stroke: var(--p1); stroke-width: 1.5; }
.step.wins { fill: var(--wins); stroke: var(--wins); }
.subject { fill: var(--p0); fill-opacity: 0.75; }
.whisker { stroke-width: 2; stroke-opacity: 0.6; }
.attention { fill: var(--attention); }
.ffn { fill: var(--ffn); }
.dropped { fill: none; stroke: var(--grid); stroke-width: 1; }
.legend { display: flex; flex-wrap: wrap; gap: 2px 14px; margin: 6px 0; }
.legend span { display: inline-flex; align-items: center; gap: 5px; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: 13px; font-variant-numeric: tabular-nums; }
th, td { padding: 3px 9px; text-align: right; white-space: nowrap; border-bottom: 1px solid var(--grid); }
th:first-child, td:first-child, .left { text-align: left; }
td.plan { text-align: left; max-width: 34ch; overflow: hidden; text-overflow: ellipsis; }
th { font-weight: 600; }
tr.best td { font-weight: 600; }
summary { cursor: pointer; padding: 4px 0; }
input[name=budget] { position: absolute; opacity: 0; }
.tab { display: inline-block; padding: 3px 12px; margin: 2px 4px 8px 0; border: 1px solid var(--grid); border-radius: 14px;
  background: var(--card); cursor: pointer; }
input[name=budget]:checked + .tab { background: var(--p0); color: var(--bg); border-color: var(--p0); }
input[name=budget]:focus-visible + .tab { outline: 2px solid var(--fg); }
)";

std::string Html(std::string_view text) { return EscapeMarkup(text); }

std::string Paragraph(std::string_view style, std::string_view text) {
  return fmt::format("<p class=\"{}\">{}</p>\n", style, Html(text));
}

std::string RatioCell(const GeometricMean& mean) {
  return mean.cells == 0
             ? "<td>-</td>"
             : fmt::format("<td title=\"{} cells\">{:.3f} <span class=\"muted\">[{:.3f}, {:.3f}]</span></td>",
                           mean.cells, mean.ratio.value, mean.ratio.low, mean.ratio.high);
}

std::string LossText(const Interval& loss) {
  return fmt::format("{} <span class=\"muted\">[{}, {}]</span>", NatsText(loss.value), NatsText(loss.low),
                     NatsText(loss.high));
}

std::string ColourRules(size_t n_policies) {
  std::string rules;
  for (size_t i = 0; i < std::min<size_t>(n_policies, 10); ++i) {
    rules += fmt::format(".p{0}, svg text.p{0} {{ fill: var(--p{0}); }} .whisker.p{0} {{ stroke: var(--p{0}); }}\n", i);
  }
  return rules;
}

std::string TabRules(size_t n_budgets) {
  std::string rules;
  for (size_t i = 0; i < n_budgets; ++i) {
    rules += fmt::format("#b{0}:checked ~ .of-b{0} {{ display: flex; }}\n", i);
  }
  return rules;
}

std::string Head(const CompareReport& report) {
  const PolicyComparison& comparison = report.comparison;
  const MeasurementSet& set = comparison.set;
  std::string head;
  head += fmt::format("<h1>{} {}: policies compared</h1>\n", Html(report.model_name), Html(report.quantization));
  head += Paragraph(
      "muted", fmt::format("{}: protocol {}, {} windows of {} tokens, {} scored. KV {} / {}, dropped "
                           "blocks replaced by {}. Dense perplexity {:.2f}. Profile {}.",
                           set.corpus, set.protocol, set.n_windows, set.window_tokens, set.tokens_scored, set.key_type,
                           set.value_type, set.ablation == Ablation::kMean ? "their mean" : "nothing",
                           comparison.dense_perplexity, report.profile));
  for (const std::string& warning : report.warnings) {
    head += Paragraph("warning", warning);
  }
  for (const std::string& verdict : Verdicts(comparison)) {
    head += Paragraph("verdict", verdict);
  }
  return head;
}

std::string Summary(const PolicyComparison& comparison) {
  std::string html = "<h2>Loss over best known</h2>\n";
  html += Paragraph("muted",
                    "Geometric mean over scenarios of the policy's loss over that of the best plan known for the cell. "
                    "1 is the best there is. In brackets and as whiskers: 95 % paired bootstrap over windows.");
  html +=
      "<div class=\"scroll\"><table>\n<tr><th>policy</th><th>all cells</th><th>against table</th><th>decision, p99</th>"
      "<th>refused</th>";
  for (const Budget& budget : comparison.budgets) {
    html += fmt::format("<th>{}</th>", Html(budget.ToText()));
  }
  html += "</tr>\n";
  for (const size_t i : PoliciesByRank(comparison)) {
    const PolicySummary& policy = comparison.policies[i];
    html +=
        fmt::format("<tr{}><td>{}</td>{}{}<td>{:.3f} ms</td><td>{}</td>",
                    comparison.winner == i ? " class=\"best\"" : "", Html(policy.name), RatioCell(policy.all),
                    RatioCell(policy.to_table ? GeometricMean{policy.all.cells, *policy.to_table} : GeometricMean()),
                    policy.decision_p99_ms, policy.refusals);
    for (const GeometricMean& mean : policy.by_budget) {
      html += RatioCell(mean);
    }
    html += "</tr>\n";
  }
  html += "</table></div>\n<div class=\"plots\">\n";
  for (int budget = -1; budget < static_cast<int>(comparison.budgets.size()); ++budget) {
    html += RatioPlot(comparison, budget);
  }
  return html + "</div>\n";
}

std::string Legend(const PolicyComparison& comparison) {
  std::string html = "<div class=\"legend\">\n";
  for (const size_t i : PoliciesByRank(comparison)) {
    html += fmt::format("<span>{}{}</span>\n", LegendMarker(i), Html(comparison.policies[i].name));
  }
  return html + "</div>\n";
}

std::string LossPlots(const CompareReport& report, const std::vector<size_t>& distinct) {
  std::string html = "<h2>Loss against bytes</h2>\n";
  html += Paragraph("muted",
                    "KL(dense || plan) in nats per token; the dashed line is the front of all plans measured on this "
                    "text. One plot for each workload that differs in KV cells.");
  html += Legend(report.comparison) + "<div class=\"plots\">\n";
  for (const size_t scenario : distinct) {
    html += LossPlot(report, scenario);
  }
  return html + "</div>\n";
}

std::string StepRow(const Ladder& ladder, const LadderStep& step) {
  const LadderRung& smaller = ladder.rungs[step.smaller];
  const std::string larger = Html(ladder.rungs[step.larger].name);
  const uint64_t bytes = smaller.dense_peak_bytes[step.workload];
  const std::string html = fmt::format(
      "<tr{}><td>{}</td><td class=\"left\">{}</td><td>{}</td><td>{:.1f} %</td><td>{}</td>",
      step.pruning_wins() ? " class=\"best\"" : "", Html(ladder.workloads[step.workload].ToText()), Html(smaller.name),
      FormatBytes(bytes),
      100 * static_cast<double>(bytes) / static_cast<double>(ladder.rungs[0].dense_peak_bytes[step.workload]),
      LossText(smaller.loss));
  if (!step.plan || step.saves_nothing()) {
    return html + fmt::format("<td class=\"left\">{}: {}</td><td>-</td><td>-</td></tr>\n", larger,
                              step.plan ? "takes no more, unpruned" : "no plan fits");
  }
  return html + fmt::format("<td class=\"plan\" title=\"{0}\">{1}: {0}</td><td>{2}</td><td>{3:.2f}</td></tr>\n",
                            Html(step.plan->ToText()), larger, LossText(step.pruned_loss), step.ratio.value);
}

std::string LadderSection(const Ladder& ladder) {
  std::string html = ladder.kind == LadderKind::kKv ? "<h2>KV ladder</h2>\n" : "<h2>Quantisation ladder</h2>\n";
  for (const LadderStatement& statement : ladder.statements) {
    html += Paragraph("verdict", statement.text);
  }
  for (const std::string& note : ladder.notes) {
    html += Paragraph("muted", note);
  }
  html += Paragraph(
      "muted",
      fmt::format("KL({} dense || model) in nats per token. Squares: dense rungs. Triangles: a rung pruned by {} "
                  "to the bytes of the next smaller one, filled where it loses less than that one. Discs: this "
                  "model, pruned.",
                  ladder.Called(0), ladder.policy));
  html += "<div class=\"plots\">\n";
  for (size_t workload = 0; workload < ladder.workloads.size(); ++workload) {
    html += LadderPlot(ladder, workload);
  }
  html += "</div>\n";
  if (ladder.steps.empty()) {
    return html;
  }
  html +=
      "<div class=\"scroll\"><table>\n<tr><th>workload</th><th class=\"left\">rung</th><th>dense "
      "bytes</th><th>share</th><th>dense loss</th><th class=\"left\">next larger, pruned to these bytes</th>"
      "<th>its loss</th><th>over dense</th></tr>\n";
  for (const LadderStep& step : ladder.steps) {
    html += StepRow(ladder, step);
  }
  return html + "</table></div>\n";
}

std::string BlockSection(const PolicyComparison& comparison, const std::vector<size_t>& distinct) {
  std::string html = "<h2>Which blocks stay as the workload grows</h2>\n";
  html += Paragraph("muted",
                    "Columns: workloads by their KV cache over weights, attention (a) and FFN (f) side by side; rows: "
                    "layers. Filled blocks are kept. Of random: its first order.");
  const size_t shown = comparison.budgets.size() / 2;
  for (size_t b = 0; b < comparison.budgets.size(); ++b) {
    html += fmt::format(
        "<input type=\"radio\" name=\"budget\" id=\"b{0}\"{1}/><label class=\"tab\" for=\"b{0}\">{2}</label>\n", b,
        b == shown ? " checked=\"checked\"" : "", Html(comparison.budgets[b].ToText()));
  }
  for (size_t b = 0; b < comparison.budgets.size(); ++b) {
    html += fmt::format("<div class=\"grids of-b{}\">\n", b);
    for (const size_t i : PoliciesByRank(comparison)) {
      html += BlockPlot(comparison, i, b, distinct);
    }
    html += "</div>\n";
  }
  return html;
}

std::string CellRow(const PolicyComparison& comparison, const CellResult& cell, size_t i) {
  const PolicyResult& policy = cell.policies[i];
  std::string html = fmt::format("<tr><td>{}</td><td class=\"left\">{}</td>", Html(cell.cell.budget.ToText()),
                                 Html(comparison.policies[i].name));
  if (policy.refused()) {
    return html + fmt::format(
                      "<td class=\"plan\" title=\"{0}\">refused: {0}</td><td>-</td><td>-</td><td>-</td><td>-</td>"
                      "<td>-</td></tr>\n",
                      Html(policy.choice.refusal));
  }
  const auto& decisions = policy.choice.decisions;
  const std::string plan =
      decisions.front().plan.ToText() + (decisions.size() > 1 ? fmt::format(" and {} more", decisions.size() - 1) : "");
  html += fmt::format("<td class=\"plan\" title=\"{0}\">{0}</td><td>{1}</td><td>{2}</td><td>{3:.3f}</td>", Html(plan),
                      FormatBytes(policy.peak_bytes), LossText(policy.loss), policy.perplexity);
  html += policy.ratio ? fmt::format("<td>{:.3f} <span class=\"muted\">[{:.3f}, {:.3f}]</span></td>",
                                     policy.ratio->value, policy.ratio->low, policy.ratio->high)
                       : std::string("<td>-</td>");
  return html + fmt::format("<td>{:.3f}</td></tr>\n", Percentile(policy.choice.decision_ms, 0.5));
}

std::string CellSection(const PolicyComparison& comparison) {
  std::string html = "<h2>All cells</h2>\n";
  for (size_t scenario = 0; scenario < comparison.scenarios.size(); ++scenario) {
    const ScenarioMemory& where = comparison.scenarios[scenario];
    html += fmt::format(
        "<details><summary>{}: {} cells of KV, {:.2f} of the weights; dense {}</summary>\n<div "
        "class=\"scroll\"><table>\n<tr><th>budget</th><th class=\"left\">policy</th><th "
        "class=\"left\">plan</th><th>bytes</th><th>loss, nats per token</th><th>perplexity</th><th>over "
        "best known</th><th>decision, ms</th></tr>\n",
        Html(where.scenario.workload.ToText()), where.scenario.workload.kv_cells,
        KvToWeights(where.survey.memory, where.scenario.workload), FormatBytes(where.survey.base.dense_peak_bytes));
    for (const CellResult& cell : comparison.cells) {
      if (cell.cell.scenario != scenario) {
        continue;
      }
      if (cell.best) {
        html += fmt::format(
            "<tr class=\"best\"><td>{}</td><td class=\"left\">best known</td><td class=\"plan\" "
            "title=\"{}\">{}</td><td>{}</td><td>{}</td><td>-</td><td>1</td><td>-</td></tr>\n",
            Html(cell.cell.budget.ToText()), Html(cell.best->plan.ToText()), Html(cell.best->plan.ToText()),
            FormatBytes(cell.best->peak_bytes), LossText(cell.best->loss));
      }
      for (const size_t i : PoliciesByRank(comparison)) {
        html += CellRow(comparison, cell, i);
      }
    }
    html += "</table></div></details>\n";
  }
  return html;
}

std::string Footer(const CompareReport& report) {
  const PolicyComparison& comparison = report.comparison;
  return "<h2>How this was measured</h2>\n" +
         Paragraph(
             "muted",
             fmt::format("{} plans known on this text ({} measured for this report), {} candidates of the archive "
                         "for each cell among them. Best known: the one of all these that fits the cell and loses "
                         "least here. Bytes are the managed peak: weights, KV cache, compute buffers, staging; a "
                         "budget in percent is of the dense plan's at the same workload. Scenarios: {}. espalier "
                         "{} (ggml {}), {:.0f} s.",
                         comparison.plans_known, comparison.plans_measured, report.candidates, report.scenarios,
                         ESPALIER_VERSION, ESPALIER_GGML_VERSION, report.elapsed_ms / 1000));
}

}  // namespace

std::string ToHtml(const CompareReport& report) {
  const PolicyComparison& comparison = report.comparison;
  std::vector<Scenario> scenarios;
  for (const ScenarioMemory& scenario : comparison.scenarios) {
    scenarios.push_back(scenario.scenario);
  }
  const std::vector<size_t> distinct = DistinctInCells(scenarios);
  std::string page =
      "<!DOCTYPE html>\n<html lang=\"en\" xmlns=\"http://www.w3.org/1999/xhtml\">\n<head>\n"
      "<meta charset=\"utf-8\"/>\n"
      "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\n";
  page += fmt::format("<title>{}: policies compared</title>\n<style>{}{}{}</style>\n</head>\n<body>\n",
                      Html(report.model_name), kStyle, ColourRules(comparison.policies.size()),
                      TabRules(comparison.budgets.size()));
  page += Head(report) + Summary(comparison) + LossPlots(report, distinct);
  if (report.ladder) {
    page += LadderSection(*report.ladder);
  }
  if (report.kv_ladder) {
    page += LadderSection(*report.kv_ladder);
  }
  page += BlockSection(comparison, distinct) + CellSection(comparison) + Footer(report);
  return page + "</body>\n</html>\n";
}

}  // namespace espalier

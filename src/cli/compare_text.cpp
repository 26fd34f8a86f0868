// The report of espalier compare as text.
#include <fmt/format.h>

#include <algorithm>
#include <numeric>

#include "base/bytes.h"
#include "cli/compare_report.h"
#include "model/quote.h"

namespace espalier {
namespace {

std::string Short(const GeometricMean& mean) {
  return mean.cells > 0 ? fmt::format("{:.3f} [{:.3f}, {:.3f}]", mean.ratio.value, mean.ratio.low, mean.ratio.high)
                        : std::string("-");
}

void PrintSummary(const PolicyComparison& comparison) {
  fmt::print("\ngeometric mean of loss / best known, with 95 % intervals over windows\n");
  fmt::print("  {:<10} {:>22}", "policy", "all cells");
  for (const Budget& budget : comparison.budgets) {
    fmt::print(" {:>9}", budget.ToText());
  }
  fmt::print(" {:>22} {:>8} {:>10}\n", "against table", "refused", "p99 ms");
  for (const size_t i : PoliciesByRank(comparison)) {
    const PolicySummary& policy = comparison.policies[i];
    fmt::print("  {:<10} {:>22}", policy.name, Short(policy.all));
    for (const GeometricMean& mean : policy.by_budget) {
      fmt::print(" {:>9}", mean.cells > 0 ? fmt::format("{:.3f}", mean.ratio.value) : "-");
    }
    fmt::print(" {:>22} {:>8} {:>10.3f}\n", policy.to_table ? Short({1, *policy.to_table}) : "-", policy.refusals,
               policy.decision_p99_ms);
  }
}

void PrintCells(const PolicyComparison& comparison) {
  fmt::print("\nloss in nats per token of every policy in every cell\n  {:<10} {:>9} {:>11} {:>10}", "workload",
             "budget", "limit", "best known");
  for (const PolicySummary& policy : comparison.policies) {
    fmt::print(" {:>10}", policy.name);
  }
  fmt::print("\n");
  for (const CellResult& cell : comparison.cells) {
    fmt::print("  {:<10} {:>9} {:>11} {:>10}", comparison.scenarios[cell.cell.scenario].scenario.workload.ToText(),
               cell.cell.budget.ToText(), FormatBytes(cell.cell.limit_bytes),
               cell.best ? fmt::format("{:.4f}", cell.best->loss.value) : "-");
    for (const PolicyResult& policy : cell.policies) {
      fmt::print(" {:>10}", policy.refused() ? std::string("refused") : fmt::format("{:.4f}", policy.loss.value));
    }
    fmt::print("\n");
  }
}

std::string StepText(const LadderStep& step) {
  if (!step.plan || step.saves_nothing()) {
    return step.plan ? "no saving" : "no plan";
  }
  return fmt::format("{}{}", NatsText(step.pruned_loss.value), step.pruning_wins() ? "*" : "");
}

// What each rung loses when it is pruned to the bytes of the next one.
void PrintSteps(const Ladder& ladder) {
  fmt::print("  pruned: loss, * where it is less than that of the smaller one dense\n");
  for (size_t larger = 0; larger + 1 < ladder.rungs.size(); ++larger) {
    fmt::print("  {:<34}", fmt::format("{} to {}", ladder.rungs[larger].name, ladder.rungs[larger + 1].name));
    for (const LadderStep& step : ladder.steps) {
      if (step.larger == larger) {
        fmt::print(" {:>12}", StepText(step));
      }
    }
    fmt::print("\n");
  }
}

void PrintLadder(const Ladder& ladder) {
  fmt::print("\n{}, loss against {} dense; pruned by {}\n  {:<10}", LadderTitle(ladder.kind), ladder.Called(0),
             ladder.policy, "dense");
  fmt::print(" {:>10} {:>12}", "loss", "perplexity");
  for (const Workload& workload : ladder.workloads) {
    fmt::print(" {:>12}", workload.ToText());
  }
  fmt::print("\n");
  for (const LadderRung& rung : ladder.rungs) {
    fmt::print("  {:<10} {:>10} {:>12.3f}", rung.name, NatsText(rung.loss.value), rung.perplexity);
    for (const uint64_t bytes : rung.dense_peak_bytes) {
      fmt::print(" {:>12}", FormatBytes(bytes));
    }
    fmt::print("\n");
  }
  if (!ladder.steps.empty()) {
    PrintSteps(ladder);
  }
  fmt::print("\n");
  for (const LadderStatement& statement : ladder.statements) {
    fmt::print("{}\n", statement.text);
  }
  for (const std::string& note : ladder.notes) {
    fmt::print("{}: {}\n", LadderTitle(ladder.kind), Printable(note, 4096));
  }
}

std::string RatioText(const Interval& ratio) {
  return fmt::format("{:.3f} [{:.3f}, {:.3f}]", ratio.value, ratio.low, ratio.high);
}

}  // namespace

std::vector<size_t> PoliciesByRank(const PolicyComparison& comparison) {
  std::vector<size_t> order(comparison.policies.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) {
    const GeometricMean& left = comparison.policies[a].all;
    const GeometricMean& right = comparison.policies[b].all;
    return (left.cells > 0) != (right.cells > 0) ? left.cells > 0 : left.ratio.value < right.ratio.value;
  });
  return order;
}

std::vector<std::string> Verdicts(const PolicyComparison& comparison) {
  std::vector<std::string> verdicts;
  const std::vector<size_t> order = PoliciesByRank(comparison);
  if (!comparison.winner) {
    verdicts.emplace_back("The dense plan fits everywhere, or nothing does: there is nothing to rank.");
  } else {
    const PolicySummary& winner = comparison.policies[*comparison.winner];
    verdicts.push_back(fmt::format("Winner: {}, geometric mean of loss over best known {} in {} cells.", winner.name,
                                   RatioText(winner.all.ratio), winner.all.cells));
    for (size_t place = 0; place < order.size(); ++place) {
      const PolicySummary& policy = comparison.policies[order[place]];
      if (policy.name == "table" && policy.all.cells > 0 && order[place] != *comparison.winner) {
        verdicts.push_back(fmt::format("table: {}, place {} of {}; the winner loses {:.3f} of what table loses.",
                                       RatioText(policy.all.ratio), place + 1, order.size(),
                                       winner.to_table ? winner.to_table->value : 0.0));
      }
    }
  }
  if (comparison.cells_where_dense_fits > 0) {
    verdicts.push_back(fmt::format("{} of {} cells hold the dense plan, whose loss is 0: they are left out of ratios.",
                                   comparison.cells_where_dense_fits, comparison.cells.size()));
  }
  const auto refused_by_all = std::count_if(comparison.cells.begin(), comparison.cells.end(), [](const CellResult& c) {
    return std::all_of(c.policies.begin(), c.policies.end(), [](const PolicyResult& p) { return p.refused(); });
  });
  if (refused_by_all > 0) {
    verdicts.push_back(
        fmt::format("In {} of {} cells every policy refuses: the budget is below what is left of the "
                    "model without any block.",
                    refused_by_all, comparison.cells.size()));
  }
  for (const std::string& missing : comparison.missing) {
    verdicts.push_back(fmt::format("Not compared: {}", missing));
  }
  return verdicts;
}

void PrintText(const CompareReport& report) {
  const PolicyComparison& comparison = report.comparison;
  const MeasurementSet& set = comparison.set;
  fmt::print("{} {}, profile {}\n{}: protocol {}, {} windows of {} tokens, {} scored; dense perplexity {:.4f}\n",
             Printable(report.model_name), report.quantization, Printable(report.profile), Printable(set.corpus),
             set.protocol, set.n_windows, set.window_tokens, set.tokens_scored, comparison.dense_perplexity);
  fmt::print("{} cells; {} plans measured now, {} known on this text\n", comparison.cells.size(),
             comparison.plans_measured, comparison.plans_known);
  PrintCells(comparison);
  PrintSummary(comparison);
  fmt::print("\n");
  for (const std::string& verdict : Verdicts(comparison)) {
    fmt::print("{}\n", Printable(verdict, 1000));
  }
  if (report.ladder) {
    PrintLadder(*report.ladder);
  }
  if (report.kv_ladder) {
    PrintLadder(*report.kv_ladder);
  }
}

}  // namespace espalier

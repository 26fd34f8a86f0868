#include "cli/compare_plots.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>

#include "base/bytes.h"
#include "cli/svg.h"

namespace espalier {
namespace {

// Drawn at the width of a phone: several stand beside each other on wider screens, and text never shrinks.
constexpr double kWidth = 340;
constexpr double kHeight = 330;
constexpr double kLeft = 48;
constexpr double kRight = 330;
constexpr double kTop = 22;
constexpr double kBottom = 290;
constexpr int kTicks = 7;

double Mebibytes(uint64_t bytes) { return static_cast<double>(bytes) / static_cast<double>(kMiB); }

std::string Number(double value) { return fmt::format("{:.3g}", value); }

// Grows to hold what it is shown.
struct Range {
  double low = INFINITY;
  double high = -INFINITY;
  void Add(double value) {
    if (std::isfinite(value)) {
      low = std::min(low, value);
      high = std::max(high, value);
    }
  }
  bool empty() const { return low > high; }
};

// Axes of a plot of loss over bytes.
struct Axes {
  Scale x;
  Scale y;
  Point at(double bytes_mib, double loss) const { return {x(bytes_mib), y(loss)}; }
};

// What is to be shown in one. A loss of 0 has no place on a logarithmic axis.
struct Shown {
  Range bytes;
  Range loss;
  void Add(uint64_t at_bytes, double nats) {
    if (nats > 0) {
      bytes.Add(Mebibytes(at_bytes));
      loss.Add(nats);
    }
  }
};

Axes AxesFor(const Shown& shown) {
  const Range bytes = shown.bytes.empty() ? Range{0, 1} : shown.bytes;
  const Range loss = shown.loss.empty() ? Range{0.1, 1} : shown.loss;
  const double margin = std::max(0.03 * (bytes.high - bytes.low), 1e-3 * bytes.high + 1e-6);
  return {{.low = bytes.low - margin, .high = bytes.high + margin, .from = kLeft, .to = kRight},
          {.low = loss.low / 1.3, .high = loss.high * 1.3, .from = kBottom, .to = kTop, .logarithmic = true}};
}

void DrawAxes(SvgCanvas* canvas, const Axes& axes, const std::string& title) {
  canvas->Text({kLeft, 13}, Anchor::kStart, title, "title");
  for (const double tick : Ticks(axes.y, kTicks)) {
    canvas->Line({kLeft, axes.y(tick)}, {kRight, axes.y(tick)}, "grid");
    canvas->Text({kLeft - 5, axes.y(tick) + 4}, Anchor::kEnd, Number(tick));
  }
  for (const double tick : Ticks(axes.x, kTicks)) {
    canvas->Line({axes.x(tick), kTop}, {axes.x(tick), kBottom}, "grid");
    canvas->Text({axes.x(tick), kBottom + 15}, Anchor::kMiddle, Number(tick));
  }
  canvas->Line({kLeft, kBottom}, {kRight, kBottom}, "axis");
  canvas->Text({kRight, kBottom + 32}, Anchor::kEnd, "MiB managed (weights, KV, compute)");
}

// Plans between two points of a front do not exist: the loss of the smaller one holds until the larger one fits, that
// of the last until the dense plan does. What is above the axis is left out.
std::vector<Point> Steps(const Axes& axes, const std::vector<PlanPoint>& front) {
  std::vector<Point> points;
  for (const PlanPoint& plan : front) {
    const double bytes = Mebibytes(plan.peak_bytes);
    if (plan.loss > axes.y.high || bytes < axes.x.low) {
      continue;
    }
    if (!points.empty()) {
      points.push_back({axes.x(bytes), points.back().y});
    }
    if (plan.loss > 0) {
      points.push_back(axes.at(bytes, plan.loss));
    }
  }
  return points;
}

std::string PointText(std::string_view who, const std::string& plan, uint64_t bytes, const Interval& loss) {
  return fmt::format("{}: {}; loss {} [{}, {}]; {}", who, plan, NatsText(loss.value), NatsText(loss.low),
                     NatsText(loss.high), FormatBytes(bytes));
}

// The workload of the ladder that is this scenario's; -1: none, or its losses are not this comparison's.
int LadderWorkload(const CompareReport& report, size_t scenario) {
  if (!report.ladder || !report.ladder->subject_is_source) {
    return -1;
  }
  const auto& workloads = report.ladder->workloads;
  const auto found =
      std::find(workloads.begin(), workloads.end(), report.comparison.scenarios[scenario].scenario.workload);
  return found == workloads.end() ? -1 : static_cast<int>(found - workloads.begin());
}

void DrawRungs(SvgCanvas* canvas, const Axes& axes, const Ladder& ladder, size_t workload) {
  std::vector<Point> line;
  for (const LadderRung& rung : ladder.rungs) {
    if (rung.loss.value > 0) {
      line.push_back(axes.at(Mebibytes(rung.dense_peak_bytes[workload]), rung.loss.value));
    }
  }
  canvas->Polyline(line, "rungs");
  for (const LadderRung& rung : ladder.rungs) {
    if (rung.loss.value > 0) {
      const uint64_t bytes = rung.dense_peak_bytes[workload];
      const Point at = axes.at(Mebibytes(bytes), rung.loss.value);
      canvas->Marker(1, at, "rung", PointText(rung.name + " dense", "dense", bytes, rung.loss));
      const bool at_the_right = at.x > kRight - 60;
      canvas->Text({at.x + (at_the_right ? -7 : 7), at.y + 4}, at_the_right ? Anchor::kEnd : Anchor::kStart, rung.name,
                   "rung-name");
    }
  }
}

struct RatioRow {
  std::string name;
  size_t policy = 0;
  GeometricMean mean;
};

std::vector<RatioRow> RatioRows(const PolicyComparison& comparison, int budget) {
  std::vector<RatioRow> rows;
  for (const size_t i : PoliciesByRank(comparison)) {
    const PolicySummary& policy = comparison.policies[i];
    rows.push_back({policy.name, i, budget < 0 ? policy.all : policy.by_budget[static_cast<size_t>(budget)]});
  }
  return rows;
}

// The choice of `policy` in the cell of `scenario` and `budget`; nullptr where there is no such cell.
const PolicyResult* FindResult(const PolicyComparison& comparison, size_t policy, const Budget& budget,
                               size_t scenario) {
  for (const CellResult& cell : comparison.cells) {
    if (cell.cell.scenario == scenario && cell.cell.budget == budget) {
      return &cell.policies[policy];
    }
  }
  return nullptr;
}

}  // namespace

std::string PolicyStyle(size_t policy) { return fmt::format("p{}", policy % 10); }

std::string LegendMarker(size_t policy) {
  SvgCanvas canvas(12, 12, "");
  canvas.Marker(static_cast<int>(policy), {6, 6}, PolicyStyle(policy));
  return canvas.Finish();
}

std::string LossPlot(const CompareReport& report, size_t scenario) {
  const PolicyComparison& comparison = report.comparison;
  const ScenarioMemory& where = comparison.scenarios[scenario];
  const int ladder_workload = LadderWorkload(report, scenario);
  Shown shown;
  for (const CellResult& cell : comparison.cells) {
    for (const PolicyResult& policy : cell.policies) {
      if (cell.cell.scenario == scenario && !policy.refused()) {
        shown.Add(policy.peak_bytes, policy.loss.value);
        shown.Add(policy.peak_bytes, cell.best ? cell.best->loss.value : 0);
      }
    }
  }
  if (ladder_workload >= 0) {
    for (const LadderRung& rung : report.ladder->rungs) {
      shown.Add(rung.dense_peak_bytes[static_cast<size_t>(ladder_workload)], rung.loss.value);
    }
  }
  shown.bytes.Add(Mebibytes(where.survey.base.dense_peak_bytes));
  const Axes axes = AxesFor(shown);
  const std::string title = fmt::format("{}, KV : weights {:.2f}", where.scenario.workload.ToText(),
                                        KvToWeights(where.survey.memory, where.scenario.workload));
  SvgCanvas canvas(kWidth, kHeight, "Loss in nats per token over bytes at workload " + title);
  DrawAxes(&canvas, axes, title);
  canvas.Polyline(Steps(axes, comparison.fronts[scenario]), "front");
  if (ladder_workload >= 0) {
    DrawRungs(&canvas, axes, *report.ladder, static_cast<size_t>(ladder_workload));
  }
  // The best last, on top of the others.
  std::vector<size_t> order = PoliciesByRank(comparison);
  std::reverse(order.begin(), order.end());
  for (const size_t i : order) {
    for (const CellResult& cell : comparison.cells) {
      const PolicyResult& policy = cell.policies[i];
      if (cell.cell.scenario == scenario && !policy.refused() && policy.loss.value > 0) {
        canvas.Marker(static_cast<int>(i), axes.at(Mebibytes(policy.peak_bytes), policy.loss.value), PolicyStyle(i),
                      PointText(fmt::format("{} at {}", comparison.policies[i].name, cell.cell.budget.ToText()),
                                policy.choice.decisions.front().plan.ToText(), policy.peak_bytes, policy.loss));
      }
    }
  }
  return canvas.Finish();
}

std::string LadderPlot(const Ladder& ladder, size_t workload) {
  Shown shown;
  for (const LadderRung& rung : ladder.rungs) {
    shown.Add(rung.dense_peak_bytes[workload], rung.loss.value);
  }
  for (const LadderStep& step : ladder.steps) {
    if (step.workload == workload && step.plan) {
      shown.Add(step.pruned_peak_bytes, step.pruned_loss.value);
    }
  }
  for (const LadderPoint& point : ladder.points) {
    if (point.workload == workload) {
      shown.Add(point.peak_bytes, point.loss.value);
    }
  }
  const Axes axes = AxesFor(shown);
  const std::string at = ladder.workloads[workload].ToText();
  SvgCanvas canvas(kWidth, kHeight, fmt::format("Loss over bytes at workload {}, {}", at, LadderTitle(ladder.kind)));
  DrawAxes(&canvas, axes, at);
  DrawRungs(&canvas, axes, ladder, workload);
  for (const LadderPoint& point : ladder.points) {
    if (point.workload == workload && point.loss.value > 0) {
      canvas.Marker(0, axes.at(Mebibytes(point.peak_bytes), point.loss.value), "subject",
                    PointText("pruned to " + point.budget, point.plan.ToText(), point.peak_bytes, point.loss));
    }
  }
  for (const LadderStep& step : ladder.steps) {
    if (step.workload == workload && step.plan && step.pruned_loss.value > 0) {
      const std::string who =
          fmt::format("{} pruned to the bytes of {}", ladder.Called(step.larger), ladder.Called(step.smaller));
      canvas.Marker(2, axes.at(Mebibytes(step.pruned_peak_bytes), step.pruned_loss.value),
                    step.pruning_wins() ? "step wins" : "step",
                    PointText(who, step.plan->ToText(), step.pruned_peak_bytes, step.pruned_loss));
    }
  }
  return canvas.Finish();
}

std::string RatioPlot(const PolicyComparison& comparison, int budget) {
  constexpr double kRow = 20;
  constexpr double kNames = 78;
  constexpr double kFigures = 40;
  const std::vector<RatioRow> rows = RatioRows(comparison, budget);
  // One axis for all budgets, so that the plots can be compared.
  Range range;
  range.Add(1);
  range.Add(1.1);
  for (const PolicySummary& policy : comparison.policies) {
    for (const GeometricMean& mean : policy.by_budget) {
      range.Add(mean.cells > 0 ? mean.ratio.low : 1);
      range.Add(mean.cells > 0 ? mean.ratio.high : 1);
    }
  }
  const double bottom = kTop + kRow * static_cast<double>(rows.size());
  const Scale x = {
      .low = range.low / 1.02, .high = range.high * 1.05, .from = kNames, .to = kWidth - kFigures, .logarithmic = true};
  const std::string title =
      budget < 0 ? std::string("all cells") : comparison.budgets[static_cast<size_t>(budget)].ToText();
  SvgCanvas canvas(kWidth, bottom + 24, "Geometric mean of loss over best known: " + title);
  canvas.Text({kNames, 13}, Anchor::kStart, title, "title");
  for (const double tick : Ticks(x, 6)) {
    canvas.Line({x(tick), kTop}, {x(tick), bottom}, tick == 1 ? "axis" : "grid");
    canvas.Text({x(tick), bottom + 15}, Anchor::kMiddle, Number(tick));
  }
  for (size_t i = 0; i < rows.size(); ++i) {
    const double y = kTop + kRow * (static_cast<double>(i) + 0.5);
    canvas.Text({kNames - 6, y + 4}, Anchor::kEnd, rows[i].name);
    if (rows[i].mean.cells == 0) {
      continue;
    }
    const Interval& ratio = rows[i].mean.ratio;
    const std::string style = PolicyStyle(rows[i].policy);
    canvas.Line({x(ratio.low), y}, {x(ratio.high), y}, "whisker " + style);
    canvas.Marker(static_cast<int>(rows[i].policy), {x(ratio.value), y}, style,
                  fmt::format("{}: {:.3f} [{:.3f}, {:.3f}] in {} cells", rows[i].name, ratio.value, ratio.low,
                              ratio.high, rows[i].mean.cells));
    canvas.Text({kWidth - kFigures + 4, y + 4}, Anchor::kStart, fmt::format("{:.2f}", ratio.value));
  }
  return canvas.Finish();
}

std::string BlockPlot(const PolicyComparison& comparison, size_t policy, size_t budget,
                      const std::vector<size_t>& scenarios) {
  constexpr double kNames = 26;
  constexpr double kHead = 46;
  constexpr double kCell = 11;
  constexpr double kGap = 7;
  std::vector<std::pair<size_t, const PolicyResult*>> columns;
  for (const size_t scenario : scenarios) {
    const auto* result = FindResult(comparison, policy, comparison.budgets[budget], scenario);
    if (result != nullptr && !result->refused()) {
      columns.emplace_back(scenario, result);
    }
  }
  if (columns.empty()) {
    return "";
  }
  const int n_layer = columns.front().second->choice.decisions.front().plan.n_layer();
  const double row = n_layer > 40 ? 6 : kCell;
  const double width = kNames + static_cast<double>(columns.size()) * (2 * kCell + kGap) + 30;
  SvgCanvas canvas(
      std::max(width, 150.0), kHead + row * n_layer + 4,
      fmt::format("Blocks that {} keeps at {}", comparison.policies[policy].name, comparison.budgets[budget].ToText()));
  canvas.Text({2, 12}, Anchor::kStart, comparison.policies[policy].name, "title " + PolicyStyle(policy));
  for (int layer = 0; layer<n_layer; layer += n_layer> 40 ? 8 : n_layer > 12 ? 4 : 1) {
    canvas.Text({kNames - 5, kHead + row * layer + row / 2 + 4}, Anchor::kEnd, std::to_string(layer));
  }
  for (size_t c = 0; c < columns.size(); ++c) {
    const auto& [scenario, result] = columns[c];
    const ScenarioMemory& where = comparison.scenarios[scenario];
    const double left = kNames + static_cast<double>(c) * (2 * kCell + kGap);
    const Plan& plan = result->choice.decisions.front().plan;
    canvas.Text({left + kCell, kHead - 16}, Anchor::kMiddle,
                Number(std::round(100 * KvToWeights(where.survey.memory, where.scenario.workload)) / 100));
    canvas.Text({left + kCell / 2, kHead - 4}, Anchor::kMiddle, "a", "small");
    canvas.Text({left + 1.5 * kCell, kHead - 4}, Anchor::kMiddle, "f", "small");
    for (int b = 0; b < plan.n_block(); ++b) {
      const BlockId block = {b};
      const Point corner = {left + (block.is_attention() ? 0 : kCell), kHead + row * block.layer()};
      const char* const kind = block.is_attention() ? "attention" : "ffn";
      canvas.Rectangle(corner, {kCell - 1, row - 1}, plan.kept(block) ? kind : "dropped",
                       fmt::format("{} {} at {}", BlockName(block), plan.kept(block) ? "kept" : "dropped",
                                   where.scenario.workload.ToText()));
    }
  }
  return canvas.Finish();
}

}  // namespace espalier

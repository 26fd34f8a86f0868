#include "cli/strategy_plot.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "cli/svg.h"

namespace espalier {
namespace {

constexpr double kWidth = 640;
constexpr double kLeft = 62;
constexpr double kRight = 610;
constexpr double kPlotHeight = 250;
constexpr double kTop = 62;  // of the first plot
constexpr double kStep = 320;

constexpr const char* kStyle =
    "svg{background:#fff;font:12px sans-serif}text{fill:#333}.title{font-weight:bold}"
    ".grid{stroke:#ddd}.axis{stroke:#333}.plan{fill:#9ca3af}.front{fill:none;stroke:#1f6fb4;stroke-width:1.6}"
    ".answer{fill:#c2410c}"
    "@media(prefers-color-scheme:dark){svg{background:#181818}text{fill:#ccc}.grid{stroke:#333}.axis{stroke:#ccc}"
    ".plan{fill:#6b7280}.front{stroke:#6cb2eb}.answer{fill:#fb923c}}";

// Plans that no measured one beats in both, by rising size.
std::vector<PlottedPlan> FrontOf(std::vector<PlottedPlan> plans) {
  std::stable_sort(plans.begin(), plans.end(), [](const auto& a, const auto& b) { return a.size < b.size; });
  std::vector<PlottedPlan> front;
  double least = std::numeric_limits<double>::infinity();
  for (PlottedPlan& plan : plans) {
    if (plan.loss < least) {
      least = plan.loss;
      front.push_back(std::move(plan));
    }
  }
  return front;
}

void Draw(SvgCanvas* canvas, double top, const PlottedWorkload& workload) {
  const double bottom = top + kPlotHeight;
  canvas->Text({kLeft, top - 8}, Anchor::kStart, workload.title, "title");
  double low = std::numeric_limits<double>::infinity();
  double high = 0;
  for (const auto* plans : {&workload.measured, &workload.answers}) {
    for (const PlottedPlan& plan : *plans) {
      if (plan.loss > 0) {
        low = std::min(low, plan.loss);
        high = std::max(high, plan.loss);
      }
    }
  }
  if (high == 0) {
    return;
  }
  const Scale x = {.low = 0, .high = 1, .from = kLeft, .to = kRight};
  const Scale y = {.low = low / 1.3, .high = high * 1.3, .from = bottom, .to = top, .logarithmic = true};
  for (const double tick : Ticks(y, 6)) {
    canvas->Line({kLeft, y(tick)}, {kRight, y(tick)}, "grid");
    canvas->Text({kLeft - 6, y(tick) + 4}, Anchor::kEnd, fmt::format("{:.3g}", tick));
  }
  for (const double tick : Ticks(x, 6)) {
    canvas->Line({x(tick), top}, {x(tick), bottom}, "grid");
    canvas->Text({x(tick), bottom + 15}, Anchor::kMiddle, fmt::format("{:.0f} %", std::abs(100 * tick)));
  }
  canvas->Line({kLeft, bottom}, {kRight, bottom}, "axis");
  const auto mark = [&](const PlottedPlan& plan, MarkerShape shape, const char* style) {
    if (plan.loss > 0) {
      canvas->Marker(shape, {x(plan.size), y(plan.loss)}, style,
                     fmt::format("{:.1f} %, {:.4g} nats per token: {}", 100 * plan.size, plan.loss, plan.plan));
    }
  };
  for (const PlottedPlan& plan : workload.measured) {
    mark(plan, 0, "plan");
  }
  std::vector<Point> steps;  // what is known for so many bytes, and no more until the next plan
  for (const PlottedPlan& plan : FrontOf(workload.measured)) {
    if (plan.loss > 0) {
      if (!steps.empty()) {
        steps.push_back({x(plan.size), steps.back().y});
      }
      steps.push_back({x(plan.size), y(plan.loss)});
    }
  }
  canvas->Polyline(steps, "front");
  for (const PlottedPlan& plan : workload.answers) {
    mark(plan, 1, "answer");
  }
}

}  // namespace

std::string StrategyPlot(const std::vector<PlottedWorkload>& workloads, const std::string& title) {
  SvgCanvas canvas(kWidth, kTop + kStep * static_cast<double>(workloads.size()), title);
  canvas.Text({kLeft, 18}, Anchor::kStart, title, "title");
  canvas.Marker(0, {kLeft + 4, 32}, "plan");
  canvas.Text({kLeft + 14, 36}, Anchor::kStart, "measured, and the front among them");
  canvas.Marker(1, {kLeft + 264, 32}, "answer");
  canvas.Text({kLeft + 274, 36}, Anchor::kStart, "StratNet's answers; nats per token over bytes");
  for (size_t i = 0; i < workloads.size(); ++i) {
    Draw(&canvas, kTop + kStep * static_cast<double>(i), workloads[i]);
  }
  return canvas.FinishAlone(kStyle);
}

}  // namespace espalier

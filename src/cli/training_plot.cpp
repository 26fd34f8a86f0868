#include "cli/training_plot.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "cli/svg.h"

namespace espalier {
namespace {

constexpr double kWidth = 640;
constexpr double kLeft = 62;
constexpr double kRight = 624;
constexpr double kPlotHeight = 170;
constexpr double kTop = 40;  // of the first plot
constexpr double kStep = 224;

constexpr const char* kStyle =
    "svg{background:#fff;font:12px sans-serif}text{fill:#333}.title{font-weight:bold}"
    ".grid{stroke:#ddd}.axis{stroke:#333}.curve{fill:none;stroke:#1f6fb4;stroke-width:1.6}.mark{fill:#c2410c}"
    "@media(prefers-color-scheme:dark){svg{background:#181818}text{fill:#ccc}.grid{stroke:#333}.axis{stroke:#ccc}"
    ".curve{stroke:#6cb2eb}.mark{fill:#fb923c}}";

// One plot, the `index`-th from the top.
void Draw(SvgCanvas* canvas, int index, const std::string& title, const std::vector<Point>& points, bool logarithmic,
          bool marks) {
  const double top = kTop + index * kStep;
  const double bottom = top + kPlotHeight;
  canvas->Text({kLeft, top - 8}, Anchor::kStart, title, "title");
  if (points.empty()) {
    return;
  }
  double low = points.front().y;
  double high = low;
  for (const Point& point : points) {
    low = std::min(low, point.y);
    high = std::max(high, point.y);
  }
  const double room = std::max(0.05 * (high - low), 1e-6 + 1e-3 * std::abs(high));
  const Scale x = {.low = 0, .high = std::max(1.0, points.back().x), .from = kLeft, .to = kRight};
  const Scale y = logarithmic ? Scale{low / 1.2, high * 1.2, bottom, top, true}
                              : Scale{low - room, high + room, bottom, top, false};
  for (const double tick : Ticks(y, 5)) {
    canvas->Line({kLeft, y(tick)}, {kRight, y(tick)}, "grid");
    canvas->Text({kLeft - 6, y(tick) + 4}, Anchor::kEnd, fmt::format("{:.3g}", tick));
  }
  for (const double tick : Ticks(x, 6)) {
    canvas->Line({x(tick), top}, {x(tick), bottom}, "grid");
    canvas->Text({x(tick), bottom + 15}, Anchor::kMiddle, fmt::format("{:.0f}", tick));
  }
  canvas->Line({kLeft, bottom}, {kRight, bottom}, "axis");
  std::vector<Point> curve;
  for (const Point& point : points) {
    curve.push_back({x(point.x), y(point.y)});
    if (marks) {
      canvas->Marker(0, curve.back(), "mark", fmt::format("{:.0f} episodes: {:.4g}", point.x, point.y));
    }
  }
  canvas->Polyline(curve, "curve");
}

}  // namespace

std::string TrainingPlot(const RapTrainingReport& report, const std::string& title) {
  std::vector<Point> returns;
  std::vector<Point> errors;
  for (const TrainingProgress& progress : report.curve) {
    const auto episodes = static_cast<double>(progress.episodes);
    returns.push_back({episodes, progress.mean_return});
    if (progress.td_error > 0) {
      errors.push_back({episodes, progress.td_error});
    }
  }
  std::vector<Point> gaps;
  for (const RapGap& gap : report.gaps) {
    gaps.push_back({static_cast<double>(gap.episodes), 100 * gap.mean});
  }
  SvgCanvas canvas(kWidth, kTop + 2 * kStep + kPlotHeight + 30, title);
  canvas.Text({kLeft, 16}, Anchor::kStart, title, "title");
  Draw(&canvas, 0, "return, over episodes", returns, false, false);
  Draw(&canvas, 1, "mean squared TD error", errors, true, false);
  Draw(&canvas, 2, "gap to the best known, %", gaps, false, true);
  return canvas.FinishAlone(kStyle);
}

}  // namespace espalier

// The report of espalier replay as one page.
#include <fmt/format.h>

#include <algorithm>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "base/bytes.h"
#include "cli/replay_report.h"
#include "cli/svg.h"

namespace espalier {
namespace {

constexpr std::string_view kStyle = R"(
:root { color-scheme: light dark; --bg: #ffffff; --fg: #1d2126; --muted: #5d6672; --grid: #e4e7eb; --limit: #b3261e;
  --planned: #94700a; --used: #0b62c4; --running: #16794a; --waiting: #c8500a; }
@media (prefers-color-scheme: dark) { :root { --bg: #14171a; --fg: #e4e7ea; --muted: #9aa4b0; --grid: #2b3138;
  --limit: #f2837b; --planned: #dcb53c; --used: #5aa2f5; --running: #4fc58a; --waiting: #f28b4b; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1120px; padding: 16px; background: var(--bg); color: var(--fg);
  font: 15px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.5em; line-height: 1.2; margin: 0.4em 0; overflow-wrap: anywhere; }
h2 { font-size: 1.15em; margin: 1.8em 0 0.4em; }
p { max-width: 75ch; margin: 0.4em 0; overflow-wrap: anywhere; }
.muted { color: var(--muted); }
.warning { border-left: 4px solid var(--limit); padding-left: 10px; }
svg { max-width: 100%; height: auto; display: block; }
svg text { font: 11px system-ui, sans-serif; fill: var(--fg); }
svg text.title { font-size: 12px; font-weight: 600; }
.grid { stroke: var(--grid); stroke-width: 1; }
.axis { stroke: var(--muted); stroke-width: 1; }
.limit { fill: none; stroke: var(--limit); stroke-width: 1.8; }
.planned { fill: none; stroke: var(--planned); stroke-width: 1.2; stroke-dasharray: 4 3; }
.used { fill: none; stroke: var(--used); stroke-width: 1.8; }
.running { fill: none; stroke: var(--running); stroke-width: 1.8; }
.waiting { fill: none; stroke: var(--waiting); stroke-width: 1.4; stroke-dasharray: 4 3; }
.shrinks { fill: var(--limit); }
.grows { fill: var(--running); }
.others { fill: var(--planned); }
svg text.limit { fill: var(--limit); stroke: none; } svg text.planned { fill: var(--planned); stroke: none; }
svg text.used { fill: var(--used); stroke: none; } svg text.running { fill: var(--running); stroke: none; }
svg text.waiting { fill: var(--waiting); stroke: none; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: 13px; font-variant-numeric: tabular-nums; }
th, td { padding: 3px 9px; text-align: right; white-space: nowrap; border-bottom: 1px solid var(--grid); }
th:first-child, td:first-child, .left { text-align: left; }
td.text { text-align: left; max-width: 60ch; overflow: hidden; text-overflow: ellipsis; }
th { font-weight: 600; }
summary { cursor: pointer; padding: 4px 0; }
)";

constexpr double kWidth = 1080;
constexpr double kLeft = 78;
constexpr double kRight = 1064;

std::string Html(std::string_view text) { return EscapeMarkup(text); }

std::string Paragraph(std::string_view style, std::string_view text) {
  return fmt::format("<p class=\"{}\">{}</p>\n", style, Html(text));
}

struct Curve {
  const char* style;  // and its name
  std::function<double(const ReplayPoint&)> value;
  bool steps = true;  // holds until the next point, as a limit does
};

// Axes, grid and curves; events are drawn into it afterwards.
void DrawCurves(SvgCanvas* canvas, const std::vector<ReplayPoint>& course, const std::vector<Curve>& curves,
                const Scale& x, const Scale& y, const std::function<std::string(double)>& label) {
  // Adding 0 makes -0, which rounding may leave, 0.
  for (const double tick : Ticks(y, 5)) {
    canvas->Line({kLeft, y(tick)}, {kRight, y(tick)}, "grid");
    canvas->Text({kLeft - 6, y(tick) + 4}, Anchor::kEnd, label(tick + 0.0));
  }
  for (const double tick : Ticks(x, 10)) {
    canvas->Line({x(tick), y.from}, {x(tick), y.to}, "grid");
    canvas->Text({x(tick), y.from + 15}, Anchor::kMiddle, fmt::format("{:.6g} s", tick + 0.0));
  }
  canvas->Line({kLeft, y.from}, {kRight, y.from}, "axis");
  double name_at = kLeft;
  for (const Curve& curve : curves) {
    std::vector<Point> points;
    for (const ReplayPoint& point : course) {
      const Point next = {x(point.seconds), y(curve.value(point))};
      if (curve.steps && !points.empty()) {
        points.push_back({next.x, points.back().y});
      }
      points.push_back(next);
    }
    canvas->Polyline(points, curve.style);
    canvas->Text({name_at, y.to - 8}, Anchor::kStart, curve.style, fmt::format("title {}", curve.style));
    name_at += 80;
  }
}

Scale TimeScale(const ReplayReport& report) {
  const double last = report.course.empty() ? 0 : report.course.back().seconds;
  return {.low = 0, .high = std::max({report.seconds, last, 1e-3}), .from = kLeft, .to = kRight};
}

double InMiB(uint64_t bytes) { return static_cast<double>(bytes) / static_cast<double>(kMiB); }

bool Limited(const ReplayPoint& point) { return point.limit_bytes != UINT64_MAX; }

std::string MemoryPlot(const ReplayReport& report) {
  constexpr double kTop = 30;
  constexpr double kBottom = 300;
  double highest = 1;
  for (const ReplayPoint& point : report.course) {
    highest = std::max(
        {highest, static_cast<double>(point.used_bytes), Limited(point) ? static_cast<double>(point.limit_bytes) : 0});
  }
  const Scale x = TimeScale(report);
  const Scale y = {.low = 0, .high = 1.05 * highest, .from = kBottom, .to = kTop};
  SvgCanvas canvas(kWidth, kBottom + 24, "memory limit, planned and used bytes over time");
  std::vector<Curve> curves;
  // No limit is above everything: not a line at the upper edge.
  if (std::any_of(report.course.begin(), report.course.end(), Limited)) {
    curves.push_back({"limit", [](const ReplayPoint& p) { return InMiB(p.limit_bytes); }});
    curves.push_back({"planned", [](const ReplayPoint& p) { return InMiB(p.planned_bytes); }});
  }
  curves.push_back({"used", [](const ReplayPoint& p) { return InMiB(p.used_bytes); }});
  DrawCurves(&canvas, report.course, curves, x, y, [](double mib) { return fmt::format("{:.4g} MiB", mib); });
  for (const ReplayEvent& event : report.events) {
    const bool transition = event.kind == ServingEvent::Kind::kTransition;
    const char* style = !transition ? "others" : event.after_bytes < event.before_bytes ? "shrinks" : "grows";
    canvas.Marker(!transition                              ? 3
                  : event.after_bytes < event.before_bytes ? 4
                                                           : 2,
                  {x(event.seconds), y(InMiB(event.after_bytes))}, style,
                  fmt::format("{:.2f} s, {}: {}", event.seconds, EventKindName(event.kind), event.text));
  }
  return canvas.Finish();
}

std::string RequestPlot(const ReplayReport& report) {
  constexpr double kTop = 30;
  constexpr double kBottom = 180;
  int most = 1;
  for (const ReplayPoint& point : report.course) {
    most = std::max({most, point.running, point.waiting});
  }
  const Scale x = TimeScale(report);
  const Scale y = {.low = 0, .high = 1.05 * most, .from = kBottom, .to = kTop};
  SvgCanvas canvas(kWidth, kBottom + 24, "requests running and waiting over time");
  DrawCurves(&canvas, report.course,
             {{"running", [](const ReplayPoint& p) { return static_cast<double>(p.running); }},
              {"waiting", [](const ReplayPoint& p) { return static_cast<double>(p.waiting); }}},
             x, y, [](double count) { return fmt::format("{:.3g}", count); });
  return canvas.Finish();
}

std::string Head(const ReplayedRun& run) {
  const ReplayReport& r = run.report;
  std::string head = fmt::format("<h1>{}: {} {} under a load trace</h1>\n", Html(run.trace.name),
                                 Html(run.model->display_name()), Html(run.model->quantization()));
  head += Paragraph("muted", fmt::format("{}: {} requests and {} budgets in {} s, seed {}; at {} times its speed, {}. "
                                         "Policy {}, {} requests of {} tokens at once.",
                                         run.trace_path, run.trace.arrivals.size(), run.trace.budgets.size(),
                                         run.trace.duration_seconds, run.trace.seed, run.speed,
                                         run.real_time ? "in real time" : "idle time skipped",
                                         run.placement->policy->name(), run.loop.max_running, run.loop.request_cells));
  if (r.stopped) {
    head += Paragraph("warning", fmt::format("Stopped by the user after {:.1f} s.", r.seconds));
  }
  for (const auto& [what, text] : {std::pair{"refusal", &r.first_refusal}, std::pair{"failure", &r.first_failure}}) {
    if (!text->empty()) {
      head += Paragraph("warning", fmt::format("First {}: {}", what, *text));
    }
  }
  return head;
}

std::string Row(std::string_view what, std::string_view value) {
  return fmt::format("<tr><td>{}</td><td class=\"left\">{}</td></tr>\n", what, Html(value));
}

std::string Figures(const ReplayedRun& run) {
  const ReplayReport& r = run.report;
  std::string html = "<h2>Figures</h2>\n<div class=\"scroll\"><table>\n";
  html += Row("requests", fmt::format("{} came: {} completed, {} refused, {} failed, {} unfinished, {} lost",
                                      r.requests, r.completed, r.refused, r.failed, r.unfinished, r.lost));
  html += Row("late", fmt::format("{} with a first token after {} s", r.late, run.late_seconds));
  html += Row("tokens", fmt::format("{} of prompts ({} cached), {} generated at {:.2f} per second", r.prompt_tokens,
                                    r.cached_prompt_tokens, r.generated_tokens, r.tokens_per_second()));
  html += Row("goodput", fmt::format("{:.2f} tokens per second{}", r.goodput(),
                                     run.good_loss ? fmt::format(" of a predicted loss up to {} nats", *run.good_loss)
                                                   : ", every token counted"));
  html += Row("predicted loss", r.mean_loss_nats ? fmt::format("{:.4f} nats per token, known for {:.1f} % of tokens",
                                                               *r.mean_loss_nats, 100 * r.loss_known_share)
                                                 : std::string("unknown"));
  html +=
      Row("above the limit", fmt::format("{} violations, {:.0f} byte-seconds", r.violations, r.overshoot_byte_seconds));
  html += Row(
      "changes of plan",
      fmt::format("{}, {} of them by the budget (at most {} and {} in a minute); {} transitions, {:.1f} ms at most, "
                  "{:.1f} ms in all; {} preemptions",
                  r.moves, r.budget_moves, r.most_moves_in_a_minute, r.most_budget_moves_in_a_minute, r.transitions,
                  r.max_transition_ms, r.transition_ms, r.preemptions));
  html += Row("time", fmt::format("{:.1f} s, of which {:.1f} s were computed in and {:.1f} s skipped", r.seconds,
                                  r.busy_seconds, r.skipped_seconds));
  html +=
      "</table></div>\n<h2>Latency, ms</h2>\n<div class=\"scroll\"><table>\n"
      "<tr><th></th><th>p50</th><th>p95</th><th>p99</th><th>longest</th><th>of</th></tr>\n";
  for (const auto& [name, latencies] :
       {std::pair{"time to first token", &r.first_token}, std::pair{"between tokens", &r.inter_token},
        std::pair{"whole request", &r.total}}) {
    html += fmt::format("<tr><td>{}</td><td>{:.1f}</td><td>{:.1f}</td><td>{:.1f}</td><td>{:.1f}</td><td>{}</td></tr>\n",
                        name, latencies->p50, latencies->p95, latencies->p99, latencies->max, latencies->count);
  }
  return html + "</table></div>\n";
}

std::string EventTable(const ReplayReport& report) {
  // More would only make the page slow to open.
  constexpr size_t kShown = 500;
  const size_t shown = std::min(report.events.size(), kShown);
  std::string html = fmt::format(
      "<h2>Events</h2>\n<details{}><summary>{} of {}</summary>\n<div class=\"scroll\"><table>\n"
      "<tr><th>s</th><th class=\"left\">event</th><th>limit</th><th>before</th><th>after</th>"
      "<th>ms</th><th class=\"left\">what</th></tr>\n",
      shown <= 30 ? " open=\"open\"" : "", shown, report.events.size() + static_cast<size_t>(report.events_left_out));
  for (size_t i = 0; i < shown; ++i) {
    const ReplayEvent& event = report.events[i];
    html += fmt::format(
        "<tr><td>{:.2f}</td><td class=\"left\">{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td>"
        "<td class=\"text\" title=\"{}\">{}</td></tr>\n",
        event.seconds, Html(event.reason.empty() ? EventKindName(event.kind) : event.reason),
        event.limit_bytes == UINT64_MAX ? "-" : FormatBytes(event.limit_bytes), FormatBytes(event.before_bytes),
        FormatBytes(event.after_bytes), event.reason.empty() ? std::string("-") : fmt::format("{:.1f}", event.ms),
        Html(event.text), Html(event.text));
  }
  return html + "</table></div></details>\n";
}

}  // namespace

std::string ToHtml(const ReplayedRun& run) {
  std::string page =
      "<!DOCTYPE html>\n<html lang=\"en\" xmlns=\"http://www.w3.org/1999/xhtml\">\n<head>\n"
      "<meta charset=\"utf-8\"/>\n"
      "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\n";
  page += fmt::format("<title>{}: replay</title>\n<style>{}</style>\n</head>\n<body>\n", Html(run.trace.name), kStyle);
  page += Head(run);
  page += "<h2>Memory</h2>\n" + MemoryPlot(run.report);
  page += Paragraph("muted",
                    "Used is managed plus process memory; planned is the limit that the plan was made for, lower while "
                    "growth waits. Triangles: transitions, on their tip where memory shrinks. Diamonds: other events.");
  page += "<h2>Requests</h2>\n" + RequestPlot(run.report);
  page += Figures(run) + EventTable(run.report);
  page += Paragraph("muted", fmt::format("espalier {} (ggml {})", ESPALIER_VERSION, ESPALIER_GGML_VERSION));
  return page + "</body>\n</html>\n";
}

}  // namespace espalier

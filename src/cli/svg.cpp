#include "cli/svg.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <span>

#include "model/quote.h"

namespace espalier {

std::string EscapeMarkup(std::string_view text) {
  std::string escaped;
  for (const char c : Printable(text, 4096)) {
    switch (c) {
      case '<':
        escaped += "&lt;";
        break;
      case '>':
        escaped += "&gt;";
        break;
      case '&':
        escaped += "&amp;";
        break;
      case '"':
        escaped += "&quot;";
        break;
      case '\'':
        escaped += "&#39;";
        break;
      default:
        escaped += c;
    }
  }
  return escaped;
}

double Scale::operator()(double value) const {
  const double clamped = std::clamp(value, low, high);
  const double share = logarithmic ? std::log(clamped / low) / std::log(high / low) : (clamped - low) / (high - low);
  return from + share * (to - from);
}

namespace {

// The multiples of powers of ten in `steps` that lie inside the scale.
std::vector<double> DecadeTicks(const Scale& scale, std::span<const double> steps) {
  std::vector<double> ticks;
  for (double decade = std::pow(10, std::floor(std::log10(scale.low))); decade <= scale.high; decade *= 10) {
    for (const double step : steps) {
      if (step * decade >= scale.low * (1 - 1e-9) && step * decade <= scale.high * (1 + 1e-9)) {
        ticks.push_back(step * decade);
      }
    }
  }
  return ticks;
}

// Multiples of one round step.
std::vector<double> EvenTicks(const Scale& scale, int wanted) {
  const double raw = (scale.high - scale.low) / std::max(wanted, 1);
  const double magnitude = std::pow(10, std::floor(std::log10(raw)));
  double step = 10 * magnitude;
  for (const double candidate : {5.0, 2.0, 1.0}) {
    step = candidate * magnitude >= raw ? candidate * magnitude : step;
  }
  std::vector<double> ticks;
  for (double at = std::ceil(scale.low / step - 1e-9) * step; at <= scale.high + 1e-9 * step; at += step) {
    ticks.push_back(at);
  }
  return ticks;
}

}  // namespace

std::vector<double> Ticks(const Scale& scale, int wanted) {
  constexpr std::array<double, 6> kDense = {1, 1.5, 2, 3, 5, 7};
  constexpr std::array<double, 3> kUsual = {1, 2, 5};
  constexpr std::array<double, 1> kSparse = {1};
  if (!scale.logarithmic || scale.high / scale.low < 1.5) {
    return EvenTicks(scale, wanted);
  }
  for (const std::span<const double> steps : {std::span<const double>(kDense), std::span<const double>(kUsual)}) {
    std::vector<double> ticks = DecadeTicks(scale, steps);
    if (static_cast<int>(ticks.size()) <= wanted) {
      return ticks;
    }
  }
  return DecadeTicks(scale, kSparse);
}

SvgCanvas::SvgCanvas(double width, double height, std::string_view label)
    : head_(fmt::format("<svg viewBox=\"0 0 {0:.0f} {1:.0f}\" width=\"{0:.0f}\" height=\"{1:.0f}\" role=\"img\" "
                        "aria-label=\"{2}\">\n",
                        width, height, EscapeMarkup(label))) {}

void SvgCanvas::Line(Point from, Point to, std::string_view style) {
  body_ += fmt::format("<line x1=\"{:.1f}\" y1=\"{:.1f}\" x2=\"{:.1f}\" y2=\"{:.1f}\" class=\"{}\"/>\n", from.x, from.y,
                       to.x, to.y, style);
}

void SvgCanvas::Polyline(const std::vector<Point>& points, std::string_view style) {
  body_ += fmt::format("<polyline class=\"{}\" points=\"", style);
  for (const Point& point : points) {
    body_ += fmt::format("{:.1f},{:.1f} ", point.x, point.y);
  }
  body_ += "\"/>\n";
}

void SvgCanvas::Text(Point at, Anchor anchor, std::string_view text, std::string_view style) {
  constexpr std::array<const char*, 3> kAnchors = {"start", "middle", "end"};
  body_ += fmt::format("<text x=\"{:.1f}\" y=\"{:.1f}\" text-anchor=\"{}\" class=\"{}\">{}</text>\n", at.x, at.y,
                       kAnchors[static_cast<size_t>(anchor)], style, EscapeMarkup(text));
}

void SvgCanvas::Rectangle(Point corner, Point size, std::string_view style, std::string_view tooltip) {
  body_ += fmt::format("<rect x=\"{:.1f}\" y=\"{:.1f}\" width=\"{:.1f}\" height=\"{:.1f}\" class=\"{}\"", corner.x,
                       corner.y, size.x, size.y, style);
  Close("rect", tooltip);
}

void SvgCanvas::Marker(MarkerShape shape, Point at, std::string_view style, std::string_view tooltip) {
  // Around the origin, all of about the same area.
  constexpr std::array<const char*, 9> kPaths = {
      "M-3.5 0a3.5 3.5 0 1 0 7 0a3.5 3.5 0 1 0 -7 0z",                                        // disc
      "M-3.2 -3.2h6.4v6.4h-6.4z",                                                             // square
      "M0 -4.4L4.2 3.2H-4.2z",                                                                // triangle
      "M0 -4.6L4.6 0L0 4.6L-4.6 0z",                                                          // diamond
      "M0 4.4L4.2 -3.2H-4.2z",                                                                // triangle on its tip
      "M-1.3 -4.2h2.6v2.9h2.9v2.6h-2.9v2.9h-2.6v-2.9h-2.9v-2.6h2.9z",                         // plus
      "M-4 -2.2L-2.2 -4L0 -1.8L2.2 -4L4 -2.2L1.8 0L4 2.2L2.2 4L0 1.8L-2.2 4L-4 2.2L-1.8 0z",  // cross
      "M0 -4.4L4.2 -1.3L2.6 3.6H-2.6L-4.2 -1.3z",                                             // pentagon
      "M-4.8 -1.7h9.6v3.4h-9.6z",                                                             // bar
  };
  body_ += fmt::format("<path transform=\"translate({:.1f} {:.1f})\" d=\"{}\" class=\"{}\"", at.x, at.y,
                       kPaths[static_cast<size_t>(shape) % kPaths.size()], style);
  Close("path", tooltip);
}

void SvgCanvas::Close(std::string_view element, std::string_view tooltip) {
  body_ += tooltip.empty() ? "/>\n" : fmt::format("><title>{}</title></{}>\n", EscapeMarkup(tooltip), element);
}

std::string SvgCanvas::Finish() const { return head_ + body_ + "</svg>\n"; }

std::string SvgCanvas::FinishAlone(std::string_view style) const {
  std::string svg = Finish();
  svg.insert(svg.find("<svg") + 4, " xmlns=\"http://www.w3.org/2000/svg\"");
  svg.insert(svg.find(">\n") + 2, "<style>" + std::string(style) + "</style>\n");
  return svg;
}

}  // namespace espalier

// Drawing in SVG, for reports that have to stand alone: no script, no font, no network. Colours come from the page's
// style sheet by class, so that a drawing follows the reader's light or dark theme.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace espalier {

// Fit for text and attributes of HTML and SVG: markup characters become entities, control characters and broken UTF-8
// become '?'.
std::string EscapeMarkup(std::string_view text);

struct Point {
  double x = 0;
  double y = 0;
};

enum class Anchor { kStart, kMiddle, kEnd };

// Maps values to coordinates, on a straight or a logarithmic axis.
struct Scale {
  double low = 0;  // values at `from` and `to`
  double high = 1;
  double from = 0;  // coordinates
  double to = 1;
  bool logarithmic = false;  // REQUIRES: 0 < low

  // Values outside come out at the nearer end.
  double operator()(double value) const;
};

// Round values inside the scale, about `wanted` of them: multiples of one step, or on a logarithmic axis the same few
// multiples of every power of ten. A narrow scale may have none.
std::vector<double> Ticks(const Scale& scale, int wanted);

// Shapes differ as colours do: neither has to be told apart alone. Counts up from 0; any number will do.
using MarkerShape = int;

class SvgCanvas {
 public:
  // `label` is what a screen reader says of it.
  SvgCanvas(double width, double height, std::string_view label);

  void Line(Point from, Point to, std::string_view style);
  void Polyline(const std::vector<Point>& points, std::string_view style);
  void Text(Point at, Anchor anchor, std::string_view text, std::string_view style = "");
  // `tooltip` may be empty; likewise below.
  void Rectangle(Point corner, Point size, std::string_view style, std::string_view tooltip = "");
  void Marker(MarkerShape shape, Point at, std::string_view style, std::string_view tooltip = "");

  // The whole element.
  std::string Finish() const;
  // The same as a file of its own, which has to say what it is and bring its colours: `style` is the style sheet's
  // text.
  std::string FinishAlone(std::string_view style) const;

 private:
  void Close(std::string_view element, std::string_view tooltip);
  std::string body_;
  std::string head_;
};

}  // namespace espalier

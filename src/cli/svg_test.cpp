#include "cli/svg.h"

#include <gtest/gtest.h>

namespace espalier {
namespace {

TEST(Svg, MarkupInTextIsDisarmed) {
  EXPECT_EQ(EscapeMarkup("<script>alert('x')&\"</script>"),
            "&lt;script&gt;alert(&#39;x&#39;)&amp;&quot;&lt;/script&gt;");
  EXPECT_EQ(EscapeMarkup("a\x01\nb\xff"), "a??b?");
  EXPECT_EQ(EscapeMarkup("caf\xc3\xa9"), "caf\xc3\xa9");
}

TEST(Svg, ScalesMapEndsToEndsAndClampWhatLiesBeyond) {
  const Scale straight = {.low = 10, .high = 20, .from = 100, .to = 0};
  EXPECT_DOUBLE_EQ(straight(10), 100);
  EXPECT_DOUBLE_EQ(straight(15), 50);
  EXPECT_DOUBLE_EQ(straight(25), 0);
  const Scale logarithmic = {.low = 0.01, .high = 1, .from = 0, .to = 10, .logarithmic = true};
  EXPECT_DOUBLE_EQ(logarithmic(0.1), 5);
  EXPECT_DOUBLE_EQ(logarithmic(0), 0);
}

TEST(Svg, TicksAreRoundAndInside) {
  EXPECT_EQ(Ticks({.low = 0, .high = 10}, 5), (std::vector<double>{0, 2, 4, 6, 8, 10}));
  EXPECT_EQ(Ticks({.low = 31, .high = 52}, 5), (std::vector<double>{35, 40, 45, 50}));
  EXPECT_EQ(Ticks({.low = 0.9, .high = 4.5, .logarithmic = true}, 6), (std::vector<double>{1, 1.5, 2, 3}));
  EXPECT_EQ(Ticks({.low = 0.9, .high = 60, .logarithmic = true}, 6), (std::vector<double>{1, 2, 5, 10, 20, 50}));
  EXPECT_EQ(Ticks({.low = 0.5, .high = 5000, .logarithmic = true}, 6), (std::vector<double>{1, 10, 100, 1000}));
  EXPECT_EQ(Ticks({.low = 0.95, .high = 1.26, .logarithmic = true}, 3), (std::vector<double>{1, 1.2}));
}

TEST(Svg, AnElementIsClosedAndLabelled) {
  SvgCanvas canvas(100, 50, "a \"plot\"");
  canvas.Marker(11, {1, 2}, "mark", "x < y");
  const std::string svg = canvas.Finish();
  EXPECT_TRUE(svg.starts_with("<svg viewBox=\"0 0 100 50\""));
  EXPECT_NE(svg.find("aria-label=\"a &quot;plot&quot;\""), std::string::npos);
  EXPECT_NE(svg.find("<title>x &lt; y</title></path>"), std::string::npos);
  EXPECT_TRUE(svg.ends_with("</svg>\n"));
}

}  // namespace
}  // namespace espalier

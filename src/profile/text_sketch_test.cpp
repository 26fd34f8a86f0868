#include "profile/text_sketch.h"

#include <gtest/gtest.h>

#include <numeric>

namespace espalier {
namespace {

std::vector<int32_t> Count(int32_t first, size_t n) {
  std::vector<int32_t> tokens(n);
  std::iota(tokens.begin(), tokens.end(), first);
  return tokens;
}

TEST(TextSketch, RecognisesItsOwnText) {
  const auto tokens = Count(0, 10 * kSketchRunTokens + 5);
  const TextSketch sketch = SketchText("a", "h", tokens);
  EXPECT_EQ(sketch.runs.size(), 10u);
  EXPECT_EQ(SharedRuns(sketch, tokens), 10);
}

TEST(TextSketch, FindsSharedStretchAtAnyOffset) {
  const TextSketch sketch = SketchText("a", "h", Count(0, 1000));
  for (int32_t start = 0; start < static_cast<int32_t>(kSketchRunTokens); ++start) {
    auto other = Count(100000, 77);
    const auto shared = Count(300 + start, 2 * kSketchRunTokens - 1);
    other.insert(other.end(), shared.begin(), shared.end());
    const auto tail = Count(200000, 50);
    other.insert(other.end(), tail.begin(), tail.end());
    EXPECT_EQ(SharedRuns(sketch, other), 1) << start;
  }
}

TEST(TextSketch, OtherTextsShareNothing) {
  const TextSketch sketch = SketchText("a", "h", Count(0, 1000));
  EXPECT_EQ(SharedRuns(sketch, Count(5000, 1000)), 0);
  EXPECT_EQ(SharedRuns(sketch, Count(300, kSketchRunTokens - 1)), 0) << "shorter than a run";
  EXPECT_EQ(SharedRuns(sketch, {}), 0);
}

TEST(TextSketch, ShortTextHasNoRuns) {
  const TextSketch sketch = SketchText("a", "h", Count(0, kSketchRunTokens - 1));
  EXPECT_TRUE(sketch.runs.empty());
  EXPECT_EQ(SharedRuns(sketch, Count(0, 500)), 0);
}

TEST(TextSketch, RepeatedRunsCountAsOftenAsTheyAreThere) {
  auto tokens = Count(0, kSketchRunTokens);
  const auto again = tokens;
  tokens.insert(tokens.end(), again.begin(), again.end());
  const TextSketch sketch = SketchText("a", "h", tokens);
  EXPECT_EQ(SharedRuns(sketch, again), 2);
}

}  // namespace
}  // namespace espalier

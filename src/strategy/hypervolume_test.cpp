#include "strategy/hypervolume.h"

#include <gtest/gtest.h>

#include <random>

#include "base/uniform.h"

namespace espalier {
namespace {

TEST(Hypervolume, OfAFewPointsByHand) {
  const ObjectivePoint reference = {1, 1};
  EXPECT_EQ(Hypervolume({}, reference), 0);
  EXPECT_DOUBLE_EQ(Hypervolume({{0.5, 0.5}}, reference), 0.25);
  EXPECT_DOUBLE_EQ(Hypervolume({{0.5, 0.5}, {0.25, 0.75}}, reference), 0.25 + 0.25 * 0.25);
  // Dominated, or no better than the reference: nothing more.
  EXPECT_DOUBLE_EQ(Hypervolume({{0.5, 0.5}, {0.6, 0.5}, {0.5, 0.5}, {0, 1}, {2, 0}}, reference), 0.25);
}

TEST(Hypervolume, IsTheShareOfPointsThatAreDominated) {
  std::mt19937_64 random(7);
  std::vector<ObjectivePoint> points;
  for (int i = 0; i < 12; ++i) {
    points.push_back({Uniform(&random), Uniform(&random)});
  }
  constexpr int kSide = 400;
  int dominated = 0;
  for (int i = 0; i < kSide; ++i) {
    for (int j = 0; j < kSide; ++j) {
      const double size = (i + 0.5) / kSide;
      const double loss = (j + 0.5) / kSide;
      bool found = false;
      for (const ObjectivePoint& point : points) {
        found = found || (point.size <= size && point.loss <= loss);
      }
      dominated += found ? 1 : 0;
    }
  }
  EXPECT_NEAR(Hypervolume(points, {1, 1}), static_cast<double>(dominated) / (kSide * kSide), 0.01);
}

}  // namespace
}  // namespace espalier

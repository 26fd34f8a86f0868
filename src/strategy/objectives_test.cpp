#include "strategy/objectives.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <set>
#include <utility>
#include <vector>

#include "surrogate/loss_surrogate.h"

namespace espalier {
namespace {

MemoryModel TwoLayers() {
  MemoryModel memory;
  memory.block_bytes = {100, 300, 100, 300};
  memory.global_bytes = 1000;
  memory.kv = {.key_bytes_per_cell = 5, .value_bytes_per_cell = 5, .n_planes = 2, .page_bytes = 1, .capacity = 1 << 20};
  return memory;
}

TEST(Objectives, SizeIsTheShareOfWhatDependsOnThePlan) {
  const Objectives objectives(TwoLayers(), 20, 2);
  // 100 + 20 * 10 each for attention, 300 each for FFN: four equal parts.
  Eigen::VectorXd keep(4);
  keep << 1, 1, 0.5, 0;
  EXPECT_NEAR(objectives.Size(keep), 0.625, 1e-12);
  EXPECT_NEAR(objectives.Size(Eigen::VectorXd::Ones(4)), 1, 1e-12);
  // With more tokens attention is what takes memory.
  const Objectives many(TwoLayers(), 200, 2);
  EXPECT_GT(many.size_by_keep()[0], 0.4);
  EXPECT_NEAR(many.size_by_keep().sum(), 1, 1e-12);
}

TEST(Objectives, LossIsZeroDenseAndOneWithoutAnyBlock) {
  const Objectives objectives(TwoLayers(), 20, 2);
  EXPECT_NEAR(objectives.Loss(std::log(LossSurrogate::kFloor)), 0, 1e-12);
  EXPECT_NEAR(objectives.Loss(std::log(2 + LossSurrogate::kFloor)), 1, 1e-12);
}

TEST(AugmentedTchebycheff, HasTheValueAndTheSlopesOfItsDefinition) {
  const Scalarised size_rules = AugmentedTchebycheff({0.8}, 0.5, 0.3);
  EXPECT_NEAR(size_rules.value, 0.4 + 0.008, 1e-12);
  EXPECT_NEAR(size_rules.by_size, 0.81, 1e-12);
  EXPECT_NEAR(size_rules.by_loss, 0.01, 1e-12);
  const Scalarised loss_rules = AugmentedTchebycheff({0.2}, 0.5, 0.3);
  EXPECT_NEAR(loss_rules.value, 0.24 + 0.008, 1e-12);
  EXPECT_NEAR(loss_rules.by_size, 0.01, 1e-12);
  EXPECT_NEAR(loss_rules.by_loss, 0.81, 1e-12);
}

TEST(AugmentedTchebycheff, ReachesPointsOfAConcaveFrontThatSumsDoNot) {
  // loss = sqrt(1 - size^2): a weighted sum is least at one of the ends, whatever the weights.
  std::vector<std::pair<double, double>> front;
  for (int i = 0; i <= 20; ++i) {
    const double size = i / 20.0;
    front.emplace_back(size, std::sqrt(1 - size * size));
  }
  const auto best = [&](const auto& value) {
    return std::min_element(front.begin(), front.end(), [&](auto a, auto b) { return value(a) < value(b); })->first;
  };
  std::set<double> tchebycheff;
  std::set<double> sums;
  for (int i = 0; i <= 1000; ++i) {
    const Preference preference = {i / 1000.0};
    tchebycheff.insert(best([&](auto at) { return AugmentedTchebycheff(preference, at.first, at.second).value; }));
    sums.insert(best([&](auto at) { return preference.size * at.first + (1 - preference.size) * at.second; }));
  }
  // The small sum costs a few next to the ends, where one objective hardly changes.
  EXPECT_GE(tchebycheff.size(), front.size() - 4);
  EXPECT_EQ(sums.size(), 2u);
}

}  // namespace
}  // namespace espalier

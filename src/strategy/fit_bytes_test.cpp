#include "strategy/fit_bytes.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <string>
#include <vector>

#include "strategy/file_bytes_for_test.h"

namespace espalier {
namespace {

using test::FileBytes;
using testing::HasSubstr;

constexpr int kLayers = 4;
constexpr int kBlocks = 2 * kLayers;

std::vector<BlockId> OrderOf(std::vector<int> indices) {
  std::vector<BlockId> order;
  for (const int index : indices) {
    order.push_back({index});
  }
  return order;
}

PlanBytes SumOf(std::vector<uint64_t> block_bytes) {
  return [block_bytes](const Plan& plan) {
    uint64_t sum = 0;
    for (size_t b = 0; b < block_bytes.size(); ++b) {
      sum += plan.kept({static_cast<int>(b)}) ? block_bytes[b] : 0;
    }
    return sum;
  };
}

std::vector<Plan> AllPlans() {
  std::vector<Plan> plans;
  for (int bits = 0; bits < 1 << kBlocks; ++bits) {
    plans.push_back(Plan::Dense(kLayers));
    for (int b = 0; b < kBlocks; ++b) {
      if ((bits >> b & 1) != 0) {
        plans.back().Drop({b});
      }
    }
  }
  return plans;
}

TEST(FitBytes, DropsInOrderAndGivesBackTheLargest) {
  const PlanBytes bytes = SumOf({100, 300, 100, 150});  // 650 dense
  const std::vector<BlockId> order = OrderOf({3, 0, 1, 2});
  const auto fit = [&](uint64_t max_bytes) { return DropUntilItTakes(bytes, max_bytes, order)->ToText(); };
  EXPECT_EQ(fit(650), "dense");
  EXPECT_EQ(fit(649), "f1=0");
  EXPECT_EQ(fit(400), "a0=0 f1=0");
  EXPECT_EQ(fit(399), "f0=0");       // f0 went too, then f1 and a0 returned
  EXPECT_EQ(fit(260), "a0=0 f0=0");  // 160 left: f1, although a0 went later
  EXPECT_EQ(fit(249), "f0=0 f1=0");  // 149 left: a0
  EXPECT_EQ(fit(100), "a0=0 f0=0 f1=0");
  EXPECT_EQ(fit(0), "a0=0 f0=0 a1=0 f1=0");
}

TEST(FitBytes, OfEqualBlocksTheLastDroppedReturns) {
  const PlanBytes bytes = SumOf({100, 300, 100, 300});
  EXPECT_EQ(DropUntilItTakes(bytes, 400, OrderOf({0, 2, 1, 3}))->ToText(), "a0=0 f0=0");
  EXPECT_EQ(DropUntilItTakes(bytes, 400, OrderOf({2, 0, 1, 3}))->ToText(), "f0=0 a1=0");
}

// The whole domain: every plan of a small model is a floor somewhere, in a few orders.
TEST(FitBytes, HoldsEveryLimitWithoutRoomForABlockAndRefusesWhatNothingMeets) {
  const std::vector<Plan> plans = AllPlans();
  std::mt19937_64 random(3);
  for (const PlanBytes& bytes : {PlanBytes(FileBytes), SumOf({40, 90, 42, 99, 44, 105, 46, 111})}) {
    uint64_t least = kNoSuchPlan;
    for (const Plan& plan : plans) {
      least = std::min(least, bytes(plan));
    }
    const uint64_t dense = bytes(Plan::Dense(kLayers));
    std::vector<BlockId> order = OrderOf({0, 1, 2, 3, 4, 5, 6, 7});
    for (int shuffle = 0; shuffle < 40; ++shuffle) {
      for (size_t i = order.size(); i > 1; --i) {
        std::swap(order[i - 1], order[random() % i]);
      }
      for (uint64_t limit = least < 20 ? 0 : least - 20; limit <= dense + 20; ++limit) {
        const auto plan = DropUntilItTakes(bytes, limit, order);
        ASSERT_EQ(plan.ok(), limit >= least) << limit;
        if (!plan.ok()) {
          EXPECT_EQ(plan.status().code(), ErrorCode::kOutOfBudget);
          EXPECT_THAT(plan.status().message(), HasSubstr(std::to_string(limit) + " bytes are below"));
          EXPECT_THAT(plan.status().message(), HasSubstr(std::to_string(least) + " bytes"));
          continue;
        }
        ASSERT_LE(bytes(*plan), limit);
        ASSERT_TRUE(plan->whole_blocks_only());
        uint64_t with_one_more = kNoSuchPlan;
        for (const BlockId block : plan->dropped()) {
          Plan larger = *plan;
          larger.Restore(block);
          ASSERT_GT(bytes(larger), limit) << plan->ToText() << " has room for " << BlockName(block);
          with_one_more = std::min(with_one_more, bytes(larger));
        }
        ASSERT_EQ(BytesWithOneMore(bytes, *plan), with_one_more);
      }
      EXPECT_TRUE(DropUntilItTakes(bytes, dense, order)->dense());
    }
  }
}

TEST(FitBytes, AFileKeepsItsLastBlockOrASmallerOneInItsPlace) {
  const std::vector<BlockId> order = OrderOf({0, 1, 2, 3, 4, 5, 7, 6});
  const auto fit = [&](uint64_t max_bytes) { return DropUntilItTakes(FileBytes, max_bytes, order); };
  // The last layer takes 46 + 111 bytes; its attention alone 46 and 73 for being alone, that of others 2 less each.
  EXPECT_EQ(fit(1157)->dropped(), OrderOf({0, 1, 2, 3, 4, 5}));
  EXPECT_EQ(fit(1156)->dropped(), OrderOf({0, 1, 2, 3, 4, 5, 7}));
  EXPECT_EQ(fit(1119)->dropped(), OrderOf({0, 1, 2, 3, 4, 5, 7}));
  EXPECT_EQ(fit(1118)->dropped(), OrderOf({0, 1, 2, 3, 5, 6, 7}));
  EXPECT_EQ(fit(1116)->dropped(), OrderOf({0, 1, 3, 4, 5, 6, 7}));
  EXPECT_EQ(fit(1113)->dropped(), OrderOf({1, 2, 3, 4, 5, 6, 7}));
  EXPECT_EQ(fit(1112).status().message(),
            "1112 bytes are below the least that a plan of whole blocks takes, 1113 bytes");
}

}  // namespace
}  // namespace espalier

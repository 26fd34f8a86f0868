#include "control/decode_latency.h"

#include <gtest/gtest.h>

namespace espalier {
namespace {

constexpr int kLayers = 4;

MemoryModel UnevenMemory() {
  MemoryModel memory;
  for (int il = 0; il < kLayers; ++il) {
    memory.block_bytes.push_back(100);
    memory.block_bytes.push_back(il < 2 ? 200 : 400);
  }
  return memory;
}

// 2 ms, 1 ms for each attention block, 1 ms for every 100 bytes of FFN.
double TrueMs(const Plan& plan) {
  double ms = 2;
  for (int b = 0; b < plan.n_block(); ++b) {
    ms += plan.kept({b}) ? static_cast<double>(UnevenMemory().block_bytes[static_cast<size_t>(b)]) / 100 : 0;
  }
  return ms;
}

std::vector<TimedPlan> SomeTimedPlans(const std::vector<double>& factors) {
  std::vector<TimedPlan> timed;
  for (const char* dropped : {"", "a0,a1", "f0,f3", "a0,a1,a2,a3", "f0,f1,f2,f3", "a1,f1,a2,f2"}) {
    const Plan plan = *Plan::ParseDrop(dropped, kLayers);
    std::vector<double> ms;
    for (const double factor : factors) {
      ms.push_back(factor * TrueMs(plan));
    }
    timed.push_back({plan, ms});
  }
  return timed;
}

TEST(DecodeLatency, FindsWhatABlockTakes) {
  const DecodeLatency latency(UnevenMemory(), SomeTimedPlans({1, 1, 1}), 0.95);
  for (const char* dropped : {"", "a2", "f3", "f0", "a0,f0,a1,f1,a2,f2", "a0,f0,a1,f1,a2,f2,a3,f3"}) {
    const Plan plan = *Plan::ParseDrop(dropped, kLayers);
    EXPECT_NEAR(latency.MedianMs(plan), TrueMs(plan), 1e-9) << dropped;
    EXPECT_NEAR(latency.UpperMs(plan), TrueMs(plan), 1e-9) << dropped;
  }
}

TEST(DecodeLatency, MarginIsTheShareThatStepsStayBelow) {
  // Of 6 x 10 steps one in ten takes a tenth longer, and one in ten half as long again.
  const std::vector<double> factors = {1, 1, 1, 1, 1, 1, 1, 1, 1.1, 1.5};
  const std::vector<TimedPlan> timed = SomeTimedPlans(factors);
  EXPECT_NEAR(DecodeLatency(UnevenMemory(), timed, 0.5).margin(), 1, 1e-9);
  EXPECT_NEAR(DecodeLatency(UnevenMemory(), timed, 0.88).margin(), 1.1, 1e-9);  // rank 54 of 60
  EXPECT_NEAR(DecodeLatency(UnevenMemory(), timed, 0.95).margin(), 1.5, 1e-9);
}

}  // namespace
}  // namespace espalier

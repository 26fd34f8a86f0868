#include "memory/account.h"

#include <gtest/gtest.h>

#include <cmath>

namespace espalier {
namespace {

TEST(MemoryAccount, UsedIsManagedPlusProcess) {
  MemoryAccount account;
  account.managed = {.weight_bytes = 100, .kv_bytes = 20, .compute_bytes = 3, .staging_bytes = 4};
  account.process_bytes = 50;
  account.page_cache_bytes = 1000;
  account.file_mapped_bytes = 7;
  EXPECT_EQ(account.used_bytes(), 177u);
  EXPECT_EQ(account.reclaimable_bytes(), 1007u);
}

TEST(MemoryAccount, MeasuredManagedIsGrowthSinceTheFirstBlock) {
  MemoryAccount account;
  account.process_bytes = 50;
  account.anonymous_bytes = 180;
  EXPECT_EQ(account.measured_managed_bytes(), 130u);
  account.anonymous_bytes = 40;  // the heap shrank meanwhile
  EXPECT_EQ(account.measured_managed_bytes(), 0u);
}

TEST(PredictionError, IsRelativeToThePrediction) {
  EXPECT_EQ(PredictionError(200, 202), 0.01);
  EXPECT_EQ(PredictionError(200, 198), -0.01);
  EXPECT_EQ(PredictionError(0, 0), 0);
  EXPECT_TRUE(std::isinf(PredictionError(0, 1)));
}

}  // namespace
}  // namespace espalier

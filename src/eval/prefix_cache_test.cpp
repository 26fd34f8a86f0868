#include "eval/prefix_cache.h"

#include <gtest/gtest.h>

namespace espalier {
namespace {

Plan Dropping(std::string_view blocks) { return *Plan::ParseDrop(blocks, 3); }

class Cache : public testing::Test {
 protected:
  float Found(PrefixCache& cache, int64_t window, const Plan& plan, int expected_blocks) {
    std::vector<float> hidden(1, -1);
    EXPECT_EQ(cache.Find(window, plan, hidden), expected_blocks);
    return hidden[0];
  }
  static void Put(PrefixCache& cache, int64_t window, const Plan& plan, int n_blocks, float value) {
    cache.Put(window, plan, n_blocks, std::vector<float>{value});
  }
};

TEST_F(Cache, TheLongestCommonBeginningIsFound) {
  PrefixCache cache(1, 1024, false);
  EXPECT_EQ(Found(cache, 0, Plan::Dense(3), -1), -1);
  Put(cache, 0, Plan::Dense(3), 0, 10);
  Put(cache, 0, Plan::Dense(3), 2, 12);
  Put(cache, 0, Plan::Dense(3), 4, 14);
  EXPECT_EQ(Found(cache, 0, Plan::Dense(3), 4), 14);
  EXPECT_EQ(Found(cache, 0, Dropping("f2"), 4), 14);
  EXPECT_EQ(Found(cache, 0, Dropping("f1"), 2), 12);
  EXPECT_EQ(Found(cache, 0, Dropping("a0"), 1), 10);  // nothing ran yet: the embeddings
  EXPECT_EQ(Found(cache, 1, Plan::Dense(3), -1), -1);
}

TEST_F(Cache, WithoutMeansADroppedBlockLeavesTheStreamAsItIs) {
  PrefixCache cache(1, 1024, false);
  Put(cache, 0, Dropping("a1"), 3, 7);
  EXPECT_EQ(Found(cache, 0, Dropping("a1,f1"), 4), 7);  // the same blocks would have run
  EXPECT_EQ(Found(cache, 0, Dropping("a0"), -1), -1);
}

TEST_F(Cache, WithMeansItDoesNot) {
  PrefixCache cache(1, 1024, true);
  Put(cache, 0, Dropping("a1"), 2, 7);
  EXPECT_EQ(Found(cache, 0, Dropping("a1"), 2), 7);
  Put(cache, 0, Dropping("a1"), 4, 8);
  EXPECT_EQ(Found(cache, 0, Dropping("a1"), 4), 8);
  EXPECT_EQ(Found(cache, 0, Dropping("a1,f1"), 2), 7);
}

TEST_F(Cache, TheLeastRecentlyUsedEntryGoesFirst) {
  PrefixCache cache(1, 2 * sizeof(float), false);
  Put(cache, 0, Plan::Dense(3), 2, 1);
  Put(cache, 1, Plan::Dense(3), 2, 2);
  EXPECT_EQ(Found(cache, 0, Plan::Dense(3), 2), 1);
  Put(cache, 2, Plan::Dense(3), 2, 3);
  EXPECT_EQ(cache.bytes(), 2 * sizeof(float));
  EXPECT_EQ(Found(cache, 0, Plan::Dense(3), 2), 1);
  EXPECT_EQ(Found(cache, 1, Plan::Dense(3), -1), -1);
  EXPECT_EQ(Found(cache, 2, Plan::Dense(3), 2), 3);
}

TEST_F(Cache, ShorterBeginningsOfWhatWasFoundStayToo) {
  PrefixCache cache(1, 3 * sizeof(float), false);
  Put(cache, 0, Plan::Dense(3), 2, 1);
  Put(cache, 0, Plan::Dense(3), 4, 2);
  Put(cache, 1, Plan::Dense(3), 2, 3);
  EXPECT_EQ(Found(cache, 0, Plan::Dense(3), 4), 2);
  Put(cache, 2, Plan::Dense(3), 2, 4);
  EXPECT_EQ(Found(cache, 0, Dropping("f1"), 2), 1);
  EXPECT_EQ(Found(cache, 1, Plan::Dense(3), -1), -1);
}

TEST_F(Cache, WithoutMemoryNothingIsKept) {
  PrefixCache cache(2, 4, false);
  cache.Put(0, Plan::Dense(3), 2, std::vector<float>{1, 2});
  EXPECT_EQ(cache.bytes(), 0);
  EXPECT_EQ(Found(cache, 0, Plan::Dense(3), -1), -1);
}

}  // namespace
}  // namespace espalier

#include "profile/profile.h"

#include <gtest/gtest.h>

namespace espalier {
namespace {

MeasurementSet Set(const std::string& hash) {
  return {.corpus = "text",
          .tokens_hash = hash,
          .protocol = "gptq",
          .window_tokens = 8,
          .n_windows = 2,
          .tokens_scored = 14,
          .key_type = "f16",
          .value_type = "f16"};
}

TEST(Profile, HasOneArchiveForEachSet) {
  Profile profile;
  EXPECT_EQ(profile.FindArchive(Set("a")), nullptr);
  const WindowLoss loss = {1, 2};
  ASSERT_TRUE(profile.ArchiveFor(Set("a")).Add(Plan::Dense(2), 0, {&loss, 1}));
  profile.ArchiveFor(Set("b"));
  EXPECT_EQ(profile.ArchiveFor(Set("a")).rows().size(), 1u);
  EXPECT_EQ(profile.archives.size(), 2u);
  ASSERT_NE(profile.FindArchive(Set("b")), nullptr);
  EXPECT_EQ(profile.FindArchive(Set("b"))->set().tokens_hash, "b");
}

TEST(Profile, PrimaryIsTheArchiveOfItsKey) {
  Profile profile;
  profile.ArchiveFor(Set("a"));
  profile.ArchiveFor(Set("b"));
  EXPECT_EQ(profile.primary(), nullptr);
  profile.primary_set = Set("b").Key();
  EXPECT_EQ(profile.primary(), profile.FindArchive(Set("b")));
  profile.primary_set = Set("c").Key();
  EXPECT_EQ(profile.primary(), nullptr);
}

TEST(Profile, FindsTheDensityRankingOfTheNearestRatio) {
  Profile profile;
  for (const int64_t cells : {100, 1000, 10000}) {
    profile.Put({.method = "density", .kv_cells = cells});
  }
  profile.Put({.method = "gsi"});
  EXPECT_EQ(profile.FindRanking("density", 1)->kv_cells, 100);
  EXPECT_EQ(profile.FindRanking("density", 300)->kv_cells, 100);
  EXPECT_EQ(profile.FindRanking("density", 330)->kv_cells, 1000);
  EXPECT_EQ(profile.FindRanking("density", 1 << 30)->kv_cells, 10000);
  EXPECT_EQ(profile.FindRanking("gsi")->method, "gsi");
  EXPECT_EQ(profile.FindRanking("gsi", 5000)->method, "gsi");
  EXPECT_EQ(profile.FindRanking("one-shot"), nullptr);
}

TEST(Profile, PutReplacesTheSameRankingOnly) {
  Profile profile;
  profile.Put({.method = "random", .seed = 1, .drop_order = {{0}}});
  profile.Put({.method = "random", .seed = 2, .drop_order = {{1}}});
  profile.Put({.method = "random", .seed = 1, .drop_order = {{2}}});
  ASSERT_EQ(profile.rankings.size(), 2u);
  EXPECT_EQ(profile.rankings[0].drop_order.front(), BlockId{2});
  EXPECT_EQ(profile.rankings[1].drop_order.front(), BlockId{1});
}

}  // namespace
}  // namespace espalier

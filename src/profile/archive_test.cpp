#include "profile/archive.h"

#include <gtest/gtest.h>

#include <set>
#include <vector>

namespace espalier {
namespace {

MeasurementSet Set(int64_t n_windows = 3) {
  return {.corpus = "a book",
          .tokens_hash = "00112233445566778899aabbccddeeff",
          .protocol = "gptq",
          .window_tokens = 5,
          .n_windows = n_windows,
          .tokens_scored = 4 * n_windows,
          .key_type = "f16",
          .value_type = "q8_0",
          .ablation = Ablation::kMean};
}

Plan PlanOf(const char* text, int n_layer = 4) { return *Plan::Parse(text, n_layer); }

TEST(MeasurementSet, KeyHoldsEverythingButTheName) {
  const MeasurementSet set = Set();
  MeasurementSet renamed = set;
  renamed.corpus = "another name";
  EXPECT_EQ(set, renamed);
  std::set<std::string> keys = {set.Key()};
  const auto changed = [&](auto change) {
    MeasurementSet other = set;
    change(other);
    EXPECT_TRUE(keys.insert(other.Key()).second) << other.Key();
    EXPECT_FALSE(other == set);
  };
  changed([](MeasurementSet& s) { s.tokens_hash[0] = 'f'; });
  changed([](MeasurementSet& s) { s.protocol = "llama"; });
  changed([](MeasurementSet& s) { s.window_tokens = 6; });
  changed([](MeasurementSet& s) { s.n_windows = 4; });
  changed([](MeasurementSet& s) { s.tokens_scored = 11; });
  changed([](MeasurementSet& s) { s.key_type = "q8_0"; });
  changed([](MeasurementSet& s) { s.value_type = "f16"; });
  changed([](MeasurementSet& s) { s.ablation = Ablation::kZero; });
  changed([](MeasurementSet& s) { s.means_hash = "aa"; });
  changed([](MeasurementSet& s) { s.means_hash = "ab"; });
}

TEST(Archive, LossIsTheSumOverWindowsPerToken) {
  Archive archive(Set());
  const std::vector<WindowLoss> losses = {{1, 10}, {2, 20}, {6, 30}};
  ASSERT_TRUE(archive.Add(PlanOf("a1=0"), 0, losses));
  EXPECT_EQ(archive.LossOf(PlanOf("a1=0")), 9.0 / 12);
  EXPECT_EQ(archive.MeanNll(archive.rows()[0]), 60.0 / 12);
  EXPECT_EQ(archive.LossOf(PlanOf("a2=0")), std::nullopt);
}

TEST(Archive, WindowsComeInOrderAndStayAsTheyWere) {
  Archive archive(Set());
  const Plan plan = PlanOf("f0=0 a3=0");
  const std::vector<WindowLoss> first = {{1, 1}}, others = {{9, 9}, {2, 2}, {3, 3}};
  EXPECT_FALSE(archive.Add(plan, 1, first)) << "a gap";
  EXPECT_EQ(archive.Find(plan), nullptr) << "a refused plan leaves no row";
  ASSERT_TRUE(archive.Add(plan, 0, first));
  EXPECT_FALSE(archive.whole(*archive.Find(plan)));
  EXPECT_EQ(archive.CountWholeRows(), 0);
  EXPECT_EQ(archive.LossOf(plan), std::nullopt) << "not whole";
  EXPECT_FALSE(archive.Add(plan, 2, first)) << "a gap";
  ASSERT_TRUE(archive.Add(plan, 0, others));
  EXPECT_EQ(archive.Find(plan)->windows, (std::vector<WindowLoss>{{1, 1}, {2, 2}, {3, 3}}));
  EXPECT_FALSE(archive.Add(plan, 3, first)) << "beyond the set";
  EXPECT_FALSE(archive.Add(plan, -1, first));
  EXPECT_FALSE(archive.Add(plan, INT64_MAX, first));
  ASSERT_TRUE(archive.Add(plan, 1, first)) << "known: nothing to do";
  EXPECT_EQ(archive.Find(plan)->windows.size(), 3u);
  EXPECT_EQ(archive.rows().size(), 1u);
  EXPECT_EQ(archive.CountWholeRows(), 1);
}

TEST(Archive, NothingIsAddedWithoutLossesOrForAnotherShape) {
  Archive archive(Set());
  EXPECT_TRUE(archive.Add(PlanOf("a0=0"), 0, {}));
  EXPECT_TRUE(archive.rows().empty());
  const std::vector<WindowLoss> one = {{1, 1}};
  ASSERT_TRUE(archive.Add(PlanOf("a0=0"), 0, one));
  EXPECT_FALSE(archive.Add(PlanOf("a0=0", 5), 0, one));
}

TEST(Archive, KeepsTheOrderOfInsertion) {
  Archive archive(Set());
  const std::vector<WindowLoss> one = {{1, 1}};
  for (const char* text : {"f3=0", "a0=0", "dense", "a0=0 f3=0"}) {
    ASSERT_TRUE(archive.Add(PlanOf(text), 0, one));
  }
  ASSERT_TRUE(archive.Add(PlanOf("a0=0"), 1, one));
  ASSERT_EQ(archive.rows().size(), 4u);
  EXPECT_EQ(archive.rows()[1].plan, PlanOf("a0=0"));
  EXPECT_EQ(archive.rows()[3].plan, PlanOf("a0=0 f3=0"));
  EXPECT_EQ(archive.rows()[1].windows.size(), 2u);
}

TEST(Archive, FractionsAreMultiplesThatNeverBecomeWholeOrDropped) {
  EXPECT_EQ(KeepToFixed(0), 0);
  EXPECT_EQ(KeepToFixed(1), kWholeKeep);
  EXPECT_EQ(KeepToFixed(1e-9), 1);
  EXPECT_EQ(KeepToFixed(1 - 1e-9), kWholeKeep - 1);
  for (int16_t fixed = 0; fixed < kWholeKeep; ++fixed) {
    ASSERT_EQ(KeepToFixed(KeepFromFixed(fixed)), fixed);
  }
  Archive archive(Set());
  const std::vector<WindowLoss> one = {{1, 1}};
  ASSERT_TRUE(archive.Add(PlanOf("a0=0.3 f1=0.5"), 0, one));
  ASSERT_NE(archive.Find(PlanOf("a0=0.3 f1=0.5")), nullptr);
  EXPECT_EQ(archive.Find(PlanOf("a0=0.3 f1=0.5"))->plan.keep(BlockId::Ffn(1)), 0.5);
  EXPECT_EQ(archive.Find(PlanOf("a0=0.31 f1=0.5")), nullptr);
}

TEST(Archive, TellsAllPlansOfSmallModelApart) {
  Archive archive(Set(1));
  constexpr int kBlocks = 12;
  const auto plan_of = [](unsigned mask) {
    Plan plan = Plan::Dense(kBlocks / 2);
    for (int i = 0; i < kBlocks; ++i) {
      if ((mask >> i & 1) != 0) {
        plan.Drop({i});
      }
    }
    return plan;
  };
  for (unsigned mask = 0; mask < 1u << kBlocks; ++mask) {
    const WindowLoss loss = {static_cast<double>(mask), 0};
    ASSERT_TRUE(archive.Add(plan_of(mask), 0, {&loss, 1}));
  }
  ASSERT_EQ(archive.rows().size(), size_t{1} << kBlocks);
  for (unsigned mask = 0; mask < 1u << kBlocks; ++mask) {
    ASSERT_EQ(archive.LossOf(plan_of(mask)), mask / 4.0);
  }
}

}  // namespace
}  // namespace espalier

#include "model/plan.h"

#include <gtest/gtest.h>

#include <random>

namespace espalier {
namespace {

Plan ParseOrDie(std::string_view text, int n_layer) {
  auto plan = Plan::Parse(text, n_layer);
  EXPECT_TRUE(plan.ok()) << plan.status().message();
  return plan.ok() ? plan.value() : Plan::Dense(n_layer);
}

void ExpectRefused(const Result<Plan>& plan, std::string_view named) {
  ASSERT_FALSE(plan.ok()) << "gave " << plan->ToText();
  EXPECT_EQ(plan.status().code(), ErrorCode::kInvalidArgument);
  EXPECT_NE(plan.status().message().find(named), std::string::npos)
      << "'" << named << "' is not named: " << plan.status().message();
}

TEST(Plan, DenseKeepsEveryBlockWhole) {
  const Plan plan = Plan::Dense(3);
  EXPECT_EQ(plan.n_layer(), 3);
  EXPECT_EQ(plan.n_block(), 6);
  EXPECT_TRUE(plan.dense());
  EXPECT_TRUE(plan.whole_blocks_only());
  EXPECT_TRUE(plan.dropped().empty());
  EXPECT_EQ(plan.kept_attention(), 3);
  EXPECT_EQ(plan.kept_ffn(), 3);
  EXPECT_EQ(plan.ToText(), "dense");
}

TEST(Plan, EveryPlanOfWholeBlocksRoundTripsAndCounts) {
  const int n_layer = 4;
  for (int mask = 0; mask < 256; ++mask) {
    Plan plan = Plan::Dense(n_layer);
    std::string drop;
    int attention = 0;
    int ffn = 0;
    std::vector<BlockId> dropped;
    for (int i = 0; i < 2 * n_layer; ++i) {
      if ((mask >> i & 1) != 0) {
        plan.Drop({i});
        dropped.push_back({i});
        drop += (drop.empty() ? "" : ",") + BlockName({i});
      } else {
        ++(i % 2 == 0 ? attention : ffn);
      }
    }
    EXPECT_EQ(ParseOrDie(plan.ToText(), n_layer), plan) << plan.ToText();
    const auto short_form = Plan::ParseDrop(drop, n_layer);
    ASSERT_TRUE(short_form.ok()) << short_form.status().message();
    EXPECT_EQ(short_form.value(), plan) << drop;
    EXPECT_EQ(plan.kept_attention(), attention);
    EXPECT_EQ(plan.kept_ffn(), ffn);
    EXPECT_EQ(plan.dropped(), dropped);
    EXPECT_EQ(plan.dense(), mask == 0);
    EXPECT_TRUE(plan.whole_blocks_only());
    for (const BlockId block : dropped) {
      plan.Restore(block);
    }
    EXPECT_TRUE(plan.dense());
  }
}

TEST(Plan, FractionsRoundTripExactly) {
  std::mt19937 random(1);
  std::uniform_real_distribution<double> fraction(0, 1);
  for (int round = 0; round < 200; ++round) {
    Plan plan = Plan::Dense(5);
    for (int i = 0; i < plan.n_block(); ++i) {
      plan.set_keep({i}, fraction(random));
    }
    EXPECT_EQ(ParseOrDie(plan.ToText(), 5), plan) << plan.ToText();
    EXPECT_FALSE(plan.whole_blocks_only());
  }
}

TEST(Plan, TextListsWhatIsNotWholeInOrderOfExecution) {
  const Plan plan = ParseOrDie("f9=0.5, a3=0\tf7=0 a4=1", 16);
  EXPECT_EQ(plan.ToText(), "a3=0 f7=0 f9=0.5");
  EXPECT_TRUE(plan.kept(BlockId::Ffn(9)));
  EXPECT_FALSE(plan.kept(BlockId::Attention(3)));
  EXPECT_EQ(plan.keep(BlockId::Ffn(9)), 0.5);
}

TEST(Plan, NothingKeepsNoBlock) {
  EXPECT_EQ(Plan::Nothing(2), *Plan::ParseDrop("a0,f0,a1,f1", 2));
  EXPECT_TRUE(Plan::Nothing(3).keeps_nothing());
  EXPECT_FALSE(Plan::ParseDrop("a0,f0,a1", 2)->keeps_nothing());
  EXPECT_TRUE(Plan::Nothing(3).whole_blocks_only());
}

TEST(Plan, EmptyTextAndDenseMeanTheSame) {
  EXPECT_TRUE(ParseOrDie("", 2).dense());
  EXPECT_TRUE(ParseOrDie(" , \n", 2).dense());
  EXPECT_TRUE(ParseOrDie("dense", 2).dense());
  const auto nothing_dropped = Plan::ParseDrop("", 2);
  ASSERT_TRUE(nothing_dropped.ok());
  EXPECT_TRUE(nothing_dropped->dense());
}

TEST(Plan, RefusesBadItemsAndNamesThem) {
  ExpectRefused(Plan::Parse("a3", 16), "'a3'");
  ExpectRefused(Plan::Parse("a3=", 16), "'a3='");
  ExpectRefused(Plan::Parse("=0", 16), "''");
  ExpectRefused(Plan::Parse("a3=-0.1", 16), "'a3=-0.1'");
  ExpectRefused(Plan::Parse("a3=1.01", 16), "'a3=1.01'");
  ExpectRefused(Plan::Parse("a3=nan", 16), "'a3=nan'");
  ExpectRefused(Plan::Parse("a3=0.5x", 16), "'a3=0.5x'");
  ExpectRefused(Plan::Parse("a3=0=0", 16), "'a3=0=0'");
  ExpectRefused(Plan::Parse("a1=0 x9=0", 16), "'x9'");
  ExpectRefused(Plan::Parse("a16=0", 16), "'a16'");
  ExpectRefused(Plan::Parse("dense a3=0", 16), "'dense'");
  ExpectRefused(Plan::ParseDrop("a3,f16", 16), "'f16'");
  ExpectRefused(Plan::ParseDrop("a3=0", 16), "'a3=0'");
}

TEST(Plan, RefusesABlockNamedTwice) { ExpectRefused(Plan::Parse("a3=0 f1=0 a3=1", 16), "a3 twice"); }

}  // namespace
}  // namespace espalier

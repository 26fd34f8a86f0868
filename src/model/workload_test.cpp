#include "model/workload.h"

#include <gtest/gtest.h>

#include <vector>

namespace espalier {
namespace {

// Everything up to two sequences, three cells and a longest sequence of three, what no sequences could hold included.
std::vector<Workload> SmallWorkloads() {
  std::vector<Workload> workloads;
  for (int sequences = 0; sequences <= 2; ++sequences) {
    for (int64_t cells = 0; cells <= 3; ++cells) {
      for (int64_t longest = 0; longest <= 3; ++longest) {
        workloads.push_back({sequences, cells, longest});
      }
    }
  }
  return workloads;
}

TEST(Workload, ReadsBothForms) {
  const auto both = Workload::Parse("8x512");
  ASSERT_TRUE(both.ok()) << both.status().message();
  EXPECT_EQ(both.value(), (Workload{.n_sequences = 8, .kv_cells = 4096, .longest_sequence = 512}));
  const auto one = Workload::Parse("512");
  ASSERT_TRUE(one.ok()) << one.status().message();
  EXPECT_EQ(one.value(), (Workload{.n_sequences = 1, .kv_cells = 512, .longest_sequence = 512}));
}

TEST(Workload, RoundTripsUpToItsBounds) {
  for (const int sequences : {1, 2, 7, 64, 65536}) {
    for (const int64_t tokens : {int64_t{1}, int64_t{513}, (int64_t{1} << 27) / sequences}) {
      const Workload workload = Workload::Uniform(sequences, tokens);
      const auto parsed = Workload::Parse(workload.ToText());
      ASSERT_TRUE(parsed.ok()) << parsed.status().message();
      EXPECT_EQ(parsed.value(), workload) << workload.ToText();
    }
  }
}

TEST(Workload, UnevenOnesSayWhatTheyHold) {
  const Workload workload = {.n_sequences = 3, .kv_cells = 700, .longest_sequence = 512};
  EXPECT_EQ(workload.ToText(), "3 sequences, 700 cells, longest 512");
}

TEST(Workload, RefusesEverythingElseAndNamesIt) {
  for (const char* text : {"", "x", "x512", "8x", "0x512", "8x0", "-1x8", "8x-1", "8X512", "8 x 512", "8x512x2",
                           "1.5x4", "65537x1", "1x134217729", "65536x65536", "99999999999999999999x1"}) {
    const auto workload = Workload::Parse(text);
    ASSERT_FALSE(workload.ok()) << "'" << text << "' gave " << workload->ToText();
    EXPECT_EQ(workload.status().code(), ErrorCode::kInvalidArgument);
    EXPECT_NE(workload.status().message().find(std::string("'") + text + "'"), std::string::npos)
        << workload.status().message();
    EXPECT_NE(workload.status().message().find("8x512"), std::string::npos) << workload.status().message();
  }
}

TEST(Workload, ASumIsBothAtOnceInSequencesOfTheirOwn) {
  const Workload sum = Workload::Uniform(2, 100) + Workload::Uniform(1, 300);
  EXPECT_EQ(sum, (Workload{.n_sequences = 3, .kv_cells = 500, .longest_sequence = 300}));
  EXPECT_EQ(Workload::Uniform(1, 300) + Workload::Uniform(2, 100), sum);
  Workload added = Workload::None();
  for (int i = 0; i < 5; ++i) {
    added += Workload::Uniform(1, 40);
  }
  EXPECT_EQ(added, Workload::Uniform(5, 40));
  EXPECT_EQ(Workload::None() + sum, sum) << "an empty sequence would be one more";
  EXPECT_NE(Workload() + sum, sum);
}

TEST(Workload, TheLargerOfTwoIsTheLeastThatBothAreWithin) {
  const std::vector<Workload> all = SmallWorkloads();
  for (const Workload& a : all) {
    for (const Workload& b : all) {
      const Workload larger = Max(a, b);
      EXPECT_TRUE(a.Within(larger) && b.Within(larger)) << a.ToText() << " and " << b.ToText();
      EXPECT_TRUE(larger.Within(a + b)) << a.ToText() << " and " << b.ToText();
      for (const Workload& bound : all) {
        EXPECT_EQ(larger.Within(bound), a.Within(bound) && b.Within(bound))
            << a.ToText() << " and " << b.ToText() << " in " << bound.ToText();
      }
    }
  }
}

TEST(Workload, IsWithinAnotherByAllThreeNumbers) {
  const Workload bound = {.n_sequences = 3, .kv_cells = 700, .longest_sequence = 512};
  EXPECT_TRUE(bound.Within(bound));
  EXPECT_TRUE(Workload::None().Within(bound));
  EXPECT_FALSE((Workload{4, 700, 512}).Within(bound));
  EXPECT_FALSE((Workload{3, 701, 512}).Within(bound));
  EXPECT_FALSE((Workload{3, 700, 513}).Within(bound));
  const Workload fewer_but_longer = Workload::Uniform(1, 600);
  EXPECT_FALSE(fewer_but_longer.Within(bound));
  EXPECT_FALSE(bound.Within(fewer_but_longer));
}

}  // namespace
}  // namespace espalier

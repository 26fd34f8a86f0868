#include "model/workload.h"

#include <gtest/gtest.h>

namespace espalier {
namespace {

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

}  // namespace
}  // namespace espalier

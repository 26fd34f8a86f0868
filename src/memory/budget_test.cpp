#include "memory/budget.h"

#include <gtest/gtest.h>

namespace espalier {
namespace {

constexpr BudgetBase kBase = {.process_bytes = 1000, .dense_peak_bytes = 50000};

uint64_t Limit(std::string_view text) {
  auto budget = Budget::Parse(text);
  EXPECT_TRUE(budget.ok()) << budget.status().message();
  return budget.ok() ? budget->LimitBytes(kBase) : 0;
}

TEST(Budget, BytesAreTheLimitAsGiven) {
  EXPECT_EQ(Limit("700MiB"), 700u << 20);
  EXPECT_EQ(Limit("4096"), 4096u);
  EXPECT_EQ(Limit("1kB"), 1000u);
}

TEST(Budget, PercentIsAShareOfTheManagedPeakWithTheProcessWhole) {
  EXPECT_EQ(Limit("100%"), 51000u);
  EXPECT_EQ(Limit("70%"), 36000u);
  EXPECT_EQ(Limit("0.1%"), 1050u);
}

TEST(Budget, AutoIsRefusedAsSomethingForServing) {
  const auto budget = Budget::Parse("auto");
  ASSERT_FALSE(budget.ok());
  EXPECT_EQ(budget.status().code(), ErrorCode::kUnsupported);
  EXPECT_NE(budget.status().message().find("auto"), std::string::npos);
}

TEST(Budget, ErrorsNameTheTextAndWhatWasExpected) {
  for (const char* text : {"", "%", "0", "0%", "-5%", "101%", "nan%", "70 %x", "70%%", "lots", "12XB", "-1"}) {
    const auto budget = Budget::Parse(text);
    ASSERT_FALSE(budget.ok()) << text;
    EXPECT_EQ(budget.status().code(), ErrorCode::kInvalidArgument) << text;
    EXPECT_NE(budget.status().message().find(std::string("'") + text + "'"), std::string::npos) << text;
    EXPECT_NE(budget.status().message().find("expected"), std::string::npos) << text;
  }
}

TEST(Budget, TextFormReadsBack) {
  EXPECT_EQ(Budget::Parse("70%")->ToText(), "70%");
  EXPECT_EQ(Budget::Parse("12.5%")->ToText(), "12.5%");
  EXPECT_EQ(Budget::Parse("700MiB")->ToText(), "700.0 MiB");
}

}  // namespace
}  // namespace espalier

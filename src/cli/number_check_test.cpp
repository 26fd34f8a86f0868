#include "cli/number_check.h"

#include <gtest/gtest.h>

#include <string>

namespace espalier {
namespace {

// The message; empty where the text passes.
std::string Judge(const CLI::Validator& check, std::string text) { return check(text); }

TEST(NumberCheck, LetsNoNanAndNoInfinityThrough) {
  for (const CLI::Validator& check : {InRange(0.0, 1e6), AtLeast(0.0), MoreThan(0), Finite()}) {
    EXPECT_EQ(Judge(check, "1.5"), "");
    for (const char* wrong : {"nan", "-nan", "NAN", "inf", "infinity", "1e999", "", "x", "1x"}) {
      EXPECT_NE(Judge(check, wrong), "") << wrong;
    }
  }
}

TEST(NumberCheck, NamesTheRangeInAFewDigits) {
  EXPECT_EQ(Judge(InRange(0.5, 0.75), "0.8"), "expected a number in 0.5 to 0.75, found '0.8'");
  EXPECT_EQ(Judge(InRange(0, 65535), "99999"), "expected an integer in 0 to 65535, found '99999'");
  EXPECT_EQ(Judge(AtLeast(0), "-1"), "expected an integer of at least 0, found '-1'");
  EXPECT_EQ(Judge(AtLeast(0.0), "-1"), "expected a number of at least 0, found '-1'");
  EXPECT_EQ(Judge(MoreThan(0), "0"), "expected a number above 0, found '0'");
}

TEST(NumberCheck, EndsAreIncludedAndIntegersAreWhole) {
  for (const char* right : {"1", "3"}) {
    EXPECT_EQ(Judge(InRange(1, 3), right), "");
  }
  for (const char* wrong : {"0", "4", "1.5", "99999999999999999999"}) {
    EXPECT_NE(Judge(InRange(1, 3), wrong), "");
  }
}

}  // namespace
}  // namespace espalier

#include "control/budget_schedule.h"

#include <gtest/gtest.h>

namespace espalier {
namespace {

TEST(BudgetSchedule, ReadsTokensAndBudgets) {
  const auto schedule = ParseBudgetSchedule("0:100%,48:60%,96:700MiB");
  ASSERT_TRUE(schedule.ok()) << schedule.status().message();
  ASSERT_EQ(schedule->size(), 3u);
  EXPECT_EQ((*schedule)[0].at_token, 0);
  EXPECT_EQ((*schedule)[1].at_token, 48);
  EXPECT_EQ((*schedule)[1].budget, Budget::Percent(60));
  EXPECT_EQ((*schedule)[2].budget, Budget::Bytes(700u << 20));
}

TEST(BudgetSchedule, RefusesWhatIsNotARisingListOfBudgets) {
  for (const char* text : {"", "60%", "48", ":60%", "x:60%", "-1:60%", "48:", "48:lots", "0:60%,", "10:60%,10:70%",
                           "10:60%,5:70%", "4 8:60%"}) {
    const auto schedule = ParseBudgetSchedule(text);
    ASSERT_FALSE(schedule.ok()) << text;
    EXPECT_EQ(schedule.status().code(), ErrorCode::kInvalidArgument) << text;
    EXPECT_NE(schedule.status().message().find("expected"), std::string::npos) << text;
  }
}

}  // namespace
}  // namespace espalier

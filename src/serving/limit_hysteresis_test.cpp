#include "serving/limit_hysteresis.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <random>

namespace espalier {
namespace {

class LimitHysteresisTest : public testing::Test {
 protected:
  static constexpr uint64_t kLimit = 1'000'000;

  // The limit was `bytes` for `seconds`, looked at four times a second.
  uint64_t Hold(uint64_t bytes, double seconds, bool deliberate = false) {
    uint64_t planned = hysteresis_.planned_bytes();
    for (int tick = 0; tick < static_cast<int>(seconds * 4); ++tick) {
      now_ += std::chrono::milliseconds(250);
      planned = hysteresis_.Observe(bytes, now_, deliberate);
      EXPECT_LE(planned, bytes);
      EXPECT_EQ(planned, hysteresis_.planned_bytes());
    }
    return planned;
  }

  LimitHysteresis::Time now_ = LimitHysteresis::Time(std::chrono::hours(1));
  LimitHysteresis hysteresis_{kLimit, now_, {}};
};

TEST_F(LimitHysteresisTest, AFallIsFollowedAtOnce) {
  EXPECT_EQ(Hold(kLimit / 2, 0.25), kLimit / 2);
  EXPECT_EQ(hysteresis_.Observe(0, now_), 0u) << "even without any time between";
}

TEST_F(LimitHysteresisTest, AClearRiseIsFollowedAfterGrowAfter) {
  Hold(kLimit / 2, 0.25);
  EXPECT_EQ(Hold(kLimit, 2), kLimit / 2);
  EXPECT_EQ(Hold(kLimit, 0.25), kLimit);
}

TEST_F(LimitHysteresisTest, ARiseThatDipsStartsAgain) {
  Hold(kLimit / 2, 0.25);
  Hold(kLimit, 1.5);
  Hold(kLimit / 2, 0.25);
  EXPECT_EQ(Hold(kLimit, 2), kLimit / 2);
  EXPECT_EQ(Hold(kLimit, 0.25), kLimit);
}

TEST_F(LimitHysteresisTest, ARiseIsFollowedToItsLowestPoint) {
  Hold(kLimit / 2, 0.25);
  Hold(kLimit, 1);
  Hold(kLimit * 7 / 10, 0.25);
  EXPECT_EQ(Hold(kLimit, 1), kLimit * 7 / 10);
}

TEST_F(LimitHysteresisTest, ASmallRiseIsFollowedOnceItHasComeToRest) {
  const uint64_t planned = Hold(kLimit * 97 / 100, 0.25);
  EXPECT_EQ(Hold(kLimit, 59), planned);
  EXPECT_EQ(Hold(kLimit, 1.5), kLimit);
}

TEST_F(LimitHysteresisTest, ASmallDeliberateRiseIsFollowedAfterGrowAfter) {
  Hold(kLimit * 97 / 100, 0.25, true);
  EXPECT_EQ(Hold(kLimit, 2, true), kLimit * 97 / 100);
  EXPECT_EQ(Hold(kLimit, 0.25, true), kLimit);
  EXPECT_EQ(Hold(kLimit + 1, 2.25, true), kLimit + 1);
}

TEST_F(LimitHysteresisTest, ASmallFallAndOneSoonAfterAnotherLeaveHeadroom) {
  EXPECT_EQ(Hold(990'000, 0.25), 930'600u);
  EXPECT_EQ(Hold(500'000, 0.25), 470'000u);
}

TEST_F(LimitHysteresisTest, FallsThatSomebodySetAndDeepOnesFarApartLeaveNone) {
  EXPECT_EQ(Hold(990'000, 1, true), 990'000u);
  EXPECT_EQ(Hold(980'000, 61, true), 980'000u);
  EXPECT_EQ(Hold(800'000, 0.25), 800'000u);
}

TEST_F(LimitHysteresisTest, ARiseOfAMovingLimitNeedsMoreThanItsTrembling) {
  Hold(kLimit, 1);
  Hold(kLimit * 8 / 10, 0.25);
  for (int i = 0; i < 400; ++i) {  // 5 to 10 % above, but neither at rest nor far enough
    EXPECT_EQ(Hold(i % 2 == 0 ? 840'000 : 880'000, 0.25), 800'000u);
  }
  uint64_t planned = 0;
  for (int i = 0; i < 400; ++i) {  // 12 to 14 %
    planned = Hold(i % 2 == 0 ? 896'000 : 912'000, 0.25);
  }
  EXPECT_EQ(planned, 842'240u);
}

TEST_F(LimitHysteresisTest, ALimitThatTremblesMovesThePlanAtMostOnceAMinute) {
  for (uint32_t seed = 1; seed <= 60; ++seed) {
    std::mt19937 random(seed);
    std::uniform_real_distribution<double> tremble(0.97, 1.03);
    LimitHysteresis hysteresis(kLimit, now_, {});
    const int ticks_per_step = std::array{1, 8, 72}[seed % 3];  // up to 18 s
    uint64_t limit = kLimit;
    int changes = 0;
    uint64_t planned = kLimit;
    for (int minute = 0; minute < 10; ++minute) {
      int of_minute = 0;
      for (int tick = 0; tick < 240; ++tick) {
        now_ += std::chrono::milliseconds(250);
        if (tick % ticks_per_step == 0) {
          limit = static_cast<uint64_t>(tremble(random) * static_cast<double>(kLimit));
        }
        const uint64_t next = hysteresis.Observe(limit, now_);
        EXPECT_LE(next, limit);
        of_minute += next != planned ? 1 : 0;
        planned = next;
      }
      EXPECT_LE(of_minute, 1) << "seed " << seed << ", minute " << minute;
      changes += of_minute;
    }
    EXPECT_LE(changes, 2) << "seed " << seed;
    EXPECT_GE(planned, kLimit * 91 / 100);
  }
}

TEST_F(LimitHysteresisTest, NoLimitIsALimitLikeAnyOther) {
  LimitHysteresis hysteresis(UINT64_MAX, now_, {});
  EXPECT_EQ(hysteresis.Observe(UINT64_MAX, now_), UINT64_MAX);
  EXPECT_EQ(hysteresis.Observe(kLimit, now_), kLimit);
  now_ += std::chrono::seconds(1);
  hysteresis.Observe(UINT64_MAX, now_);
  now_ += std::chrono::seconds(3);
  EXPECT_EQ(hysteresis.Observe(UINT64_MAX, now_), UINT64_MAX);
}

}  // namespace
}  // namespace espalier

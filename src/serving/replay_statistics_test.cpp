#include "serving/replay_statistics.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

#include "serving/replay_prompts.h"

namespace espalier {
namespace {

TEST(ReplayPrompts, SameSeedsSamePromptsAndSharedBeginnings) {
  PromptSource source;
  source.n_vocab = 1000;
  const Arrival arrival = {.seconds = 0, .prompt_tokens = 50, .max_tokens = 1, .prompt_seed = 3};
  const auto prompt = MakePrompt(source, 1, arrival);
  ASSERT_EQ(prompt.size(), 50);
  EXPECT_EQ(prompt, MakePrompt(source, 1, arrival));
  EXPECT_TRUE(std::all_of(prompt.begin(), prompt.end(), [](int32_t t) { return t >= 0 && t < 1000; }));
  Arrival other = arrival;
  other.prompt_seed = 4;
  EXPECT_NE(prompt, MakePrompt(source, 1, other));
  Arrival sharing = arrival;
  sharing.shared_prefix_tokens = other.shared_prefix_tokens = 20;
  const auto a = MakePrompt(source, 1, sharing);
  const auto b = MakePrompt(source, 1, other);
  EXPECT_TRUE(std::equal(a.begin(), a.begin() + 20, b.begin()));
  EXPECT_FALSE(std::equal(a.begin() + 20, a.end(), b.begin() + 20));
  EXPECT_NE(MakePrompt(source, 2, sharing), a);

  source.corpus = {10, 11, 12, 13, 14, 15, 16};
  source.first_token = 1;
  const auto cut = MakePrompt(source, 1, arrival);
  ASSERT_EQ(cut.size(), 50);
  EXPECT_EQ(cut[0], 1);
  for (size_t i = 2; i < cut.size(); ++i) {
    EXPECT_EQ(cut[i], cut[i - 1] == 16 ? 10 : cut[i - 1] + 1) << i;
  }
}

TEST(ReplayStatistics, AFillInSeveralHelpingsIsOneMove) {
  TransitionEvent event;
  event.plan_before = Plan::Dense(2);
  event.plan_after = Plan::Dense(2);
  MoveCounter moves;
  moves.Add(0, event);  // a limit that changed nothing
  EXPECT_EQ(moves.all().count(), 0);
  event.pending = {{0}, {1}};
  moves.Add(1, event);  // a rise: blocks are to come back
  event.pending = {{1}, {0}};
  moves.Add(1.5, event);  // decided again
  event.reason = TransitionEvent::Reason::kLoad;
  event.plan_before = Plan::Nothing(2);
  event.pending = {{1}};
  moves.Add(2, event);
  event.pending = {};
  moves.Add(3, event);
  EXPECT_EQ(moves.all().count(), 1);
  event.reason = TransitionEvent::Reason::kBudget;
  moves.Add(30, event);
  moves.Add(60.9, event);
  EXPECT_EQ(moves.all().count(), 3);
  EXPECT_EQ(moves.all().most_in_a_minute(), 3);
  EXPECT_EQ(moves.by_budget().count(), 3);
  event.reason = TransitionEvent::Reason::kWorkload;
  moves.Add(150, event);
  event.reason = TransitionEvent::Reason::kLoad;  // requests ended
  moves.Add(220, event);
  EXPECT_EQ(moves.all().count(), 5);
  EXPECT_EQ(moves.by_budget().count(), 3);
  event.limit_bytes = 1000;
  moves.Add(221, event);
  EXPECT_EQ(moves.by_budget().count(), 4);
  EXPECT_EQ(moves.all().most_in_a_minute(), 3);
}

TEST(ReplayStatistics, MoreDurationsThanAreKeptLeaveThePercentilesAlone) {
  LatencySample sample;
  EXPECT_EQ(sample.Summary().count, 0);
  const int n = 4 * static_cast<int>(LatencySample::kCapacity);
  for (int i = 0; i < n; ++i) {
    sample.Add(static_cast<double>(i) / n);  // 0 to 1000 ms
  }
  const Latencies latencies = sample.Summary();
  EXPECT_EQ(latencies.count, n);
  EXPECT_NEAR(latencies.p50, 500, 10);
  EXPECT_NEAR(latencies.p95, 950, 10);
  EXPECT_NEAR(latencies.max, 1000, 0.01);
}

}  // namespace
}  // namespace espalier

#include "server/metrics.h"

#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <sstream>
#include <string>
#include <thread>

namespace espalier {
namespace {

// {"name{labels}": value as written}.
std::map<std::string, std::string> Samples(const std::string& text) {
  std::map<std::string, std::string> samples;
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    if (!line.empty() && line[0] != '#') {
      const size_t space = line.rfind(' ');
      EXPECT_TRUE(samples.emplace(line.substr(0, space), line.substr(space + 1)).second) << line << " is there twice";
    }
  }
  return samples;
}

class MetricsTest : public ::testing::Test {
 protected:
  // Of a metric of our own, by name and further labels as written: "kind=\"kv\"".
  double Value(const std::string& name, const std::string& labels = "") {
    return Raw(name + "{model_name=\"m\"" + (labels.empty() ? "" : "," + labels) + "}");
  }
  double Raw(const std::string& sample) {
    const auto samples = Samples(metrics_->Text(state_));
    const auto found = samples.find(sample);
    EXPECT_NE(found, samples.end()) << sample << " is missing";
    return found == samples.end() ? -1 : std::stod(found->second);
  }

  std::unique_ptr<Metrics> metrics_ = Metrics::Create("m");
  LoopSnapshot state_;
};

TEST_F(MetricsTest, ShowsMemoryByPart) {
  state_.managed = {.weight_bytes = 10, .kv_bytes = 20, .compute_bytes = 30, .staging_bytes = 40};
  state_.process_bytes = 50;
  state_.limit_bytes = 8'000'000'001;
  EXPECT_EQ(Value("espalier_memory_used_bytes", R"(kind="weights")"), 10);
  EXPECT_EQ(Value("espalier_memory_used_bytes", R"(kind="kv")"), 20);
  EXPECT_EQ(Value("espalier_memory_used_bytes", R"(kind="compute")"), 30);
  EXPECT_EQ(Value("espalier_memory_used_bytes", R"(kind="staging")"), 40);
  EXPECT_EQ(Value("espalier_memory_used_bytes", R"(kind="process")"), 50);
  EXPECT_EQ(Value("espalier_memory_budget_bytes"), 8'000'000'001);
}

TEST_F(MetricsTest, ShowsNoBudgetAsInfinity) {
  state_.limit_bytes = UINT64_MAX;
  EXPECT_EQ(Samples(metrics_->Text(state_)).at("espalier_memory_budget_bytes{model_name=\"m\"}"), "+Inf");
}

TEST_F(MetricsTest, ShowsPlanAndItsPrediction) {
  EXPECT_TRUE(std::isnan(Value("espalier_predicted_kl")));
  state_.plan = std::make_shared<const Plan>(*Plan::Parse("a0=0 a2=0 f1=0", 4));
  state_.loss = PredictedLoss{.nats = 0.125, .measured = false};
  EXPECT_EQ(Value("espalier_blocks_kept", R"(kind="attention")"), 2);
  EXPECT_EQ(Value("espalier_blocks_kept", R"(kind="ffn")"), 3);
  EXPECT_EQ(Value("espalier_predicted_kl"), 0.125);
}

TEST_F(MetricsTest, CountsCellsOfFinishedRequestsAsFree) {
  state_.used_cells = 80;
  state_.cached_cells = 60;
  state_.reserved_cells = 25;
  state_.capacity_cells = 100;
  EXPECT_EQ(Value("espalier_kv_cache_usage_ratio"), 0.25);
}

TEST_F(MetricsTest, CountsRequestsByOutcome) {
  for (const FinishReason reason :
       {FinishReason::kEndOfText, FinishReason::kLength, FinishReason::kCancelled, FinishReason::kShutdown}) {
    RequestEnd end;
    end.reason = reason;
    end.decode_ms = 3000;
    metrics_->OnRequestEnd(end);
  }
  state_.refused = 7;
  EXPECT_EQ(Value("espalier_requests_total", R"(outcome="completed")"), 2);
  EXPECT_EQ(Value("espalier_requests_total", R"(outcome="cancelled")"), 1);
  EXPECT_EQ(Value("espalier_requests_total", R"(outcome="failed")"), 0);
  EXPECT_EQ(Value("espalier_requests_total", R"(outcome="shutdown")"), 1);
  EXPECT_EQ(Value("espalier_requests_total", R"(outcome="refused")"), 7);
  EXPECT_EQ(Value("espalier_e2e_request_latency_seconds_count"), 2);
  EXPECT_EQ(Value("espalier_e2e_request_latency_seconds_sum"), 6);
}

TEST_F(MetricsTest, NamesTransitionsByWhatMoved) {
  TransitionEvent event;
  event.reason = TransitionEvent::Reason::kBudget;
  event.moved.released_bytes = 10;
  event.ms = 20;
  metrics_->OnTransition(event);
  event.reason = TransitionEvent::Reason::kLoad;
  event.moved = {.loaded_bytes = 10};
  metrics_->OnTransition(event);
  metrics_->OnTransition(event);
  event.reason = TransitionEvent::Reason::kReprefill;
  event.moved = {};
  metrics_->OnTransition(event);
  EXPECT_EQ(Value("espalier_transitions_total", R"(direction="shrink",reason="budget")"), 1);
  EXPECT_EQ(Value("espalier_transitions_total", R"(direction="grow",reason="load")"), 2);
  EXPECT_EQ(Value("espalier_transitions_total", R"(direction="none",reason="reprefill")"), 1);
  EXPECT_EQ(Value("espalier_transition_seconds_count"), 4);
  EXPECT_EQ(Value("espalier_transition_seconds_bucket", R"(le="0.01")"), 0);
  EXPECT_EQ(Value("espalier_transition_seconds_bucket", R"(le="0.025")"), 4);
}

TEST_F(MetricsTest, MeasuresLatenciesInSeconds) {
  metrics_->OnFirstToken(0.5);
  metrics_->OnInterToken(0.25);
  metrics_->OnInterToken(0.25);
  EXPECT_EQ(Value("espalier_time_to_first_token_seconds_sum"), 0.5);
  EXPECT_EQ(Value("espalier_inter_token_latency_seconds_count"), 2);
}

TEST_F(MetricsTest, HasLlamaServersNamesWithoutLabels) {
  state_.prompt_tokens = 100;
  state_.cached_prompt_tokens = 30;
  state_.generated_tokens = 8;
  state_.steps = 4;
  state_.running = 2;
  state_.waiting = 3;
  RequestEnd end;
  end.prompt_tokens = 50;
  end.cached_tokens = 10;
  end.generated_tokens = 5;
  end.prefill_ms = 500;
  metrics_->OnRequestEnd(end);
  EXPECT_EQ(Raw("llamacpp:prompt_tokens_total"), 70);
  EXPECT_EQ(Raw("llamacpp:prompt_tokens_cached_total"), 30);
  EXPECT_EQ(Raw("llamacpp:tokens_predicted_total"), 8);
  EXPECT_EQ(Raw("llamacpp:n_decode_total"), 4);
  EXPECT_EQ(Raw("llamacpp:requests_processing"), 2);
  EXPECT_EQ(Raw("llamacpp:requests_deferred"), 3);
  EXPECT_EQ(Raw("llamacpp:n_tokens_max"), 55);
  EXPECT_EQ(Raw("llamacpp:prompt_tokens_seconds"), 80);
  EXPECT_EQ(Raw("llamacpp:n_busy_slots_per_decode"), 2);
}

TEST_F(MetricsTest, CountersNeverFallWhenSnapshotsComeInTheWrongOrder) {
  state_.prompt_tokens = 100;
  state_.cached_prompt_tokens = 50;
  state_.preemptions = 3;
  state_.overshoot_byte_seconds = 2.5;
  metrics_->Text(state_);
  metrics_->Text(LoopSnapshot());
  state_.preemptions = 2;
  EXPECT_EQ(Value("espalier_prompt_tokens_total"), 100);
  EXPECT_EQ(Value("espalier_preemptions_total"), 3);
  EXPECT_EQ(Value("espalier_budget_overshoot_byte_seconds_total"), 2.5);
  state_.preemptions = 5;
  EXPECT_EQ(Value("espalier_preemptions_total"), 5);
}

TEST_F(MetricsTest, EveryMetricHasATypeAndHelp) {
  std::map<std::string, int> told;
  std::istringstream lines(metrics_->Text(state_));
  for (std::string line; std::getline(lines, line);) {
    if (line[0] == '#') {
      ++told[line.substr(7, line.find(' ', 7) - 7)];
      EXPECT_GT(line.size(), line.find(' ', 7) + 1) << line;
    }
  }
  EXPECT_GE(told.size(), 20u);
  for (const auto& [name, times] : told) {
    EXPECT_EQ(times, 2) << name;
  }
}

TEST(Metrics, EscapesTheModelsName) {
  const std::string text = Metrics::Create("a\"b\\c\nd\xFF")->Text(LoopSnapshot());
  EXPECT_NE(text.find("espalier_requests_running{model_name=\"a\\\"b\\\\c\\nd\xEF\xBF\xBD\"}"), std::string::npos);
}

TEST_F(MetricsTest, LosesNothingThatIsObservedWhileTextIsMade) {
  std::thread engine([&] {
    for (int i = 0; i < 2000; ++i) {
      metrics_->OnInterToken(0.01);
      TransitionEvent event;
      metrics_->OnTransition(event);
      metrics_->OnRequestEnd({});
    }
  });
  double before = 0;
  for (int i = 0; i < 20; ++i) {
    const double now = Value("espalier_inter_token_latency_seconds_count");
    EXPECT_GE(now, before);
    before = now;
  }
  engine.join();
  EXPECT_EQ(Value("espalier_inter_token_latency_seconds_count"), 2000);
  EXPECT_EQ(Value("espalier_transition_seconds_count"), 2000);
  EXPECT_EQ(Value("espalier_requests_total", R"(outcome="completed")"), 2000);
}

}  // namespace
}  // namespace espalier

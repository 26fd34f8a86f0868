#include "serving/load_trace.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <limits>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "serving/trace_generator.h"

namespace espalier {
namespace {

LoadTrace Generate(const TraceOptions& options) {
  auto trace = GenerateTrace(options);
  EXPECT_TRUE(trace.ok()) << trace.status().message();
  return trace.ok() ? std::move(*trace) : LoadTrace();
}

int64_t Between(const LoadTrace& trace, double from, double to) {
  return std::count_if(trace.arrivals.begin(), trace.arrivals.end(),
                       [&](const Arrival& a) { return a.seconds >= from && a.seconds < to; });
}

TEST(LoadTrace, SortsByTimeAndKeepsTheOrderOfEqualMoments) {
  LoadTrace trace = {.duration_seconds = 10};
  trace.arrivals = {
      {.seconds = 2, .prompt_seed = 1}, {.seconds = 1, .prompt_seed = 2}, {.seconds = 2, .prompt_seed = 3}};
  trace.budgets = {{5, Budget::Percent(50)}, {0, Budget::Percent(90)}};
  EXPECT_FALSE(CheckTrace(trace).ok());
  SortTrace(&trace);
  EXPECT_TRUE(CheckTrace(trace).ok()) << CheckTrace(trace).message();
  EXPECT_EQ(trace.arrivals[0].prompt_seed, 2);
  EXPECT_EQ(trace.arrivals[1].prompt_seed, 1);
  EXPECT_EQ(trace.arrivals[2].prompt_seed, 3);
  EXPECT_EQ(trace.budgets[0].budget, Budget::Percent(90));
}

TEST(LoadTrace, ImpossibleValuesAreNamed) {
  constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
  const LoadTrace good = {.duration_seconds = 10, .arrivals = {Arrival{.seconds = 1}}, .budgets = {BudgetStep{}}};
  ASSERT_TRUE(CheckTrace(good).ok());
  const std::vector<std::pair<std::string, std::function<void(LoadTrace*)>>> cases = {
      {"duration_seconds", [&](LoadTrace* t) { t->duration_seconds = kNan; }},
      {"duration_seconds", [](LoadTrace* t) { t->duration_seconds = 0; }},
      {"duration_seconds", [](LoadTrace* t) { t->duration_seconds = 2 * kMaxTraceSeconds; }},
      {"name", [](LoadTrace* t) { t->name = std::string(kMaxTraceNameBytes + 1, 'x'); }},
      {"arrival 1: field \"at\"", [&](LoadTrace* t) { t->arrivals[0].seconds = kNan; }},
      {"arrival 1: field \"at\"", [](LoadTrace* t) { t->arrivals[0].seconds = -1; }},
      {"found 10.5", [](LoadTrace* t) { t->arrivals[0].seconds = 10.5; }},
      {"prompt_tokens", [](LoadTrace* t) { t->arrivals[0].prompt_tokens = 0; }},
      {"prompt_tokens", [](LoadTrace* t) { t->arrivals[0].prompt_tokens = kMaxTraceTokens + 1; }},
      {"max_tokens", [](LoadTrace* t) { t->arrivals[0].max_tokens = -5; }},
      {"shared_prefix_tokens", [](LoadTrace* t) { t->arrivals[0].shared_prefix_tokens = 2; }},
      {"budget 1: field \"at\"", [](LoadTrace* t) { t->budgets[0].seconds = 11; }},
      {"at most", [](LoadTrace* t) { t->budgets.resize(kMaxTraceItems + 1); }},
  };
  for (const auto& [part, spoil] : cases) {
    LoadTrace trace = good;
    spoil(&trace);
    const Status status = CheckTrace(trace);
    ASSERT_FALSE(status.ok()) << part;
    EXPECT_NE(status.message().find(part), std::string::npos) << status.message();
  }
}

TEST(TraceGenerator, EveryKindIsReproducibleAndInRange) {
  for (const ArrivalKind arrivals : kArrivalKinds) {
    for (const BudgetKind budget : kBudgetKinds) {
      const TraceOptions options = {.seconds = 200, .arrivals = arrivals, .rate = 2, .budget = budget};
      const LoadTrace trace = Generate(options);
      EXPECT_EQ(trace, Generate(options)) << trace.name;
      EXPECT_TRUE(CheckTrace(trace).ok()) << trace.name;
      EXPECT_EQ(trace.arrivals.empty(), arrivals == ArrivalKind::kNone) << trace.name;
      EXPECT_EQ(trace.budgets.empty(), budget == BudgetKind::kNone) << trace.name;
      for (const Arrival& arrival : trace.arrivals) {
        EXPECT_TRUE(arrival.prompt_tokens >= 32 && arrival.prompt_tokens <= 256) << arrival.prompt_tokens;
        EXPECT_TRUE(arrival.max_tokens >= 16 && arrival.max_tokens <= 128) << arrival.max_tokens;
      }
    }
  }
}

TEST(TraceGenerator, FirstArrivalsOfASeedAreTheseOnEveryMachine) {
  const LoadTrace trace = Generate({.seed = 7, .seconds = 60, .rate = 1});
  ASSERT_GE(trace.arrivals.size(), 3);
  const std::vector<Arrival> expected = {
      {0.042, 216, 44, 7790211342451442, 0}, {2.503, 79, 38, 7614142395754699, 0}, {2.583, 73, 73, 363700197231093, 0}};
  for (size_t i = 0; i < expected.size(); ++i) {
    EXPECT_EQ(trace.arrivals[i], expected[i])
        << trace.arrivals[i].seconds << " " << trace.arrivals[i].prompt_tokens << " " << trace.arrivals[i].max_tokens
        << " " << trace.arrivals[i].prompt_seed;
  }
}

TEST(TraceGenerator, AnotherBudgetOrSeedLeavesOrChangesArrivals) {
  const TraceOptions options = {.seconds = 100, .rate = 2, .budget = BudgetKind::kSawtooth};
  TraceOptions other = options;
  other.budget = BudgetKind::kRandomWalk;
  EXPECT_EQ(Generate(options).arrivals, Generate(other).arrivals);
  other.seed = 2;
  EXPECT_NE(Generate(options).arrivals, Generate(other).arrivals);
}

TEST(TraceGenerator, MeanRateIsTheOneAskedFor) {
  for (const ArrivalKind kind : {ArrivalKind::kSteady, ArrivalKind::kDiurnal, ArrivalKind::kBursty}) {
    const LoadTrace trace = Generate({.seconds = 20000, .arrivals = kind, .rate = 1});
    EXPECT_NEAR(static_cast<double>(trace.arrivals.size()), 20000, 1000) << ArrivalKindName(kind);
  }
}

TEST(TraceGenerator, DiurnalSwingsAndBurstsAreUneven) {
  const LoadTrace day =
      Generate({.seconds = 8000, .arrivals = ArrivalKind::kDiurnal, .rate = 1, .arrival_period = 8000});
  EXPECT_LT(Between(day, 0, 1000) * 2, Between(day, 3500, 4500));
  EXPECT_LT(Between(day, 7000, 8000) * 2, Between(day, 3500, 4500));
  // Variance over mean of counts in windows of 5 s: 1 for a Poisson process of one rate.
  const auto dispersion = [](const LoadTrace& trace) {
    double sum = 0;
    double squares = 0;
    const int n = static_cast<int>(trace.duration_seconds / 5);
    for (int i = 0; i < n; ++i) {
      const auto count = static_cast<double>(Between(trace, 5.0 * i, 5.0 * (i + 1)));
      sum += count;
      squares += count * count;
    }
    const double mean = sum / n;
    return (squares / n - mean * mean) / mean;
  };
  EXPECT_LT(dispersion(Generate({.seconds = 5000, .rate = 2})), 1.5);
  EXPECT_GT(dispersion(Generate({.seconds = 5000, .arrivals = ArrivalKind::kBursty, .rate = 2})), 3);
}

TEST(TraceGenerator, LengthsGatherAtTheGeometricMean) {
  const LoadTrace trace = Generate({.seconds = 3000, .rate = 1, .prompt_tokens = {16, 1024}});
  // The median is 128; half the logarithmic range around it holds two thirds of all.
  const auto short_ones = std::count_if(trace.arrivals.begin(), trace.arrivals.end(),
                                        [](const Arrival& a) { return a.prompt_tokens < 128; });
  const auto middle = std::count_if(trace.arrivals.begin(), trace.arrivals.end(),
                                    [](const Arrival& a) { return a.prompt_tokens >= 45 && a.prompt_tokens <= 362; });
  const auto n = static_cast<double>(trace.arrivals.size());
  EXPECT_NEAR(static_cast<double>(short_ones) / n, 0.5, 0.05);
  EXPECT_NEAR(static_cast<double>(middle) / n, 0.71, 0.05);
  const LoadTrace fixed = Generate({.seconds = 20, .rate = 1, .prompt_tokens = {7, 7}, .shared_prefix_tokens = 9});
  EXPECT_EQ(fixed.arrivals.front().prompt_tokens, 7);
  EXPECT_EQ(fixed.arrivals.front().shared_prefix_tokens, 7);
}

TEST(TraceGenerator, BudgetShapes) {
  TraceOptions options = {.seconds = 80, .arrivals = ArrivalKind::kNone, .high_percent = 100, .low_percent = 60};
  options.budget = BudgetKind::kConstant;
  EXPECT_EQ(Generate(options).budgets, (std::vector<BudgetStep>{{0, Budget::Percent(100)}}));

  options.budget = BudgetKind::kSawtooth;
  options.budget_period = 40;
  const LoadTrace saw = Generate(options);
  ASSERT_EQ(saw.budgets.size(), 16);
  EXPECT_EQ(saw.budgets[7], (BudgetStep{35, Budget::Percent(60)}));
  EXPECT_EQ(saw.budgets[8], (BudgetStep{40, Budget::Percent(100)}));

  options.budget = BudgetKind::kMemoryHog;
  options.budget_period = 30;
  options.seconds = 60;
  const std::vector<BudgetStep> visits = {{0, Budget::Percent(100)},  {10, Budget::Percent(60)},
                                          {20, Budget::Percent(100)}, {30, Budget::Percent(100)},
                                          {40, Budget::Percent(60)},  {50, Budget::Percent(100)}};
  EXPECT_EQ(Generate(options).budgets, visits);

  options.seconds = 800;
  options.budget_period = 8;
  for (const auto& [kind, low, high] : {std::tuple{BudgetKind::kRandomWalk, 60.0, 100.0},
                                        std::tuple{BudgetKind::kTrembling, 80 * 0.97 - 0.01, 80 * 1.03 + 0.01}}) {
    options.budget = kind;
    const LoadTrace trace = Generate(options);
    ASSERT_EQ(trace.budgets.size(), 800) << BudgetKindName(kind);
    double lowest = 100;
    double highest = 0;
    for (const BudgetStep& step : trace.budgets) {
      lowest = std::min(lowest, step.budget.percent());
      highest = std::max(highest, step.budget.percent());
    }
    EXPECT_GE(lowest, low) << BudgetKindName(kind);
    EXPECT_LE(highest, high) << BudgetKindName(kind);
    EXPECT_GT(highest - lowest, 0.8 * (high - low)) << BudgetKindName(kind);
  }
}

TEST(TraceGenerator, OptionsOutOfRangeAreRefused) {
  const std::vector<std::function<void(TraceOptions*)>> cases = {
      [](TraceOptions* o) { o->seconds = -1; },
      [](TraceOptions* o) { o->rate = 0; },
      [](TraceOptions* o) {
        o->prompt_tokens = {0, 4};
      },
      [](TraceOptions* o) {
        o->max_tokens = {8, 4};
      },
      [](TraceOptions* o) { o->low_percent = 0; },
      [](TraceOptions* o) { o->high_percent = 101; },
      [](TraceOptions* o) { o->low_percent = 99, o->high_percent = 98; },
      [](TraceOptions* o) { o->budget_period = -3; },
      [](TraceOptions* o) { o->arrival_period = 1e-9; },
      [](TraceOptions* o) { o->shared_prefix_tokens = -1; },
      [](TraceOptions* o) { o->rate = 1e6, o->seconds = 1000; },
      [](TraceOptions* o) { o->budget = BudgetKind::kTrembling, o->seconds = 1e6, o->budget_period = 0.01; }};
  for (size_t i = 0; i < cases.size(); ++i) {
    TraceOptions options;
    cases[i](&options);
    const auto trace = GenerateTrace(options);
    ASSERT_FALSE(trace.ok()) << i;
    EXPECT_EQ(trace.status().code(), ErrorCode::kInvalidArgument) << i;
  }
}

}  // namespace
}  // namespace espalier

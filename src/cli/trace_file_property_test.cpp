// Whatever trace is in range, its file is read as the same trace.
#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <sstream>
#include <string>
#include <vector>

#include "cli/trace_file.h"
#include "serving/trace_generator.h"

namespace espalier {
namespace {

class TraceFileProperty : public testing::TestWithParam<uint32_t> {
 protected:
  bool OneIn(uint32_t n) { return random_() % n == 0; }
  double Share() { return static_cast<double>(random_()) / 4294967295.0; }

  // Ends of the ranges more often than chance has them.
  double Seconds(double most) { return OneIn(8) ? 0 : OneIn(8) ? most : OneIn(8) ? most * 1e-15 : most * Share(); }
  int64_t Tokens(int64_t least, int64_t most) {
    return OneIn(8)   ? least
           : OneIn(8) ? most
                      : least + static_cast<int64_t>(Share() * static_cast<double>(most - least));
  }
  uint64_t Seed() { return OneIn(4) ? UINT64_MAX : uint64_t{random_()} << (random_() % 32); }

  std::string Name() {
    static const std::vector<std::string> parts = {"a",    " ",      "\"",         "\\", "\n", std::string(1, '\0'),
                                                   "\x7f", "\u20ac", "\U0001F600", "{",  "/"};
    std::string name;
    while (name.size() + 4 <= kMaxTraceNameBytes && !OneIn(6)) {
      name += parts[random_() % parts.size()];
    }
    return name;
  }

  Budget SomeBudget() {
    if (OneIn(2)) {
      return Budget::Percent(OneIn(4) ? 100 : std::max(1e-300, 100 * Share()));
    }
    return Budget::Bytes(OneIn(4) ? uint64_t{INT64_MAX} : 1 + Seed() % INT64_MAX);
  }

  LoadTrace SomeTrace() {
    LoadTrace trace;
    trace.name = Name();
    trace.seed = Seed();
    trace.duration_seconds = OneIn(6) ? kMaxTraceSeconds : std::max(1e-9, 100 * Share());
    for (auto n = random_() % 20; n > 0; --n) {
      Arrival arrival;
      arrival.seconds = Seconds(trace.duration_seconds);
      arrival.prompt_tokens = Tokens(1, kMaxTraceTokens);
      arrival.max_tokens = Tokens(1, kMaxTraceTokens);
      arrival.prompt_seed = Seed();
      arrival.shared_prefix_tokens = OneIn(2) ? 0 : Tokens(0, arrival.prompt_tokens);
      trace.arrivals.push_back(arrival);
    }
    for (auto n = random_() % 10; n > 0; --n) {
      trace.budgets.push_back({Seconds(trace.duration_seconds), SomeBudget()});
    }
    SortTrace(&trace);
    return trace;
  }

  void ExpectSameAfterFile(const LoadTrace& trace) {
    ASSERT_TRUE(CheckTrace(trace).ok()) << CheckTrace(trace).message();
    const std::string text = TraceFileText(trace);
    const auto read = ParseTraceFile(text, "t.jsonl");
    ASSERT_TRUE(read.ok()) << read.status().message() << "\n" << text;
    EXPECT_EQ(*read, trace) << text;
    EXPECT_EQ(TraceFileText(*read), text);
  }

  std::mt19937 random_{GetParam()};
};

TEST_P(TraceFileProperty, AnyTraceIsReadAsTheSame) {
  for (int i = 0; i < 10; ++i) {
    ExpectSameAfterFile(SomeTrace());
  }
}

TEST_P(TraceFileProperty, GeneratedTracesAreReadAsTheSame) {
  TraceOptions options;
  options.seed = Seed();
  options.seconds = 1 + 60 * Share();
  options.arrivals = kArrivalKinds[random_() % kArrivalKinds.size()];
  options.budget = kBudgetKinds[random_() % kBudgetKinds.size()];
  options.rate = 0.1 + 3 * Share();
  options.shared_prefix_tokens = OneIn(2) ? 0 : 40;
  const auto trace = GenerateTrace(options);
  ASSERT_TRUE(trace.ok()) << trace.status().message();
  ExpectSameAfterFile(*trace);
}

// Lines of one moment keep their order; the others may come in any.
TEST_P(TraceFileProperty, TheOrderOfLinesDoesNotMatter) {
  LoadTrace trace = SomeTrace();
  const auto later = [](const auto& a, const auto& b) { return a.seconds >= b.seconds; };
  trace.arrivals.erase(std::adjacent_find(trace.arrivals.begin(), trace.arrivals.end(), later), trace.arrivals.end());
  trace.budgets.erase(std::adjacent_find(trace.budgets.begin(), trace.budgets.end(), later), trace.budgets.end());
  std::istringstream text(TraceFileText(trace));
  std::vector<std::string> lines;
  for (std::string line; std::getline(text, line);) {
    lines.push_back(line);
  }
  std::shuffle(lines.begin() + 1, lines.end(), random_);
  std::string shuffled;
  for (const std::string& line : lines) {
    shuffled += line + (OneIn(2) ? "\n" : "\r\n") + (OneIn(5) ? " \t\n" : "");
  }
  const auto read = ParseTraceFile(shuffled, "t.jsonl");
  ASSERT_TRUE(read.ok()) << read.status().message();
  EXPECT_EQ(*read, trace);
}

INSTANTIATE_TEST_SUITE_P(Seeds, TraceFileProperty, testing::Range(1u, 31u));

}  // namespace
}  // namespace espalier

// Engines for tests, and the few calls that most of them make.
#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <memory>
#include <span>
#include <vector>

#include "runtime/engine.h"

namespace espalier::test {

// The settings under which libllama computes the same bits: all logits in one piece, a rewritten head for tied models.
inline EngineOptions ExactOptions() {
  EngineOptions options;
  options.n_threads = 1;
  options.head_rows = 512;
  options.copy_tied_head = true;
  return options;
}

inline std::unique_ptr<Engine> OpenEngine(std::shared_ptr<const Model> model, const EngineOptions& options,
                                          const Plan& plan) {
  auto engine = Engine::Create(std::move(model), options, plan);
  EXPECT_TRUE(engine.ok()) << engine.status().message();
  return engine.ok() ? std::move(*engine) : nullptr;
}

// Appends the tokens to the sequence; logits of all of them, or of the last alone.
inline std::vector<float> Decode(Engine& engine, SequenceId sequence, std::span<const int32_t> tokens, bool all) {
  std::vector<BatchToken> batch;
  for (size_t i = 0; i < tokens.size(); ++i) {
    batch.push_back({tokens[i], sequence, all || i + 1 == tokens.size()});
  }
  std::vector<float> logits;
  const Status status = engine.Decode(
      batch, [&](int64_t, std::span<const float> row) { logits.insert(logits.end(), row.begin(), row.end()); });
  EXPECT_TRUE(status.ok()) << status.message();
  return logits;
}
inline std::vector<float> DecodeAll(Engine& engine, SequenceId sequence, std::span<const int32_t> tokens) {
  return Decode(engine, sequence, tokens, true);
}
inline std::vector<float> DecodeLast(Engine& engine, SequenceId sequence, std::span<const int32_t> tokens) {
  return Decode(engine, sequence, tokens, false);
}

// NaN counts as infinitely different.
inline double MaxDifference(std::span<const float> a, std::span<const float> b) {
  if (a.size() != b.size()) {
    return INFINITY;
  }
  double worst = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    const double d = std::fabs(static_cast<double>(a[i]) - static_cast<double>(b[i]));
    worst = d <= worst ? worst : (std::isnan(d) ? INFINITY : d);
  }
  return worst;
}

}  // namespace espalier::test

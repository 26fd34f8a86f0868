// Scoring a row of logits: done for every token of every plan that is ever measured.
#include <benchmark/benchmark.h>

#include <cmath>
#include <random>
#include <vector>

#include "base/check.h"
#include "eval/scoring.h"

namespace espalier {
namespace {

std::vector<float> RandomRow(int64_t n_vocab, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0, 3);
  std::vector<float> row(static_cast<size_t>(n_vocab));
  for (float& x : row) {
    x = normal(random);
  }
  return row;
}

void ScoreRow(benchmark::State& state) {
  const auto row = RandomRow(state.range(0), 1);
  double sum = 0;
  for (const float x : row) {
    sum += std::exp(static_cast<double>(x));
  }
  ESPALIER_CHECK(std::abs(NegativeLogLikelihood(row, 5) - (std::log(sum) - static_cast<double>(row[5]))) < 1e-6);
  for (auto _ : state) {
    benchmark::DoNotOptimize(NegativeLogLikelihood(row, 5));
  }
  state.SetBytesProcessed(state.iterations() * state.range(0) * static_cast<int64_t>(sizeof(float)));
}
BENCHMARK(ScoreRow)->Arg(8192)->Arg(32000)->Arg(151936)->Unit(benchmark::kMicrosecond);

void CompareTwoRows(benchmark::State& state) {
  const auto dense = RandomRow(state.range(0), 1);
  const auto plan = RandomRow(state.range(0), 2);
  ESPALIER_CHECK(CompareRows(dense, dense, 5).kl == 0 && CompareRows(dense, plan, 5).kl > 0);
  for (auto _ : state) {
    benchmark::DoNotOptimize(CompareRows(dense, plan, 5));
  }
  state.SetBytesProcessed(state.iterations() * state.range(0) * 2 * static_cast<int64_t>(sizeof(float)));
}
BENCHMARK(CompareTwoRows)->Arg(8192)->Arg(32000)->Arg(151936)->Unit(benchmark::kMicrosecond);

}  // namespace
}  // namespace espalier

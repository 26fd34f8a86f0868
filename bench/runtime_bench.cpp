// What an engine step costs besides computing, and what a change of plan costs besides moving bytes.
#include <benchmark/benchmark.h>

#include <memory>
#include <string>
#include <vector>

#include "base/check.h"
#include "base/process_memory.h"
#include "model/footprint.h"
#include "model/model.h"
#include "runtime/engine.h"

namespace espalier {
namespace {

std::shared_ptr<const Model> Reference() {
  auto model = Model::Open(ESPALIER_BENCH_MODELS "/espalier-reference-f16.gguf");
  ESPALIER_CHECK(model.ok());
  return *model;
}

std::unique_ptr<Engine> DenseEngine(int64_t n_ctx) {
  ReturnFreedMemoryToSystem();
  EngineOptions options;
  options.n_threads = 1;
  options.n_ctx = n_ctx;
  const auto model = Reference();
  auto engine = Engine::Create(model, options, Plan::Dense(model->n_layer()));
  ESPALIER_CHECK(engine.ok());
  return std::move(*engine);
}

void Append(Engine& engine, SequenceId sequence, int64_t n, bool want_logits) {
  std::vector<BatchToken> batch;
  for (int64_t i = 0; i < n; ++i) {
    batch.push_back({static_cast<int32_t>(3 + i % 8000), sequence, want_logits && i + 1 == n});
  }
  int64_t rows = 0;
  const Status status = engine.Decode(batch, [&](int64_t, std::span<const float>) { ++rows; });
  ESPALIER_CHECK(status.ok() && rows == (want_logits ? 1 : 0));
}

// One decoded token: the share that is not the backend's computing is ours.
void DecodeOverhead(benchmark::State& state) {
  const auto engine = DenseEngine(4096);
  const int64_t cells = state.range(0);
  Append(*engine, 0, cells, false);
  const DecodeStatistics before = engine->statistics();
  int64_t steps = 0;
  for (auto _ : state) {
    Append(*engine, 0, 1, true);
    ++steps;
    if (steps % 128 == 0) {  // stay within one multiple of the KV padding
      state.PauseTiming();
      engine->TruncateSequence(0, cells);
      state.ResumeTiming();
    }
  }
  const DecodeStatistics& after = engine->statistics();
  const auto per_step = [&](double now, double then) { return 1000.0 * (now - then) / static_cast<double>(steps); };
  state.counters["build_us"] = per_step(after.build_ms, before.build_ms);
  state.counters["input_us"] = per_step(after.input_ms, before.input_ms);
  state.counters["compute_us"] = per_step(after.compute_ms, before.compute_ms);
}
BENCHMARK(DecodeOverhead)->Arg(1)->Arg(1000)->Arg(3500)->Unit(benchmark::kMicrosecond);

// A change of plan that moves one FFN block out and in: what is left after moving bytes is the rebuilt graph.
void PlanChange(benchmark::State& state) {
  const auto engine = DenseEngine(512);
  const Plan dense = engine->plan();
  Plan without = dense;
  without.Drop(BlockId::Ffn(7));
  Append(*engine, 0, 16, true);
  double move_ms = 0;
  double build_ms = engine->statistics().build_ms;
  int64_t changes = 0;
  for (auto _ : state) {
    for (const Plan* plan : {static_cast<const Plan*>(&without), &dense}) {
      const auto transition = engine->Apply(*plan);
      ESPALIER_CHECK(transition.ok() && engine->plan() == *plan);
      move_ms += transition->release_ms + transition->load_ms;
      Append(*engine, 0, 1, true);
      engine->TruncateSequence(0, 16);
      ++changes;
    }
  }
  const auto n = static_cast<double>(changes);
  state.counters["move_us"] = 1000.0 * move_ms / n;
  state.counters["rebuild_us"] = 1000.0 * (engine->statistics().build_ms - build_ms) / n;
}
BENCHMARK(PlanChange)->Unit(benchmark::kMicrosecond);

// A sequence goes: its pages go back, the neighbours stay where they are.
void KvRelease(benchmark::State& state) {
  const auto engine = DenseEngine(1024);
  Append(*engine, 1, 256, false);
  uint64_t released = 0;
  for (auto _ : state) {
    state.PauseTiming();
    Append(*engine, 0, 256, false);
    const uint64_t before = engine->memory_in_use().kv_bytes;
    state.ResumeTiming();
    engine->RemoveSequence(0);
    state.PauseTiming();
    released += before - engine->memory_in_use().kv_bytes;
    state.ResumeTiming();
  }
  ESPALIER_CHECK(released > 0);
  state.SetBytesProcessed(static_cast<int64_t>(released));
}
BENCHMARK(KvRelease)->Unit(benchmark::kMicrosecond);

// A stretch of a prompt behind 8000 tokens, as it is computed while others decode. Second argument: whether heads that
// share keys may stand as rows of one tile (AttentionGroup::packed); without, fewer than 64 tokens go one by one.
void PromptChunk(benchmark::State& state) {
  constexpr int64_t kDepth = 8000;
  const int64_t n = state.range(0);
  EngineOptions options;
  options.n_ctx = kDepth + 512;
  options.n_ubatch = state.range(1) != 0 ? 512 : static_cast<int>(n);
  options.n_threads = 1;
  const auto model = Reference();
  const auto engine = Engine::Create(model, options, Plan::Dense(model->n_layer()));
  ESPALIER_CHECK(engine.ok());
  Append(**engine, 0, kDepth, false);
  for (auto _ : state) {
    Append(**engine, 0, n, false);
    state.PauseTiming();
    (*engine)->TruncateSequence(0, kDepth);
    state.ResumeTiming();
  }
  state.SetItemsProcessed(state.iterations() * n);
}
BENCHMARK(PromptChunk)->ArgsProduct({{16, 32, 64}, {0, 1}})->Unit(benchmark::kMillisecond);

// A policy asks for thousands of these per decision.
void FootprintPrediction(benchmark::State& state) {
  const auto measured = MeasureMemoryModel(Reference(), {});
  ESPALIER_CHECK(measured.ok());
  const Plan plan = Plan::Dense(16);
  const Workload workload = Workload::Uniform(4, 128);
  ESPALIER_CHECK(PredictFootprint(*measured, plan, workload).kv_bytes > 0);
  for (auto _ : state) {
    benchmark::DoNotOptimize(PredictFootprint(*measured, plan, workload));
  }
}
BENCHMARK(FootprintPrediction)->Unit(benchmark::kNanosecond);

// Opening and validating a model: 147 tensors, a vocabulary of 8192.
void OpenModel(benchmark::State& state) {
  ESPALIER_CHECK(Reference()->n_layer() == 16);
  for (auto _ : state) {
    benchmark::DoNotOptimize(Reference());
  }
}
BENCHMARK(OpenModel)->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace espalier

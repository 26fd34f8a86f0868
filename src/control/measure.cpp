#include "control/measure.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <random>
#include <thread>

#include "base/check.h"
#include "base/region.h"

namespace espalier {
namespace {

using Clock = std::chrono::steady_clock;
constexpr SequenceId kSequence = 0;

double SecondsSince(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

// Reads all of it, with enough independent sums to keep the loads coming.
uint64_t Sum(std::span<const uint64_t> words) {
  constexpr size_t kLanes = 16;
  std::array<uint64_t, kLanes> sums = {};
  for (size_t i = 0; i + kLanes <= words.size(); i += kLanes) {
    for (size_t lane = 0; lane < kLanes; ++lane) {
      sums[lane] += words[i + lane];
    }
  }
  uint64_t total = 0;
  for (const uint64_t sum : sums) {
    total += sum;
  }
  return total;
}

Status DecodeTokens(Engine& engine, std::span<const int32_t> tokens, bool one_by_one) {
  const auto run = [&](std::span<const int32_t> part) {
    std::vector<BatchToken> batch;
    for (const int32_t token : part) {
      batch.push_back({token, kSequence, false});
    }
    batch.back().want_logits = true;
    return engine.Decode(batch, [](int64_t, std::span<const float>) {});
  };
  if (!one_by_one) {
    return run(tokens);
  }
  for (size_t i = 0; i < tokens.size(); ++i) {
    ESPALIER_RETURN_IF_ERROR(run(tokens.subspan(i, 1)));
  }
  return Status::Ok();
}

}  // namespace

Result<double> MeasureReadBandwidth(uint64_t bytes, int n_threads) {
  constexpr int kPasses = 4;
  const int n = n_threads > 0 ? n_threads : static_cast<int>(std::max(std::thread::hardware_concurrency(), 1u));
  ESPALIER_ASSIGN_OR_RETURN(Region region, Region::Map(bytes, Region::Pages::kHuge));
  const std::span<uint64_t> words(reinterpret_cast<uint64_t*>(region.data()), region.size() / sizeof(uint64_t));
  std::fill(words.begin(), words.end(), uint64_t{1});
  const size_t part = words.size() / static_cast<size_t>(n);
  std::atomic<uint64_t> sink = 0;
  double best = 0;
  for (int pass = 0; pass < kPasses; ++pass) {
    const auto start = Clock::now();
    std::vector<std::thread> threads;
    for (int t = 0; t < n; ++t) {
      threads.emplace_back([&, t] { sink += Sum(words.subspan(static_cast<size_t>(t) * part, part)); });
    }
    for (std::thread& thread : threads) {
      thread.join();
    }
    best = std::max(best, static_cast<double>(part * static_cast<size_t>(n) * sizeof(uint64_t)) / SecondsSince(start));
  }
  ESPALIER_CHECK(sink > 0);
  return best;
}

uint64_t BytesReadPerToken(const Engine& engine, int64_t cells) {
  const Model& model = engine.model();
  const MemoryModel& memory = engine.memory_model();
  uint64_t bytes = model.globals().file_bytes;
  if (!model.hparams().tied_output) {
    bytes -= model.globals().get(TensorRole::kTokenEmbedding)->bytes;
  }
  for (int b = 0; b < model.n_block(); ++b) {
    if (engine.plan().kept({b})) {
      bytes += model.block({b}).file_bytes;
    }
  }
  return bytes + static_cast<uint64_t>(engine.plan().kept_attention()) * static_cast<uint64_t>(cells) *
                     memory.kv.bytes_per_cell();
}

Result<double> TimePrefill(Engine& engine, std::span<const int32_t> tokens) {
  const auto start = Clock::now();
  const Status status = DecodeTokens(engine, tokens, false);
  const double ms = 1000 * SecondsSince(start);
  engine.RemoveSequence(kSequence);
  ESPALIER_RETURN_IF_ERROR(status);
  return ms;
}

Result<double> TimeDecode(Engine& engine, std::span<const int32_t> prefix, std::span<const int32_t> tokens) {
  Status status = DecodeTokens(engine, prefix, false);
  const auto start = Clock::now();
  if (status.ok()) {
    status = DecodeTokens(engine, tokens, true);
  }
  const double ms = 1000 * SecondsSince(start);
  engine.RemoveSequence(kSequence);
  ESPALIER_RETURN_IF_ERROR(status);
  return ms;
}

std::vector<int32_t> RandomTokens(int64_t n, int32_t n_vocab, uint64_t seed) {
  std::mt19937_64 random(seed);
  std::vector<int32_t> tokens;
  for (int64_t i = 0; i < n; ++i) {
    tokens.push_back(static_cast<int32_t>(random() % static_cast<uint64_t>(n_vocab)));
  }
  return tokens;
}

Quartiles QuartilesOf(std::vector<double> values) {
  ESPALIER_CHECK(!values.empty());
  std::sort(values.begin(), values.end());
  const auto at = [&](double share) {
    const double place = share * static_cast<double>(values.size() - 1);
    const auto below = static_cast<size_t>(std::floor(place));
    const size_t above = std::min(below + 1, values.size() - 1);
    return values[below] + (place - static_cast<double>(below)) * (values[above] - values[below]);
  };
  return {at(0.25), at(0.5), at(0.75)};
}

double ResidencyCycle::anonymous_share() const {
  const double fell = static_cast<double>(before.anonymous_bytes) - static_cast<double>(released.anonymous_bytes);
  return fell / static_cast<double>(managed_released());
}

double ResidencyCycle::restore_bytes_per_second() const {
  return restore.load_ms > 0 ? static_cast<double>(restore.loaded_bytes) * 1000 / restore.load_ms : 0;
}

Result<std::vector<ResidencyCycle>> MeasureResidency(Engine& engine, int cycles, uint64_t process_bytes) {
  const Plan all = engine.plan();
  const Plan none = Plan::Nothing(all.n_layer());
  const std::vector<int32_t> token = {0};
  std::vector<ResidencyCycle> measured;
  for (int i = 0; i < cycles; ++i) {
    ResidencyCycle cycle;
    ESPALIER_RETURN_IF_ERROR(TimePrefill(engine, token).status());
    ESPALIER_ASSIGN_OR_RETURN(cycle.before, TakeMemoryAccount(engine, process_bytes));
    ESPALIER_ASSIGN_OR_RETURN(cycle.release, engine.Apply(none));
    ESPALIER_ASSIGN_OR_RETURN(cycle.released, TakeMemoryAccount(engine, process_bytes));
    ESPALIER_ASSIGN_OR_RETURN(cycle.restore, engine.Apply(all));
    const double build_ms = engine.statistics().build_ms;
    ESPALIER_RETURN_IF_ERROR(TimePrefill(engine, token).status());
    cycle.rebuild_ms = engine.statistics().build_ms - build_ms;
    ESPALIER_ASSIGN_OR_RETURN(cycle.restored, TakeMemoryAccount(engine, process_bytes));
    measured.push_back(cycle);
  }
  return measured;
}

}  // namespace espalier

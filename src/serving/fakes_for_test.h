// An engine without a model that holds many sequences, for tests of what batches them: what it answers depends on every
// token of a sequence, so a token lost, doubled or swapped anywhere changes the answer; whoever knows the prompt can
// work the answer out alone.
#pragma once

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <span>
#include <utility>
#include <vector>

#include "control/fakes_for_test.h"
#include "policy/data_free.h"
#include "runtime/engine.h"
#include "serving/engine_loop.h"
#include "text/sampler.h"

namespace espalier {

// What a prefix comes to: a number that every one of its tokens has changed.
inline uint64_t Mixed(uint64_t hash, uint64_t value) {
  hash = (hash ^ (value + 0x9e3779b97f4a7c15ULL)) * 0xbf58476d1ce4e5b9ULL;
  hash = (hash ^ (hash >> 29)) * 0x94d049bb133111ebULL;
  return hash ^ (hash >> 32);
}

inline uint64_t HashOf(std::span<const int32_t> tokens) {
  uint64_t hash = 1;
  for (const int32_t token : tokens) {
    hash = Mixed(hash, static_cast<uint64_t>(token));
  }
  return hash;
}

inline constexpr int kFakeVocabulary = 16;  // FakeTokenizer's

inline std::vector<float> FakeLogits(uint64_t hash) {
  std::vector<float> logits(kFakeVocabulary);
  for (size_t v = 0; v < logits.size(); ++v) {
    logits[v] = static_cast<float>(Mixed(hash, v) >> 44) / 65536.0f;  // 0 to 16
  }
  logits.back() -= 7;  // answers that end of themselves are 40 tokens long or so
  return logits;
}

// The likeliest token, had it not been for what was accepted: a sampler that hears of a token twice, or never, or of
// the prompt again, chooses otherwise.
class HistorySampler final : public Sampler {
 public:
  int32_t Sample(std::span<const float> logits) override {
    size_t best = 0;
    float highest = -1e9f;
    for (size_t v = 0; v < logits.size(); ++v) {
      const float score = logits[v] + static_cast<float>(Mixed(history_, v) >> 44) / 262144.0f;
      if (score > highest) {
        best = v;
        highest = score;
      }
    }
    return static_cast<int32_t>(best);
  }
  Status Accept(int32_t token) override {
    history_ = Mixed(history_, static_cast<uint64_t>(token));
    return refuses && *refuses == ++accepted_ ? InvalidArgument("the grammar does not allow this") : Status::Ok();
  }
  void AcceptPrompt(std::span<const int32_t> tokens) override { history_ = Mixed(history_, HashOf(tokens)); }
  uint32_t seed() const override { return 1; }

  std::optional<int> refuses;  // so many-th token it does not accept

 private:
  uint64_t history_ = 7;
  int accepted_ = 0;
};

inline Result<std::unique_ptr<Sampler>> MakeHistorySampler() {
  return std::unique_ptr<Sampler>(std::make_unique<HistorySampler>());
}

struct LoneAnswer {
  std::vector<int32_t> tokens;
  FinishReason reason = FinishReason::kLength;
};

// What an engine that does nothing else answers.
inline LoneAnswer AnswerAlone(std::vector<int32_t> tokens, int64_t max_tokens) {
  LoneAnswer answer;
  HistorySampler sampler;
  sampler.AcceptPrompt(tokens);
  while (static_cast<int64_t>(answer.tokens.size()) < max_tokens) {
    const int32_t token = sampler.Sample(FakeLogits(HashOf(tokens)));
    if (token == kFakeVocabulary - 1) {
      answer.reason = FinishReason::kEndOfText;
      break;
    }
    (void)sampler.Accept(token);
    tokens.push_back(token);
    answer.tokens.push_back(token);
  }
  return answer;
}

// Times by hand. Thread rule: any thread.
class VirtualClock final : public LoopClock {
 public:
  Time Now() const override { return Time(std::chrono::nanoseconds(now_.load())); }
  void Advance(double ms) { now_ += static_cast<int64_t>(ms * 1e6); }

 private:
  std::atomic<int64_t> now_ = 3'600'000'000'000;
};

// Blocks are numbers of bytes; every sequence has its rows, block by block, as runtime/kv_cache.h says.
class ManySequencesEngine final : public Engine {
 public:
  static constexpr uint64_t kAttentionBytes = 1000;
  static constexpr uint64_t kFfnBytes = 3000;
  static constexpr uint64_t kGlobalBytes = 5000;
  static constexpr uint64_t kCellBytes = 8;  // of one attention block

  ManySequencesEngine(int n_layer, int64_t capacity, uint64_t staging_bytes = 0)
      : plan_(Plan::Dense(n_layer)), capacity_(capacity) {
    for (int b = 0; b < 2 * n_layer; ++b) {
      memory_.block_bytes.push_back(BlockId{b}.is_attention() ? kAttentionBytes : kFfnBytes);
      memory_.block_staging_bytes.push_back(staging_bytes);
    }
    memory_.global_bytes = kGlobalBytes;
    memory_.kv = {.key_bytes_per_cell = kCellBytes / 2,
                  .value_bytes_per_cell = kCellBytes / 2,
                  .n_planes = 2,
                  .page_bytes = 1,
                  .capacity = capacity};
  }

  const Model& model() const override { std::abort(); }
  const EngineOptions& options() const override { return options_; }
  const MemoryModel& memory_model() const override { return memory_; }
  const Plan& plan() const override { return plan_; }

  Result<Transition> Apply(const Plan& plan) override {
    Transition transition;
    const uint64_t before = memory_in_use().total();
    for (int b = 0; b < plan.n_block(); ++b) {
      if (plan_.kept({b}) && !plan.kept({b})) {
        ++transition.n_released;
        plan_.Drop({b});
        LoseRows({b});
      }
    }
    transition.released_bytes = before - memory_in_use().total();
    transition.peak_bytes = before;
    for (int b = 0; b < plan.n_block(); ++b) {
      if (!plan_.kept({b}) && plan.kept({b})) {
        if (failing_loads > 0) {
          --failing_loads;
          return IoError(fmt::format("block {}: read failed", BlockName({b})));
        }
        ++transition.n_loaded;
        transition.loaded_bytes += memory_.block_bytes[static_cast<size_t>(b)];
        plan_.Restore({b});
      }
    }
    transition.peak_bytes = std::max(transition.peak_bytes, memory_in_use().total());
    ++n_applied;
    if (transition.n_loaded > 0 && on_load) {
      on_load();
    }
    return transition;
  }

  MemoryInUse memory_in_use() const override {
    MemoryInUse held;
    held.weight_bytes = PredictFootprint(memory_, plan_, Workload::Uniform(1, 0)).weight_bytes;
    for (const auto& [id, sequence] : sequences_) {
      const auto rows = static_cast<uint64_t>(plan_.kept_attention()) - SkippedBlocks(id).size();
      held.kv_bytes += rows * kCellBytes * sequence.cells.size();
    }
    return held;
  }
  uint64_t reclaimable_bytes() const override { return 0; }

  Status Decode(std::span<const BatchToken> batch, const LogitsSink& sink) override {
    batches.emplace_back(batch.begin(), batch.end());
    if (on_decode) {
      on_decode(batch);
    }
    if (failing_decodes > 0) {
      --failing_decodes;
      return IoError("the device is lost");
    }
    if (static_cast<int64_t>(batch.size()) > capacity_ - used_cells()) {
      ++overfull_decodes;
      return OutOfBudget(fmt::format("KV cache: {} cells wanted, {} are free", batch.size(), capacity_ - used_cells()));
    }
    int64_t row = 0;
    for (const BatchToken& token : batch) {
      Sequence& sequence = sequences_[token.sequence];
      const uint64_t before = sequence.cells.empty() ? 1 : sequence.cells.back().hash;
      sequence.cells.push_back({Mixed(before, static_cast<uint64_t>(token.token)), plan_});
      for (int b = 0; b < plan_.n_block(); ++b) {
        if (BlockId{b}.is_attention() && !plan_.kept({b})) {
          sequence.missing.insert(b);
        }
      }
      ++computed_tokens;
      if (token.want_logits) {
        ++logits_rows;
        sink(row++, FakeLogits(sequence.cells.back().hash));
      }
    }
    most_used_cells = std::max(most_used_cells, used_cells());
    most_sequences = std::max(most_sequences, static_cast<int>(sequences_.size()));
    return Status::Ok();
  }

  int64_t SequenceLength(SequenceId id) const override {
    const auto found = sequences_.find(id);
    return found == sequences_.end() ? 0 : static_cast<int64_t>(found->second.cells.size());
  }
  void RemoveSequence(SequenceId id) override { sequences_.erase(id); }
  void TruncateSequence(SequenceId id, int64_t length) override {
    Sequence& sequence = sequences_.at(id);
    if (length < SequenceLength(id)) {
      sequence.cells.resize(static_cast<size_t>(length));
    }
    // Only the loop takes sequences over, and only what the present plan has computed may be.
    const bool foreign = std::any_of(sequence.cells.begin(), sequence.cells.end(),
                                     [&](const Cell& cell) { return !(cell.plan == plan_); });
    foreign_takeovers += foreign ? 1 : 0;
    ++takeovers;
  }
  Status SetSequencePlan(SequenceId, const Plan&) override { return Status::Ok(); }
  std::vector<BlockId> SkippedBlocks(SequenceId id) const override {
    std::vector<BlockId> skipped;
    if (const auto found = sequences_.find(id); found != sequences_.end()) {
      for (const int b : found->second.missing) {
        if (plan_.kept({b})) {
          skipped.push_back({b});
        }
      }
    }
    return skipped;
  }
  Status Reprefill(SequenceId) override { return Unsupported("the loop computes sequences again itself"); }
  int64_t used_cells() const override {
    int64_t used = 0;
    for (const auto& [id, sequence] : sequences_) {
      used += static_cast<int64_t>(sequence.cells.size());
    }
    return used;
  }
  int64_t capacity_cells() const override { return capacity_; }
  void RequestAbort() override {}
  const DecodeStatistics& statistics() const override { return statistics_; }

  size_t n_sequences() const { return sequences_.size(); }

  std::vector<std::vector<BatchToken>> batches;  // of every Decode, failed ones, too
  std::function<void(std::span<const BatchToken>)> on_decode;
  std::function<void()> on_load;  // after blocks came
  int failing_decodes = 0;        // so many to come
  int failing_loads = 0;
  int n_applied = 0;
  int overfull_decodes = 0;
  int takeovers = 0;
  int foreign_takeovers = 0;  // of what was computed under another plan
  int64_t computed_tokens = 0;
  int64_t logits_rows = 0;
  int64_t most_used_cells = 0;
  int most_sequences = 0;

 private:
  struct Cell {
    uint64_t hash = 0;  // of the tokens up to this one
    Plan plan;          // under which it was computed
  };
  struct Sequence {
    std::vector<Cell> cells;
    std::set<int> missing;  // attention blocks without all its rows
  };
  void LoseRows(BlockId block) {
    for (auto& [id, sequence] : sequences_) {
      if (block.is_attention() && !sequence.cells.empty()) {
        sequence.missing.insert(block.index);
      }
    }
  }

  EngineOptions options_ = [] {
    EngineOptions options;
    options.max_sequences = 20;
    return options;
  }();
  MemoryModel memory_;
  Plan plan_;
  int64_t capacity_;
  std::map<SequenceId, Sequence> sequences_;
  DecodeStatistics statistics_;
};

// Data-free, but nobody is served with fewer blocks than `floor`.
class FloorPolicy final : public Policy {
 public:
  explicit FloorPolicy(int floor) : floor_(floor) {}
  const char* name() const override { return "floor"; }
  Result<Decision> Decide(const Observation& observation) const override {
    ++asked;
    ESPALIER_ASSIGN_OR_RETURN(Decision decision, policy_.Decide(observation));
    if (Kept(decision.plan) < floor_) {
      return OutOfBudget(fmt::format("{} blocks, {} are the least", Kept(decision.plan), floor_));
    }
    return decision;
  }
  std::vector<BlockId> DropOrder(int n_layer) const override { return policy_.DropOrder(n_layer); }
  int floor() const { return floor_; }
  static int Kept(const Plan& plan) { return plan.kept_attention() + plan.kept_ffn(); }

  mutable std::atomic<int> asked = 0;

 private:
  const int floor_;
  DataFreePolicy policy_;
};

}  // namespace espalier

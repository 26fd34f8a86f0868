// An engine without a model, for tests of what steers it: blocks are numbers of bytes, logits are all alike.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "runtime/engine.h"
#include "text/sampler.h"
#include "text/tokenizer.h"

namespace espalier {

class FakeEngine final : public Engine {
 public:
  static constexpr uint64_t kAttentionBytes = 1000;
  static constexpr uint64_t kFfnBytes = 3000;
  static constexpr uint64_t kGlobalBytes = 5000;

  FakeEngine(int n_layer, int64_t capacity) : plan_(Plan::Dense(n_layer)), capacity_(capacity) {
    for (int b = 0; b < 2 * n_layer; ++b) {
      memory_.block_bytes.push_back(BlockId{b}.is_attention() ? kAttentionBytes : kFfnBytes);
      memory_.block_staging_bytes.push_back(0);
    }
    memory_.global_bytes = kGlobalBytes;
    memory_.kv = {
        .key_bytes_per_cell = 1, .value_bytes_per_cell = 1, .n_planes = 2, .page_bytes = 1, .capacity = capacity};
  }

  const Model& model() const override { std::abort(); }
  const EngineOptions& options() const override { return options_; }
  const MemoryModel& memory_model() const override { return memory_; }
  const Plan& plan() const override { return plan_; }

  Result<Transition> Apply(const Plan& plan) override {
    applied.push_back(plan);
    if (fail_next_apply) {
      return IoError("block a0: read failed");
    }
    Transition transition;
    transition.peak_bytes = memory_in_use().total();
    for (int b = 0; b < plan.n_block(); ++b) {
      const bool returns = plan.kept({b}) && !plan_.kept({b});
      const bool leaves = !plan.kept({b}) && plan_.kept({b});
      transition.n_loaded += returns ? 1 : 0;
      transition.n_released += leaves ? 1 : 0;
      if (returns && BlockId{b}.is_attention() && length_ > 0) {
        skipped_.push_back({b});
      }
      std::erase_if(skipped_, [&](BlockId block) { return leaves && block.index == b; });
    }
    plan_ = plan;
    transition.peak_bytes = std::max(transition.peak_bytes, memory_in_use().total());
    return transition;
  }

  MemoryInUse memory_in_use() const override {
    const Footprint footprint = PredictFootprint(memory_, plan_, Workload::Uniform(1, length_));
    return {.weight_bytes = footprint.weight_bytes, .kv_bytes = footprint.kv_bytes};
  }

  uint64_t reclaimable_bytes() const override { return 0; }

  Status Decode(std::span<const BatchToken> batch, const LogitsSink& sink) override {
    if (abort_requested_) {
      abort_requested_ = false;
      return Aborted("stopped on request");
    }
    decoded.push_back(static_cast<int64_t>(batch.size()));
    length_ += static_cast<int64_t>(batch.size());
    int64_t row = 0;
    const std::vector<float> logits(16, 0.0f);
    for (const BatchToken& token : batch) {
      if (token.want_logits) {
        sink(row++, logits);
      }
    }
    return Status::Ok();
  }
  int64_t SequenceLength(SequenceId) const override { return length_; }
  void RemoveSequence(SequenceId) override { length_ = 0; }
  void TruncateSequence(SequenceId, int64_t length) override { length_ = length; }
  Status SetSequencePlan(SequenceId, const Plan&) override { return Status::Ok(); }
  std::vector<BlockId> SkippedBlocks(SequenceId) const override { return skipped_; }
  Status Reprefill(SequenceId) override {
    ++n_reprefills;
    skipped_.clear();
    return Status::Ok();
  }
  int64_t used_cells() const override { return length_; }
  int64_t capacity_cells() const override { return capacity_; }
  void RequestAbort() override { abort_requested_ = true; }
  const DecodeStatistics& statistics() const override { return statistics_; }

  std::vector<Plan> applied;     // every plan that was asked for
  std::vector<int64_t> decoded;  // tokens of every Decode
  int n_reprefills = 0;
  bool fail_next_apply = false;

 private:
  EngineOptions options_ = [] {
    EngineOptions options;
    options.max_sequences = 64;
    return options;
  }();
  MemoryModel memory_;
  Plan plan_;
  int64_t capacity_;
  int64_t length_ = 0;
  std::vector<BlockId> skipped_;
  bool abort_requested_ = false;
  DecodeStatistics statistics_;
};

// Sixteen tokens, of which 15 ends a generation; token 3 reads "3 ".
class FakeTokenizer final : public Tokenizer {
 public:
  Result<std::vector<int32_t>> Encode(std::string_view, bool, bool) const override { return std::vector<int32_t>(); }
  std::string Piece(int32_t token, bool) const override { return std::to_string(token) + " "; }
  std::string Decode(std::span<const int32_t>) const override { return ""; }
  int32_t n_vocab() const override { return 16; }
  int32_t bos() const override { return -1; }
  int32_t eos() const override { return 15; }
  bool adds_bos() const override { return false; }
  bool is_end_of_generation(int32_t token) const override { return token == 15; }
  std::span<const int32_t> end_of_generation_tokens() const override {
    static constexpr int32_t kTokens[] = {15};
    return kTokens;
  }
  const void* native_vocab() const override { return nullptr; }
};

// 0, 1, 2, ..., or whatever `next` says.
class FakeSampler final : public Sampler {
 public:
  int32_t Sample(std::span<const float>) override { return next(n_++); }
  Status Accept(int32_t) override { return Status::Ok(); }
  void AcceptPrompt(std::span<const int32_t> tokens) override { prompt_tokens = tokens.size(); }
  uint32_t seed() const override { return 1; }

  std::function<int32_t(int)> next = [](int n) { return n % 10; };
  size_t prompt_tokens = 0;

 private:
  int n_ = 0;
};

}  // namespace espalier

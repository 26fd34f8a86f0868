// An engine whose logits can be worked out by hand, for tests of what is made of logits.
//
// Four tokens, one layer (blocks a0, f0). After token t the model expects (t + 1) % 4, with a logit of
//   3 - (blocks that token t itself skipped) - 0.25 * (mean blocks that the tokens before it skipped)
// and 0 for the other three tokens. A token skips what is not resident, what its sequence's plan leaves out, and
// attention where a token before it has no rows.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <memory>
#include <optional>
#include <vector>

#include "eval/windows.h"
#include "runtime/engine.h"
#include "support/gguf_bytes.h"

namespace espalier::test {

inline std::shared_ptr<const Model> TinyModel() {
  auto gguf = GgufFile::Parse(Source(TinyLlama().Build()));
  EXPECT_TRUE(gguf.ok()) << gguf.status().message();
  auto model = Model::FromGguf(*gguf);
  EXPECT_TRUE(model.ok()) << model.status().message();
  return *model;
}

class FakeEngine final : public Engine {
 public:
  explicit FakeEngine(int64_t capacity = 1024, int n_ubatch = 8) : model_(TinyModel()), capacity_(capacity) {
    options_.n_ubatch = n_ubatch;
  }

  static std::vector<float> Row(int32_t token, double skipped_now, double skipped_before) {
    std::vector<float> logits(4, 0.0f);
    logits[static_cast<size_t>((token + 1) % 4)] = static_cast<float>(3 - skipped_now - 0.25 * skipped_before);
    return logits;
  }

  const Model& model() const override { return *model_; }
  const EngineOptions& options() const override { return options_; }
  const MemoryModel& memory_model() const override { return memory_model_; }
  const Plan& plan() const override { return plan_; }
  Result<Transition> Apply(const Plan& plan) override {
    ++n_apply_;
    if (n_apply_ == fail_apply_at_) {
      return IoError("disk gone");
    }
    Transition transition;
    for (int i = 0; i < plan_.n_block(); ++i) {
      transition.n_released += plan_.kept({i}) && !plan.kept({i});
      transition.n_loaded += !plan_.kept({i}) && plan.kept({i});
    }
    transition.released_bytes = 100 * static_cast<uint64_t>(transition.n_released);
    transition.loaded_bytes = 100 * static_cast<uint64_t>(transition.n_loaded);
    transition.peak_bytes = 1000;
    transition.release_ms = transition.n_released;
    transition.load_ms = 2 * transition.n_loaded;
    plan_ = plan;
    if (!plan_.kept(BlockId::Attention(0))) {
      for (auto& [id, sequence] : sequences_) {
        for (Cell& cell : sequence.cells) {
          cell.has_rows = false;
        }
      }
    }
    return transition;
  }
  MemoryInUse memory_in_use() const override {
    MemoryInUse memory;
    memory.weight_bytes = 200;
    memory.kv_bytes = static_cast<uint64_t>(used_cells());
    return memory;
  }

  uint64_t reclaimable_bytes() const override { return 0; }

  Status Decode(std::span<const BatchToken> batch, const LogitsSink& sink) override {
    batches_.emplace_back(batch.begin(), batch.end());
    if (used_cells() + static_cast<int64_t>(batch.size()) > capacity_) {
      return OutOfBudget("fake: no cells");
    }
    int64_t row = 0;
    for (const BatchToken& token : batch) {
      Sequence& sequence = sequences_[token.sequence];
      const std::vector<float> logits = Append(&sequence, token.token);
      if (token.want_logits) {
        sink(row++, logits);
      }
    }
    return Status::Ok();
  }
  int64_t SequenceLength(SequenceId id) const override {
    const auto found = sequences_.find(id);
    return found == sequences_.end() ? 0 : static_cast<int64_t>(found->second.cells.size());
  }
  void RemoveSequence(SequenceId id) override { sequences_.erase(id); }
  void TruncateSequence(SequenceId id, int64_t length) override {
    auto& cells = sequences_.at(id).cells;
    cells.resize(std::min(cells.size(), static_cast<size_t>(length)));
  }
  Status SetSequencePlan(SequenceId id, const Plan& plan) override {
    sequences_[id].plan = plan;
    return Status::Ok();
  }
  std::vector<BlockId> SkippedBlocks(SequenceId id) const override {
    const auto& cells = sequences_.at(id).cells;
    const bool complete = std::all_of(cells.begin(), cells.end(), [](const Cell& cell) { return cell.has_rows; });
    return complete || !plan_.kept(BlockId::Attention(0)) ? std::vector<BlockId>() : std::vector{BlockId::Attention(0)};
  }
  Status Reprefill(SequenceId id) override {
    Sequence& sequence = sequences_.at(id);
    std::vector<Cell> old;
    std::swap(old, sequence.cells);
    for (const Cell& cell : old) {
      Append(&sequence, cell.token);
    }
    return Status::Ok();
  }
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

  // What the tests look at and turn.
  const std::vector<std::vector<BatchToken>>& batches() const { return batches_; }
  bool has_sequences() const { return !sequences_.empty(); }
  void FailApplyAt(int nth) { fail_apply_at_ = nth; }
  void AnswerNanAfter(int32_t token) { nan_after_ = token; }

 private:
  struct Cell {
    int32_t token = 0;
    int skipped = 0;
    bool has_rows = false;
  };
  struct Sequence {
    std::optional<Plan> plan;
    std::vector<Cell> cells;
  };

  std::vector<float> Append(Sequence* sequence, int32_t token) const {
    double before = 0;
    bool complete = true;
    for (const Cell& cell : sequence->cells) {
      before += cell.skipped;
      complete = complete && cell.has_rows;
    }
    before /= std::max<double>(1, static_cast<double>(sequence->cells.size()));
    const auto runs = [&](BlockId block) {
      return plan_.kept(block) && (!sequence->plan || sequence->plan->kept(block));
    };
    const bool attention = runs(BlockId::Attention(0)) && complete;
    const int skipped = (attention ? 0 : 1) + (runs(BlockId::Ffn(0)) ? 0 : 1);
    sequence->cells.push_back({token, skipped, attention});
    auto row = Row(token, skipped, before);
    if (token == nan_after_) {
      row[2] = std::numeric_limits<float>::quiet_NaN();
    }
    return row;
  }

  std::shared_ptr<const Model> model_;
  EngineOptions options_ = [] {
    EngineOptions options;
    options.max_sequences = 64;
    return options;
  }();
  MemoryModel memory_model_;
  Plan plan_ = Plan::Dense(1);
  int64_t capacity_;
  std::map<SequenceId, Sequence> sequences_;
  std::vector<std::vector<BatchToken>> batches_;
  DecodeStatistics statistics_;
  int n_apply_ = 0;
  int fail_apply_at_ = -1;
  int32_t nan_after_ = -1;
};

// `count` windows of pseudo-random tokens 0..3.
inline Windows SomeWindows(Protocol protocol, int64_t window_tokens, int64_t count) {
  Windows windows;
  windows.protocol = protocol;
  windows.corpus = "numbers";
  windows.window_tokens = window_tokens;
  windows.first_target = protocol == Protocol::kLlama ? window_tokens / 2 + 1 : 1;
  windows.text_tokens = window_tokens * count;
  uint32_t state = 7;
  for (int64_t i = 0; i < window_tokens * count; ++i) {
    state = state * 1664525U + 1013904223U;
    windows.tokens.push_back(static_cast<int32_t>(state >> 30));
  }
  return windows;
}

// -ln p(token) of a row, the plain way.
inline double PlainNll(const std::vector<float>& row, int32_t token) {
  double sum = 0;
  for (const float logit : row) {
    sum += std::exp(static_cast<double>(logit));
  }
  return std::log(sum) - row[static_cast<size_t>(token)];
}

}  // namespace espalier::test

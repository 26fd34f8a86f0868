#include "memory/account.h"

#include <gtest/gtest.h>

#include <cmath>
#include <map>

namespace espalier {
namespace {

// Two layers, of whose attention some sequences have no rows.
class RowsMissing final : public Engine {
 public:
  RowsMissing() {
    memory_.block_bytes = {1000, 3000, 1000, 3000};
    memory_.block_staging_bytes = {700, 700, 700, 700};
    memory_.global_bytes = 5000;
    memory_.compute_bytes = 11;
    memory_.kv = {.key_bytes_per_cell = 2, .value_bytes_per_cell = 2, .n_planes = 2, .page_bytes = 1, .capacity = 1000};
  }
  const Model& model() const override { std::abort(); }
  const EngineOptions& options() const override { return options_; }
  const MemoryModel& memory_model() const override { return memory_; }
  const Plan& plan() const override { return plan_; }
  Result<Transition> Apply(const Plan&) override { return Transition(); }
  MemoryInUse memory_in_use() const override { return {}; }
  uint64_t reclaimable_bytes() const override { return 0; }
  Status Decode(std::span<const BatchToken>, const LogitsSink&) override { return Status::Ok(); }
  int64_t SequenceLength(SequenceId id) const override { return lengths.contains(id) ? lengths.at(id) : 0; }
  void RemoveSequence(SequenceId) override {}
  void TruncateSequence(SequenceId, int64_t) override {}
  Status SetSequencePlan(SequenceId, const Plan&) override { return Status::Ok(); }
  std::vector<BlockId> SkippedBlocks(SequenceId id) const override {
    return skipped.contains(id) ? skipped.at(id) : std::vector<BlockId>();
  }
  Status Reprefill(SequenceId) override { return Status::Ok(); }
  int64_t used_cells() const override {
    int64_t used = 0;
    for (const auto& [id, length] : lengths) {
      used += length;
    }
    return used;
  }
  int64_t capacity_cells() const override { return 1000; }
  void RequestAbort() override {}
  const DecodeStatistics& statistics() const override { return statistics_; }

  std::map<SequenceId, int64_t> lengths;
  std::map<SequenceId, std::vector<BlockId>> skipped;

 private:
  EngineOptions options_ = [] {
    EngineOptions options;
    options.max_sequences = 64;
    return options;
  }();
  MemoryModel memory_;
  Plan plan_ = Plan::Dense(2);
  DecodeStatistics statistics_;
};

TEST(PredictNow, LeavesOutTheRowsThatEachSequenceDoesNotHave) {
  RowsMissing engine;
  engine.lengths = {{3, 100}, {7, 20}, {9, 5}};
  const SequenceId all[] = {3, 7, 9};
  const uint64_t both_layers = 2 * 125 * 4;
  EXPECT_EQ(PredictNow(engine, all).kv_bytes, both_layers);
  EXPECT_EQ(PredictNow(engine, all).managed_bytes(), 13'000 + 11 + both_layers);
  EXPECT_EQ(PredictNow(engine, all).staging_bytes, 0u) << "at rest";
  engine.skipped = {{3, {BlockId::Attention(0)}}, {7, {BlockId::Attention(0), BlockId::Attention(1)}}};
  EXPECT_EQ(PredictNow(engine, all).kv_bytes, both_layers - (100 + 20) * 4 - 20 * 4);
  const SequenceId some[] = {7, 42};
  EXPECT_EQ(PredictNow(engine, some).kv_bytes, 0u);
  EXPECT_EQ(PredictNow(engine, {}).kv_bytes, 0u);
}

TEST(PredictNow, AloneIsOfSequenceZero) {
  RowsMissing engine;
  engine.lengths = {{0, 100}};
  engine.skipped = {{0, {BlockId::Attention(1)}}};
  EXPECT_EQ(PredictNow(engine).kv_bytes, 100u * 4);
}

TEST(MemoryAccount, UsedIsManagedPlusProcess) {
  MemoryAccount account;
  account.managed = {.weight_bytes = 100, .kv_bytes = 20, .compute_bytes = 3, .staging_bytes = 4};
  account.process_bytes = 50;
  account.page_cache_bytes = 1000;
  account.file_mapped_bytes = 7;
  EXPECT_EQ(account.used_bytes(), 177u);
  EXPECT_EQ(account.reclaimable_bytes(), 1007u);
}

TEST(MemoryAccount, MeasuredManagedIsGrowthSinceTheFirstBlock) {
  MemoryAccount account;
  account.process_bytes = 50;
  account.anonymous_bytes = 180;
  EXPECT_EQ(account.measured_managed_bytes(), 130u);
  account.anonymous_bytes = 40;  // the heap shrank meanwhile
  EXPECT_EQ(account.measured_managed_bytes(), 0u);
}

TEST(PredictionError, IsRelativeToThePrediction) {
  EXPECT_EQ(PredictionError(200, 202), 0.01);
  EXPECT_EQ(PredictionError(200, 198), -0.01);
  EXPECT_EQ(PredictionError(0, 0), 0);
  EXPECT_TRUE(std::isinf(PredictionError(0, 1)));
}

}  // namespace
}  // namespace espalier

#include "runtime/engine.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>

#include "base/bytes.h"
#include "base/check.h"
#include "base/stopwatch.h"
#include "runtime/device.h"
#include "runtime/engine_setup.h"
#include "runtime/executor.h"
#include "runtime/kv_cache.h"
#include "runtime/sequences.h"
#include "runtime/sub_batch.h"
#include "runtime/weights.h"

namespace espalier {
namespace {

class EngineImpl final : public Engine {
 public:
  EngineImpl(std::shared_ptr<const Model> model, const EngineOptions& options, std::unique_ptr<Device> device)
      : model_(std::move(model)),
        options_(options),
        device_(std::move(device)),
        plan_(Plan::Dense(model_->n_layer())),
        kv_(model_->hparams(), device_.get(), KvOptionsOf(options_)),
        weights_(model_, device_.get(), WeightOptionsOf(options_)),
        executor_(model_->hparams(), device_.get(), LimitsOf(options_, kv_.geometry())),
        sequences_(model_->n_layer(), &kv_) {
    options_.n_threads = device_->n_threads();
    for (int b = 0; b < model_->n_block(); ++b) {
      plan_.Drop({b});
    }
  }

  // The order keeps the peak at what is held at rest plus staging.
  Status Start(const Plan& plan) {
    const ComputeBytes compute = executor_.Measure(weights_.MeasuringTensors(), KvOptionsOf(options_));
    memory_model_ = AssembleMemoryModel(weights_, kv_, compute, model_->n_block());
    ESPALIER_RETURN_IF_ERROR(executor_.Reserve(weights_.MeasuringTensors(), KvOptionsOf(options_)));
    ESPALIER_RETURN_IF_ERROR(weights_.LoadGlobals());
    return Apply(plan).status();
  }

  const Model& model() const override { return *model_; }
  const EngineOptions& options() const override { return options_; }
  const MemoryModel& memory_model() const override { return memory_model_; }
  const Plan& plan() const override { return plan_; }
  int64_t used_cells() const override { return kv_.used(); }
  int64_t capacity_cells() const override { return kv_.capacity(); }
  void RequestAbort() override { device_->RequestAbort(); }
  const DecodeStatistics& statistics() const override { return executor_.statistics(); }

  Result<Transition> Apply(const Plan& plan) override;
  MemoryInUse memory_in_use() const override;
  uint64_t reclaimable_bytes() const override { return weights_.page_cache_bytes(); }

  Status Decode(std::span<const BatchToken> batch, const LogitsSink& sink) override;
  int64_t SequenceLength(SequenceId id) const override;
  void RemoveSequence(SequenceId id) override;
  void TruncateSequence(SequenceId id, int64_t length) override;
  Status SetSequencePlan(SequenceId id, const Plan& plan) override;
  std::vector<BlockId> SkippedBlocks(SequenceId id) const override;
  Status Reprefill(SequenceId id) override;

 private:
  uint64_t HeldAtRest() const { return weights_.resident_bytes() + kv_.committed_bytes() + ComputeHeld(); }
  uint64_t ComputeHeld() const { return executor_.graph_bytes() + memory_model_.work_bytes + memory_model_.host_bytes; }

  void ReleaseBlock(BlockId block);
  Status LoadBlocks(std::span<const BlockId> blocks);
  Status CheckBatch(std::span<const BatchToken> batch) const;
  // The rows of the longest run of tokens from the front of `batch` that fits one graph.
  RowPlan NextRows(std::span<const BatchToken> batch, size_t& n);
  Status RunSubBatch(std::span<const BatchToken> batch, const RowPlan& rows, int64_t first_row, const LogitsSink& sink);
  std::vector<PlacedToken> Place(std::span<const BatchToken> batch, const RowPlan& rows);

  std::shared_ptr<const Model> model_;
  EngineOptions options_;
  std::unique_ptr<Device> device_;
  Plan plan_;          // what is resident
  int64_t epoch_ = 0;  // of residency
  MemoryModel memory_model_;
  KvCache kv_;
  WeightStore weights_;
  Executor executor_;  // after weights_ and kv_: its graphs name their tensors
  SequenceTable sequences_;
};

void EngineImpl::ReleaseBlock(BlockId block) {
  weights_.Release(block);
  if (block.is_attention()) {
    kv_.RemoveLayer(block.layer());
    sequences_.LoseRows(block.layer());
  }
  plan_.Drop(block);
}

Status EngineImpl::LoadBlocks(std::span<const BlockId> blocks) {
  Status status;
  for (const BlockId block : blocks) {
    if (status.ok() && block.is_attention()) {
      status = kv_.AddLayer(block.layer());
    }
  }
  if (status.ok()) {
    status = weights_.Load(blocks);
  }
  for (const BlockId block : blocks) {
    if (weights_.resident(block)) {
      plan_.Restore(block);
    } else {
      ReleaseBlock(block);  // its KV planes, if it got that far
    }
  }
  return status;
}

Result<Transition> EngineImpl::Apply(const Plan& plan) {
  ESPALIER_RETURN_IF_ERROR(CheckPlan(*model_, plan));
  Transition transition;
  transition.peak_bytes = HeldAtRest();
  if (plan == plan_) {
    return transition;  // and the graph can be run again
  }
  ++epoch_;
  executor_.Invalidate();
  Stopwatch watch;
  std::vector<BlockId> wanted;
  uint64_t staging = 0;
  for (int b = 0; b < plan.n_block(); ++b) {
    if (plan_.kept({b}) && !plan.kept({b})) {
      const uint64_t before = HeldAtRest();
      ReleaseBlock({b});
      transition.released_bytes += before - HeldAtRest();
      ++transition.n_released;
    } else if (!plan_.kept({b}) && plan.kept({b})) {
      wanted.push_back({b});
      transition.loaded_bytes += weights_.block_bytes({b});
      staging = std::max(staging, weights_.staging_bytes({b}));
    }
  }
  transition.release_ms = watch.Lap();
  ESPALIER_RETURN_IF_ERROR(LoadBlocks(wanted));
  transition.n_loaded = static_cast<int>(wanted.size());
  transition.load_ms = watch.Lap();
  transition.peak_bytes = std::max(transition.peak_bytes, HeldAtRest() + staging);
  return transition;
}

MemoryInUse EngineImpl::memory_in_use() const {
  MemoryInUse memory;
  memory.weight_bytes = weights_.resident_bytes();
  memory.kv_bytes = kv_.committed_bytes();
  memory.compute_bytes = ComputeHeld();
  return memory;
}

Status EngineImpl::CheckBatch(std::span<const BatchToken> batch) const {
  for (const BatchToken& t : batch) {
    if (t.token < 0 || t.token >= model_->hparams().n_vocab) {
      return InvalidArgument(fmt::format("token {}: expected 0 to {}", t.token, model_->hparams().n_vocab - 1));
    }
    if (t.sequence < 0) {
      return InvalidArgument(fmt::format("sequence {}: expected 0 or more", t.sequence));
    }
  }
  const int64_t free = kv_.capacity() - kv_.used();
  if (static_cast<int64_t>(batch.size()) > free) {
    return OutOfBudget(fmt::format("KV cache: {} cells wanted, {} of {} are free", batch.size(), free, kv_.capacity()));
  }
  return Status::Ok();
}

RowPlan EngineImpl::NextRows(std::span<const BatchToken> batch, size_t& n) {
  n = std::min(batch.size(), static_cast<size_t>(options_.n_ubatch));
  const auto mixed_limit = static_cast<size_t>(MaxMixedTokens(options_.n_ubatch));
  while (true) {
    std::vector<const Sequence*> of_token(n);
    for (size_t i = 0; i < n; ++i) {
      of_token[i] = &sequences_.GetOrAdd(batch[i].sequence);
    }
    RowPlan rows = PlanRows(of_token, model_->n_block(), [&](BlockId block) { return weights_.resident(block); });
    size_t subset_rows = 0;
    for (const auto& subset : rows.subsets) {
      subset_rows += subset.size();
    }
    if (!rows.mixed() || n == 1 || (n <= mixed_limit && subset_rows <= 2 * mixed_limit)) {
      return rows;
    }
    n /= 2;
  }
}

std::vector<PlacedToken> EngineImpl::Place(std::span<const BatchToken> batch, const RowPlan& rows) {
  std::vector<PlacedToken> tokens;
  for (const BatchToken& t : batch) {
    Sequence& sequence = sequences_.GetOrAdd(t.sequence);
    const auto position = static_cast<int32_t>(sequence.tokens.size());
    sequence.tokens.push_back(t.token);
    tokens.push_back({t.token, t.sequence, position, kv_.Take(t.sequence, position), t.want_logits});
  }
  std::vector<uint8_t> written(tokens.size());
  for (int il = 0; il < model_->n_layer(); ++il) {
    std::fill(written.begin(), written.end(), uint8_t{0});
    const int subset = rows.block_rows[static_cast<size_t>(BlockId::Attention(il).index)];
    if (subset != kNoRows) {
      for (const int32_t row : rows.subsets[static_cast<size_t>(subset)]) {
        written[static_cast<size_t>(row)] = 1;
        kv_.MarkWritten(il, tokens[static_cast<size_t>(row)].cell);
      }
    }
    for (size_t i = 0; i < tokens.size(); ++i) {
      if (written[i] == 0) {
        sequences_.GetOrAdd(tokens[i].sequence).rows_missing[static_cast<size_t>(il)] = 1;
      }
    }
  }
  return tokens;
}

Status EngineImpl::RunSubBatch(std::span<const BatchToken> batch, const RowPlan& rows, int64_t first_row,
                               const LogitsSink& sink) {
  const std::vector<PlacedToken> tokens = Place(batch, rows);
  BatchShape shape;
  shape.epoch = epoch_;
  shape.n_tokens = static_cast<int64_t>(tokens.size());
  shape.n_kv = kv_.read_extent();
  shape.n_output = std::count_if(tokens.begin(), tokens.end(), [](const PlacedToken& t) { return t.want_logits; });
  shape.block_rows = rows.block_rows;
  for (const auto& subset : rows.subsets) {
    shape.subset_sizes.push_back(static_cast<int64_t>(subset.size()));
  }
  const Status status = executor_.Run(
      std::move(shape), weights_.tensors(), kv_,
      [&](const Graph& graph) { FillInputs(graph, tokens, rows, kv_, kv_.read_extent()); },
      [&](int64_t row, std::span<const float> logits) { sink(first_row + row, logits); });
  if (!status.ok()) {
    std::map<SequenceId, int64_t> lengths;
    for (auto token = tokens.rbegin(); token != tokens.rend(); ++token) {
      lengths[token->sequence] = token->position;
    }
    for (const auto& [sequence, length] : lengths) {
      sequences_.Truncate(sequence, length);
    }
  }
  return status;
}

Status EngineImpl::Decode(std::span<const BatchToken> batch, const LogitsSink& sink) {
  ESPALIER_RETURN_IF_ERROR(CheckBatch(batch));
  int64_t first_row = 0;
  while (!batch.empty()) {
    size_t n = 0;
    const RowPlan rows = NextRows(batch, n);
    const auto head = batch.first(n);
    ESPALIER_RETURN_IF_ERROR(RunSubBatch(head, rows, first_row, sink));
    first_row += std::count_if(head.begin(), head.end(), [](const BatchToken& t) { return t.want_logits; });
    batch = batch.subspan(n);
  }
  return Status::Ok();
}

int64_t EngineImpl::SequenceLength(SequenceId id) const {
  const Sequence* sequence = sequences_.Find(id);
  return sequence != nullptr ? static_cast<int64_t>(sequence->tokens.size()) : 0;
}

void EngineImpl::RemoveSequence(SequenceId id) {
  sequences_.Remove(id);
  kv_.Compact();
}

void EngineImpl::TruncateSequence(SequenceId id, int64_t length) {
  sequences_.Truncate(id, std::max<int64_t>(length, 0));
  kv_.Compact();
}

Status EngineImpl::SetSequencePlan(SequenceId id, const Plan& plan) {
  ESPALIER_RETURN_IF_ERROR(CheckPlan(*model_, plan));
  Sequence& sequence = sequences_.GetOrAdd(id);
  if (!sequence.tokens.empty()) {
    return InvalidArgument(fmt::format("sequence {} has {} tokens: its plan can be set only while it is empty", id,
                                       sequence.tokens.size()));
  }
  sequence.plan = plan;
  return Status::Ok();
}

std::vector<BlockId> EngineImpl::SkippedBlocks(SequenceId id) const {
  std::vector<BlockId> skipped;
  const Sequence* sequence = sequences_.Find(id);
  for (int il = 0; sequence != nullptr && il < model_->n_layer(); ++il) {
    const BlockId block = BlockId::Attention(il);
    const bool wanted = !sequence->plan || sequence->plan->kept(block);
    if (wanted && weights_.resident(block) && !SequenceTable::Runs(*sequence, block)) {
      skipped.push_back(block);
    }
  }
  return skipped;
}

Status EngineImpl::Reprefill(SequenceId id) {
  const Sequence* found = sequences_.Find(id);
  if (found == nullptr || found->tokens.empty()) {
    return Status::Ok();
  }
  std::vector<BatchToken> batch;
  for (const int32_t token : found->tokens) {
    batch.push_back({token, id, false});
  }
  sequences_.Truncate(id, 0);
  kv_.Compact();
  const Status status = Decode(batch, [](int64_t, std::span<const float>) {});
  if (!status.ok()) {
    RemoveSequence(id);
  }
  return status;
}

}  // namespace

Result<std::unique_ptr<Engine>> Engine::Create(std::shared_ptr<const Model> model, const EngineOptions& options,
                                               const Plan& plan) {
  ESPALIER_RETURN_IF_ERROR(CheckPlan(*model, plan));
  ESPALIER_ASSIGN_OR_RETURN(const EngineOptions complete, CompleteOptions(*model, options));
  ESPALIER_ASSIGN_OR_RETURN(auto device, Device::Open(complete.device, complete.n_threads));
  auto engine = std::make_unique<EngineImpl>(std::move(model), complete, std::move(device));
  ESPALIER_RETURN_IF_ERROR(engine->Start(plan));
  return std::unique_ptr<Engine>(std::move(engine));
}

}  // namespace espalier

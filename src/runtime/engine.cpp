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
        executor_(model_->hparams(), device_.get(), LimitsOf(options_, kv_)),
        sequences_(model_->n_layer(), &kv_),
        packing_(PackingOf(*model_, options_, *device_)) {
    options_.n_threads = device_->n_threads();
    options_.max_sequences = kv_.n_slots();
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
  // What one graph runs, from the front of a batch.
  struct SubBatch {
    std::vector<PlacedToken> tokens;   // by slot, so that few nodes do all attention
    std::vector<int32_t> output_rows;  // of the tokens that want logits, in the batch's order
    RowPlan rows;
    std::vector<std::vector<AttentionGroup>> groups;
    bool reordered = false;
  };
  // The longest that fits.
  SubBatch NextSubBatch(std::span<const BatchToken> batch);
  SubBatch Arrange(std::span<const BatchToken> batch);
  bool FitsOneGraph(const SubBatch& sub_batch) const;
  Status RunSubBatch(const SubBatch& sub_batch, int64_t first_row, const LogitsSink& sink);
  // The tokens join their sequences and cells.
  void Append(const SubBatch& sub_batch);

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
  const HeadPacking packing_;
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
  std::map<SequenceId, int64_t> lengths;
  int new_sequences = 0;
  for (const BatchToken& t : batch) {
    const auto [length, is_new] = lengths.try_emplace(t.sequence, kv_.length(t.sequence));
    new_sequences += is_new && kv_.slot(t.sequence) == kNoSlot ? 1 : 0;
    if (++length->second > kv_.stride()) {
      return OutOfBudget(fmt::format("KV cache: sequence {} wants more than the {} cells that each of {} may hold",
                                     t.sequence, kv_.stride(), kv_.n_slots()));
    }
  }
  if (new_sequences > kv_.free_slots()) {
    return OutOfBudget(fmt::format("KV cache: room for {} sequences wanted, there is some for {}; {} hold cells",
                                   new_sequences, kv_.free_slots(), kv_.n_slots() - kv_.free_slots()));
  }
  return Status::Ok();
}

EngineImpl::SubBatch EngineImpl::Arrange(std::span<const BatchToken> batch) {
  SubBatch result;
  std::map<SequenceId, int64_t> lengths;
  std::vector<int32_t> order(batch.size());
  for (size_t i = 0; i < batch.size(); ++i) {
    const SequenceId id = batch[i].sequence;
    const auto [length, is_new] = lengths.try_emplace(id, kv_.length(id));
    const auto position = static_cast<int32_t>(length->second++);
    const int64_t cell = kv_.TakeSlot(id) * kv_.stride() + position;
    result.tokens.push_back({batch[i].token, id, position, cell, batch[i].want_logits});
    order[i] = static_cast<int32_t>(i);
  }
  if (lengths.size() > 1) {
    const auto cell = [&](int32_t i) { return result.tokens[static_cast<size_t>(i)].cell; };
    result.reordered = !std::is_sorted(result.tokens.begin(), result.tokens.end(),
                                       [](const PlacedToken& a, const PlacedToken& b) { return a.cell < b.cell; });
    std::sort(order.begin(), order.end(), [&](int32_t a, int32_t b) { return cell(a) < cell(b); });
  }
  std::vector<int32_t> row_of(batch.size());
  std::vector<const Sequence*> sequences;
  std::vector<PlacedToken> sorted;
  for (size_t row = 0; row < order.size(); ++row) {
    sorted.push_back(result.tokens[static_cast<size_t>(order[row])]);
    sequences.push_back(&sequences_.GetOrAdd(sorted.back().sequence));
    row_of[static_cast<size_t>(order[row])] = static_cast<int32_t>(row);
  }
  for (size_t i = 0; i < batch.size(); ++i) {
    if (batch[i].want_logits) {
      result.output_rows.push_back(row_of[i]);
    }
  }
  result.tokens = std::move(sorted);
  result.rows = PlanRows(sequences, model_->n_block(), [&](BlockId block) { return weights_.resident(block); });
  result.groups = GroupRows(result.tokens, result.rows, kv_, packing_);
  return result;
}

bool EngineImpl::FitsOneGraph(const SubBatch& sub_batch) const {
  const auto max_groups = static_cast<size_t>(MaxAttentionGroups(options_.max_sequences));
  size_t subset_rows = 0;
  for (size_t s = 0; s < sub_batch.groups.size(); ++s) {
    subset_rows += sub_batch.rows.subsets[s].size();
    if (sub_batch.groups[s].size() > max_groups) {
      return false;
    }
  }
  const auto mixed_limit = static_cast<size_t>(MaxMixedTokens(options_.n_ubatch));
  return !sub_batch.rows.mixed() || (sub_batch.tokens.size() <= mixed_limit && subset_rows <= 2 * mixed_limit);
}

EngineImpl::SubBatch EngineImpl::NextSubBatch(std::span<const BatchToken> batch) {
  size_t n = std::min(batch.size(), static_cast<size_t>(options_.n_ubatch));
  while (true) {
    SubBatch sub_batch = Arrange(batch.first(n));
    if (n == 1 || FitsOneGraph(sub_batch)) {
      return sub_batch;
    }
    n /= 2;
  }
}

void EngineImpl::Append(const SubBatch& sub_batch) {
  const std::vector<PlacedToken>& tokens = sub_batch.tokens;
  for (const PlacedToken& t : tokens) {
    sequences_.GetOrAdd(t.sequence).tokens.push_back(t.token);
    ESPALIER_CHECK(kv_.Append(t.sequence) == t.cell);
  }
  std::vector<uint8_t> written(tokens.size());
  for (int il = 0; il < model_->n_layer(); ++il) {
    std::fill(written.begin(), written.end(), uint8_t{0});
    const int subset = sub_batch.rows.block_rows[static_cast<size_t>(BlockId::Attention(il).index)];
    if (subset != kNoRows) {
      for (const int32_t row : sub_batch.rows.subsets[static_cast<size_t>(subset)]) {
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
}

Status EngineImpl::RunSubBatch(const SubBatch& sub_batch, int64_t first_row, const LogitsSink& sink) {
  Append(sub_batch);
  BatchShape shape;
  shape.epoch = epoch_;
  shape.n_tokens = static_cast<int64_t>(sub_batch.tokens.size());
  shape.n_output = static_cast<int64_t>(sub_batch.output_rows.size());
  shape.gathers_output = sub_batch.reordered || shape.n_output < shape.n_tokens;
  shape.block_rows = sub_batch.rows.block_rows;
  shape.groups = sub_batch.groups;
  for (const auto& subset : sub_batch.rows.subsets) {
    shape.subset_sizes.push_back(static_cast<int64_t>(subset.size()));
  }
  return executor_.Run(
      std::move(shape), weights_.tensors(), kv_,
      [&](const Graph& graph) { FillInputs(graph, sub_batch.tokens, sub_batch.rows, sub_batch.output_rows); },
      [&](int64_t row, std::span<const float> logits) { sink(first_row + row, logits); });
}

Status EngineImpl::Decode(std::span<const BatchToken> batch, const LogitsSink& sink) {
  ESPALIER_RETURN_IF_ERROR(CheckBatch(batch));
  int64_t first_row = 0;
  while (!batch.empty()) {
    const SubBatch sub_batch = NextSubBatch(batch);
    if (const Status status = RunSubBatch(sub_batch, first_row, sink); !status.ok()) {
      std::map<SequenceId, int64_t> lengths;
      for (auto token = sub_batch.tokens.rbegin(); token != sub_batch.tokens.rend(); ++token) {
        lengths[token->sequence] = token->position;
      }
      for (const auto& [sequence, length] : lengths) {
        sequences_.Truncate(sequence, length);
      }
      for (const BatchToken& t : batch) {
        if (kv_.length(t.sequence) == 0) {
          kv_.Truncate(t.sequence, 0);  // its slot
        }
      }
      return status;
    }
    first_row += static_cast<int64_t>(sub_batch.output_rows.size());
    batch = batch.subspan(sub_batch.tokens.size());
  }
  return Status::Ok();
}

int64_t EngineImpl::SequenceLength(SequenceId id) const {
  const Sequence* sequence = sequences_.Find(id);
  return sequence != nullptr ? static_cast<int64_t>(sequence->tokens.size()) : 0;
}

void EngineImpl::RemoveSequence(SequenceId id) { sequences_.Remove(id); }

void EngineImpl::TruncateSequence(SequenceId id, int64_t length) {
  sequences_.Truncate(id, std::max<int64_t>(length, 0));
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

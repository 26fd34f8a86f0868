#include "model/footprint.h"

#include <algorithm>
#include <bit>
#include <numeric>

#include "base/check.h"

namespace espalier {

namespace {

uint64_t WholePages(const KvGeometry& kv, uint64_t bytes) {
  ESPALIER_CHECK(std::has_single_bit(kv.page_bytes));
  return (bytes + kv.page_bytes - 1) & ~(kv.page_bytes - 1);
}

}  // namespace

uint64_t KvBytes(const KvGeometry& kv, int64_t cells) {
  return KvBytes(kv, {.n_sequences = 1, .kv_cells = cells, .longest_sequence = cells});
}

uint64_t KvBytes(const KvGeometry& kv, const Workload& workload) {
  if (kv.n_planes == 0) {
    return 0;
  }
  const auto cells = static_cast<uint64_t>(
      kv.commits_everything ? kv.capacity : std::clamp<int64_t>(workload.kv_cells, 0, kv.capacity));
  if (kv.commits_everything || cells == 0) {
    return cells * kv.bytes_per_cell();
  }
  const auto planes = static_cast<uint64_t>(kv.n_planes) / 2;
  const auto sequences = static_cast<uint64_t>(std::max(workload.n_sequences, 1));
  const auto longest = std::min(static_cast<uint64_t>(std::max<int64_t>(workload.longest_sequence, 1)), cells);
  uint64_t bytes = 0;
  for (const uint64_t row : {kv.key_bytes_per_cell / planes, kv.value_bytes_per_cell / planes}) {
    const uint64_t if_all_are_longest = sequences * WholePages(kv, longest * row);
    const uint64_t if_each_begins_a_page = WholePages(kv, cells * row + (sequences - 1) * (kv.page_bytes - 1));
    bytes += planes * std::min(if_all_are_longest, if_each_begins_a_page);
  }
  return bytes;
}

uint64_t KvBytesOfFullCache(KvGeometry kv, int64_t cells) {
  kv.capacity = cells;
  return KvBytes(kv, cells);
}

uint64_t MemoryModel::weight_bytes() const {
  return std::accumulate(block_bytes.begin(), block_bytes.end(), global_bytes);
}

double MemoryModel::kv_bytes_per_cell() const {
  return static_cast<double>(kv.bytes_per_cell()) * static_cast<double>(block_bytes.size() / 2);
}

Footprint PredictFootprint(const MemoryModel& model, const Plan& plan, const Workload& workload) {
  ESPALIER_CHECK(static_cast<size_t>(plan.n_block()) == model.block_bytes.size());
  ESPALIER_CHECK(plan.whole_blocks_only());
  Footprint footprint;
  footprint.weight_bytes = model.global_bytes;
  footprint.staging_bytes = model.global_staging_bytes;
  for (int i = 0; i < plan.n_block(); ++i) {
    if (plan.kept({i})) {
      footprint.weight_bytes += model.block_bytes[static_cast<size_t>(i)];
      footprint.staging_bytes = std::max(footprint.staging_bytes, model.block_staging_bytes[static_cast<size_t>(i)]);
    }
  }
  footprint.kv_bytes = static_cast<uint64_t>(plan.kept_attention()) * KvBytes(model.kv, workload);
  footprint.compute_bytes = model.compute_bytes + model.work_bytes + model.host_bytes;
  return footprint;
}

PlanFootprint::PlanFootprint(const MemoryModel& model, const Workload& workload)
    : model_(&model),
      kv_bytes_(KvBytes(model.kv, workload)),
      plan_(Plan::Dense(static_cast<int>(model.block_bytes.size() / 2))) {
  footprint_.weight_bytes = model.weight_bytes();
  footprint_.kv_bytes = static_cast<uint64_t>(plan_.n_layer()) * kv_bytes_;
  footprint_.compute_bytes = model.compute_bytes + model.work_bytes + model.host_bytes;
  FindStaging();
}

void PlanFootprint::Drop(BlockId block) {
  ESPALIER_CHECK(plan_.kept(block));
  plan_.Drop(block);
  footprint_.weight_bytes -= model_->block_bytes[static_cast<size_t>(block.index)];
  footprint_.kv_bytes -= kv_bytes_of(block);
  if (model_->block_staging_bytes[static_cast<size_t>(block.index)] == footprint_.staging_bytes && --n_staging_ == 0) {
    FindStaging();
  }
}

void PlanFootprint::Restore(BlockId block) {
  ESPALIER_CHECK(!plan_.kept(block));
  plan_.Restore(block);
  footprint_.weight_bytes += model_->block_bytes[static_cast<size_t>(block.index)];
  footprint_.kv_bytes += kv_bytes_of(block);
  const uint64_t staging = model_->block_staging_bytes[static_cast<size_t>(block.index)];
  if (staging > footprint_.staging_bytes) {
    footprint_.staging_bytes = staging;
    n_staging_ = 0;
  }
  n_staging_ += staging == footprint_.staging_bytes ? 1 : 0;
}

void PlanFootprint::FindStaging() {
  footprint_.staging_bytes = model_->global_staging_bytes;
  n_staging_ = 0;
  for (int i = 0; i < plan_.n_block(); ++i) {
    const uint64_t staging = model_->block_staging_bytes[static_cast<size_t>(i)];
    if (!plan_.kept({i}) || staging < footprint_.staging_bytes) {
      continue;
    }
    n_staging_ = staging > footprint_.staging_bytes ? 1 : n_staging_ + 1;
    footprint_.staging_bytes = staging;
  }
}

}  // namespace espalier

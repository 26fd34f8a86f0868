#include "model/footprint.h"

#include <algorithm>
#include <bit>
#include <numeric>

#include "base/check.h"

namespace espalier {

uint64_t KvBytes(const KvGeometry& kv, int64_t cells) {
  if (kv.n_planes == 0) {
    return 0;
  }
  const auto used = static_cast<uint64_t>(kv.commits_everything ? kv.capacity : std::min(cells, kv.capacity));
  const auto planes = static_cast<uint64_t>(kv.n_planes) / 2;
  const auto plane_sets = {kv.key_bytes_per_cell / planes, kv.value_bytes_per_cell / planes};
  // Without divisions: policies ask for the footprint of one plan after the other.
  ESPALIER_CHECK(std::has_single_bit(kv.page_bytes));
  const uint64_t in_page = kv.page_bytes - 1;
  // Planes lie one behind the other, K first; a page that two planes touch is committed once.
  uint64_t bytes = 0;
  uint64_t plane_start = 0;
  uint64_t committed_end = 0;
  for (const uint64_t row : plane_sets) {
    for (uint64_t p = 0; p < planes; ++p) {
      const uint64_t begin = std::max(plane_start & ~in_page, committed_end);
      const uint64_t end = (plane_start + used * row + in_page) & ~in_page;
      if (used > 0 && end > begin) {
        bytes += end - begin;
        committed_end = end;
      }
      plane_start += static_cast<uint64_t>(kv.capacity) * row;
    }
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
  footprint.kv_bytes = static_cast<uint64_t>(plan.kept_attention()) * KvBytes(model.kv, workload.kv_cells);
  footprint.compute_bytes = model.compute_bytes + model.work_bytes + model.host_bytes;
  return footprint;
}

PlanFootprint::PlanFootprint(const MemoryModel& model, const Workload& workload)
    : model_(&model),
      kv_bytes_(KvBytes(model.kv, workload.kv_cells)),
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

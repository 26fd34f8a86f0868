#include "rl/task.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <utility>

#include "base/uniform.h"
#include "model/footprint.h"

namespace espalier {
namespace {

uint64_t PeakOf(const Observation& task, const Plan& plan) {
  return task.process_bytes + FootprintOf(task, plan).peak_bytes();
}

}  // namespace

std::vector<double> BytesByBlock(const Observation& task) {
  const MemoryModel& memory = *task.memory;
  const uint64_t kv_of_attention = KvBytes(memory.kv, task.workload);
  std::vector<double> bytes;
  bytes.reserve(memory.block_bytes.size());
  for (size_t b = 0; b < memory.block_bytes.size(); ++b) {
    const bool attention = BlockId{static_cast<int>(b)}.is_attention();
    bytes.push_back(static_cast<double>(memory.block_bytes[b] + (attention ? kv_of_attention : 0)));
  }
  return bytes;
}

Task DrawTask(const MemoryModel& memory, uint64_t process_bytes, const TaskDistribution& distribution,
              std::mt19937_64* random) {
  constexpr std::array<int, 5> kSequences = {1, 2, 4, 8, 16};
  const int n_sequences = kSequences[(*random)() % kSequences.size()];
  const double spread = distribution.most_kv_to_weights / distribution.least_kv_to_weights;
  const double ratio = distribution.least_kv_to_weights * std::pow(spread, Uniform(random));
  const double tokens = ratio * memory.cells_of_weights() / n_sequences;

  Observation task;
  task.workload = Workload::Uniform(n_sequences, std::max<int64_t>(1, std::llround(tokens)));
  auto sized = std::make_shared<MemoryModel>(memory);
  sized->kv.capacity = task.workload.kv_cells;
  task.memory = sized.get();
  task.process_bytes = process_bytes;
  const double share =
      distribution.least_budget + (distribution.most_budget - distribution.least_budget) * Uniform(random);
  const double dense_peak = static_cast<double>(PeakOf(task, Plan::Dense(task.n_layer())));
  task.limit_bytes = std::max(static_cast<uint64_t>(share * dense_peak), PeakOf(task, Plan::Nothing(task.n_layer())));
  return {std::move(sized), task};
}

}  // namespace espalier

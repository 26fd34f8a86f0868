#include "memory/account.h"

#include <limits>
#include <vector>

#include "base/process_memory.h"

namespace espalier {

Result<MemoryAccount> TakeMemoryAccount(const Engine& engine, uint64_t process_bytes) {
  ESPALIER_ASSIGN_OR_RETURN(const ProcessMemory process, ReadProcessMemory());
  MemoryAccount account;
  account.managed = engine.memory_in_use();
  account.process_bytes = process_bytes;
  account.page_cache_bytes = engine.reclaimable_bytes();
  account.anonymous_bytes = process.anonymous_bytes;
  account.file_mapped_bytes = process.file_bytes;
  return account;
}

Footprint PredictNow(const Engine& engine, std::span<const SequenceId> sequences) {
  const int64_t used = engine.used_cells();
  Footprint footprint = PredictFootprint(engine.memory_model(), engine.plan(), Workload::Uniform(1, used));
  footprint.staging_bytes = 0;
  std::vector<int64_t> without_rows(static_cast<size_t>(engine.plan().n_block()));  // cells, per block
  for (const SequenceId sequence : sequences) {
    for (const BlockId block : engine.SkippedBlocks(sequence)) {
      without_rows[static_cast<size_t>(block.index)] += engine.SequenceLength(sequence);
    }
  }
  const KvGeometry& kv = engine.memory_model().kv;
  for (const int64_t cells : without_rows) {
    footprint.kv_bytes -= KvBytes(kv, used) - KvBytes(kv, used - cells);
  }
  return footprint;
}

Footprint PredictNow(const Engine& engine) {
  constexpr SequenceId kOnly = 0;
  return PredictNow(engine, {&kOnly, 1});
}

double PredictionError(uint64_t predicted_bytes, uint64_t measured_bytes) {
  if (predicted_bytes == measured_bytes) {
    return 0;
  }
  if (predicted_bytes == 0) {
    return std::numeric_limits<double>::infinity();
  }
  return (static_cast<double>(measured_bytes) - static_cast<double>(predicted_bytes)) /
         static_cast<double>(predicted_bytes);
}

}  // namespace espalier

#include "memory/account.h"

#include <limits>

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

Footprint PredictNow(const Engine& engine, SequenceId sequence) {
  const Workload now = Workload::Uniform(1, engine.used_cells());
  Footprint footprint = PredictFootprint(engine.memory_model(), engine.plan(), now);
  footprint.staging_bytes = 0;
  const KvGeometry& kv = engine.memory_model().kv;
  const uint64_t without_rows = KvBytes(kv, engine.used_cells()) - KvBytes(kv, 0);
  footprint.kv_bytes -= static_cast<uint64_t>(engine.SkippedBlocks(sequence).size()) * without_rows;
  return footprint;
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

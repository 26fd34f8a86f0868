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

Footprint PredictNow(const Engine& engine, std::span<const SequenceId> sequences) {
  Footprint footprint = PredictFootprint(engine.memory_model(), engine.plan(), Workload::Uniform(1, 0));
  footprint.staging_bytes = 0;
  const KvGeometry& kv = engine.memory_model().kv;
  if (kv.commits_everything) {
    return footprint;
  }
  for (const SequenceId sequence : sequences) {
    const auto blocks = static_cast<uint64_t>(engine.plan().kept_attention());
    const uint64_t with_rows = blocks - engine.SkippedBlocks(sequence).size();
    footprint.kv_bytes += with_rows * KvBytes(kv, engine.SequenceLength(sequence));
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

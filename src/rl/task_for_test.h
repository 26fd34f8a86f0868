// Tasks on a small model whose bytes are round numbers.
#pragma once

#include <cstdint>

#include "policy/policy.h"

namespace espalier::test {

// 100 bytes per attention block and 10 per KV cell of it, 300 per FFN block, 1000 for the rest.
inline MemoryModel RoundMemory(int n_layer) {
  MemoryModel memory;
  for (int il = 0; il < n_layer; ++il) {
    memory.block_bytes.push_back(100);
    memory.block_bytes.push_back(300);
  }
  memory.block_staging_bytes.assign(memory.block_bytes.size(), 0);
  memory.global_bytes = 1000;
  memory.kv = {.key_bytes_per_cell = 5, .value_bytes_per_cell = 5, .n_planes = 2, .page_bytes = 1, .capacity = 1 << 20};
  return memory;
}

inline Observation TaskOf(const MemoryModel& memory, int64_t cells, uint64_t limit) {
  Observation task;
  task.memory = &memory;
  task.workload = Workload::Uniform(1, cells);
  task.limit_bytes = limit;
  return task;
}

}  // namespace espalier::test

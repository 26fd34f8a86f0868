// The account: what Espalier holds for the model by its own books, beside what the kernel says the process holds.
#pragma once

#include <cstdint>
#include <span>

#include "base/status.h"
#include "model/footprint.h"
#include "runtime/engine.h"

namespace espalier {

struct MemoryAccount {
  MemoryInUse managed;             // by part; managed.total() is managed_bytes
  uint64_t process_bytes = 0;      // anonymous memory of the process before the first block was loaded
  uint64_t anonymous_bytes = 0;    // anonymous memory of the process now
  uint64_t page_cache_bytes = 0;   // of the model file
  uint64_t file_mapped_bytes = 0;  // libraries and other mappings of files

  // What a budget is compared with.
  uint64_t used_bytes() const { return managed.total() + process_bytes; }
  // The kernel's figure for managed_bytes: what the process has grown by since the first block. Also counts whatever
  // else has grown meanwhile (heap, stacks of threads), so it is an upper bound that ought to be close.
  uint64_t measured_managed_bytes() const {
    return anonymous_bytes > process_bytes ? anonymous_bytes - process_bytes : 0;
  }
  // The kernel can take these back: page cache of the model file and mappings of files.
  uint64_t reclaimable_bytes() const { return page_cache_bytes + file_mapped_bytes; }
};

// The account as of now. Costs a walk over the process's mappings (about 1 ms): for transitions, not for every token.
Result<MemoryAccount> TakeMemoryAccount(const Engine& engine, uint64_t process_bytes);

// What `engine` should hold at rest with its plan and the cells it uses now. `sequences` are those that hold cells:
// attention blocks that one of them has to skip hold no rows of it.
Footprint PredictNow(const Engine& engine, std::span<const SequenceId> sequences);
// Of sequence 0, the only one there is.
Footprint PredictNow(const Engine& engine);

// (measured - predicted) / predicted; 0 where both are 0.
double PredictionError(uint64_t predicted_bytes, uint64_t measured_bytes);

}  // namespace espalier

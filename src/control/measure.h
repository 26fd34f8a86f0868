// Measurements that benchmarks are made of. Nothing here prints.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "base/status.h"
#include "memory/account.h"
#include "runtime/engine.h"

namespace espalier {

// Bytes per second that `n_threads` threads (0: all cores) read from memory together: the best of a few passes over a
// buffer of `bytes`, which should be several times the caches. What a decode step cannot beat.
// Fails with kIo if there is no memory for the buffer.
Result<double> MeasureReadBandwidth(uint64_t bytes, int n_threads);

// Bytes of weights and KV that computing one token reads, at the plan in force with `cells` cells in use: the blocks,
// the output head and norms. Of an embedding that is not the output head too, only a row is read.
uint64_t BytesReadPerToken(const Engine& engine, int64_t cells);

// Milliseconds to run `tokens` as a fresh prompt (one row of logits), the sequence removed afterwards.
Result<double> TimePrefill(Engine& engine, std::span<const int32_t> tokens);

// Milliseconds to decode `tokens` one by one after `prefix`, which is not timed; the sequence is removed afterwards.
Result<double> TimeDecode(Engine& engine, std::span<const int32_t> prefix, std::span<const int32_t> tokens);

// Tokens drawn from the vocabulary, the same for the same seed: speed does not depend on what they say.
std::vector<int32_t> RandomTokens(int64_t n, int32_t n_vocab, uint64_t seed);

struct Quartiles {
  double low = 0;
  double median = 0;
  double high = 0;
};
// REQUIRES: not empty.
Quartiles QuartilesOf(std::vector<double> values);

// One cycle: everything released, everything restored.
struct ResidencyCycle {
  MemoryAccount before;    // all blocks resident
  MemoryAccount released;  // none
  MemoryAccount restored;  // all again
  Transition release;
  Transition restore;
  // Graph construction of the first token after the restore: what a change of plan costs beyond moving bytes.
  double rebuild_ms = 0;

  // Managed bytes that came back to the system, and the share of them by which the process's anonymous memory fell.
  uint64_t managed_released() const { return before.managed.total() - released.managed.total(); }
  double anonymous_share() const;
  double restore_bytes_per_second() const;
};

// Releases all blocks and restores them, `cycles` times, with one token decoded in between. REQUIRES: the engine has
// no sequences.
Result<std::vector<ResidencyCycle>> MeasureResidency(Engine& engine, int cycles, uint64_t process_bytes);

}  // namespace espalier

// Everything `espalier rank` does: fills a profile with rankings and an archive of measured plans.
//
// Phases, in order: statistics (means, block influences) -> gsi -> one-shot -> density chains -> swaps until the time
// is spent. Each can be interrupted and resumed: what was measured comes back from the archive, and the search decides
// as if it had never stopped.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/status.h"
#include "eval/windows.h"
#include "model/footprint.h"
#include "model/model.h"
#include "profile/profile_file.h"
#include "runtime/engine.h"

namespace espalier {

struct RankOptions {
  EngineOptions engine;
  Ablation ablation = Ablation::kZero;
  int max_resident_blocks = 0;
  // Swaps go on until this much time was spent over all phases, 0: no swaps; nullopt: for as long again as the phases
  // before them took.
  std::optional<double> minutes;
  // Of "gsi", "one-shot", "density": what is ranked by search, in this order; empty: all; "none": nothing. Published
  // orders are made always, they cost one dense pass.
  std::vector<std::string> searches;
  bool every_plan = false;  // measure all 2^n_block plans besides, in place of swaps (importance/exhaustive.h)
  int n_random = 3;         // random orders, seeds seed ... seed + n_random - 1
  uint64_t seed = 1;
  // KV cells that density chains are made for; empty: six, spread over KV bytes of 0.05 to 4 times the weights.
  std::vector<int64_t> density_cells;
};

struct RankProgress {
  std::string phase;   // "statistics", "dense predictions", "gsi", "one-shot", "density 1/6", "swaps"
  double done = 0;     // of the phase, 0 to 1
  std::string detail;  // "12 of 32 blocks dropped, loss 0.81"
};

// What a phase cost.
struct RankPhase {
  std::string name;
  int64_t plans = 0;     // measured whole
  int64_t windows = 0;   // measured
  int64_t recalled = 0;  // windows that the archive knew
  double flops = 0;
  // gsi: of the naive loop, every candidate of every round computed whole, from the embedding to the head.
  double naive_flops = 0;
  double seconds = 0;
};

struct RankSummary {
  std::vector<RankPhase> phases;
  double seconds = 0;
  int64_t archive_rows = 0;  // whole, of the primary set
};

// Fills `store` (and saves it after each phase). `memory`: for density, what plans take. kAborted when `stop` becomes
// true: everything measured so far is in the journal.
Result<RankSummary> Rank(std::shared_ptr<const Model> model, const Windows& windows, const MemoryModel& memory,
                         const RankOptions& options, ProfileStore* store, const std::atomic<bool>* stop,
                         const std::function<void(const RankProgress&)>& progress);

}  // namespace espalier

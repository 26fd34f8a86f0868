// How far a surrogate's guesses may be trusted near the front, from what it says of plans that were measured.
//
// Every row of its data is guessed from all the others, in closed form (GaussianProcess::LeaveOneOut), and the
// difference to what was measured is counted in the guess's own standard deviations. Margins are conformal (Vovk,
// Gammerman and Shafer 2005): the quantile of those differences, which holds for another plan of the same kind whatever
// their distribution is. The kind is plans that one would serve: those far from every front are left out.
#pragma once

#include <cstdint>
#include <span>

#include "model/footprint.h"
#include "surrogate/loss_surrogate.h"

namespace espalier {

struct MarginOptions {
  double confidence = 0.95;
  // Near the front: at some workload no measured plan of no more bytes loses less than this share of what it loses.
  double near_front = 1 / 1.5;
};

struct LossMargin {
  double confidence = 0.95;
  // ln(loss + floor) stays below the guess's mean plus so many of its standard deviations (noise included) with this
  // confidence. Infinity where there are too few plans to say so.
  double deviations = 0;
  int64_t plans = 0;  // near the front, that it is counted from

  // In nats per token. At least what is guessed.
  double Upper(const LossSurrogate& surrogate, const LossSurrogate::Guess& guess) const;
};

LossMargin MarginOf(const LossSurrogate& surrogate, const MemoryModel& memory, std::span<const int64_t> kv_cells,
                    const MarginOptions& options = {});

// What a surrogate is worth near the front, every plan guessed from all the others.
struct SurrogateDiagnosis {
  int64_t plans = 0;  // near the front
  // Root of the mean squared difference of ln(loss + floor).
  double error = 0;
  // Share of plans inside the guess's central 90 % interval.
  double coverage_90 = 0;
  // Rank correlation (Spearman) of guess and truth among plans of nearly the same bytes (+- 2 %), the mean over such
  // bands: what choosing between plans needs. Beside it that of the sum of the blocks' own losses.
  double spearman = 0;
  double spearman_additive = 0;
  int64_t bands = 0;
};
SurrogateDiagnosis Diagnose(const LossSurrogate& surrogate, const MemoryModel& memory,
                            std::span<const int64_t> kv_cells, const MarginOptions& options = {});

}  // namespace espalier

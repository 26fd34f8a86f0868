// Every plan of a small model: the truth that searches are judged by.
#pragma once

#include <cstdint>
#include <functional>

#include "base/status.h"
#include "eval/plan_evaluator.h"

namespace espalier {

inline constexpr int kMaxExhaustiveBlocks = 16;

// Measures all 2^n_block plans whole, in an order in which neighbours share their first blocks: about two blocks and
// the head are computed per plan. Fails with kInvalidArgument for models of more than kMaxExhaustiveBlocks blocks.
Status MeasureEveryPlan(PlanEvaluator* evaluator,
                        const std::function<void(int64_t done, int64_t total)>& progress = {});

}  // namespace espalier

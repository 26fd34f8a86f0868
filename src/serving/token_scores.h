// Log-probabilities of a row of logits.
#pragma once

#include <cstdint>
#include <span>

#include "serving/request.h"

namespace espalier {

// The log-probability of `token`, and the `n_top` likeliest tokens, the likeliest first, lower ids first among equals.
TokenScores ScoreToken(std::span<const float> logits, int32_t token, int n_top);

}  // namespace espalier

// Quantising a model file through libllama: tests and benchmarks make their Q4_K_M, Q8_0, ... from the f16 models.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"

namespace espalier {

// The type names QuantizeModel takes ("Q4_K_M", "Q8_0", ...): those that need no importance matrix.
std::vector<std::string> QuantizationTypeNames();

// Writes `input` to `output` with its weights as `type_name` (any case). `output` appears whole or not at all, and an
// existing file is replaced only by a whole one. Models that are quantised already are refused (twice is worse).
// n_threads 0: as many as the machine has cores.
Status QuantizeModel(const std::string& input, const std::string& output, std::string_view type_name,
                     int n_threads = 0);

}  // namespace espalier

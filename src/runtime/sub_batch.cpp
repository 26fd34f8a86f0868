#include "runtime/sub_batch.h"

#include <algorithm>
#include <cmath>
#include <map>

#include "runtime/executor.h"

namespace espalier {

RowPlan PlanRows(std::span<const Sequence* const> sequences, int n_block,
                 const std::function<bool(BlockId)>& resident) {
  const auto n = static_cast<int32_t>(sequences.size());
  RowPlan plan;
  plan.block_rows.assign(static_cast<size_t>(n_block), kNoRows);
  plan.subsets.emplace_back(static_cast<size_t>(n));
  for (int32_t i = 0; i < n; ++i) {
    plan.subsets[0][static_cast<size_t>(i)] = i;
  }
  std::map<std::vector<int32_t>, int> numbers = {{plan.subsets[0], kAllRows}};
  std::vector<int32_t> active;
  for (int b = 0; b < n_block; ++b) {
    if (!resident({b})) {
      continue;
    }
    active.clear();
    for (int32_t i = 0; i < n; ++i) {
      if (SequenceTable::Runs(*sequences[static_cast<size_t>(i)], {b})) {
        active.push_back(i);
      }
    }
    if (active.empty()) {
      continue;
    }
    const auto [number, is_new] = numbers.try_emplace(active, static_cast<int>(plan.subsets.size()));
    if (is_new) {
      plan.subsets.push_back(active);
    }
    plan.block_rows[static_cast<size_t>(b)] = number->second;
  }
  return plan;
}

void FillInputs(const Graph& graph, std::span<const PlacedToken> tokens, const RowPlan& rows, const KvCache& kv,
                int64_t n_kv) {
  FillInput<int32_t>(graph.tokens, [&](std::span<int32_t> out) {
    std::transform(tokens.begin(), tokens.end(), out.begin(), [](const PlacedToken& t) { return t.token; });
  });
  FillInput<int32_t>(graph.output_rows, [&](std::span<int32_t> out) {
    size_t at = 0;
    for (size_t i = 0; i < tokens.size(); ++i) {
      if (tokens[i].want_logits) {
        out[at++] = static_cast<int32_t>(i);
      }
    }
  });
  const ggml_fp16_t attends = ggml_fp32_to_fp16(0.0F);
  const ggml_fp16_t ignores = ggml_fp32_to_fp16(-INFINITY);
  for (size_t s = 0; s < rows.subsets.size(); ++s) {
    const RowInputs& inputs = graph.rows[s];
    const std::vector<int32_t>& subset = rows.subsets[s];
    const auto token = [&](size_t i) -> const PlacedToken& { return tokens[static_cast<size_t>(subset[i])]; };
    FillInput<int32_t>(inputs.positions, [&](std::span<int32_t> out) {
      for (size_t i = 0; i < out.size(); ++i) {
        out[i] = token(i).position;
      }
    });
    FillInput<int64_t>(inputs.cells, [&](std::span<int64_t> out) {
      for (size_t i = 0; i < out.size(); ++i) {
        out[i] = token(i).cell;
      }
    });
    FillInput<ggml_fp16_t>(inputs.mask, [&](std::span<ggml_fp16_t> out) {
      for (size_t i = 0; i < subset.size(); ++i) {
        const PlacedToken& t = token(i);
        ggml_fp16_t* row = out.data() + i * static_cast<size_t>(n_kv);
        for (int64_t c = 0; c < n_kv; ++c) {
          const KvCell& cell = kv.cells()[static_cast<size_t>(c)];
          row[c] = cell.sequence == t.sequence && cell.position <= t.position ? attends : ignores;
        }
      }
    });
    FillInput<int32_t>(inputs.gather,
                       [&](std::span<int32_t> out) { std::copy(subset.begin(), subset.end(), out.begin()); });
    FillInput<int64_t>(inputs.scatter,
                       [&](std::span<int64_t> out) { std::copy(subset.begin(), subset.end(), out.begin()); });
  }
}

}  // namespace espalier

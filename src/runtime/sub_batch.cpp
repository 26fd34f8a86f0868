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

namespace {

// Cells of a shorter sequence that a group's longest makes attention pass over cost a little each: not more of them
// than it has of its own.
bool SimilarExtents(int64_t a, int64_t b) { return std::max(a, b) <= 2 * std::min(a, b); }

std::vector<AttentionGroup> GroupSubset(std::span<const PlacedToken> tokens, const std::vector<int32_t>& subset,
                                        const KvCache& kv) {
  std::vector<AttentionGroup> groups;
  int64_t row = 0;
  const auto n = static_cast<int64_t>(subset.size());
  const auto token = [&](int64_t i) -> const PlacedToken& {
    return tokens[static_cast<size_t>(subset[static_cast<size_t>(i)])];
  };
  while (row < n) {
    int64_t end = row + 1;
    while (end < n && token(end).sequence == token(row).sequence) {
      ++end;
    }
    AttentionGroup run = {.first_row = row,
                          .n_rows = end - row,
                          .n_streams = 1,
                          .first_slot = static_cast<int>(token(row).cell / kv.stride()),
                          .n_kv = kv.read_extent(token(end - 1).position + 1)};
    row = end;
    if (!groups.empty()) {
      AttentionGroup& last = groups.back();
      if (run.n_rows == last.n_rows && run.first_slot == last.first_slot + last.n_streams &&
          SimilarExtents(run.n_kv, last.n_kv)) {
        ++last.n_streams;
        last.n_kv = std::max(last.n_kv, run.n_kv);
        continue;
      }
    }
    groups.push_back(run);
  }
  return groups;
}

// The group that gains most, if any does.
void Pack(std::vector<AttentionGroup>& groups, int64_t n_tokens, const HeadPacking& packing) {
  AttentionGroup* best = nullptr;
  for (AttentionGroup& group : groups) {
    const bool too_few_alone = group.n_streams == 1 && group.n_rows < HeadPacking::kTileRows;
    const bool enough_packed = group.n_rows * packing.heads_per_key >= HeadPacking::kTileRows;
    const bool fits = n_tokens + group.n_rows * (packing.heads_per_key - 1) <= packing.max_rows;
    if (too_few_alone && enough_packed && fits && group.n_kv >= HeadPacking::kLeastCells &&
        (best == nullptr || group.n_rows * group.n_kv > best->n_rows * best->n_kv)) {
      best = &group;
    }
  }
  if (best != nullptr) {
    best->packed = true;
  }
}

}  // namespace

std::vector<std::vector<AttentionGroup>> GroupRows(std::span<const PlacedToken> tokens, const RowPlan& rows,
                                                   const KvCache& kv, const HeadPacking& packing) {
  std::vector<std::vector<AttentionGroup>> groups;
  groups.reserve(rows.subsets.size());
  for (const std::vector<int32_t>& subset : rows.subsets) {
    groups.push_back(GroupSubset(tokens, subset, kv));
  }
  if (!rows.mixed()) {
    Pack(groups.front(), static_cast<int64_t>(tokens.size()), packing);
  }
  return groups;
}

void FillInputs(const Graph& graph, std::span<const PlacedToken> tokens, const RowPlan& rows,
                std::span<const int32_t> output_rows) {
  FillInput<int32_t>(graph.tokens, [&](std::span<int32_t> out) {
    std::transform(tokens.begin(), tokens.end(), out.begin(), [](const PlacedToken& t) { return t.token; });
  });
  FillInput<int32_t>(graph.output_rows,
                     [&](std::span<int32_t> out) { std::copy(output_rows.begin(), output_rows.end(), out.begin()); });
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
    for (size_t g = 0; g < inputs.groups.size(); ++g) {
      const AttentionGroup& group = inputs.groups[g];
      FillInput<ggml_fp16_t>(inputs.masks[g], [&](std::span<ggml_fp16_t> out) {
        auto row = out.begin();
        const int64_t rows_per_token = inputs.masks[g]->ne[1] / group.n_rows;
        for (int64_t i = group.first_row; i < group.end_row(); ++i, row += group.n_kv) {
          const int64_t seen = token(static_cast<size_t>(i)).position + 1;
          std::fill(row, row + seen, attends);
          std::fill(row + seen, row + group.n_kv, ignores);
          for (int64_t head = 1; head < rows_per_token; ++head, row += group.n_kv) {
            std::copy(row, row + group.n_kv, row + group.n_kv);
          }
        }
      });
    }
    FillInput<int32_t>(inputs.gather,
                       [&](std::span<int32_t> out) { std::copy(subset.begin(), subset.end(), out.begin()); });
    FillInput<int64_t>(inputs.scatter,
                       [&](std::span<int64_t> out) { std::copy(subset.begin(), subset.end(), out.begin()); });
  }
}

}  // namespace espalier

#include "eval/window_batches.h"

#include <fmt/format.h>

#include <algorithm>

namespace espalier {

int64_t WindowsPerGroup(Protocol protocol, int64_t window_tokens) {
  constexpr int64_t kBatchTokens = 2048;  // llama-perplexity's n_batch
  return protocol == Protocol::kLlama ? std::max<int64_t>(1, kBatchTokens / window_tokens) : 1;
}

std::vector<WindowGroup> GroupWindows(const Windows& windows) {
  const int64_t per_group = WindowsPerGroup(windows.protocol, windows.window_tokens);
  std::vector<WindowGroup> groups;
  for (int64_t first = 0; first < windows.count(); first += per_group) {
    groups.push_back({first, std::min(per_group, windows.count() - first)});
  }
  return groups;
}

Workload EvalWorkload(Protocol protocol, int64_t window_tokens, int64_t n_windows, int sequences_per_window) {
  int64_t windows = WindowsPerGroup(protocol, window_tokens);
  if (n_windows > 0) {
    windows = std::min(windows, n_windows);
  }
  return Workload::Uniform(static_cast<int>(windows) * sequences_per_window, window_tokens);
}

Status CheckCapacity(const Engine& engine, const Workload& workload) {
  const int64_t free = engine.capacity_cells() - engine.used_cells();
  if (workload.kv_cells <= free) {
    return Status::Ok();
  }
  return OutOfBudget(fmt::format("evaluation in {} sequences of {} tokens needs {} KV cells, the engine has {} free",
                                 workload.n_sequences, workload.longest_sequence, workload.kv_cells, free));
}

std::vector<WindowBatch> CutBatches(const Windows& windows, const WindowGroup& group, int n_ubatch,
                                    SequenceId first_sequence) {
  const int64_t step = std::max<int64_t>(1, n_ubatch / group.count);
  std::vector<WindowBatch> batches;
  for (int64_t begin = 0; begin < windows.window_tokens; begin += step) {
    const int64_t end = std::min(begin + step, windows.window_tokens);
    WindowBatch batch;
    for (int64_t i = 0; i < group.count; ++i) {
      const auto tokens = windows.at(group.first + i);
      for (int64_t position = begin; position < end; ++position) {
        const bool wanted = position >= windows.first_target - 1;
        batch.tokens.push_back(
            {tokens[static_cast<size_t>(position)], first_sequence + static_cast<SequenceId>(i), wanted});
        if (wanted) {
          batch.rows.push_back({group.first + i, position});
        }
      }
    }
    batches.push_back(std::move(batch));
  }
  return batches;
}

SequenceGuard::~SequenceGuard() {
  for (int64_t i = 0; i < count_; ++i) {
    engine_->RemoveSequence(first_ + static_cast<SequenceId>(i));
  }
}

}  // namespace espalier

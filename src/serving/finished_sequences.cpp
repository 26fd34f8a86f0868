#include "serving/finished_sequences.h"

#include <algorithm>
#include <utility>

namespace espalier {

void FinishedSequences::Add(SequenceId sequence, std::vector<int32_t> tokens) {
  cells_ += static_cast<int64_t>(tokens.size());
  kept_.push_back({sequence, std::move(tokens)});
}

SequenceId FinishedSequences::Remove(std::list<Kept>::iterator kept) {
  const SequenceId sequence = kept->sequence;
  cells_ -= static_cast<int64_t>(kept->tokens.size());
  kept_.erase(kept);
  return sequence;
}

std::optional<FinishedSequences::Match> FinishedSequences::Take(std::span<const int32_t> prompt, int64_t least_common) {
  auto best = kept_.end();
  int64_t best_common = std::max<int64_t>(least_common, 1) - 1;
  for (auto kept = kept_.begin(); kept != kept_.end(); ++kept) {
    const auto [ours, theirs] = std::mismatch(kept->tokens.begin(), kept->tokens.end(), prompt.begin(), prompt.end());
    const auto common = static_cast<int64_t>(ours - kept->tokens.begin());
    if (common > best_common || (best != kept_.end() && common == best_common)) {
      best = kept;
      best_common = common;
    }
  }
  if (best == kept_.end()) {
    return std::nullopt;
  }
  return Match{Remove(best), best_common};
}

std::optional<SequenceId> FinishedSequences::TakeOldest() {
  return kept_.empty() ? std::nullopt : std::optional(Remove(kept_.begin()));
}

Workload FinishedSequences::Held() const {
  Workload held = Workload::None();
  for (const Kept& kept : kept_) {
    held += Workload::Uniform(1, static_cast<int64_t>(kept.tokens.size()));
  }
  return held;
}

std::vector<SequenceId> FinishedSequences::sequences() const {
  std::vector<SequenceId> sequences;
  for (const Kept& kept : kept_) {
    sequences.push_back(kept.sequence);
  }
  return sequences;
}

}  // namespace espalier

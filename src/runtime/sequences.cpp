#include "runtime/sequences.h"

namespace espalier {

const Sequence* SequenceTable::Find(SequenceId id) const {
  const auto found = sequences_.find(id);
  return found != sequences_.end() ? &found->second : nullptr;
}

Sequence& SequenceTable::GetOrAdd(SequenceId id) {
  auto [entry, is_new] = sequences_.try_emplace(id);
  if (is_new) {
    entry->second.rows_missing.assign(static_cast<size_t>(n_layer_), 0);
  }
  return entry->second;
}

void SequenceTable::Remove(SequenceId id) {
  if (sequences_.erase(id) > 0) {
    kv_->Truncate(id, 0);
  }
}

void SequenceTable::Truncate(SequenceId id, int64_t length) {
  const auto found = sequences_.find(id);
  if (found == sequences_.end() || length >= static_cast<int64_t>(found->second.tokens.size())) {
    return;
  }
  Sequence& sequence = found->second;
  sequence.tokens.resize(static_cast<size_t>(length));
  kv_->Truncate(id, length);
  for (int il = 0; il < n_layer_; ++il) {
    uint8_t& missing = sequence.rows_missing[static_cast<size_t>(il)];
    missing = missing != 0 && !kv_->Complete(il, id) ? 1 : 0;
  }
}

void SequenceTable::LoseRows(int il) {
  for (auto& [id, sequence] : sequences_) {
    if (!sequence.tokens.empty()) {
      sequence.rows_missing[static_cast<size_t>(il)] = 1;
    }
  }
}

bool SequenceTable::Runs(const Sequence& sequence, BlockId block) {
  if (sequence.plan && !sequence.plan->kept(block)) {
    return false;
  }
  return !block.is_attention() || sequence.rows_missing[static_cast<size_t>(block.layer())] == 0;
}

}  // namespace espalier

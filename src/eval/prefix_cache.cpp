#include "eval/prefix_cache.h"

#include <algorithm>

namespace espalier {

PrefixCache::PrefixCache(size_t floats, uint64_t max_bytes, bool means_added)
    : floats_(floats),
      max_entries_(static_cast<size_t>(max_bytes / (floats * sizeof(float)))),
      means_added_(means_added) {}

// What the stream depends on: the window, and the blocks that ran; with means also those that did not, up to the last
// block counted.
std::string PrefixCache::KeyOf(int64_t window, const Plan& plan, int n_blocks) const {
  std::string key(reinterpret_cast<const char*>(&window), sizeof(window));
  for (int b = 0; b < n_blocks; ++b) {
    if (means_added_) {
      key.push_back(plan.kept({b}) ? '1' : '0');
    } else if (plan.kept({b})) {
      key.push_back(static_cast<char>(b & 0xFF));
      key.push_back(static_cast<char>(b >> 8));
    }
  }
  return key;
}

int PrefixCache::Find(int64_t window, const Plan& plan, std::span<float> hidden) {
  int longest = -1;
  for (int n_blocks = 0; n_blocks <= plan.n_block(); ++n_blocks) {
    const auto found = by_key_.find(KeyOf(window, plan, n_blocks));
    if (found != by_key_.end()) {
      // Shorter beginnings were used as well: plans that branch off earlier will need them.
      entries_.splice(entries_.begin(), entries_, found->second);
      longest = n_blocks;
    }
  }
  if (longest >= 0) {
    const std::vector<float>& kept = entries_.front().hidden;
    std::copy(kept.begin(), kept.end(), hidden.begin());
  }
  return longest;
}

void PrefixCache::Put(int64_t window, const Plan& plan, int n_blocks, std::span<const float> hidden) {
  std::string key = KeyOf(window, plan, n_blocks);
  if (max_entries_ == 0 || by_key_.contains(key)) {
    return;
  }
  if (entries_.size() < max_entries_) {
    entries_.emplace_front();
  } else {
    by_key_.erase(entries_.back().key);
    entries_.splice(entries_.begin(), entries_, std::prev(entries_.end()));  // its memory serves again
  }
  Entry& entry = entries_.front();
  entry.key = std::move(key);
  entry.hidden.assign(hidden.begin(), hidden.end());
  by_key_.emplace(entry.key, entries_.begin());
}

}  // namespace espalier

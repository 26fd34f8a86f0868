// Experience replay: the last `capacity` experiences, in a ring.
#pragma once

#include <cstddef>
#include <random>
#include <utility>
#include <vector>

#include "rl/state.h"

namespace espalier {

struct Experience {
  State state;
  int action = 0;
  double reward = 0;
  State next;
  ActionMask next_mask;  // of the actions allowed in `next`
  bool terminated = false;
};

class ReplayBuffer {
 public:
  // REQUIRES: capacity > 0
  explicit ReplayBuffer(size_t capacity) : capacity_(capacity) {}

  // Once full, every new experience takes the oldest one's place.
  void Add(Experience experience) {
    if (ring_.size() < capacity_) {
      ring_.push_back(std::move(experience));
    } else {
      ring_[oldest_] = std::move(experience);
      oldest_ = (oldest_ + 1) % capacity_;
    }
  }

  size_t size() const { return ring_.size(); }
  // i-th oldest. REQUIRES: i < size()
  const Experience& at(size_t i) const { return ring_[(oldest_ + i) % ring_.size()]; }

  // `n` experiences drawn evenly, with repetition. REQUIRES: size() > 0. Valid until the next Add.
  std::vector<const Experience*> Sample(size_t n, std::mt19937_64* random) const {
    std::vector<const Experience*> sample;
    for (size_t i = 0; i < n; ++i) {
      sample.push_back(&ring_[(*random)() % ring_.size()]);
    }
    return sample;
  }

 private:
  size_t capacity_;
  size_t oldest_ = 0;
  std::vector<Experience> ring_;
};

}  // namespace espalier

// Policies that drop blocks in an order that was found beforehand.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "policy/policy.h"
#include "profile/profile.h"

namespace espalier {

// Drops the blocks of one ranking until the rest fits (DropUntilItFits): gsi, one-shot, shortgpt, mha-drop, ffn-skip,
// random.
class OrderPolicy final : public Policy {
 public:
  // Named after the ranking's method. REQUIRES: the ranking has every block once.
  explicit OrderPolicy(Ranking ranking) : ranking_(std::move(ranking)) {}

  const char* name() const override { return ranking_.method.c_str(); }
  Result<Decision> Decide(const Observation& observation) const override {
    return DropUntilItFits(observation, ranking_.drop_order);
  }
  std::vector<BlockId> DropOrder(int n_layer) const override;

 private:
  Ranking ranking_;
};

// Likewise with the chain that was made for the workload nearest to the observed one: which kind of block is worth its
// bytes depends on how many KV cells there are.
class DensityPolicy final : public Policy {
 public:
  // Copies the profile's density rankings. REQUIRES: there is one, and each has every block once.
  explicit DensityPolicy(const Profile& profile);

  const char* name() const override { return "density"; }
  Result<Decision> Decide(const Observation& observation) const override;
  // Of the chain in the middle: without an observation there is no workload to go by.
  std::vector<BlockId> DropOrder(int n_layer) const override;

 private:
  Profile chains_;  // of its rankings, those of density, fewest KV cells first; nothing else
};

}  // namespace espalier

// A plan says how much of every block is kept. It is the one object that everything in Espalier produces, measures,
// runs or writes.
//
// Text form (flags, logs): what is not whole, in order of execution: "a3=0 f7=0 f9=0.5"; the dense plan is "dense".
// JSON twin (plan files, reports): {"keep": {"a3": 0, "f9": 0.5}}.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "model/block.h"

namespace espalier {

class Plan {
 public:
  Plan() = default;
  // All blocks whole.
  static Plan Dense(int n_layer);
  // All blocks dropped.
  static Plan Nothing(int n_layer);

  // Parses the text form ("a3=0 f7=0", "dense", "") for a model of n_layer layers. Separators: spaces or commas.
  // Fails on unknown or repeated blocks, and on fractions outside [0, 1].
  static Result<Plan> Parse(std::string_view text, int n_layer);
  // Parses the short form of --drop: "a3,f7" are blocks to drop.
  static Result<Plan> ParseDrop(std::string_view text, int n_layer);

  int n_layer() const { return static_cast<int>(keep_.size()) / 2; }
  int n_block() const { return static_cast<int>(keep_.size()); }

  // Share of the block that stays, in [0, 1]: 1 whole, 0 dropped. REQUIRES: the block belongs to the model.
  double keep(BlockId block) const { return keep_[static_cast<size_t>(block.index)]; }
  void set_keep(BlockId block, double fraction);
  bool kept(BlockId block) const { return keep(block) > 0; }
  void Drop(BlockId block) { set_keep(block, 0); }
  void Restore(BlockId block) { set_keep(block, 1); }

  bool dense() const;
  // True if every block is whole or dropped: nothing of structured width.
  bool whole_blocks_only() const;
  std::vector<BlockId> dropped() const;
  int kept_attention() const;
  int kept_ffn() const;
  bool keeps_nothing() const { return kept_attention() + kept_ffn() == 0; }

  std::string ToText() const;

  friend bool operator==(const Plan&, const Plan&) = default;

 private:
  explicit Plan(int n_layer) : keep_(static_cast<size_t>(2 * n_layer), 1.0) {}
  std::vector<double> keep_;
};

}  // namespace espalier

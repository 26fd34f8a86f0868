// What an agent sees of a request and a plan, as numbers of about the same size. Two encodings:
//
//  * paper: the 2N + 4 numbers of arXiv 2505.17138 for N layers: batch size, sequence length, the importance of every
//    block (0 where dropped), available memory, the request's predicted peak. Numbers of sequences and tokens as
//    logarithms; importance as 1 plus a tenth of its logarithm over the mean, since what matters to a network that
//    serves one model is whether the block is there. Of the two memories what decides is their difference, in whole
//    blocks: they enter as the bytes that are still missing, in multiples of an attention block and in multiples of an
//    FFN block (KV at the request's workload included). What an action does depends on whether the plan fits
//    after it, and a network this small does not read that from plain bytes. What the process holds besides counts for
//    neither.
//  * shared: the same, and per block a row of features that mean the same in any model: whatever reads them block by
//    block serves models of any depth.
#pragma once

#include <Eigen/Core>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "model/plan.h"
#include "policy/policy.h"

namespace espalier {

// Raised whenever the meaning of a state changes: an agent that was trained on another version is refused.
inline constexpr int kStateVersion = 1;

enum class StateKind { kPaper, kShared };
const char* StateKindName(StateKind kind);
Result<StateKind> ParseStateKind(std::string_view text);

// paper: [2 * n_layer + 4]. shared: kGlobalFeatures numbers, then kBlockFeatures for every block, in order of
// execution.
using State = Eigen::VectorXf;
// By action (blocks, then STOP): 1 where it is allowed.
using ActionMask = std::vector<uint8_t>;

inline constexpr int kGlobalFeatures = 6;
inline constexpr int kBlockFeatures = 8;

int StateSize(StateKind kind, int n_block);

// What states show of the blocks' importance: the same for all tasks of a model.
struct BlockMarks {
  // By block, not negative; only the shares of their sum count.
  explicit BlockMarks(std::span<const double> importance);

  std::vector<double> mark;  // what a kept one's importance is shown as
  std::vector<double> rank;  // place among all by importance, 0 (least) to 1
};

// A state of the dense plan that knows of no task: what tasks tell is 0. Where networks begin whose steps are small.
State StateBeforeTasks(StateKind kind, const BlockMarks& marks);

// Encodes the states of one episode. Thread rule: const calls from any thread.
class StateEncoder {
 public:
  // `marks` must outlive the encoder. REQUIRES: one for each block of the task's model.
  StateEncoder(StateKind kind, const BlockMarks& marks, const Observation& task);

  // Into `state`, whose memory is used again.
  void Encode(const Plan& plan, const Footprint& footprint, State* state) const;

 private:
  StateKind kind_;
  const BlockMarks* marks_;
  std::vector<double> bytes_;   // by block: at the task's workload
  double attention_bytes_ = 0;  // mean over the attention blocks
  double ffn_bytes_ = 0;
  double limit_ = 0;       // bytes, without those of the process
  double dense_peak_ = 1;  // bytes
  double weights_ = 1;     // bytes of the dense model
  double log_batch_ = 0;
  double log_tokens_ = 0;
};

}  // namespace espalier

#include "rl/state.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "base/check.h"
#include "rl/task.h"

namespace espalier {
namespace {

constexpr double kLeastShare = 1e-4;  // of the mean importance: a block that nothing depends on is still a block
constexpr double kMostBlocks = 1000;

}  // namespace

const char* StateKindName(StateKind kind) { return kind == StateKind::kPaper ? "paper" : "shared"; }

Result<StateKind> ParseStateKind(std::string_view text) {
  for (const StateKind kind : {StateKind::kPaper, StateKind::kShared}) {
    if (text == StateKindName(kind)) {
      return kind;
    }
  }
  return InvalidArgument("network '" + std::string(text) + "' is unknown; there are: paper, shared");
}

int StateSize(StateKind kind, int n_block) {
  return kind == StateKind::kPaper ? n_block + 4 : kGlobalFeatures + n_block * kBlockFeatures;
}

BlockMarks::BlockMarks(std::span<const double> importance) {
  const auto n_block = static_cast<double>(importance.size());
  const double mean = std::accumulate(importance.begin(), importance.end(), 0.0) / n_block;
  for (const double score : importance) {
    const double share = mean > 0 ? std::max(score / mean, kLeastShare) : 1;
    mark.push_back(1 + std::log(share) / 10);
  }
  std::vector<size_t> order(importance.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return importance[a] < importance[b]; });
  rank.resize(order.size());
  for (size_t i = 0; i < order.size(); ++i) {
    rank[order[i]] = static_cast<double>(i) / std::max(1.0, n_block - 1);
  }
}

State StateBeforeTasks(StateKind kind, const BlockMarks& marks) {
  const auto n_block = static_cast<Eigen::Index>(marks.mark.size());
  State state = State::Zero(StateSize(kind, static_cast<int>(n_block)));
  if (kind == StateKind::kPaper) {
    state.segment(2, n_block) = Eigen::Map<const Eigen::VectorXd>(marks.mark.data(), n_block).cast<float>();
  }
  return state;
}

StateEncoder::StateEncoder(StateKind kind, const BlockMarks& marks, const Observation& task)
    : kind_(kind), marks_(&marks), bytes_(BytesByBlock(task)) {
  ESPALIER_CHECK(marks.mark.size() == bytes_.size());
  const auto n_block = static_cast<double>(bytes_.size());
  for (size_t b = 0; b < bytes_.size(); ++b) {
    (b % 2 == 0 ? attention_bytes_ : ffn_bytes_) += bytes_[b] / (n_block / 2);
  }
  dense_peak_ = static_cast<double>(FootprintOf(task, Plan::Dense(task.n_layer())).peak_bytes());
  weights_ = static_cast<double>(task.memory->weight_bytes());
  limit_ = static_cast<double>(task.limit_bytes) - static_cast<double>(task.process_bytes);
  log_batch_ = std::log2(static_cast<double>(task.workload.n_sequences)) / 4;
  log_tokens_ = std::log2(static_cast<double>(std::max<int64_t>(1, task.workload.longest_sequence))) / 16;
}

void StateEncoder::Encode(const Plan& plan, const Footprint& footprint, State* state) const {
  const int n_block = static_cast<int>(bytes_.size());
  const auto peak = static_cast<double>(footprint.peak_bytes());
  // How many blocks of so many bytes still have to go.
  const auto missing = [&](double bytes) {
    return std::clamp((peak - limit_) / std::max(bytes, 1.0), -kMostBlocks, kMostBlocks);
  };
  state->resize(StateSize(kind_, n_block));
  float* at = state->data();
  const auto put = [&](double value) { *at++ = static_cast<float>(value); };
  put(log_batch_);
  put(log_tokens_);
  if (kind_ == StateKind::kPaper) {
    for (int b = 0; b < n_block; ++b) {
      put(plan.kept({b}) ? marks_->mark[static_cast<size_t>(b)] : 0);
    }
    put(missing(attention_bytes_));
    put(missing(ffn_bytes_));
    return;
  }
  put(limit_ / weights_);
  put(peak / weights_);
  put(2.0 * plan.kept_attention() / n_block);
  put(2.0 * plan.kept_ffn() / n_block);
  const double depth = std::max(1, n_block - 1);
  for (int b = 0; b < n_block; ++b) {
    put(BlockId{b}.is_attention() ? 1 : 0);
    put(b / depth);
    put(plan.kept({b}) ? 1 : 0);
    put(marks_->rank[static_cast<size_t>(b)]);
    put(5 * (marks_->mark[static_cast<size_t>(b)] - 1));
    put(n_block * bytes_[static_cast<size_t>(b)] / dense_peak_);
    put(missing(bytes_[static_cast<size_t>(b)]) / 4);
    // What the layer's other half does.
    put(plan.kept({b ^ 1}) ? 1 : 0);
  }
}

}  // namespace espalier

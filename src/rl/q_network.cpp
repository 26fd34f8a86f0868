#include "rl/q_network.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "base/check.h"
#include "nn/dense.h"

namespace espalier {
namespace {

using Eigen::Index;
using Eigen::MatrixXf;
using Eigen::VectorXf;
using nn::BackRelu;
using nn::Layer;
using nn::LayerPlan;
using nn::Relu;

class PaperNetwork final : public QNetwork {
 public:
  explicit PaperNetwork(int n_block) {
    constexpr Index kHidden = 128;
    hidden_ = plan_.Add(StateSize(StateKind::kPaper, n_block), kHidden);
    output_ = plan_.Add(kHidden, n_block + 1);
  }
  void Initialise(uint64_t seed) { parameters_ = plan_.Initial(seed); }

  StateKind kind() const override { return StateKind::kPaper; }
  Index n_parameter() const override { return plan_.size(); }
  std::unique_ptr<QNetwork> Clone() const override { return std::make_unique<PaperNetwork>(*this); }

  const VectorXf& Follow(const State& state, Index n_action, LastState* last) const override {
    const auto by_input = hidden_.weights(parameters_);
    if (last->state.size() != state.size()) {
      last->hidden = hidden_.bias(parameters_);
      last->hidden.noalias() += by_input * state;
    } else {
      for (Index i = 0; i < state.size(); ++i) {
        if (state[i] != last->state[i]) {
          last->hidden += (state[i] - last->state[i]) * by_input.col(i);
        }
      }
    }
    last->state = state;
    last->values = output_.bias(parameters_).head(n_action);
    AddOutput(last);
    return last->values;
  }

 protected:
  MatrixXf Run(const MatrixXf& states, const Derivative& derivative, VectorXf* gradient) const override {
    const MatrixXf hidden = Relu(hidden_.Apply(parameters_, states));
    MatrixXf values = output_.Apply(parameters_, hidden);
    if (derivative) {
      const MatrixXf back = output_.Back(parameters_, hidden, derivative(values), gradient);
      hidden_.Back(parameters_, states, BackRelu(hidden, back), gradient);
    }
    return values;
  }

 private:
  // Of the hidden units that ReLU lets pass: a quarter in trained agents, and what does not count is not read either.
  // Four at a time, so that values are not written for each.
  void AddOutput(LastState* last) const {
    const auto by_unit = output_.weights(parameters_);
    const auto out_of = [&](Index unit) { return last->hidden[unit] * by_unit.col(unit).head(last->values.size()); };
    last->active.resize(static_cast<size_t>(last->hidden.size()));
    Index* const active = last->active.data();
    Index n = 0;
    for (Index unit = 0; unit < last->hidden.size(); ++unit) {  // without a branch: who passes cannot be foreseen
      active[n] = unit;
      n += std::signbit(last->hidden[unit]) ? 0 : 1;
    }
    Index i = 0;
    for (; i + 4 <= n; i += 4) {
      last->values += out_of(active[i]) + out_of(active[i + 1]) + out_of(active[i + 2]) + out_of(active[i + 3]);
    }
    for (; i < n; ++i) {
      last->values += out_of(active[i]);
    }
  }

  LayerPlan plan_;
  Layer hidden_;
  Layer output_;
};

// What all blocks of a state have in common enters once per state, not once per block: most of the work is by block.
class SharedNetwork final : public QNetwork {
 public:
  SharedNetwork() {
    constexpr Index kCode = 32;
    constexpr Index kHidden = 32;
    encode_block_ = plan_.Add(kBlockFeatures, kCode);
    encode_global_ = plan_.Add(kGlobalFeatures, kCode);
    encode_2_ = plan_.Add(kCode, kCode);
    head_block_ = plan_.Add(kCode, kHidden);
    head_context_ = plan_.Add(kCode + kGlobalFeatures, kHidden);
    head_2_ = plan_.Add(kHidden, 1);
    stop_1_ = plan_.Add(kCode + kGlobalFeatures, kHidden);
    stop_2_ = plan_.Add(kHidden, 1);
  }
  void Initialise(uint64_t seed) { parameters_ = plan_.Initial(seed); }

  StateKind kind() const override { return StateKind::kShared; }
  Index n_parameter() const override { return plan_.size(); }
  std::unique_ptr<QNetwork> Clone() const override { return std::make_unique<SharedNetwork>(*this); }

 protected:
  Index states_at_once() const override { return 4; }
  MatrixXf Run(const MatrixXf& states, const Derivative& derivative, VectorXf* gradient) const override {
    const Index batch = states.cols();
    const Index n_block = (states.rows() - kGlobalFeatures) / kBlockFeatures;
    const VectorXf& p = parameters_;
    // Block b of state s is column s * n_block + b.
    const MatrixXf globals = states.topRows(kGlobalFeatures);
    MatrixXf x(kBlockFeatures, batch * n_block);
    for (Index s = 0; s < batch; ++s) {
      x.middleCols(s * n_block, n_block) =
          Eigen::Map<const MatrixXf>(states.col(s).data() + kGlobalFeatures, kBlockFeatures, n_block);
    }
    const MatrixXf code_1 = Relu(PlusByState(encode_block_.Apply(p, x), encode_global_.Apply(p, globals)));
    const MatrixXf code = Relu(encode_2_.Apply(p, code_1));
    const Index n_code = code.rows();
    MatrixXf context(n_code + kGlobalFeatures, batch);  // mean code, and the globals again
    context.topRows(n_code) = SumByState(code, batch) / static_cast<float>(n_block);
    context.bottomRows(kGlobalFeatures) = globals;
    const MatrixXf head = Relu(PlusByState(head_block_.Apply(p, code), head_context_.Apply(p, context)));
    const MatrixXf drop = head_2_.Apply(p, head);
    const MatrixXf stop_hidden = Relu(stop_1_.Apply(p, context));
    MatrixXf values(n_block + 1, batch);
    values.topRows(n_block) = Eigen::Map<const MatrixXf>(drop.data(), n_block, batch);
    values.bottomRows(1) = stop_2_.Apply(p, stop_hidden);
    if (!derivative) {
      return values;
    }

    const MatrixXf dvalues = derivative(values);
    const MatrixXf dstop = dvalues.bottomRows(1);
    MatrixXf dcontext =
        stop_1_.Back(p, context, BackRelu(stop_hidden, stop_2_.Back(p, stop_hidden, dstop, gradient)), gradient);
    const MatrixXf ddrop_by_state = dvalues.topRows(n_block);
    const MatrixXf ddrop = Eigen::Map<const MatrixXf>(ddrop_by_state.data(), 1, batch * n_block);
    const MatrixXf dhead = BackRelu(head, head_2_.Back(p, head, ddrop, gradient));
    dcontext += head_context_.Back(p, context, SumByState(dhead, batch), gradient);
    const MatrixXf dcode =
        PlusByState(head_block_.Back(p, code, dhead, gradient), dcontext.topRows(n_code) / static_cast<float>(n_block));
    const MatrixXf dcode_1 = BackRelu(code_1, encode_2_.Back(p, code_1, BackRelu(code, dcode), gradient));
    encode_global_.Back(p, globals, SumByState(dcode_1, batch), gradient);
    encode_block_.Back(p, x, dcode_1, gradient);
    return values;
  }

 private:
  // Adds column s of `by_state` to all of the columns of state s.
  static MatrixXf PlusByState(MatrixXf by_block, const MatrixXf& by_state) {
    const Index n_block = by_block.cols() / by_state.cols();
    for (Index s = 0; s < by_state.cols(); ++s) {
      nn::AddToColumns(by_state.col(s), s * n_block, n_block, &by_block);
    }
    return by_block;
  }
  static MatrixXf SumByState(const MatrixXf& by_block, Index batch) {
    const Index n_block = by_block.cols() / batch;
    MatrixXf sums(by_block.rows(), batch);
    for (Index s = 0; s < batch; ++s) {
      sums.col(s) = by_block.middleCols(s * n_block, n_block).rowwise().sum();
    }
    return sums;
  }

  LayerPlan plan_;
  Layer encode_block_, encode_global_, encode_2_, head_block_, head_context_, head_2_, stop_1_, stop_2_;
};

}  // namespace

const VectorXf& QNetwork::Follow(const State& state, Index n_action, LastState* last) const {
  last->values = Forward(state).col(0).head(n_action);
  return last->values;
}

MatrixXf QNetwork::RunInParts(const MatrixXf& states, const LossGradient* loss_gradient, VectorXf* gradient) const {
  MatrixXf values;
  for (Index first = 0; first < states.cols(); first += states_at_once()) {
    const Index n = std::min(states_at_once(), states.cols() - first);
    Derivative derivative;
    if (loss_gradient != nullptr) {
      derivative = [&](const MatrixXf& part) { return (*loss_gradient)(first, part); };
    }
    const MatrixXf part = Run(states.middleCols(first, n), derivative, gradient);
    if (first == 0) {
      values.resize(part.rows(), states.cols());
    }
    values.middleCols(first, n) = part;
  }
  return values;
}

void QNetwork::set_parameters(VectorXf parameters) {
  ESPALIER_CHECK(parameters.size() == n_parameter());
  parameters_ = std::move(parameters);
}

std::unique_ptr<QNetwork> MakePaperNetwork(int n_block, uint64_t seed) {
  auto network = std::make_unique<PaperNetwork>(n_block);
  network->Initialise(seed);
  return network;
}

std::unique_ptr<QNetwork> MakeSharedNetwork(uint64_t seed) {
  auto network = std::make_unique<SharedNetwork>();
  network->Initialise(seed);
  return network;
}

std::unique_ptr<QNetwork> MakeQNetwork(StateKind kind, int n_block, uint64_t seed) {
  return kind == StateKind::kPaper ? MakePaperNetwork(n_block, seed) : MakeSharedNetwork(seed);
}

int MaskedArgmax(const Eigen::Ref<const VectorXf>& values, const ActionMask& mask) {
  int best = -1;
  for (int a = 0; a < static_cast<int>(values.size()); ++a) {
    if (mask[static_cast<size_t>(a)] != 0 && (best < 0 || values[a] > values[best])) {
      best = a;
    }
  }
  ESPALIER_CHECK(best >= 0);
  return best;
}

}  // namespace espalier

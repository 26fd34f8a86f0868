// Q-functions: from a state to the value of every action. Parameters are one vector, so that optimisers, target
// networks and files need not know what they mean.
#pragma once

#include <Eigen/Core>
#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "rl/state.h"

namespace espalier {

class QNetwork {
 public:
  virtual ~QNetwork() = default;
  virtual StateKind kind() const = 0;
  virtual Eigen::Index n_parameter() const = 0;
  virtual std::unique_ptr<QNetwork> Clone() const = 0;

  const Eigen::VectorXf& parameters() const { return parameters_; }
  // REQUIRES: as many as n_parameter()
  void set_parameters(Eigen::VectorXf parameters);

  // What was computed of the last state of an episode.
  struct LastState {
    State state;  // empty: none yet
    Eigen::VectorXf hidden;
    Eigen::VectorXf values;
    std::vector<Eigen::Index> active;  // hidden units behind the ReLU
  };
  // Values of the first `n_action` actions in one state of an episode: Forward's, but for rounding. A step changes
  // little, and only what it changed since `last` is computed again; `last` is this state's from then on, and its
  // memory is used again. REQUIRES: `last` is empty or of this network, whose parameters are those of then. Valid until
  // `last` changes.
  virtual const Eigen::VectorXf& Follow(const State& state, Eigen::Index n_action, LastState* last) const;

  // Values of all actions, one column for each column of `states`. Thread rule: const calls from any thread.
  Eigen::MatrixXf Forward(const Eigen::MatrixXf& states) const { return RunInParts(states, nullptr, nullptr); }
  // From the values of the states from column `first` on to a loss's derivative by each of them, in the same shape.
  using LossGradient = std::function<Eigen::MatrixXf(Eigen::Index first, const Eigen::MatrixXf& values)>;
  // The same, and adds the loss's gradient by the parameters to `gradient`, which has n_parameter() numbers. The
  // derivative is asked for in parts, from the first column to the last.
  Eigen::MatrixXf ForwardBackward(const Eigen::MatrixXf& states, const LossGradient& loss_gradient,
                                  Eigen::VectorXf* gradient) const {
    return RunInParts(states, &loss_gradient, gradient);
  }

 protected:
  // From values to derivatives; empty for a forward pass alone.
  using Derivative = std::function<Eigen::MatrixXf(const Eigen::MatrixXf& values)>;
  virtual Eigen::MatrixXf Run(const Eigen::MatrixXf& states, const Derivative& derivative,
                              Eigen::VectorXf* gradient) const = 0;
  // States for which what lies between the layers stays in the cache, and is too small to be asked of the system every
  // time.
  virtual Eigen::Index states_at_once() const { return 64; }

 private:
  Eigen::MatrixXf RunInParts(const Eigen::MatrixXf& states, const LossGradient* loss_gradient,
                             Eigen::VectorXf* gradient) const;

 protected:
  Eigen::VectorXf parameters_;
};

// arXiv 2505.17138: a two-layer perceptron (one hidden layer of ReLU) on the flat state; about 18 000 parameters at 32
// layers.
std::unique_ptr<QNetwork> MakePaperNetwork(int n_block, uint64_t seed);

// One encoder for all blocks: every block's features and the globals go through the same two layers; the mean over the
// blocks is the context; the same head gives each block's value from its code, the context and the globals, and another
// one STOP's. No parameter belongs to a block, so it serves models of any depth.
std::unique_ptr<QNetwork> MakeSharedNetwork(uint64_t seed);

std::unique_ptr<QNetwork> MakeQNetwork(StateKind kind, int n_block, uint64_t seed);

// Of the first actions, as many as there are values, the allowed one of the greatest value; of equal ones the first.
// REQUIRES: one is allowed.
int MaskedArgmax(const Eigen::Ref<const Eigen::VectorXf>& values, const ActionMask& mask);

}  // namespace espalier

#include "strategy/strat_net.h"

#include <gtest/gtest.h>

#include <vector>

namespace espalier {
namespace {

const std::vector<StratInput> kInputs = {{{0.2}, 0.05}, {{0.5}, 1}, {{0.9}, 4}};

TEST(StratNet, GradientIsThatOfFiniteDifferences) {
  StratNet net(6, 3);
  const Eigen::MatrixXf weights = Eigen::MatrixXf::Random(6, 3);
  for (const float sharpness : {1.0F, 4.0F}) {
    Eigen::VectorXf gradient = Eigen::VectorXf::Zero(net.parameters().size());
    net.ForwardBackward(
        kInputs, sharpness, [&](const Eigen::MatrixXf&) { return weights; }, &gradient);
    const Eigen::VectorXf before = net.parameters();
    const auto value = [&](Eigen::Index at, float by) {
      Eigen::VectorXf moved = before;
      moved[at] += by;
      net.set_parameters(moved);
      return net.Forward(kInputs, sharpness).cast<double>().cwiseProduct(weights.cast<double>()).sum();
    };
    for (Eigen::Index i = 0; i < before.size(); i += 977) {
      constexpr float kStep = 1e-3F;
      EXPECT_NEAR(gradient[i], (value(i, kStep) - value(i, -kStep)) / (2 * kStep), 2e-3) << i;
    }
    net.set_parameters(before);
  }
}

TEST(StratNet, AnswersEachRequestAsIfItWereAlone) {
  const StratNet net(8, 1);
  const Eigen::MatrixXf all = net.Forward(kInputs);
  ASSERT_EQ(all.rows(), 8);
  for (size_t i = 0; i < kInputs.size(); ++i) {
    const Eigen::MatrixXf alone = net.Forward(std::span(kInputs).subspan(i, 1));
    EXPECT_LT((all.col(static_cast<Eigen::Index>(i)) - alone.col(0)).norm(), 1e-6);
  }
  EXPECT_GT(all.minCoeff(), 0);
  EXPECT_LT(all.maxCoeff(), 1);
}

TEST(StratNet, SharpnessMovesFractionsToTheEnds) {
  const StratNet net(8, 2);
  const Eigen::ArrayXXf soft = net.Forward(kInputs);
  const Eigen::ArrayXXf sharp = net.Forward(kInputs, 10);
  EXPECT_TRUE(((soft < 0.5F) == (sharp < 0.5F)).all());
  EXPECT_LT((sharp * (1 - sharp)).sum(), (soft * (1 - soft)).sum());
}

}  // namespace
}  // namespace espalier

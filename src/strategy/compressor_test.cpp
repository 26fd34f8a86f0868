#include "strategy/compressor.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <random>

#include "importance/density.h"

namespace espalier {
namespace {

using Target = CompressionRequest::Target;
using testing::HasSubstr;

constexpr int kLayers = 4;
constexpr int kBlocks = 2 * kLayers;

MemoryModel SomeMemory() {
  MemoryModel memory;
  for (int il = 0; il < kLayers; ++il) {
    memory.block_bytes.push_back(1000 + 10 * static_cast<uint64_t>(il));
    memory.block_bytes.push_back(3000 + 10 * static_cast<uint64_t>(il));
  }
  memory.block_staging_bytes.assign(memory.block_bytes.size(), 0);
  memory.global_bytes = 5000;
  memory.kv = {.key_bytes_per_cell = 5, .value_bytes_per_cell = 5, .n_planes = 2, .page_bytes = 1, .capacity = 1 << 20};
  return memory;
}

Plan WithoutMask(unsigned mask) {
  Plan plan = Plan::Dense(kLayers);
  for (int b = 0; b < kBlocks; ++b) {
    if ((mask >> b & 1) != 0) {
      plan.Drop({b});
    }
  }
  return plan;
}

double TrueLoss(const Plan& plan) {
  double loss = 0;
  for (const BlockId block : plan.dropped()) {
    loss += 0.05 * (1 + block.index) * (block.is_attention() ? 1 : 1.7);
  }
  return loss;
}

// Placeholders take a little: not quite a sum.
uint64_t FileBytes(const Plan& plan) {
  uint64_t bytes = 7000;
  for (int b = 0; b < kBlocks; ++b) {
    bytes += plan.kept({b}) ? SomeMemory().block_bytes[static_cast<size_t>(b)] : plan.kept({b ^ 1}) ? 96 : 0;
  }
  return bytes;
}

double DecodeTime(const Plan& plan, const Workload&) {
  return 1 + 0.5 * plan.kept_attention() + 0.25 * plan.kept_ffn();
}

// A third of the plans were measured. What the network says is as good as drawn at random: limits have to hold all the
// same.
class Setting {
 public:
  explicit Setting(bool use_measured = true) {
    MeasurementSet set;
    set.corpus = "numbers";
    set.n_windows = 1;
    set.tokens_scored = 10;
    archive.emplace(set);
    for (unsigned mask = 1; mask < 1U << kBlocks; ++mask) {
      if (mask % 3 == 0 || (mask & (mask - 1)) == 0) {
        const Plan plan = WithoutMask(mask);
        const WindowLoss window = {10 * TrueLoss(plan), 30};
        archive->Add(plan, 0, {&window, 1});
      }
    }
    auto surrogate = LossSurrogate::Fit(*archive, kLayers);
    EXPECT_TRUE(surrogate.ok());
    CompressorOptions options;
    options.preferences = 16;
    options.decode_ms = DecodeTime;
    options.use_measured = use_measured;
    compressor.emplace(StratNet(kBlocks, 5), std::move(*surrogate), &*archive, SomeMemory(), FileBytes, options);
  }

  std::optional<Archive> archive;
  std::optional<Compressor> compressor;
};

class CompressorTest : public testing::Test {
 protected:
  Result<CompressionAnswer> Ask(Target target, double value, const char* workload = nullptr) {
    CompressionRequest request = {target, value, {}};
    if (workload != nullptr) {
      request.workload = *Workload::Parse(workload);
    }
    return std::move(setting_.compressor->Answer({&request, 1}).front());
  }

  Setting setting_;
};

uint64_t FootprintAt(const Plan& plan, const char* workload) {
  return PredictFootprint(SomeMemory(), plan, *Workload::Parse(workload)).peak_bytes();
}

TEST_F(CompressorTest, BytesAreNeverExceededAndNothingDroppedWouldFit) {
  const uint64_t dense = FileBytes(Plan::Dense(kLayers));
  for (uint64_t limit = 8000; limit < dense + 1000; limit += 371) {
    for (const char* workload : {static_cast<const char*>(nullptr), "1x100", "4x400"}) {
      const auto bytes_of = [&](const Plan& plan) {
        return workload != nullptr ? FootprintAt(plan, workload) : FileBytes(plan);
      };
      const auto answer = Ask(Target::kBytes, static_cast<double>(limit), workload);
      if (!answer.ok()) {
        for (int b = 0; b < kBlocks; ++b) {
          EXPECT_GT(bytes_of(WithoutMask(0xFFU & ~(1U << b))), limit);
        }
        continue;
      }
      EXPECT_EQ(answer->bytes, bytes_of(answer->plan));
      EXPECT_EQ(answer->limit_bytes, limit);
      ASSERT_LE(answer->bytes, limit);
      for (const BlockId block : answer->plan.dropped()) {
        Plan larger = answer->plan;
        larger.Restore(block);
        EXPECT_GT(bytes_of(larger), limit);
      }
    }
  }
}

TEST_F(CompressorTest, RatiosAreOfTheDenseModelInTheSameBytes) {
  const auto file = Ask(Target::kSizeRatio, 0.7);
  ASSERT_TRUE(file.ok());
  EXPECT_EQ(file->dense_bytes, FileBytes(Plan::Dense(kLayers)));
  EXPECT_EQ(file->limit_bytes, static_cast<uint64_t>(0.7 * static_cast<double>(file->dense_bytes)));
  const auto footprint = Ask(Target::kSizeRatio, 0.7, "4x100");
  ASSERT_TRUE(footprint.ok());
  EXPECT_EQ(footprint->dense_bytes, FootprintAt(Plan::Dense(kLayers), "4x100"));
  EXPECT_TRUE(Ask(Target::kSizeRatio, 1)->plan.dense());
}

TEST_F(CompressorTest, WhatCannotBeReachedIsRefusedNamingTheLeast) {
  uint64_t least = FileBytes(Plan::Dense(kLayers));
  for (int b = 0; b < kBlocks; ++b) {
    least = std::min(least, FileBytes(WithoutMask(0xFFU & ~(1U << b))));
  }
  EXPECT_TRUE(Ask(Target::kBytes, static_cast<double>(least)).ok());
  const auto refused = Ask(Target::kBytes, static_cast<double>(least - 1));
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(refused.status().code(), ErrorCode::kOutOfBudget);
  EXPECT_THAT(refused.status().message(), HasSubstr(std::to_string(least)));
  const auto slow = Ask(Target::kLatency, 1.2, "1x100");  // one FFN block: 1.25 ms
  ASSERT_FALSE(slow.ok());
  EXPECT_THAT(slow.status().message(), HasSubstr("1.250 ms"));
  EXPECT_FALSE(Ask(Target::kLatency, 10).ok());  // at no workload
  EXPECT_FALSE(Ask(Target::kSizeRatio, 1.5).ok());
  EXPECT_FALSE(Ask(Target::kLoss, -1).ok());
  EXPECT_FALSE(Ask(Target::kPreference, 2).ok());
}

TEST_F(CompressorTest, LossIsHeldAndTheMoreItMayBeTheSmallerTheAnswer) {
  uint64_t last = FileBytes(Plan::Dense(kLayers)) + 1;
  for (const double most : {0.0, 0.05, 0.1, 0.2, 0.5, 1.0, 3.0}) {
    const auto answer = Ask(Target::kLoss, most);
    ASSERT_TRUE(answer.ok());
    EXPECT_LE(answer->upper_loss, most);
    EXPECT_LE(TrueLoss(answer->plan), most * 1.05 + 1e-9);  // the surrogate knows an additive loss well
    EXPECT_LE(answer->bytes, last);
    last = answer->bytes;
  }
  EXPECT_TRUE(Ask(Target::kLoss, 0)->plan.dense());
}

TEST_F(CompressorTest, DecodeStepsAreHeld) {
  for (const double most : {1.25, 1.5, 2.0, 3.0, 4.0}) {
    const auto answer = Ask(Target::kLatency, most, "1x100");
    ASSERT_TRUE(answer.ok()) << answer.status().message();
    EXPECT_LE(*answer->latency_ms, most);
    EXPECT_EQ(*answer->latency_ms, DecodeTime(answer->plan, {}));
  }
  EXPECT_TRUE(Ask(Target::kLatency, 4, "1x100")->plan.dense());  // 1 + 4 * 0.5 + 4 * 0.25
}

TEST_F(CompressorTest, PreferencesAreAnsweredByTheNetworkAlone) {
  const StratNet net(kBlocks, 5);
  const auto answer = Ask(Target::kPreference, 0.5, "4x100");
  ASSERT_TRUE(answer.ok());
  const MemoryModel memory = SomeMemory();
  const StratInput input = {{0.5}, 400 / memory.cells_of_weights()};
  const auto keep = net.Forward(std::span(&input, 1)).col(0).eval();
  for (int b = 0; b < kBlocks; ++b) {
    EXPECT_EQ(answer->plan.kept({b}), keep[b] >= 0.5F);
  }
}

TEST_F(CompressorTest, ManyRequestsAreAnsweredAsEachAlone) {
  std::vector<CompressionRequest> requests;
  for (int i = 0; i < 40; ++i) {
    CompressionRequest request = {i % 3 == 0 ? Target::kLoss : Target::kSizeRatio, 0.5 + 0.01 * i, {}};
    if (i % 4 == 1) {
      request.workload = Workload::Uniform(1 + i % 5, 100 + i);
    }
    requests.push_back(request);
  }
  requests[7].value = 1e-6;  // one that fails
  const auto answers = setting_.compressor->Answer(requests);
  ASSERT_EQ(answers.size(), requests.size());
  for (size_t i = 0; i < requests.size(); ++i) {
    Setting alone;
    const auto expected = std::move(alone.compressor->Answer({&requests[i], 1}).front());
    ASSERT_EQ(answers[i].ok(), expected.ok()) << i;
    if (expected.ok()) {
      EXPECT_EQ(answers[i]->plan, expected->plan) << i;
    }
  }
  EXPECT_FALSE(answers[7].ok());
}

TEST(Compressor, WhatWasMeasuredSinceIsTakenIntoAccount) {
  Setting setting(/*use_measured=*/false);  // else no guess is smaller than what is known here
  const auto ask = [&](double most) {
    const CompressionRequest request = {Target::kLoss, most, {}};
    return std::move(setting.compressor->Answer({&request, 1}).front());
  };
  double most = 0.2;
  auto before = ask(most);
  for (; before.ok() && before->measured_loss && most < 2; most += 0.05) {
    before = ask(most + 0.05);
  }
  ASSERT_TRUE(before.ok());
  ASSERT_FALSE(before->measured_loss);
  const WindowLoss window = {10 * (most + 0.5), 30};  // more than was asked for
  setting.archive->Add(before->plan, 0, {&window, 1});
  const auto after = ask(most);
  ASSERT_TRUE(after.ok());
  EXPECT_NE(after->plan, before->plan);
  EXPECT_GE(after->bytes, before->bytes);
}

TEST_F(CompressorTest, NoMeasuredPlanWithinALossIsSmaller) {
  for (const char* workload : {static_cast<const char*>(nullptr), "1x100", "4x400"}) {
    for (double most = 0.02; most < 3; most *= 1.2) {
      const auto answer = Ask(Target::kLoss, most, workload);
      ASSERT_TRUE(answer.ok());
      EXPECT_LE(answer->upper_loss, most);
      for (const ArchiveRow& row : setting_.archive->rows()) {
        if (!row.plan.keeps_nothing() && setting_.archive->Loss(row) <= most) {
          EXPECT_LE(answer->bytes, workload != nullptr ? FootprintAt(row.plan, workload) : FileBytes(row.plan));
        }
      }
    }
  }
}

TEST(LossMargin, CoversWhatItSays) {
  // Losses with noise that no surrogate can know: of fresh plans the share stated has to stay below.
  MeasurementSet set;
  set.n_windows = 1;
  set.tokens_scored = 10;
  std::mt19937_64 random(3);
  std::normal_distribution<double> noise(0, 0.2);
  const auto draw = [&] {
    const Plan plan = WithoutMask(1 + static_cast<unsigned>(random() % 254));
    return std::pair(plan, TrueLoss(plan) * std::exp(noise(random)));
  };
  int covered = 0;
  int fresh_plans = 0;
  for (int round = 0; round < 8; ++round) {
    Archive archive(set);
    for (int i = 0; i < 120; ++i) {
      const auto [plan, loss] = draw();
      const WindowLoss window = {10 * loss, 30};
      archive.Add(plan, 0, {&window, 1});
    }
    const auto surrogate = LossSurrogate::Fit(archive, kLayers);
    ASSERT_TRUE(surrogate.ok());
    // All plans count as near the front: the fresh ones are drawn from all.
    const LossMargin margin =
        MarginOf(*surrogate, SomeMemory(), SpreadOfCells(SomeMemory(), 2), {.confidence = 0.9, .near_front = 1e-9});
    EXPECT_EQ(margin.plans, surrogate->process().n());
    for (int i = 0; i < 60; ++i) {
      const auto [plan, loss] = draw();
      if (!archive.LossOf(plan)) {
        ++fresh_plans;
        covered += loss <= margin.Upper(*surrogate, surrogate->Predict(plan)) ? 1 : 0;
      }
    }
  }
  ASSERT_GT(fresh_plans, 150);
  const double share = static_cast<double>(covered) / fresh_plans;
  EXPECT_GT(share, 0.84);
  EXPECT_LT(share, 0.96);
}

TEST_F(CompressorTest, TooFewPlansGiveNoMarginButTheDensePlan) {
  const LossMargin margin =
      MarginOf(setting_.compressor->surrogate(), SomeMemory(), SpreadOfCells(SomeMemory(), 2), {.confidence = 0.999});
  EXPECT_TRUE(std::isinf(margin.deviations));
  EXPECT_TRUE(std::isinf(
      margin.Upper(setting_.compressor->surrogate(), setting_.compressor->surrogate().Predict(WithoutMask(6)))));
}

TEST_F(CompressorTest, DiagnosisKnowsAGoodSurrogate) {
  const SurrogateDiagnosis good =
      Diagnose(setting_.compressor->surrogate(), SomeMemory(), SpreadOfCells(SomeMemory(), 3));
  EXPECT_GT(good.plans, 10);
  EXPECT_GT(good.bands, 3);
  EXPECT_LT(good.error, 0.2);
  EXPECT_GT(good.spearman, 0.8);
  EXPECT_GT(good.coverage_90, 0.7);
}

}  // namespace
}  // namespace espalier

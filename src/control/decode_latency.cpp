#include "control/decode_latency.h"

#include <Eigen/Cholesky>
#include <Eigen/Core>
#include <algorithm>
#include <array>
#include <cmath>
#include <utility>

#include "base/check.h"
#include "base/stopwatch.h"
#include "control/measure.h"

namespace espalier {
namespace {

// The workload's sequences, each one token short of its longest.
Status Prefill(Engine& engine, const Workload& workload) {
  const int64_t length = std::max<int64_t>(1, workload.longest_sequence - 1);
  for (SequenceId sequence = 0; sequence < workload.n_sequences; ++sequence) {
    std::vector<BatchToken> batch;
    for (const int32_t token :
         RandomTokens(length, engine.model().hparams().n_vocab, static_cast<uint64_t>(sequence) + 1)) {
      batch.push_back({token, sequence, false});
    }
    ESPALIER_RETURN_IF_ERROR(engine.Decode(batch, [](int64_t, std::span<const float>) {}));
  }
  return Status::Ok();
}

void RemoveAll(Engine& engine, const Workload& workload) {
  for (SequenceId sequence = 0; sequence < workload.n_sequences; ++sequence) {
    engine.RemoveSequence(sequence);
  }
}

// One token for each sequence, forgotten again: every step finds the same cells.
Result<double> OneStep(Engine& engine, const Workload& workload) {
  std::vector<BatchToken> batch;
  for (SequenceId sequence = 0; sequence < workload.n_sequences; ++sequence) {
    batch.push_back({sequence, sequence, true});
  }
  const int64_t length = engine.SequenceLength(0);
  const Stopwatch watch;
  ESPALIER_RETURN_IF_ERROR(engine.Decode(batch, [](int64_t, std::span<const float>) {}));
  const double ms = watch.Milliseconds();
  for (SequenceId sequence = 0; sequence < workload.n_sequences; ++sequence) {
    engine.TruncateSequence(sequence, length);
  }
  return ms;
}

Result<std::vector<double>> Steps(Engine& engine, const Workload& workload, int repetitions) {
  ESPALIER_RETURN_IF_ERROR(OneStep(engine, workload).status());  // not counted: the graph is built anew
  std::vector<double> all;
  for (int i = 0; i < repetitions; ++i) {
    ESPALIER_ASSIGN_OR_RETURN(const double ms, OneStep(engine, workload));
    all.push_back(ms);
  }
  return all;
}

// Of each kind every block is kept, every other, or none.
Plan WithHalves(int n_layer, int attention_halves, int ffn_halves) {
  Plan plan = Plan::Dense(n_layer);
  for (int b = 0; b < plan.n_block(); ++b) {
    const int halves = BlockId{b}.is_attention() ? attention_halves : ffn_halves;
    if (halves == 0 || (halves == 1 && (b / 2) % 2 == 1)) {
      plan.Drop({b});
    }
  }
  return plan;
}

}  // namespace

Result<std::vector<double>> TimeDecodeSteps(Engine& engine, const Workload& workload, int repetitions) {
  Status status = Prefill(engine, workload);
  std::vector<double> ms;
  if (status.ok()) {
    auto steps = Steps(engine, workload, repetitions);
    status = steps.status();
    ms = steps.ok() ? std::move(*steps) : std::vector<double>();
  }
  RemoveAll(engine, workload);
  ESPALIER_RETURN_IF_ERROR(status);
  return ms;
}

Result<DecodeLatency> DecodeLatency::Measure(Engine& engine, const Workload& workload, double confidence,
                                             int repetitions) {
  constexpr std::array<int, 3> kHalves = {2, 1, 0};  // attention never comes back: its rows would be missing
  constexpr int kTurns = 3;
  const int n_layer = engine.model().n_layer();
  const auto measure = [&]() -> Result<std::vector<TimedPlan>> {
    std::vector<TimedPlan> timed;
    ESPALIER_RETURN_IF_ERROR(engine.Apply(Plan::Dense(n_layer)).status());
    ESPALIER_RETURN_IF_ERROR(Prefill(engine, workload));
    for (const int attention : kHalves) {
      // What else the machine does is to fall on all of them.
      for (int turn = 0; turn < kTurns; ++turn) {
        for (const int ffn : kHalves) {
          const Plan plan = WithHalves(n_layer, attention, ffn);
          ESPALIER_RETURN_IF_ERROR(engine.Apply(plan).status());
          ESPALIER_ASSIGN_OR_RETURN(std::vector<double> ms, Steps(engine, workload, std::max(1, repetitions / kTurns)));
          timed.push_back({plan, std::move(ms)});
        }
      }
    }
    return timed;
  };
  const auto timed = measure();
  RemoveAll(engine, workload);
  ESPALIER_RETURN_IF_ERROR(timed.status());
  return DecodeLatency(engine.memory_model(), *timed, confidence);
}

std::vector<double> DecodeLatency::FeaturesOf(const Plan& plan) const {
  std::vector<double> features = {1, 0, 0};
  for (int b = 0; b < plan.n_block(); ++b) {
    if (plan.kept({b})) {
      features[BlockId{b}.is_attention() ? 1 : 2] += weight_[static_cast<size_t>(b)];
    }
  }
  return features;
}

DecodeLatency::DecodeLatency(const MemoryModel& memory, std::span<const TimedPlan> timed, double confidence) {
  ESPALIER_CHECK(timed.size() >= 3);
  std::array<double, 2> mean = {};
  const auto n_of_kind = static_cast<double>(memory.block_bytes.size()) / 2;
  for (size_t b = 0; b < memory.block_bytes.size(); ++b) {
    mean[b % 2] += static_cast<double>(memory.block_bytes[b]) / n_of_kind;
  }
  for (size_t b = 0; b < memory.block_bytes.size(); ++b) {
    weight_.push_back(static_cast<double>(memory.block_bytes[b]) / mean[b % 2]);
  }
  // Least squares of ratios, so that short steps count as much as long ones.
  Eigen::Matrix3d a = Eigen::Matrix3d::Zero();
  Eigen::Vector3d y = Eigen::Vector3d::Zero();
  std::vector<double> medians;
  for (const TimedPlan& one : timed) {
    medians.push_back(QuartilesOf(one.ms).median);
    const std::vector<double> f = FeaturesOf(one.plan);
    const Eigen::Vector3d scaled = Eigen::Vector3d(f[0], f[1], f[2]) / medians.back();
    a += scaled * scaled.transpose();
    y += scaled;
  }
  const Eigen::Vector3d fitted = a.ldlt().solve(y);
  constant_ms_ = std::max(0.0, fitted[0]);
  attention_ms_ = std::max(0.0, fitted[1]);
  ffn_ms_ = std::max(0.0, fitted[2]);

  std::vector<double> ratios;
  for (const TimedPlan& one : timed) {
    for (const double ms : one.ms) {
      ratios.push_back(ms / std::max(MedianMs(one.plan), 1e-9));
    }
  }
  std::sort(ratios.begin(), ratios.end());
  const double rank = std::ceil((static_cast<double>(ratios.size()) + 1) * confidence);
  margin_ = std::max(1.0, ratios[std::min(ratios.size(), static_cast<size_t>(rank)) - 1]);
}

double DecodeLatency::MedianMs(const Plan& plan) const {
  const std::vector<double> f = FeaturesOf(plan);
  return f[0] * constant_ms_ + f[1] * attention_ms_ + f[2] * ffn_ms_;
}

}  // namespace espalier

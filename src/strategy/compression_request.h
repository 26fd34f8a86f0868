// Requests for smaller models, and answers to them.
#pragma once

#include <cstdint>
#include <optional>

#include "base/status.h"
#include "model/footprint.h"
#include "model/plan.h"
#include "model/workload.h"
#include "profile/archive.h"
#include "strategy/fit_bytes.h"
#include "surrogate/loss_surrogate.h"

namespace espalier {

struct CompressionRequest {
  enum class Target {
    kBytes,       // at most so many
    kSizeRatio,   // at most this share of the dense model's bytes
    kLoss,        // the fewest bytes at a loss of at most so many nats per token
    kLatency,     // the least loss at a decode step of at most so many milliseconds
    kPreference,  // the paper's: this weight of size, 1 less it of loss
  };
  Target target = Target::kSizeRatio;
  double value = 1;
  // Bytes are the footprint at this workload; without one, those of the file.
  std::optional<Workload> workload;
};

// "max_bytes", "size_ratio", "max_loss", "max_latency_ms", "preference": as files and messages call them.
// Here, so that who only reads requests needs no more than this header.
constexpr const char* TargetName(CompressionRequest::Target target) {
  switch (target) {
    case CompressionRequest::Target::kBytes:
      return "max_bytes";
    case CompressionRequest::Target::kSizeRatio:
      return "size_ratio";
    case CompressionRequest::Target::kLoss:
      return "max_loss";
    case CompressionRequest::Target::kLatency:
      return "max_latency_ms";
    case CompressionRequest::Target::kPreference:
      return "preference";
  }
  return "";
}

struct CompressionAnswer {
  Plan plan;
  uint64_t bytes = 0;        // as the request counts them: of the file, or the footprint's peak
  uint64_t dense_bytes = 0;  // likewise of the dense model
  uint64_t limit_bytes = 0;  // 0 where the target is none in bytes
  // Of the plan with the dropped block back that takes least: above the limit. Empty where there is no limit, or all is
  // kept.
  std::optional<uint64_t> next_bytes;
  std::optional<LossSurrogate::Guess> guess;  // of the plan; empty where nobody guessed
  std::optional<double> measured_loss;        // nats per token, where the archive has the plan
  double upper_loss = 0;                      // with the margin's confidence; the measured one where there is one
  std::optional<double> latency_ms;           // that a decode step stays below, where the request is about it
};

// How requests of one workload (or those about the file) count bytes.
class RequestBytes {
 public:
  // `file_bytes`: of the file that a plan would be written to. Without a workload it is what counts; with one the peak
  // of the footprint at it, of an engine as `memory` describes, its KV cache made for the workload.
  RequestBytes(const MemoryModel& memory, const PlanBytes& file_bytes, const std::optional<Workload>& workload);

  // kNoSuchPlan for the plan without any block, which is no model.
  const PlanBytes& of() const { return of_; }
  uint64_t dense() const { return dense_; }
  int n_layer() const { return n_layer_; }

  // Of a target in bytes. kInvalidArgument for another one or a share out of range; kOutOfBudget, naming the least
  // there is, where no plan of whole blocks takes as few.
  Result<uint64_t> LimitOf(const CompressionRequest& request) const;

 private:
  std::optional<Workload> workload_;
  int n_layer_;
  PlanBytes of_;
  uint64_t dense_;
};

// Of the plans of whole blocks that were measured whole and cost at most `limit`, the first of the least loss; nullptr
// if there is none.
const ArchiveRow* BestMeasured(const Archive& archive, const PlanBytes& cost, uint64_t limit);

// Sets bytes and next_bytes of an answer that has its plan and its limit.
void CountBytes(const RequestBytes& bytes, CompressionAnswer* answer);

// Least of `cost` over plans that keep a single block.
uint64_t LeastOf(const PlanBytes& cost, int n_layer);

}  // namespace espalier

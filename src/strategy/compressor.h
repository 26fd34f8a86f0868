// StratNet's answers to requests for smaller models (UniCuCo, arXiv 2505.12216): however many there are, the
// network is asked once.
//
// The paper's request is a preference between size and loss. Nobody orders one, so ours may also name what it needs: so
// many bytes, so much loss, so much time. The network's answers to many preferences at the request's workload are then
// looked through for the best that holds (bytes do not fall evenly with the preference, so there is nothing to halve),
// each made to fit in whole blocks.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

#include "base/status.h"
#include "model/footprint.h"
#include "model/plan.h"
#include "model/workload.h"
#include "profile/archive.h"
#include "strategy/compression_request.h"
#include "strategy/loss_margin.h"
#include "strategy/strat_net.h"
#include "surrogate/loss_surrogate.h"

namespace espalier {

// Milliseconds of one decode step under a plan at a workload, such that it stays below with the confidence stated. Less
// for every block dropped.
using DecodeMs = std::function<double(const Plan&, const Workload&)>;

// The memory model of an engine that is made for the workload.
using MemoryAt = std::function<const MemoryModel&(const Workload&)>;

struct CompressorOptions {
  int preferences = 128;  // that the network is asked about, for each workload
  // Of plans that fit, the one is taken whose loss is least when so many standard deviations are added to each guess.
  double caution = 0.5;
  // Of the network's plans that fit, so many are held against their neighbours (refine.h); 0: the network alone.
  int refined = 4;
  // Plans that were measured are looked at beside the network's.
  bool use_measured = true;
  MarginOptions margin;
  DecodeMs decode_ms = {};  // kLatency is refused without it
  MemoryAt memory_at = {};  // without it, footprints are of the one engine that all workloads share
};

// Thread rule: one thread at a time.
class Compressor {
 public:
  // `file_bytes`, `memory`: as RequestBytes.
  // `archive`: measured plans, which may grow; must outlive it. REQUIRES: all of one model.
  Compressor(StratNet net, LossSurrogate surrogate, const Archive* archive, const MemoryModel& memory,
             PlanBytes file_bytes, CompressorOptions options = {});
  ~Compressor();

  // One answer for each request. kOutOfBudget, naming what could be reached, for a target that no plan reaches;
  // kInvalidArgument for a value out of range. A request that fails does not concern the others.
  std::vector<Result<CompressionAnswer>> Answer(std::span<const CompressionRequest> requests);

  const LossMargin& margin() const { return margin_; }
  const LossSurrogate& surrogate() const { return surrogate_; }

 private:
  class Place;

  Place* PlaceOf(const std::optional<Workload>& workload);
  void AskNetwork();
  Result<CompressionAnswer> AnswerOne(const CompressionRequest& request);
  Result<Plan> PlanThatFits(Place& place, uint64_t limit, const PlanBytes& cost);
  // ln(loss + floor): measured, or the guess's mean.
  std::vector<double> LogLosses(std::span<const Plan> plans) const;
  Result<Plan> SmallestWithin(Place& place, double most_loss);
  Plan PlanOfPreference(const Place& place, Preference preference) const;
  std::optional<double> LossKnown(const Plan& plan) const;
  double UpperLoss(const Plan& plan, const LossSurrogate::Guess& guess) const;

  StratNet net_;
  LossSurrogate surrogate_;
  const Archive* archive_;
  const MemoryModel memory_;
  const PlanBytes file_bytes_;
  const CompressorOptions options_;
  LossMargin margin_;
  std::map<std::string, std::unique_ptr<Place>> places_;  // by workload, "" the file
};

}  // namespace espalier

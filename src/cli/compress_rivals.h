// `espalier compress --method ...`: what requests in bytes get from others than StratNet.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/status.h"
#include "eval/plan_evaluator.h"
#include "profile/profile.h"
#include "strategy/compression_request.h"
#include "strategy/request_search.h"

namespace espalier {

// "table": the best plan that the profile has. "gsi-chain": one GSI chain for all requests. "gsi", "evolution": a
// search for every request (strategy/request_search.h). They answer targets in bytes alone.
class Rival {
 public:
  static const std::vector<std::string>& Names();
  // Whether it measures plans, for which it needs an evaluator.
  static bool Measures(const std::string& name);

  // `archive`: of measured plans, must outlive it; so must `evaluator`, nullptr where nothing is measured. Makes what
  // all requests have in common, or takes the order that the profile has already. What the evaluator returns where it
  // fails.
  static Result<Rival> Make(const std::string& name, const Profile& profile, const Archive* archive,
                            PlanEvaluator* evaluator, uint64_t seed);

  // Evaluations that all requests have in common, counted as a naive search takes them.
  double shared_evaluations() const { return shared_evaluations_; }

  struct Answer {
    CompressionAnswer answer;
    double evaluations = 0;  // for this request alone
  };
  Result<Answer> operator()(const CompressionRequest& request, const RequestBytes& bytes) const;

 private:
  Rival() = default;
  Result<SearchedPlan> Search(const RequestBytes& bytes, uint64_t limit) const;

  std::string name_;
  const Archive* archive_ = nullptr;
  PlanEvaluator* evaluator_ = nullptr;
  uint64_t seed_ = 1;
  std::vector<BlockId> order_;
  double shared_evaluations_ = 0;
};

}  // namespace espalier

// What `espalier compare` has found, in the forms that it is told in.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/status.h"
#include "cli/json.h"
#include "control/policy_comparison.h"
#include "control/quantisation_ladder.h"
#include "model/model.h"

namespace espalier {

struct CompareReport {
  std::shared_ptr<const Model> model;  // of the JSON form; may be nullptr elsewhere
  std::string model_name;
  std::string quantization;
  std::string profile;    // path
  std::string scenarios;  // "scaled", "paper" or a path
  int candidates = 0;
  PolicyComparison comparison;
  std::optional<Ladder> ladder;     // of types of weights
  std::optional<Ladder> kv_ladder;  // of KV types
  std::vector<std::string> warnings;
  double elapsed_ms = 0;
};

// Sentences: who wins, where `table` stands, what was left out.
std::vector<std::string> Verdicts(const PolicyComparison& comparison);

Json ToJson(const CompareReport& report);
void PrintText(const CompareReport& report);

// One page that stands alone: no script, no font, nothing from the network.
std::string ToHtml(const CompareReport& report);

// Indices of the policies, the best geometric mean first; those without any ratio last.
std::vector<size_t> PoliciesByRank(const PolicyComparison& comparison);

}  // namespace espalier

// The quantisation ladder: what smaller types of the same model's weights, or of its KV cache, cost at the same bytes,
// beside what pruning costs.
//
// A rung is a model with its engine options. Everything is held against the dense predictions of the first one, the
// source (the f16 file; the model with the KV types that are asked for): KL(source || candidate). For each pair of
// neighbouring rungs the larger one is pruned by `policy` until it takes no more than the smaller one dense, at the
// same workload: whichever loses less then is the better use of those bytes. Bytes are the whole footprint there: an
// attention block that is dropped holds no KV.
//
// Cost: every rung is measured dense once, and pruned once for each workload whose plan differs (with five types and
// four workloads: 5 + at most 20 measurements); the model that the comparison is about once for each plan on its curve.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/status.h"
#include "control/policy_choices.h"
#include "control/window_bootstrap.h"
#include "eval/plan_evaluator.h"
#include "model/footprint.h"
#include "model/workload.h"
#include "policy/policy.h"

namespace espalier {

// What the rungs differ in.
enum class LadderKind : uint8_t { kWeights, kKv };
const char* LadderTitle(LadderKind kind);  // "quantisation ladder", "KV ladder"

// A loss in nats per token: four decimals, six below 0.001, where the larger KV types are.
std::string NatsText(double nats);

// The types of weights below the source, largest first: Q8_0, Q6_K, Q4_K_M, Q3_K_M, Q2_K.
const std::vector<std::string>& LadderTypes();

// A model on the ladder: the source first, then the types from large to small. One that is not a rung (`subject`, where
// it is none of them) comes last.
struct LadderModel {
  std::string name;  // the type: "F16", "Q8_0", ...; of KV "f16", "q8_0", "q8_0/f16" (keys, values)
  std::string path;
  bool rung = true;
  // Its bytes at a workload, under its engine options.
  std::function<Result<MemoryModel>(const Workload&)> memory;
  // Measures its plans against the source's dense predictions. Called once, when it is this model's turn; the evaluator
  // is gone before the next one's is made, so that one model is in memory at a time.
  std::function<Result<std::unique_ptr<PlanEvaluator>>()> evaluator;
};

struct LadderOptions {
  LadderKind kind = LadderKind::kWeights;
  std::vector<LadderModel> models;
  size_t subject = 0;              // the model that the comparison is about: index into `models`
  std::vector<Cell> cells;         // of the comparison; the subject's curve has a point for each
  std::vector<std::string> notes;  // Ladder::notes
  uint64_t process_bytes = 0;
  int resamples = 2000;
  uint64_t seed = 1;
  // `what`: the model's name.
  std::function<void(const std::string& what, int64_t done, int64_t total)> progress;
};

struct LadderRung {
  std::string name;
  std::string path;
  std::vector<uint64_t> dense_peak_bytes;  // managed, by workload
  Interval loss;                           // of the dense plan; 0 for the source
  double perplexity = 0;
  std::vector<uint64_t> dense_kv_bytes = {};  // of the above, by workload
};

// Two neighbouring rungs at one workload.
struct LadderStep {
  size_t workload = 0;  // index into Ladder::workloads
  size_t larger = 0;    // rungs
  size_t smaller = 0;
  // The larger one's plan that fits the smaller one's bytes; empty if the policy has none. The dense one where the
  // smaller one saves nothing: short sequences take as many pages of KV at any type.
  std::optional<Plan> plan;
  uint64_t pruned_peak_bytes = 0;
  Interval pruned_loss;
  // Of pruned over dense loss, at no more bytes: below 1 pruning wins.
  Interval ratio;

  bool saves_nothing() const { return plan && plan->dense(); }
  bool pruning_wins() const { return plan && !saves_nothing() && ratio.value < 1; }
};

// The subject under the policy's plan.
struct LadderPoint {
  size_t workload = 0;
  std::string budget;
  Plan plan;
  uint64_t peak_bytes = 0;
  Interval loss;
};

// Where pruning begins to win at one workload, going down from the source.
struct LadderStatement {
  size_t workload = 0;
  // The first step at which pruning wins; empty: at none.
  std::optional<size_t> step;  // index into Ladder::steps
  // Bytes at which it begins, over those of the source dense: the smaller rung's of that step, or the smallest rung's,
  // below which there is nothing left but pruning.
  double share_of_source = 0;
  std::string text;  // one sentence
};

struct Ladder {
  LadderKind kind = LadderKind::kWeights;
  std::string policy;
  bool subject_is_source = false;  // the comparison's losses are then measured against the same model as the ladder's
  std::vector<Workload> workloads;
  std::vector<LadderRung> rungs;
  std::vector<LadderStep> steps;  // workload by workload, from the source down
  std::vector<LadderPoint> points;
  std::vector<LadderStatement> statements;  // one for each workload; none where there is one rung
  std::vector<std::string> notes;           // sentences: which rungs were left out, and why
  int64_t plans_measured = 0;

  // A rung in a sentence: "Q8_0", "KV q8_0".
  std::string Called(size_t rung) const;
};

// `scenarios`: indices `workloads` of them are laddered. `policy` decides for every rung: block numbers and losses
// carry over between types of one model, bytes do not. Errors are those of the models' functions; the error for a
// policy that cannot be served is a step without a plan.
Result<Ladder> ClimbLadder(const Policy& policy, const std::vector<ScenarioMemory>& scenarios,
                           const std::vector<size_t>& workloads, const LadderOptions& options);

// The files of the rungs below `source` in `folder`, made by libllama's quantiser where they are not there yet; the
// name says of which source (its fingerprint) they are. `progress` before each that is made.
struct RungFile {
  std::string type;
  std::string path;
};
Result<std::vector<RungFile>> MakeRungFiles(const Model& source, const std::string& folder, int n_threads,
                                            const std::function<void(const std::string& type)>& progress);

}  // namespace espalier

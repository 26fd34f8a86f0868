#include "cli/training_evaluator.h"

#include <fmt/format.h>

#include "cli/policy_choice.h"
#include "cli/progress.h"
#include "model/quote.h"
#include "policy/profile_policies.h"
#include "text/tokenizer.h"

namespace espalier {

Result<Windows> ReadTrainingText(const TextOption& text, const Model& model) {
  ESPALIER_ASSIGN_OR_RETURN(const auto tokenizer, Tokenizer::Open(model));
  return text.Read(model, *tokenizer);
}

Result<std::unique_ptr<PlanEvaluator>> OpenTrainingEvaluator(const Windows& windows, const EngineFlags& engine,
                                                             const std::shared_ptr<const Model>& model,
                                                             ProfileStore* store) {
  PlanEvaluatorOptions options;
  ESPALIER_ASSIGN_OR_RETURN(options.engine, engine.Read(windows.window_tokens));
  Profile& profile = store->profile();
  options.ablation = profile.ablation;
  options.means = std::make_shared<BlockMeans>(profile.means);
  const MeasurementSet set = DescribeSet(windows, options);
  if (profile.primary_set.empty()) {
    profile.primary_set = profile.ArchiveFor(set).set().Key();
  }
  const Archive* served = ServedArchive(profile, ServedLike(set));
  if (served == nullptr || !(served->set() == set)) {
    return InvalidArgument(fmt::format(
        "--text {}: expected the text, windows, protocol and KV types that the profile was ranked on ({}), found {}",
        Quote(windows.corpus), served != nullptr ? served->set().Key() : "none", set.Key()));
  }
  ProgressBar bar("dense predictions");
  return PlanEvaluator::Create(model, windows, options, store, [&bar](int64_t done, int64_t total) {
    bar.Update(static_cast<uint64_t>(done), static_cast<uint64_t>(total));
  });
}

}  // namespace espalier

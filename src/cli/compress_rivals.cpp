#include "cli/compress_rivals.h"

#include <fmt/format.h>

#include <algorithm>
#include <functional>

#include "importance/gsi.h"
#include "importance/influence.h"
#include "model/quote.h"

namespace espalier {
namespace {

constexpr char kTable[] = "table";
constexpr char kOneShot[] = "one-shot";
constexpr char kChain[] = "gsi-chain";
constexpr char kGsi[] = "gsi";
constexpr char kEvolution[] = "evolution";

// The least loss known of a plan within the limit.
Result<SearchedPlan> BestKnown(const Archive& archive, const RequestBytes& bytes, uint64_t limit) {
  if (bytes.dense() <= limit) {
    return SearchedPlan{Plan::Dense(bytes.n_layer())};  // loses nothing
  }
  const ArchiveRow* best = BestMeasured(archive, bytes.of(), limit);
  if (best == nullptr) {
    uint64_t least = bytes.dense();
    for (const ArchiveRow& row : archive.rows()) {
      least = std::min(least, bytes.of()(row.plan));
    }
    return OutOfBudget(
        fmt::format("expected a measured plan of at most {} bytes, found {} in the profile, the smallest "
                    "of {} bytes; `espalier rank` measures more",
                    limit, archive.rows().size(), least));
  }
  return SearchedPlan{best->plan, archive.Loss(*best), 0};
}

// The profile's ranking of this name, or one that is made.
Result<std::vector<BlockId>> OrderOf(const Profile& profile, const char* name,
                                     const std::function<Result<Ranking>()>& make) {
  if (const Ranking* known = profile.FindRanking(name);
      known != nullptr && known->drop_order.size() == static_cast<size_t>(2 * profile.n_layer)) {
    return known->drop_order;
  }
  ESPALIER_ASSIGN_OR_RETURN(Ranking made, make());
  return std::move(made.drop_order);
}

}  // namespace

const std::vector<std::string>& Rival::Names() {
  static const std::vector<std::string> names = {kTable, kOneShot, kChain, kGsi, kEvolution};
  return names;
}

bool Rival::Measures(const std::string& name) { return name != kTable; }

Result<Rival> Rival::Make(const std::string& name, const Profile& profile, const Archive* archive,
                          PlanEvaluator* evaluator, uint64_t seed) {
  if (std::find(Names().begin(), Names().end(), name) == Names().end()) {
    return InvalidArgument(
        fmt::format("--method {}: expected stratnet or one of {}", Quote(name), fmt::join(Names(), ", ")));
  }
  Rival rival;
  rival.name_ = name;
  rival.archive_ = archive;
  rival.evaluator_ = evaluator;
  rival.seed_ = seed;
  if (name == kOneShot) {
    ESPALIER_ASSIGN_OR_RETURN(rival.order_, OrderOf(profile, "one-shot", [&] { return RankByOneShot(evaluator); }));
    rival.shared_evaluations_ = static_cast<double>(rival.order_.size());
  } else if (name == kChain) {
    ESPALIER_ASSIGN_OR_RETURN(rival.order_, OrderOf(profile, "gsi", [&]() -> Result<Ranking> {
                                ESPALIER_ASSIGN_OR_RETURN(GsiResult chain, RankByGsi(evaluator));
                                return std::move(chain.ranking);
                              }));
    rival.shared_evaluations_ = ChainEvaluations(static_cast<int>(rival.order_.size()));
  }
  if (const Ranking* known = profile.FindRanking("gsi"); name == kGsi && known != nullptr) {
    rival.order_ = known->drop_order;
  }
  return rival;
}

Result<SearchedPlan> Rival::Search(const RequestBytes& bytes, uint64_t limit) const {
  if (name_ == kTable) {
    return BestKnown(*archive_, bytes, limit);
  }
  if (name_ == kOneShot || name_ == kChain) {
    return AnswerFromChain(evaluator_, order_, bytes.of(), limit);
  }
  if (name_ == kGsi) {
    return SearchByGsi(evaluator_, bytes.of(), limit, order_);
  }
  return SearchByEvolution(evaluator_, bytes.of(), limit, {.seed = seed_});
}

Result<Rival::Answer> Rival::operator()(const CompressionRequest& request, const RequestBytes& bytes) const {
  Answer found;
  found.answer.dense_bytes = bytes.dense();
  SearchedPlan searched;
  if (name_ == kGsi && request.target == CompressionRequest::Target::kLoss) {
    ESPALIER_ASSIGN_OR_RETURN(searched, SearchByGsiWithin(evaluator_, request.value, order_));
  } else {
    ESPALIER_ASSIGN_OR_RETURN(found.answer.limit_bytes, bytes.LimitOf(request));
    ESPALIER_ASSIGN_OR_RETURN(searched, Search(bytes, found.answer.limit_bytes));
  }
  found.answer.plan = std::move(searched.plan);
  CountBytes(bytes, &found.answer);
  found.answer.measured_loss = searched.loss;
  found.answer.upper_loss = searched.loss;
  found.evaluations = searched.evaluations;
  return found;
}

}  // namespace espalier

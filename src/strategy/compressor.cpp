#include "strategy/compressor.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <set>
#include <utility>

#include "base/check.h"
#include "importance/density.h"
#include "strategy/refine.h"
#include "strategy/strategy_plans.h"
#include "strategy/train_strat_net.h"

namespace espalier {
namespace {

using Eigen::Index;
using Eigen::MatrixXf;
using Target = CompressionRequest::Target;

constexpr int kMarginWorkloads = 6;
// Where only the file counts no KV cache is there to be saved: the least that StratNet was trained on.
const double kFileKvToWeights = StratTrainingOptions().least_kv_to_weights;

}  // namespace

// What requests of one workload (or those about the file) have in common.
class Compressor::Place {
 public:
  Place(const MemoryModel& memory, const PlanBytes& file_bytes, const std::optional<Workload>& workload)
      : bytes_(memory, file_bytes, workload),
        kv_to_weights_(workload ? static_cast<double>(workload->kv_cells) / memory.cells_of_weights()
                                : kFileKvToWeights) {}

  const RequestBytes& bytes() const { return bytes_; }
  double kv_to_weights() const { return kv_to_weights_; }
  int n_layer() const { return bytes_.n_layer(); }

  // What the network said, each order once.
  bool asked() const { return !orders_.empty(); }
  void TakeOrders(const Eigen::Ref<const MatrixXf>& keep) {
    std::set<std::vector<int>> seen;
    for (Index i = 0; i < keep.cols(); ++i) {
      std::vector<BlockId> order = DropOrderOf(keep.col(i));
      std::vector<int> indices;
      for (const BlockId block : order) {
        indices.push_back(block.index);
      }
      if (seen.insert(std::move(indices)).second) {
        orders_.push_back(std::move(order));
      }
    }
  }
  const std::vector<std::vector<BlockId>>& orders() const { return orders_; }

  // Plans of any size, fewest bytes first: what every order drops first, one block more each time.
  struct Item {
    Plan plan;
    uint64_t bytes = 0;
    LossSurrogate::Guess guess;
  };
  const std::vector<Item>& Menu(const LossSurrogate& surrogate) {
    if (!menu_.empty()) {
      return menu_;
    }
    std::vector<Plan> plans = {Plan::Dense(n_layer())};
    std::set<std::string> seen;
    for (const auto& order : orders_) {
      Plan plan = Plan::Dense(n_layer());
      for (size_t i = 0; i + 1 < order.size(); ++i) {
        plan.Drop(order[i]);
        if (seen.insert(plan.ToText()).second) {
          plans.push_back(plan);
        }
      }
    }
    const std::vector<LossSurrogate::Guess> guesses = surrogate.Predict(plans);
    for (size_t i = 0; i < plans.size(); ++i) {
      const uint64_t bytes = bytes_.of()(plans[i]);
      menu_.push_back({std::move(plans[i]), bytes, guesses[i]});
    }
    std::stable_sort(menu_.begin(), menu_.end(), [](const Item& a, const Item& b) { return a.bytes < b.bytes; });
    return menu_;
  }

 private:
  RequestBytes bytes_;
  double kv_to_weights_;
  std::vector<std::vector<BlockId>> orders_;
  std::vector<Item> menu_;
};

Compressor::Compressor(StratNet net, LossSurrogate surrogate, const Archive* archive, const MemoryModel& memory,
                       PlanBytes file_bytes, CompressorOptions options)
    : net_(std::move(net)),
      surrogate_(std::move(surrogate)),
      archive_(archive),
      memory_(memory),
      file_bytes_(std::move(file_bytes)),
      options_(std::move(options)),
      margin_(MarginOf(surrogate_, memory_, SpreadOfCells(memory_, kMarginWorkloads), options_.margin)) {
  ESPALIER_CHECK(net_.n_block() == static_cast<int>(memory_.block_bytes.size()));
}

Compressor::~Compressor() = default;

Compressor::Place* Compressor::PlaceOf(const std::optional<Workload>& workload) {
  auto& place = places_[workload ? workload->ToText() : ""];
  if (place == nullptr) {
    place = std::make_unique<Place>(workload && options_.memory_at ? options_.memory_at(*workload) : memory_,
                                    file_bytes_, workload);
  }
  return place.get();
}

void Compressor::AskNetwork() {
  // All that was not asked before, together; in parts, so that thousands of workloads do not take gigabytes.
  constexpr size_t kInputsAtOnce = 1 << 14;
  std::vector<Place*> places;
  for (const auto& [name, place] : places_) {
    if (!place->asked()) {
      places.push_back(place.get());
    }
  }
  const auto each = static_cast<size_t>(options_.preferences);
  const size_t places_at_once = std::max<size_t>(1, kInputsAtOnce / each);
  for (size_t first = 0; first < places.size(); first += places_at_once) {
    const size_t n = std::min(places_at_once, places.size() - first);
    std::vector<StratInput> inputs;
    for (size_t i = 0; i < n; ++i) {
      const auto some = EvenPreferences(options_.preferences, places[first + i]->kv_to_weights());
      inputs.insert(inputs.end(), some.begin(), some.end());
    }
    const MatrixXf keep = net_.Forward(inputs);
    for (size_t i = 0; i < n; ++i) {
      places[first + i]->TakeOrders(keep.middleCols(static_cast<Index>(i * each), static_cast<Index>(each)));
    }
  }
}

double Compressor::UpperLoss(const Plan& plan, const LossSurrogate::Guess& guess) const {
  const auto known = LossKnown(plan);
  return known ? *known : margin_.Upper(surrogate_, guess);
}

std::vector<double> Compressor::LogLosses(std::span<const Plan> plans) const {
  std::vector<double> losses = surrogate_.LogMeans(plans);
  for (size_t i = 0; i < plans.size(); ++i) {
    if (const auto known = LossKnown(plans[i])) {
      losses[i] = std::log(*known + LossSurrogate::kFloor);
    }
  }
  return losses;
}

std::optional<double> Compressor::LossKnown(const Plan& plan) const {
  return plan.dense() ? std::optional<double>(0) : archive_->LossOf(plan);
}

// Of every order the plan that fits, and the best of them refined; of those and of the measured ones that of the least
// loss.
Result<Plan> Compressor::PlanThatFits(Place& place, uint64_t limit, const PlanBytes& cost) {
  struct Candidate {
    Plan plan;
    double log_loss = 0;
    size_t order = 0;
  };
  std::vector<Plan> plans;
  std::vector<size_t> made_by;
  std::set<std::string> seen;
  for (size_t i = 0; i < place.orders().size(); ++i) {
    ESPALIER_ASSIGN_OR_RETURN(Plan plan, DropUntilItTakes(cost, limit, place.orders()[i]));
    if (seen.insert(plan.ToText()).second) {
      plans.push_back(std::move(plan));
      made_by.push_back(i);
    }
  }
  std::vector<Candidate> candidates;
  const std::vector<double> losses = LogLosses(plans);
  for (size_t i = 0; i < plans.size(); ++i) {
    candidates.push_back({std::move(plans[i]), losses[i], made_by[i]});
  }
  const auto less = [](const Candidate& a, const Candidate& b) { return a.log_loss < b.log_loss; };
  std::stable_sort(candidates.begin(), candidates.end(), less);
  const size_t n_refined = std::min(candidates.size(), static_cast<size_t>(options_.refined));
  for (size_t i = 0; i < n_refined; ++i) {
    Plan plan = Refine(surrogate_, cost, limit, place.orders()[candidates[i].order], candidates[i].plan);
    if (seen.insert(plan.ToText()).second) {
      const double log_loss = LogLosses({&plan, 1}).front();
      candidates.push_back({std::move(plan), log_loss, candidates[i].order});
    }
  }
  if (options_.use_measured) {
    if (const ArchiveRow* best = BestMeasured(*archive_, cost, limit)) {
      // It may leave room.
      Plan plan = best->plan;
      GiveBackUpTo(cost, limit, place.orders().front(), &plan);
      const double log_loss = LogLosses({&plan, 1}).front();
      candidates.push_back({std::move(plan), log_loss, 0});
    }
  }
  std::stable_sort(candidates.begin(), candidates.end(), less);
  // Variances cost as much as hundreds of means: the first few by mean are enough.
  constexpr size_t kFinalists = 8;
  candidates.resize(std::min(candidates.size(), kFinalists));
  for (Candidate& candidate : candidates) {
    if (options_.caution > 0 && !LossKnown(candidate.plan)) {
      candidate.log_loss += options_.caution * surrogate_.Predict(candidate.plan).log_sd;
    }
  }
  return std::move(std::min_element(candidates.begin(), candidates.end(), less)->plan);
}

// Of what the network says at any size and of what was measured.
Result<Plan> Compressor::SmallestWithin(Place& place, double most_loss) {
  const Plan dense = Plan::Dense(place.n_layer());  // loses nothing
  const Plan* smallest = &dense;
  uint64_t least = place.bytes().dense();
  for (const Place::Item& item : place.Menu(surrogate_)) {
    if (UpperLoss(item.plan, item.guess) <= most_loss) {
      smallest = &item.plan;
      least = item.bytes;
      break;
    }
  }
  if (options_.use_measured) {
    for (const ArchiveRow& row : archive_->rows()) {
      if (archive_->whole(row) && row.plan.whole_blocks_only() && archive_->Loss(row) <= most_loss) {
        if (const uint64_t bytes = place.bytes().of()(row.plan); bytes < least) {
          smallest = &row.plan;
          least = bytes;
        }
      }
    }
  }
  return *smallest;
}

Plan Compressor::PlanOfPreference(const Place& place, Preference preference) const {
  const StratInput input = {preference, place.kv_to_weights()};
  const auto keep = net_.Forward(std::span(&input, 1)).col(0).eval();
  Plan plan = Snap(keep);
  if (plan.keeps_nothing()) {
    plan.Restore(DropOrderOf(keep).back());
  }
  return plan;
}

Result<CompressionAnswer> Compressor::AnswerOne(const CompressionRequest& request) {
  Place& place = *PlaceOf(request.workload);
  CompressionAnswer answer;
  answer.dense_bytes = place.bytes().dense();
  switch (request.target) {
    case Target::kBytes:
    case Target::kSizeRatio: {
      ESPALIER_ASSIGN_OR_RETURN(answer.limit_bytes, place.bytes().LimitOf(request));
      ESPALIER_ASSIGN_OR_RETURN(answer.plan, PlanThatFits(place, answer.limit_bytes, place.bytes().of()));
      break;
    }
    case Target::kLoss: {
      if (!(request.value >= 0)) {
        return InvalidArgument(
            fmt::format("field \"max_loss\": expected nats per token from 0 up, found {}", request.value));
      }
      ESPALIER_ASSIGN_OR_RETURN(answer.plan, SmallestWithin(place, request.value));
      break;
    }
    case Target::kLatency: {
      if (!options_.decode_ms || !request.workload) {
        return InvalidArgument("field \"max_latency_ms\": expected a workload and measured decode steps, found none");
      }
      // In nanoseconds, so that it is looked for as bytes are.
      const PlanBytes nanoseconds = [&](const Plan& plan) {
        return plan.keeps_nothing()
                   ? kNoSuchPlan
                   : static_cast<uint64_t>(1e6 * std::clamp(options_.decode_ms(plan, *request.workload), 0.0, 1e9));
      };
      const uint64_t least = LeastOf(nanoseconds, place.n_layer());
      if (!(request.value > 0) || request.value * 1e6 < static_cast<double>(least)) {
        return OutOfBudget(fmt::format(
            "field \"max_latency_ms\": {} ms are below the least that a plan of whole blocks takes at workload {}, "
            "{:.3f} ms",
            request.value, request.workload->ToText(), static_cast<double>(least) / 1e6));
      }
      ESPALIER_ASSIGN_OR_RETURN(
          answer.plan, PlanThatFits(place, static_cast<uint64_t>(std::min(request.value * 1e6, 0x1p63)), nanoseconds));
      answer.latency_ms = options_.decode_ms(answer.plan, *request.workload);
      break;
    }
    case Target::kPreference: {
      if (!(request.value >= 0 && request.value <= 1)) {
        return InvalidArgument(
            fmt::format("field \"preference\": expected a weight of size from 0 to 1, found {}", request.value));
      }
      answer.plan = PlanOfPreference(place, {request.value});
      break;
    }
  }
  CountBytes(place.bytes(), &answer);
  answer.guess = surrogate_.Predict(answer.plan);
  answer.measured_loss = LossKnown(answer.plan);
  answer.upper_loss = UpperLoss(answer.plan, *answer.guess);
  return answer;
}

std::vector<Result<CompressionAnswer>> Compressor::Answer(std::span<const CompressionRequest> requests) {
  for (const CompressionRequest& request : requests) {
    PlaceOf(request.workload);
  }
  AskNetwork();
  std::vector<Result<CompressionAnswer>> answers;
  answers.reserve(requests.size());
  for (const CompressionRequest& request : requests) {
    answers.push_back(AnswerOne(request));
  }
  return answers;
}

}  // namespace espalier

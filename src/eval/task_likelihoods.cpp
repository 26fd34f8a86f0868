#include "eval/task_likelihoods.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <utility>

#include "eval/scoring.h"
#include "eval/window_batches.h"

namespace espalier {
namespace {

// Tokens of a request that the model reads.
size_t InputCount(const EncodedRequest& request) { return request.tokens.size() - 1; }

// Inputs that all requests of the item begin with.
size_t SharedInputs(const EncodedItem& item) {
  size_t shared = InputCount(item.requests.front());
  for (const EncodedRequest& request : item.requests) {
    const auto& first = item.requests.front().tokens;
    shared = std::min(shared, InputCount(request));
    shared = static_cast<size_t>(
        std::mismatch(first.begin(), first.begin() + static_cast<int64_t>(shared), request.tokens.begin()).first -
        first.begin());
  }
  return shared;
}

// KV cells that the item occupies at most.
int64_t CellsOf(const EncodedItem& item) {
  size_t longest = 0;
  for (const EncodedRequest& request : item.requests) {
    longest = std::max(longest, InputCount(request));
  }
  return static_cast<int64_t>(longest);
}

// One item on its way through the engine, in one sequence: a first leg of what all requests share, then one leg for the
// rest of each request.
class ItemRun {
 public:
  ItemRun(const EncodedItem* item, int64_t index)
      : item_(item), index_(index), shared_(SharedInputs(*item)), sums_(item->requests.size(), 0.0) {
    SkipEmptyLegs();
  }

  SequenceId sequence() const { return static_cast<SequenceId>(index_); }
  int64_t index() const { return index_; }
  int64_t cells() const { return CellsOf(*item_); }
  bool done() const { return leg_ > item_->requests.size(); }
  std::vector<double> TakeSums() { return std::move(sums_); }

  // Adds the next tokens of this leg, `room` at most. Calls row(position) for each one that wants logits.
  template <class RowFunction>
  void Fill(size_t room, std::vector<BatchToken>* batch, RowFunction row) {
    const size_t end = std::min(LegEnd(), next_ + room);
    for (; next_ < end; ++next_) {
      const bool wanted = AnyTarget(next_);
      batch->push_back({Tokens()[next_], sequence(), wanted});
      if (wanted) {
        row(next_);
      }
    }
  }

  // The logits after the input at `position` of this leg. Returns false if they are not finite.
  bool Score(size_t position, std::span<const float> logits) {
    const double log_partition = NegativeLogLikelihood(logits, 0) + logits[0];
    ForEachTarget(position, [&](size_t request, int32_t target) {
      sums_[request] += logits[static_cast<size_t>(target)] - log_partition;
    });
    return std::isfinite(log_partition);
  }

  // To be called once what was filled in is computed: goes on to the next leg if this one is over.
  void Advance(Engine* engine) {
    if (next_ < LegEnd()) {
      return;
    }
    ++leg_;
    SkipEmptyLegs();
    if (!done() && engine->SequenceLength(sequence()) > static_cast<int64_t>(shared_)) {
      engine->TruncateSequence(sequence(), static_cast<int64_t>(shared_));
    }
  }

 private:
  const std::vector<int32_t>& Tokens() const { return item_->requests[leg_ == 0 ? 0 : leg_ - 1].tokens; }
  size_t LegEnd() const { return leg_ == 0 ? shared_ : InputCount(item_->requests[leg_ - 1]); }
  void SkipEmptyLegs() {
    next_ = leg_ == 0 ? 0 : shared_;
    while (!done() && next_ == LegEnd()) {
      ++leg_;
      next_ = shared_;
    }
  }

  // Calls target(request, token) for each request of this leg whose continuation goes on after `position`.
  template <class TargetFunction>
  void ForEachTarget(size_t position, TargetFunction target) const {
    const size_t first = leg_ == 0 ? 0 : leg_ - 1;
    const size_t end = leg_ == 0 ? item_->requests.size() : leg_;
    for (size_t i = first; i < end; ++i) {
      const EncodedRequest& request = item_->requests[i];
      if (position + 1 >= static_cast<size_t>(request.n_context) && position + 1 < request.tokens.size()) {
        target(i, request.tokens[position + 1]);
      }
    }
  }
  bool AnyTarget(size_t position) const {
    bool any = false;
    ForEachTarget(position, [&any](size_t, int32_t) { any = true; });
    return any;
  }

  const EncodedItem* item_;
  int64_t index_;
  size_t shared_;
  size_t leg_ = 0;   // 0: shared; n: request n - 1
  size_t next_ = 0;  // position of the next input
  std::vector<double> sums_;
};

// Runs in flight, and the batches made of them.
class Scheduler {
 public:
  Scheduler(Engine* engine, std::span<const EncodedItem> items, int64_t cells)
      : engine_(engine), items_(items), cells_(cells) {
    result_.values.resize(items.size());
  }
  ~Scheduler() {
    for (const auto& run : runs_) {
      engine_->RemoveSequence(run->sequence());
    }
  }
  Scheduler(const Scheduler&) = delete;
  Scheduler& operator=(const Scheduler&) = delete;

  bool done() const { return done_ == items_.size(); }
  int64_t items_done() const { return static_cast<int64_t>(done_); }
  TaskLikelihoods TakeResult() { return std::move(result_); }

  // Computes one batch and takes in what it tells.
  Status Step() {
    FillBatch();
    Status finite;
    ESPALIER_RETURN_IF_ERROR(engine_->Decode(batch_, [&](int64_t row, std::span<const float> logits) {
      const auto& [run, position] = rows_[static_cast<size_t>(row)];
      if (!run->Score(position, logits) && finite.ok()) {
        finite = Corrupt(fmt::format("{}: logits after token {} of item {} are not finite numbers",
                                     engine_->model().path(), position, run->index() + 1));
      }
    }));
    ESPALIER_RETURN_IF_ERROR(finite);
    result_.tokens_computed += static_cast<int64_t>(batch_.size());
    ++result_.batches;
    result_.managed_bytes = std::max(result_.managed_bytes, engine_->memory_in_use().total());
    // The last ones first: the cache closes gaps from its end, and there is none where the end leaves.
    for (auto run = runs_.rbegin(); run != runs_.rend(); ++run) {
      (*run)->Advance(engine_);
      if ((*run)->done()) {
        Retire(run->get());
      }
    }
    std::erase_if(runs_, [](const auto& run) { return run->done(); });
    return Status::Ok();
  }

 private:
  void FillBatch() {
    batch_.clear();
    rows_.clear();
    const auto n_ubatch = static_cast<size_t>(engine_->options().n_ubatch);
    for (size_t i = 0; batch_.size() < n_ubatch; ++i) {
      if (i == runs_.size() && !Admit()) {
        break;
      }
      ItemRun* run = runs_[i].get();
      run->Fill(n_ubatch - batch_.size(), &batch_, [&](size_t position) { rows_.emplace_back(run, position); });
    }
  }

  // Lets the next item in, if there is one, and a sequence and its cells are free.
  bool Admit() {
    if (next_item_ == items_.size() || runs_.size() == static_cast<size_t>(engine_->options().max_sequences)) {
      return false;
    }
    auto run = std::make_unique<ItemRun>(&items_[next_item_], static_cast<int64_t>(next_item_));
    if (reserved_ + run->cells() > cells_) {
      return false;
    }
    reserved_ += run->cells();
    ++next_item_;
    runs_.push_back(std::move(run));
    return true;
  }

  void Retire(ItemRun* run) {
    engine_->RemoveSequence(run->sequence());
    reserved_ -= run->cells();
    result_.values[static_cast<size_t>(run->index())] = run->TakeSums();
    ++done_;
  }

  Engine* engine_;
  std::span<const EncodedItem> items_;
  int64_t cells_;
  int64_t reserved_ = 0;
  size_t next_item_ = 0;
  size_t done_ = 0;
  std::vector<std::unique_ptr<ItemRun>> runs_;
  std::vector<BatchToken> batch_;
  std::vector<std::pair<ItemRun*, size_t>> rows_;  // whose logits, after which position
  TaskLikelihoods result_;
};

}  // namespace

Workload TaskWorkload(std::span<const EncodedItem> items, int n_ubatch) {
  Workload all = Workload::None();
  for (const EncodedItem& item : items) {
    all += Workload::Uniform(1, CellsOf(item));
  }
  const int64_t cells = std::max(all.longest_sequence, std::min(all.kv_cells, int64_t{n_ubatch}));
  const int64_t mean = items.empty() ? 1 : std::max<int64_t>(1, all.kv_cells / all.n_sequences);
  return {.n_sequences = static_cast<int>(std::max<int64_t>(1, cells / mean)),
          .kv_cells = cells,
          .longest_sequence = all.longest_sequence};
}

Result<TaskLikelihoods> ScoreItems(Engine* engine, std::span<const EncodedItem> items, const TaskProgress& progress) {
  const Workload workload = TaskWorkload(items, engine->options().n_ubatch);
  ESPALIER_RETURN_IF_ERROR(CheckCapacity(*engine, workload));
  Scheduler scheduler(engine, items, workload.kv_cells);
  while (!scheduler.done()) {
    ESPALIER_RETURN_IF_ERROR(scheduler.Step());
    if (progress) {
      progress(scheduler.items_done(), static_cast<int64_t>(items.size()));
    }
  }
  return scheduler.TakeResult();
}

}  // namespace espalier

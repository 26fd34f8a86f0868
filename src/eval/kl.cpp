#include "eval/kl.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "base/stopwatch.h"
#include "eval/scoring.h"
#include "eval/window_batches.h"

namespace espalier {
namespace {

// Sums over the tokens scored so far.
struct KlSums {
  Moments kl, paper, nll_dense, nll_plan, nll_difference, delta_p, delta_p_squared;
  int64_t same_top = 0;
  std::vector<float> kl_values;  // for percentiles; 4 bytes a token
  std::vector<Moments> window_kl;

  void Add(const RowComparison& row, int64_t window) {
    kl.Add(row.kl);
    paper.Add(row.paper);
    nll_dense.Add(row.nll_dense);
    nll_plan.Add(row.nll_plan);
    nll_difference.Add(row.nll_plan - row.nll_dense);
    const double difference = std::exp(-row.nll_plan) - std::exp(-row.nll_dense);
    delta_p.Add(difference);
    delta_p_squared.Add(difference * difference);
    same_top += row.same_top;
    kl_values.push_back(static_cast<float>(row.kl));
    window_kl[static_cast<size_t>(window)].Add(row.kl);
  }
};

// Dense logits of one sub-batch: [rows][n_vocab], reused from batch to batch.
class RowStore {
 public:
  void Reset(size_t n_rows, size_t n_vocab) {
    n_vocab_ = n_vocab;
    values_.resize(n_rows * n_vocab);
  }
  void Keep(int64_t row, std::span<const float> logits) {
    std::copy(logits.begin(), logits.end(), values_.begin() + row * static_cast<int64_t>(n_vocab_));
  }
  std::span<const float> row(int64_t row) const {
    return std::span(values_).subspan(static_cast<size_t>(row) * n_vocab_, n_vocab_);
  }

 private:
  size_t n_vocab_ = 0;
  std::vector<float> values_;
};

Status CompareBatch(Engine* engine, const Windows& windows, const WindowBatch& dense_batch,
                    const WindowBatch& plan_batch, RowStore* store, KlSums* sums) {
  store->Reset(dense_batch.rows.size(), static_cast<size_t>(engine->model().hparams().n_vocab));
  ESPALIER_RETURN_IF_ERROR(engine->Decode(
      dense_batch.tokens, [store](int64_t row, std::span<const float> logits) { store->Keep(row, logits); }));
  Status finite;
  const auto compare = [&](int64_t row, std::span<const float> logits) {
    const RowPlace place = plan_batch.rows[static_cast<size_t>(row)];
    const auto tokens = windows.at(place.window);
    const auto target = static_cast<size_t>(place.position + 1);
    if (target >= tokens.size()) {
      return;
    }
    const RowComparison comparison = CompareRows(store->row(row), logits, tokens[target]);
    if (finite.ok() && !(std::isfinite(comparison.nll_dense) && std::isfinite(comparison.nll_plan))) {
      finite = NotFiniteError(*engine, place.window, place.position);
    }
    sums->Add(comparison, place.window);
  };
  ESPALIER_RETURN_IF_ERROR(engine->Decode(plan_batch.tokens, compare));
  return finite;
}

Status CompareGroup(Engine* engine, const Plan& plan, const Windows& windows, const WindowGroup& group, RowStore* store,
                    KlSums* sums) {
  const auto first_of_plan = static_cast<SequenceId>(group.count);
  const SequenceGuard guard(engine, 0, 2 * group.count);
  for (int64_t i = 0; i < group.count; ++i) {
    ESPALIER_RETURN_IF_ERROR(engine->SetSequencePlan(first_of_plan + static_cast<SequenceId>(i), plan));
  }
  const int n_ubatch = engine->options().n_ubatch;
  const auto dense_batches = CutBatches(windows, group, n_ubatch, 0);
  const auto plan_batches = CutBatches(windows, group, n_ubatch, first_of_plan);
  for (size_t i = 0; i < dense_batches.size(); ++i) {
    ESPALIER_RETURN_IF_ERROR(CompareBatch(engine, windows, dense_batches[i], plan_batches[i], store, sums));
  }
  return Status::Ok();
}

KlResult Summarise(KlSums sums) {
  std::sort(sums.kl_values.begin(), sums.kl_values.end());
  const auto percentile = [&sums](double fraction) { return Percentile(sums.kl_values, fraction); };
  KlResult result;
  result.kl = sums.kl.estimate();
  result.kl_median = percentile(0.5);
  result.kl_p90 = percentile(0.9);
  result.kl_p95 = percentile(0.95);
  result.kl_p99 = percentile(0.99);
  result.kl_p999 = percentile(0.999);
  result.kl_max = sums.kl_values.back();
  result.paper = sums.paper.estimate();
  result.same_top_token = ShareOf(sums.same_top, sums.kl.count());
  result.delta_p = sums.delta_p.estimate();
  result.delta_p_rms = RootOf(sums.delta_p_squared.estimate());
  result.perplexity_dense = PerplexityOf(sums.nll_dense.estimate());
  result.perplexity_plan = PerplexityOf(sums.nll_plan.estimate());
  // The error of a mean of differences is var(a) + var(b) - 2 cov(a, b) over the count: the covariance is in it.
  result.log_perplexity_ratio = sums.nll_difference.estimate();
  Moments over_windows;
  for (const Moments& window : sums.window_kl) {
    result.window_kl.push_back(window.mean());
    over_windows.Add(window.mean());
  }
  result.kl_error_over_windows = over_windows.mean_error();
  return result;
}

}  // namespace

Result<KlResult> MeasureKl(Engine* engine, const Plan& plan, const Windows& windows, const EvalProgress& progress) {
  if (!engine->plan().dense() || plan.n_block() != engine->plan().n_block()) {
    return InvalidArgument(fmt::format(
        "KL divergence of a plan over {} blocks: the engine must hold the dense plan of as many blocks, it holds '{}' "
        "over {}",
        plan.n_block(), engine->plan().ToText(), engine->plan().n_block()));
  }
  ESPALIER_RETURN_IF_ERROR(
      CheckCapacity(*engine, EvalWorkload(windows.protocol, windows.window_tokens, windows.count(), 2)));
  const Stopwatch watch;
  KlSums sums;
  sums.window_kl.resize(static_cast<size_t>(windows.count()));
  RowStore store;
  for (const WindowGroup& group : GroupWindows(windows)) {
    ESPALIER_RETURN_IF_ERROR(CompareGroup(engine, plan, windows, group, &store, &sums));
    if (progress) {
      progress(group.first + group.count, windows.count(), PerplexityOf(sums.nll_plan.estimate()).value);
    }
  }
  KlResult result = Summarise(std::move(sums));
  result.subject = DescribeSubject(*engine, plan, windows);
  result.elapsed_ms = watch.Milliseconds();
  return result;
}

}  // namespace espalier

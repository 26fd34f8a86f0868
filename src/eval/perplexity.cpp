#include "eval/perplexity.h"

#include <algorithm>
#include <cmath>

#include "base/stopwatch.h"
#include "eval/scoring.h"
#include "eval/window_batches.h"

namespace espalier {
namespace {

// Sums over the windows scored so far.
struct Scores {
  Moments nll;
  std::vector<Moments> window_nll;
  uint64_t managed_bytes = 0;
};

Status ScoreGroup(Engine* engine, const Windows& windows, const WindowGroup& group, Scores* scores) {
  const SequenceGuard guard(engine, 0, group.count);
  for (const WindowBatch& batch : CutBatches(windows, group, engine->options().n_ubatch, 0)) {
    Status finite;
    const auto sink = [&](int64_t row, std::span<const float> logits) {
      const RowPlace place = batch.rows[static_cast<size_t>(row)];
      const auto tokens = windows.at(place.window);
      const auto target = static_cast<size_t>(place.position + 1);
      if (target >= tokens.size()) {
        return;
      }
      const double nll = NegativeLogLikelihood(logits, tokens[target]);
      if (!std::isfinite(nll) && finite.ok()) {
        finite = NotFiniteError(*engine, place.window, place.position);
      }
      scores->nll.Add(nll);
      scores->window_nll[static_cast<size_t>(place.window)].Add(nll);
    };
    ESPALIER_RETURN_IF_ERROR(engine->Decode(batch.tokens, sink));
    ESPALIER_RETURN_IF_ERROR(finite);
    scores->managed_bytes = std::max(scores->managed_bytes, engine->memory_in_use().total());
  }
  return Status::Ok();
}

}  // namespace

Result<PerplexityResult> MeasurePerplexity(Engine* engine, const Windows& windows, const EvalProgress& progress) {
  ESPALIER_RETURN_IF_ERROR(
      CheckCapacity(*engine, EvalWorkload(windows.protocol, windows.window_tokens, windows.count(), 1)));
  const Stopwatch watch;
  Scores scores;
  scores.window_nll.resize(static_cast<size_t>(windows.count()));
  for (const WindowGroup& group : GroupWindows(windows)) {
    ESPALIER_RETURN_IF_ERROR(ScoreGroup(engine, windows, group, &scores));
    if (progress) {
      progress(group.first + group.count, windows.count(), PerplexityOf(scores.nll.estimate()).value);
    }
  }
  PerplexityResult result;
  result.subject = DescribeSubject(*engine, engine->plan(), windows);
  result.mean_nll = scores.nll.estimate();
  result.perplexity = PerplexityOf(result.mean_nll);
  for (const Moments& window : scores.window_nll) {
    result.window_nll.push_back(window.mean());
  }
  result.managed_bytes = scores.managed_bytes;
  result.elapsed_ms = watch.Milliseconds();
  return result;
}

}  // namespace espalier

#include "serving/batch_run.h"

#include <algorithm>
#include <utility>

#include "serving/batch_plan.h"
#include "serving/token_scores.h"

namespace espalier {
namespace {

// Does anybody want the logits behind the token at `position`?
bool Wanted(const Work& work, int64_t position) {
  const bool last = position + 1 == static_cast<int64_t>(work.tokens.size());
  const bool scored = work.request.prompt_scores && position + 1 < work.prompt_tokens && position >= work.scores_told;
  return scored || (last && work.request.max_tokens > 0);
}

void TakeRow(Work& work, int64_t position, std::span<const float> logits, std::vector<SampledToken>& sampled) {
  const LoopRequest& request = work.request;
  if (request.prompt_scores && position + 1 < work.prompt_tokens) {
    work.scores.push_back(
        ScoreToken(logits, work.tokens[static_cast<size_t>(position + 1)], std::max(request.n_top, 0)));
    ++work.scores_told;
    return;
  }
  const int32_t token = work.sampler->Sample(logits);
  SampledToken result = {&work, {}, work.sampler->Accept(token)};
  if (request.n_top >= 0) {
    result.scores = ScoreToken(logits, token, request.n_top);
  } else {
    result.scores.chosen.token = token;
  }
  sampled.push_back(std::move(result));
}

}  // namespace

std::vector<BatchShare> PlanShares(std::span<const std::unique_ptr<Work>> works, const PrefillPace& pace,
                                   int64_t step_tokens) {
  std::vector<BatchDemand> demands;
  for (const auto& work : works) {
    demands.push_back({.tokens = work->to_compute(), .decoding = work->decoding()});
  }
  const bool alone = std::none_of(demands.begin(), demands.end(), [](const BatchDemand& d) { return d.decoding; });
  const std::vector<int64_t> tokens = PlanBatch(demands, alone ? pace.tokens_alone() : pace.tokens(), step_tokens);
  std::vector<BatchShare> shares;
  for (const bool decoding : {true, false}) {  // whoever is waiting for one token does not share a graph with prompts
    for (size_t i = 0; i < works.size(); ++i) {
      if (tokens[i] > 0 && demands[i].decoding == decoding) {
        shares.push_back({works[i].get(), tokens[i]});
      }
    }
  }
  return shares;
}

Status RunShares(Engine& engine, std::span<const BatchShare> shares, std::vector<SampledToken>& sampled) {
  std::vector<BatchToken> batch;
  std::vector<std::pair<Work*, int64_t>> rows;  // whose logits they are, and behind which position
  for (const BatchShare& share : shares) {
    Work& work = *share.work;
    for (int64_t position = work.computed; position < work.computed + share.tokens; ++position) {
      const bool wanted = Wanted(work, position);
      batch.push_back({work.tokens[static_cast<size_t>(position)], work.sequence, wanted});
      if (wanted) {
        rows.emplace_back(&work, position);
      }
    }
  }
  return engine.Decode(batch, [&](int64_t row, std::span<const float> logits) {
    const auto& [work, position] = rows[static_cast<size_t>(row)];
    TakeRow(*work, position, logits, sampled);
  });
}

}  // namespace espalier

#include "serving/delivery.h"

#include <utility>
#include <vector>

#include "serving/loop_time.h"

namespace espalier {

bool Delivery::DeliverPrompt(Work& work, int64_t tokens, Time now) {
  work.computed += tokens;
  if (work.generated() > 0) {  // computed again: all of it has been told
    return false;
  }
  work.request.listener->OnPrefill(work.computed, work.prompt_tokens);
  if (work.computed < work.prompt_tokens) {
    return false;
  }
  counters_.prompt_tokens += work.prompt_tokens;
  counters_.cached_prompt_tokens += work.cached_tokens;
  if (work.request.prompt_scores) {
    work.request.listener->OnPromptScores(std::exchange(work.scores, {}));
  }
  if (work.request.max_tokens > 0) {
    return false;
  }
  work.first_token = work.last_token = now;
  return true;
}

void Delivery::DeliverToken(const SampledToken& sampled, Time now) {
  Work& work = *sampled.work;
  if (!sampled.status.ok()) {
    End(work, FinishReason::kFailed, sampled.status, now);
    return;
  }
  const int32_t token = sampled.scores.chosen.token;
  if (parts_.tokenizer->is_end_of_generation(token)) {
    End(work, FinishReason::kEndOfText, Status::Ok(), now);
    return;
  }
  LoopObserver* const observer = parts_.observer;
  if (work.generated() == 0) {
    work.first_token = now;
    if (observer != nullptr) {
      observer->OnFirstToken(SecondsBetween(work.submitted, now));
    }
  } else if (observer != nullptr) {
    observer->OnInterToken(SecondsBetween(work.last_token, now));
  }
  work.last_token = now;
  work.tokens.push_back(token);
  ++counters_.generated_tokens;
  work.request.listener->OnToken(sampled.scores);
  if (work.generated() >= work.request.max_tokens) {
    End(work, FinishReason::kLength, Status::Ok(), now);
  }
}

void Delivery::Deliver(std::span<const BatchShare> shares, std::span<const SampledToken> sampled, Time now) {
  std::vector<const Work*> done;
  for (const BatchShare& share : shares) {
    if (DeliverPrompt(*share.work, share.tokens, now)) {
      done.push_back(share.work);
    }
  }
  for (const SampledToken& one : sampled) {
    DeliverToken(one, now);
  }
  for (const Work* work : done) {
    End(*work, FinishReason::kLength, Status::Ok(), now);
  }
}

void Delivery::End(const Work& work, FinishReason reason, Status status, Time now) {
  // A cancelled answer is as good a beginning as another.
  const bool keep = parts_.keep_kv && reason != FinishReason::kFailed;
  const std::unique_ptr<Work> ended = parts_.tenancy->End(work, keep, parts_.keeper->plan_epoch());
  if (parts_.inbox != nullptr) {
    parts_.inbox->FreeSlot();
  }
  Tell(*ended, reason, std::move(status), now);
}

void Delivery::EndWaiting(std::unique_ptr<Work> work, FinishReason reason, Time now, Status status) {
  Tell(*work, reason, std::move(status), now);
}

void Delivery::Tell(const Work& work, FinishReason reason, Status status, Time now) {
  const bool ended_well = reason == FinishReason::kEndOfText || reason == FinishReason::kLength;
  (ended_well ? counters_.completed : reason == FinishReason::kCancelled ? counters_.cancelled : counters_.failed) += 1;
  RequestEnd end = work.EndAt(now);
  end.reason = reason;
  end.status = std::move(status);
  end.plan_text = parts_.engine->plan().ToText();
  end.loss = parts_.keeper->controller().loss();
  end.plan_changes =
      work.started != Time() ? static_cast<int>(parts_.keeper->transitions() - work.transitions_at_start) : 0;
  if (parts_.observer != nullptr) {
    parts_.observer->OnRequestEnd(end);
  }
  work.request.listener->OnEnd(end);
}

}  // namespace espalier

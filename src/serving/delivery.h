// What requests hear of themselves: how far their prompts are, their tokens, and how they ended.
#pragma once

#include <cstdint>
#include <memory>
#include <span>

#include "base/status.h"
#include "runtime/engine.h"
#include "serving/batch_run.h"
#include "serving/engine_loop.h"
#include "serving/kv_tenancy.h"
#include "serving/loop_inbox.h"
#include "serving/memory_keeper.h"
#include "serving/request.h"
#include "serving/work.h"
#include "text/tokenizer.h"

namespace espalier {

// Listeners and the observer are called before a function returns. Thread rule: the loop's thread.
class Delivery {
 public:
  using Time = LoopClock::Time;

  // All must outlive the delivery.
  struct Parts {
    const Engine* engine = nullptr;
    const Tokenizer* tokenizer = nullptr;
    const MemoryKeeper* keeper = nullptr;
    KvTenancy* tenancy = nullptr;
    LoopInbox* inbox = nullptr;        // may be nullptr
    LoopObserver* observer = nullptr;  // may be nullptr
    bool keep_kv = true;               // of requests that end, for those that begin alike
  };
  explicit Delivery(const Parts& parts) : parts_(parts) {}

  // The batch of `shares` has run: takes note of what is computed, and tells everybody what is new. Works that have all
  // they asked for end.
  void Deliver(std::span<const BatchShare> shares, std::span<const SampledToken> sampled, Time now);
  // Ends a work that runs.
  void End(const Work& work, FinishReason reason, Status status, Time now);
  // Ends one that waited. `status` is of kFailed.
  void EndWaiting(std::unique_ptr<Work> work, FinishReason reason, Time now, Status status = Status::Ok());

  // Since the loop began.
  struct Counters {
    int64_t prompt_tokens = 0;  // of prompts that are through
    int64_t cached_prompt_tokens = 0;
    int64_t generated_tokens = 0;
    int64_t completed = 0;
    int64_t cancelled = 0;
    int64_t failed = 0;
  };
  const Counters& counters() const { return counters_; }

 private:
  // True if the work ends with it, for it wants no answer.
  bool DeliverPrompt(Work& work, int64_t tokens, Time now);
  void DeliverToken(const SampledToken& sampled, Time now);
  void Tell(const Work& work, FinishReason reason, Status status, Time now);

  const Parts parts_;
  Counters counters_;
};

}  // namespace espalier

#include "serving/work.h"

#include <algorithm>

namespace espalier {

const char* FinishReasonName(FinishReason reason) {
  switch (reason) {
    case FinishReason::kEndOfText:
      return "end of text";
    case FinishReason::kLength:
      return "length";
    case FinishReason::kCancelled:
      return "cancelled";
    case FinishReason::kFailed:
      return "failed";
    case FinishReason::kShutdown:
      return "shutdown";
  }
  return "";
}

RequestEnd Work::EndAt(Time now) const {
  RequestEnd end;
  end.prompt_tokens = prompt_tokens;
  end.cached_tokens = cached_tokens;
  end.generated_tokens = generated();
  end.preemptions = preemptions;
  const bool was_started = started != Time();
  const bool answered = first_token != Time();
  end.queue_ms = MillisecondsBetween(submitted, was_started ? started : now);
  end.prefill_ms = was_started ? MillisecondsBetween(started, answered ? first_token : now) : 0;
  end.decode_ms = answered ? MillisecondsBetween(first_token, last_token) : 0;
  return end;
}

RequestView Work::View(bool running) const {
  RequestView view;
  view.id = id;
  view.state = !running     ? RequestView::State::kWaiting
               : decoding() ? RequestView::State::kDecode
                            : RequestView::State::kPrefill;
  view.prompt_tokens = prompt_tokens;
  view.cached_tokens = cached_tokens;
  view.prefilled_tokens = std::min(computed, prompt_tokens);
  view.generated_tokens = generated();
  view.max_tokens = request.max_tokens;
  return view;
}

}  // namespace espalier

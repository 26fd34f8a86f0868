#include "server/completion_response.h"

#include <algorithm>

#include "server/completion_response_parts.h"

namespace espalier {
namespace {

using Json = nlohmann::ordered_json;

double Ratio(double over, double under) { return under > 0 ? over / under : 0; }

std::vector<const RequestEnd*> Ends(std::span<const ChoiceAnswer> choices) {
  std::vector<const RequestEnd*> ends;
  for (const ChoiceAnswer& choice : choices) {
    ends.push_back(&choice.end);
  }
  return ends;
}

Json ChoiceJson(const CompletionRequest& request, const ChoiceAnswer& choice) {
  const Json finish = FinishReasonJson(StopKindOf(choice.end.reason, !choice.stopping_word.empty()));
  const Json logprobs = LogprobsMember(request.kind, choice.scores);
  if (request.kind == ApiKind::kChat) {
    return {{"index", choice.index},
            {"message", {{"role", "assistant"}, {"content", choice.text}}},
            {"logprobs", logprobs},
            {"finish_reason", finish}};
  }
  return {{"text", choice.text}, {"index", choice.index}, {"logprobs", logprobs}, {"finish_reason", finish}};
}

// "a/b" moves b of the object a to the top, as llama-server does; what is missing is left out.
Json SelectFields(const std::vector<std::string>& names, const Json& answer) {
  Json selected = Json::object();
  for (const std::string& name : names) {
    const Json* place = &answer;
    size_t from = 0;
    while (place != nullptr && from <= name.size()) {
      const size_t slash = std::min(name.find('/', from), name.size());
      const auto found = place->is_object() ? place->find(name.substr(from, slash - from)) : place->end();
      place = found == place->end() ? nullptr : &*found;
      from = slash + 1;
    }
    if (place != nullptr) {
      selected[name] = *place;
    }
  }
  return selected;
}

}  // namespace

StopKind StopKindOf(FinishReason reason, bool stopping_word) {
  return stopping_word                        ? StopKind::kWord
         : reason == FinishReason::kEndOfText ? StopKind::kEndOfText
         : reason == FinishReason::kLength    ? StopKind::kLimit
                                              : StopKind::kNone;
}

const char* StopTypeName(StopKind kind) {
  switch (kind) {
    case StopKind::kEndOfText:
      return "eos";
    case StopKind::kLimit:
      return "limit";
    case StopKind::kWord:
      return "word";
    case StopKind::kNone:
      break;
  }
  return "none";
}

Json FinishReasonJson(StopKind kind) {
  return kind == StopKind::kNone ? Json() : Json(kind == StopKind::kLimit ? "length" : "stop");
}

std::optional<ApiError> ErrorOfEnd(const RequestEnd& end) {
  if (end.reason == FinishReason::kShutdown) {
    return UnavailableError("the server shuts down: the answer is not complete");
  }
  if (end.reason == FinishReason::kFailed) {
    return end.status.ok() ? ServerError("the request failed") : ErrorFromStatus(end.status);
  }
  return std::nullopt;
}

Json TimingsJson(std::span<const RequestEnd* const> ends) {
  int64_t cached = 0;
  int64_t prompt = 0;
  int64_t predicted = 0;
  double intervals = 0;
  double prompt_ms = 0;
  double predicted_ms = 0;
  for (const RequestEnd* end : ends) {
    cached += end->cached_tokens;
    prompt += end->prompt_tokens - end->cached_tokens;
    predicted += end->generated_tokens;
    intervals += static_cast<double>(std::max<int64_t>(end->generated_tokens - 1, 0));
    prompt_ms += end->prefill_ms;
    predicted_ms += end->decode_ms;
  }
  return {{"cache_n", cached},
          {"prompt_n", prompt},
          {"prompt_ms", prompt_ms},
          {"prompt_per_token_ms", Ratio(prompt_ms, static_cast<double>(prompt))},
          {"prompt_per_second", Ratio(1000.0 * static_cast<double>(prompt), prompt_ms)},
          {"predicted_n", predicted},
          {"predicted_ms", predicted_ms},
          {"predicted_per_token_ms", Ratio(predicted_ms, intervals)},
          {"predicted_per_second", Ratio(1000.0 * intervals, predicted_ms)}};
}

Json EspalierJson(std::span<const RequestEnd* const> ends) {
  const RequestEnd none;
  const RequestEnd& last = ends.empty() ? none : *ends.back();
  int plan_changes = 0;
  int preemptions = 0;
  for (const RequestEnd* end : ends) {
    plan_changes = std::max(plan_changes, end->plan_changes);
    preemptions += end->preemptions;
  }
  return {{"plan", last.plan_text},
          {"predicted_loss_nats", last.loss ? Json(last.loss->nats) : Json()},
          {"predicted_loss_measured", last.loss && last.loss->measured},
          {"plan_changes", plan_changes},
          {"preemptions", preemptions}};
}

Json UsageJson(const CompletionRequest& request, std::span<const ChoiceAnswer> choices) {
  int64_t prompt = 0;
  int64_t cached = 0;
  int64_t generated = 0;
  for (const ChoiceAnswer& choice : choices) {
    const bool first_of_prompt = choice.index % request.n == 0;
    prompt += first_of_prompt ? choice.end.prompt_tokens : 0;
    cached += first_of_prompt ? choice.end.cached_tokens : 0;
    generated += choice.end.generated_tokens;
  }
  return {{"prompt_tokens", prompt},
          {"completion_tokens", generated},
          {"total_tokens", prompt + generated},
          {"prompt_tokens_details", {{"cached_tokens", cached}}}};
}

std::string WholeAnswer(const AnswerHead& head, const CompletionRequest& request,
                        std::span<const ChoiceAnswer> choices) {
  Json list = Json::array();
  if (request.kind == ApiKind::kNative) {
    for (const ChoiceAnswer& choice : choices) {
      Json answer = NativeFinal(head, request, choice);
      list.push_back(request.response_fields.empty() ? answer : SelectFields(request.response_fields, answer));
    }
    return DumpJson(list.size() == 1 && !request.several_prompts ? list[0] : list);
  }
  for (const ChoiceAnswer& choice : choices) {
    list.push_back(ChoiceJson(request, choice));
  }
  const std::vector<const RequestEnd*> ends = Ends(choices);
  return DumpJson({{"id", head.id},
                   {"object", request.kind == ApiKind::kChat ? "chat.completion" : "text_completion"},
                   {"created", head.created},
                   {"model", head.model},
                   {"system_fingerprint", head.fingerprint},
                   {"choices", std::move(list)},
                   {"usage", UsageJson(request, choices)},
                   {"timings", TimingsJson(ends)},
                   {"espalier", EspalierJson(ends)}});
}

std::string DumpJson(const Json& json) { return json.dump(-1, ' ', false, Json::error_handler_t::replace); }

}  // namespace espalier

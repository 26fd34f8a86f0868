#include <fmt/format.h>

#include "server/completion_response_parts.h"
#include "server/utf8.h"

namespace espalier {
namespace {

using Json = nlohmann::ordered_json;

void AppendNumber(int64_t number, std::string* out) {
  const fmt::format_int text(number);
  out->append(text.data(), text.size());
}

void AppendTimings(const RequestEnd* so_far, std::string* out) {
  if (so_far != nullptr) {
    *out += ",\"timings\":";
    *out += DumpJson(TimingsJson({&so_far, 1}));
  }
}

}  // namespace

std::string SseEvent(std::string_view json) {
  std::string event = "data: ";
  event += json;
  event += "\n\n";
  return event;
}

std::string SseError(const ApiError& error) { return SseEvent(ErrorBody(error)); }

AnswerStream::AnswerStream(AnswerHead head, const CompletionRequest& request) : head_(std::move(head)) {
  request_ = request;
  request_.prompts.clear();
  request_.messages.clear();
  if (request.kind == ApiKind::kNative) {
    return;
  }
  const std::string chunk = DumpJson(Chunk(Json::array()));
  constexpr std::string_view kNoChoices = "{\"choices\":[]";
  tail_ = "]" + chunk.substr(kNoChoices.size(), chunk.size() - kNoChoices.size() - 1);
}

Json AnswerStream::Chunk(Json choices) const {
  Json chunk = {{"choices", std::move(choices)},
                {"created", head_.created},
                {"id", head_.id},
                {"model", head_.model},
                {"system_fingerprint", head_.fingerprint},
                {"object", request_.kind == ApiKind::kChat ? "chat.completion.chunk" : "text_completion"}};
  if (request_.include_usage) {
    chunk["usage"] = nullptr;  // until the last one
  }
  return chunk;
}

std::string AnswerStream::Begin(int index) const {
  if (request_.kind != ApiKind::kChat) {
    return "";
  }
  Json choice = {{"index", index},
                 {"delta", {{"role", "assistant"}, {"content", nullptr}}},
                 {"logprobs", nullptr},
                 {"finish_reason", nullptr}};
  return SseEvent(DumpJson(Chunk(Json::array({std::move(choice)}))));
}

std::string AnswerStream::Part(const StreamPart& part) const {
  std::string out;
  out.reserve(part.text.size() + tail_.size() + 192);
  const bool native = request_.kind == ApiKind::kNative;
  const bool chat = request_.kind == ApiKind::kChat;
  out += native ? "data: {\"index\":" : "data: {\"choices\":[{\"index\":";
  AppendNumber(part.index, &out);
  out += native ? ",\"content\":" : chat ? ",\"delta\":{\"content\":" : ",\"text\":";
  AppendJsonString(part.text, &out);
  if (!native) {
    out += chat ? "},\"logprobs\":" : ",\"logprobs\":";
    out += part.scores.empty() ? "null" : DumpJson(LogprobsMember(request_.kind, part.scores));
    out += ",\"finish_reason\":null}";
    out += tail_;
    AppendTimings(part.so_far, &out);
    out += "}\n\n";
    return out;
  }
  out += ",\"tokens\":[";
  for (size_t i = 0; i < part.tokens.size(); ++i) {
    out += i == 0 ? "" : ",";
    AppendNumber(part.tokens[i], &out);
  }
  out += "],\"stop\":false,\"id_slot\":-1,\"tokens_predicted\":";
  AppendNumber(part.generated_tokens, &out);
  out += ",\"tokens_evaluated\":";
  AppendNumber(part.prompt_tokens, &out);
  AppendTimings(part.so_far, &out);
  if (!part.scores.empty()) {
    out += ",\"completion_probabilities\":";
    out += DumpJson(TokenLogprobs(part.scores));
  }
  out += "}\n\n";
  return out;
}

std::string AnswerStream::Finish(const ChoiceAnswer& choice) const {
  if (request_.kind == ApiKind::kNative) {
    return SseEvent(DumpJson(NativeFinal(head_, request_, choice)));
  }
  const Json finish = FinishReasonJson(StopKindOf(choice.end.reason, !choice.stopping_word.empty()));
  Json last = {{"index", choice.index}};
  if (request_.kind == ApiKind::kChat) {
    last["delta"] = Json::object();
  } else {
    last["text"] = "";
  }
  last["logprobs"] = nullptr;
  last["finish_reason"] = finish;
  Json chunk = Chunk(Json::array({std::move(last)}));
  if (!request_.include_usage) {
    const RequestEnd* const end = &choice.end;
    chunk["timings"] = TimingsJson({&end, 1});
    chunk["espalier"] = EspalierJson({&end, 1});
  }
  return SseEvent(DumpJson(chunk));
}

std::string AnswerStream::End(std::span<const ChoiceAnswer> choices) const {
  if (request_.kind == ApiKind::kNative) {
    return "";
  }
  std::string out;
  if (request_.include_usage) {
    std::vector<const RequestEnd*> ends;
    for (const ChoiceAnswer& choice : choices) {
      ends.push_back(&choice.end);
    }
    Json chunk = Chunk(Json::array());
    chunk["usage"] = UsageJson(request_, choices);
    chunk["timings"] = TimingsJson(ends);
    chunk["espalier"] = EspalierJson(ends);
    out = SseEvent(DumpJson(chunk));
  }
  out += kSseDone;
  return out;
}

}  // namespace espalier

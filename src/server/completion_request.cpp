#include "server/completion_request.h"

#include <fmt/format.h>

#include "server/completion_request_parts.h"

namespace espalier {
namespace {

using Json = nlohmann::json;

constexpr size_t kMaxStops = 64;
constexpr size_t kMaxStopBytes = 4096;
constexpr int64_t kMaxTop = 1024;
constexpr int64_t kMaxChatTop = 20;
constexpr int64_t kMaxN = 128;
constexpr int64_t kLegacyMaxTokens = 16;  // OpenAI's default for completions

void ReadLength(const RequestDefaults& defaults, FieldReader* fields, CompletionRequest* request) {
  request->max_tokens = defaults.max_tokens;
  if (request->kind == ApiKind::kCompletion && request->max_tokens == CompletionRequest::kUnlimited) {
    request->max_tokens = kLegacyMaxTokens;
  }
  // The last one wins, as in llama-server.
  for (const char* name : {"max_tokens", "max_completion_tokens", "n_predict"}) {
    fields->Int(name, CompletionRequest::kUnlimited, INT32_MAX, &request->max_tokens);
  }
  fields->Int("t_max_predict_ms", -1, int64_t{1} << 40, &request->max_predict_ms);
}

void ReadN(const RequestDefaults& defaults, FieldReader* fields, CompletionRequest* request) {
  if (request->kind == ApiKind::kNative) {
    fields->Int("n", 1, kMaxN, &request->n);
    fields->Int("n_cmpl", 1, kMaxN, &request->n);
  } else {
    fields->Int("n", 1, kMaxN, &request->n);
  }
  int64_t best_of = request->n;
  if (request->kind == ApiKind::kCompletion && fields->Int("best_of", 1, kMaxN, &best_of) && best_of != request->n) {
    fields->Fail(InvalidRequest("best_of", fmt::format("field 'best_of': expected n = {} (choosing among more is not "
                                                       "supported), found {}",
                                                       request->n, best_of)));
  }
  if (request->n_choices() > defaults.max_choices) {
    fields->Fail(InvalidRequest(
        request->n > 1 ? "n" : "prompt",
        fmt::format("prompts times n: expected at most {}, found {}", defaults.max_choices, request->n_choices())));
  }
}

void ReadStops(FieldReader* fields, CompletionRequest* request) {
  const Json* stop = fields->Find("stop");
  if (stop == nullptr) {
    return;
  }
  const bool list = stop->is_array();
  if (!list && !stop->is_string()) {
    return fields->Fail(WrongValue("stop", "a string or a list of strings", *stop));
  }
  if (list && stop->size() > kMaxStops) {
    return fields->Fail(WrongValue("stop", fmt::format("at most {} strings", kMaxStops), *stop));
  }
  for (size_t i = 0; i < (list ? stop->size() : 1); ++i) {
    const Json& word = list ? (*stop)[i] : *stop;
    const std::string param = list ? fmt::format("stop[{}]", i) : "stop";
    if (!word.is_string() || word.get_ref<const std::string&>().size() > kMaxStopBytes) {
      return fields->Fail(WrongValue(param, fmt::format("a string of at most {} bytes", kMaxStopBytes), word));
    }
    if (!word.get_ref<const std::string&>().empty()) {
      request->stop.push_back(word.get<std::string>());
    }
  }
}

void ReadScores(FieldReader* fields, CompletionRequest* request) {
  if (request->kind == ApiKind::kCompletion) {
    fields->Int("logprobs", 0, kMaxTop, &request->n_top);
  } else if (request->kind == ApiKind::kChat) {
    bool logprobs = false;
    fields->Bool("logprobs", &logprobs);
    int32_t top = 0;
    if (fields->Int("top_logprobs", 0, kMaxChatTop, &top) && top > 0 && !logprobs) {
      fields->Fail(InvalidRequest("top_logprobs", "field 'top_logprobs': expected \"logprobs\": true with it"));
    }
    request->n_top = logprobs ? top : -1;
  }
  int32_t n_probs = 0;
  if (request->kind == ApiKind::kNative && fields->Find("n_probs") == nullptr) {
    fields->Int("logprobs", 0, kMaxTop, &n_probs);
  }
  fields->Int("n_probs", 0, kMaxTop, &n_probs);
  request->n_top = n_probs > 0 ? n_probs : request->n_top;
  bool after_sampling = false;
  if (fields->Bool("post_sampling_probs", &after_sampling) && after_sampling) {
    fields->Fail(InvalidRequest("post_sampling_probs",
                                "field 'post_sampling_probs': expected false: probabilities are "
                                "told as the model has them, before any sampler"));
  }
}

void ReadResponseFields(FieldReader* fields, CompletionRequest* request) {
  const Json* names = request->kind == ApiKind::kNative ? fields->Find("response_fields") : nullptr;
  if (names == nullptr) {
    return;
  }
  constexpr size_t kMost = 256;
  if (!names->is_array() || names->size() > kMost) {
    return fields->Fail(WrongValue("response_fields", fmt::format("a list of at most {} names", kMost), *names));
  }
  for (size_t i = 0; i < names->size(); ++i) {
    if (!(*names)[i].is_string()) {
      return fields->Fail(WrongValue(fmt::format("response_fields[{}]", i), "a string", (*names)[i]));
    }
    request->response_fields.push_back((*names)[i].get<std::string>());
  }
}

// What would change the answer and is not here; what says that it shall stay as it is anyway, passes.
void RefuseWhatIsNotHere(FieldReader* fields) {
  if (const Json* adapters = fields->Find("lora"); adapters != nullptr && !adapters->empty()) {
    ApiError error = NotSupportedError("field 'lora': adapters are not supported");
    error.param = "lora";
    fields->Fail(std::move(error));
  }
  bool lazy = false;
  if (fields->Bool("grammar_lazy", &lazy) && lazy) {
    fields->Fail(
        InvalidRequest("grammar_lazy", "field 'grammar_lazy': expected false: a grammar counts from the start"));
  }
  // Contexts are never shifted, so whatever is to be kept then is kept.
  int32_t n_keep = 0;
  fields->Int("n_keep", -1, INT32_MAX, &n_keep);
}

void ReadDelivery(FieldReader* fields, CompletionRequest* request) {
  fields->String("model", &request->model);
  fields->Bool("stream", &request->stream);
  if (const Json* options = fields->Find("stream_options")) {
    if (!options->is_object()) {
      return fields->Fail(WrongValue("stream_options", "an object", *options));
    }
    FieldReader inner(*options, "stream_options.");
    inner.Bool("include_usage", &request->include_usage);
    if (inner.error()) {
      return fields->Fail(*inner.error());
    }
  }
  fields->Bool("cache_prompt", &request->cache_prompt);
  fields->Bool("return_tokens", &request->return_tokens);
  fields->Bool("timings_per_token", &request->timings_per_token);
  if (request->kind != ApiKind::kCompletion) {
    return;
  }
  fields->Bool("echo", &request->echo);
  std::string suffix;
  if (fields->String("suffix", &suffix) && !suffix.empty()) {
    fields->Fail(InvalidRequest("suffix", "field 'suffix': filling in before a suffix is not supported"));
  }
}

}  // namespace

ApiResult<CompletionRequest> ParseCompletionRequest(ApiKind kind, std::string_view body,
                                                    const RequestDefaults& defaults) {
  ApiResult<Json> parsed = ParseBody(body);
  if (IsError(parsed)) {
    return std::get<ApiError>(std::move(parsed));
  }
  const Json& object = std::get<Json>(parsed);
  FieldReader fields(object);
  CompletionRequest request;
  request.kind = kind;
  if (kind == ApiKind::kChat) {
    ReadMessages(&fields, &request);
  } else {
    ReadPrompts(defaults, &fields, &request);
  }
  ReadLength(defaults, &fields, &request);
  ReadN(defaults, &fields, &request);
  ReadStops(&fields, &request);
  ReadScores(&fields, &request);
  ReadResponseFields(&fields, &request);
  RefuseWhatIsNotHere(&fields);
  ReadDelivery(&fields, &request);
  ReadSampling(defaults, &fields, &request);
  if (!fields.error()) {
    ReadGrammar(body, object, &fields, &request);
  }
  if (fields.error()) {
    return *fields.error();
  }
  return request;
}

}  // namespace espalier

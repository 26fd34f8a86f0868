// Any bytes as the body of a request: the answer is an error with the right status and valid UTF-8, or a request whose
// numbers are in range. Its texts then go through a stream with its stop strings.
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/check.h"
#include "server/completion_request.h"
#include "server/text_stream.h"
#include "server/utf8.h"

using namespace espalier;  // NOLINT: a fuzz target is about one library

namespace {

void CheckRequest(const CompletionRequest& request, const RequestDefaults& defaults) {
  ESPALIER_CHECK(request.max_tokens >= CompletionRequest::kUnlimited && request.max_tokens <= INT32_MAX);
  ESPALIER_CHECK(request.n >= 1 && request.n_choices() <= defaults.max_choices);
  ESPALIER_CHECK(request.n_top >= -1 && request.n_top <= 1024);
  ESPALIER_CHECK(std::isfinite(request.sampling.temperature));
  ESPALIER_CHECK(request.sampling.grammar.size() <= size_t{1} << 19);
  for (const LogitBias& bias : request.sampling.logit_bias) {
    ESPALIER_CHECK(bias.token >= 0 && bias.token < defaults.n_vocab && !std::isnan(bias.bias));
  }
  ESPALIER_CHECK(request.kind == ApiKind::kChat ? !request.messages.empty() : !request.prompts.empty());
  for (const Prompt& prompt : request.prompts) {
    ESPALIER_CHECK(!prompt.empty());
    for (const PromptPiece& piece : prompt) {
      if (const auto* tokens = std::get_if<std::vector<int32_t>>(&piece)) {
        for (const int32_t token : *tokens) {
          ESPALIER_CHECK(token >= 0 && token < defaults.n_vocab);
        }
      }
    }
  }
}

// In pieces of `size` bytes; what is given never contains a stop string.
std::string Stream(const std::string& text, const std::vector<std::string>& stops, size_t size) {
  TextStream stream(stops);
  std::string out;
  for (size_t from = 0; from < text.size(); from += size) {
    out += stream.Push(std::string_view(text).substr(from, size));
  }
  out += stream.Flush();
  ESPALIER_CHECK(IsUtf8(out));
  ESPALIER_CHECK(stream.characters_sent() == static_cast<int64_t>(CountCodePoints(out)));
  for (const std::string& stop : stops) {
    ESPALIER_CHECK(out.find(stop) == std::string::npos);
  }
  return out + '\0' + stream.stopping_word();
}

void CheckStream(const std::string& text, const std::vector<std::string>& stops) {
  const std::string whole = Stream(text, stops, text.size() + 1);
  ESPALIER_CHECK(Stream(text, stops, 1) == whole);
  ESPALIER_CHECK(Stream(text, stops, 3) == whole);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) {
    return 0;
  }
  constexpr ApiKind kKinds[] = {ApiKind::kCompletion, ApiKind::kChat, ApiKind::kNative};
  const ApiKind kind = kKinds[data[0] % 3];
  const std::string_view body(reinterpret_cast<const char*>(data) + 1, size - 1);
  RequestDefaults defaults;
  defaults.n_vocab = 32000;
  const ApiResult<CompletionRequest> parsed = ParseCompletionRequest(kind, body, defaults);
  if (IsError(parsed)) {
    const auto& error = std::get<ApiError>(parsed);
    ESPALIER_CHECK(error.status == 400 && !error.message.empty());
    ESPALIER_CHECK(IsUtf8(ErrorBody(error)));
    return 0;
  }
  const auto& request = std::get<CompletionRequest>(parsed);
  CheckRequest(request, defaults);
  for (const Prompt& prompt : request.prompts) {
    for (const PromptPiece& piece : prompt) {
      if (const auto* text = std::get_if<std::string>(&piece)) {
        CheckStream(*text, request.stop);
      }
    }
  }
  for (const ChatMessage& message : request.messages) {
    CheckStream(message.content, request.stop);
  }
  // Bytes that need not be UTF-8.
  CheckStream(std::string(body), request.stop);
  return 0;
}

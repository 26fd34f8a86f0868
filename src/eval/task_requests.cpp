#include "eval/task_requests.h"

#include <fmt/format.h>

#include <map>
#include <string>
#include <utility>

#include "eval/python_text.h"
#include "model/quote.h"

namespace espalier {
namespace {

// The start of the model's input for `text`. EOS is never added, whatever the vocabulary asks for: nothing could be
// split behind it.
Result<std::vector<int32_t>> EncodeFromStart(const Tokenizer& tokenizer, std::string_view text) {
  ESPALIER_ASSIGN_OR_RETURN(auto tokens, tokenizer.Encode(text, /*add_special=*/false, /*parse_special=*/true));
  if (tokenizer.adds_bos() && tokenizer.bos() >= 0 && (tokens.empty() || tokens.front() != tokenizer.bos())) {
    tokens.insert(tokens.begin(), tokenizer.bos());
  }
  return tokens;
}

// The token that stands for an empty context.
Result<int32_t> PrefixToken(const Tokenizer& tokenizer) {
  const int32_t token = tokenizer.bos() >= 0 ? tokenizer.bos() : tokenizer.eos();
  if (token < 0) {
    return Unsupported("a request without context needs a BOS or EOS token, and the vocabulary has neither");
  }
  return token;
}

Result<EncodedRequest> EncodeContinuation(const Tokenizer& tokenizer, std::string_view continuation) {
  EncodedRequest encoded;
  ESPALIER_ASSIGN_OR_RETURN(encoded.tokens, tokenizer.Encode(continuation, /*add_special=*/false,
                                                             /*parse_special=*/true));
  ESPALIER_ASSIGN_OR_RETURN(const int32_t prefix, PrefixToken(tokenizer));
  if (encoded.tokens.empty() || encoded.tokens.front() != prefix) {
    encoded.tokens.insert(encoded.tokens.begin(), prefix);
  }
  encoded.n_context = 1;
  return encoded;
}

Result<EncodedRequest> EncodePair(const Tokenizer& tokenizer, std::string_view context, std::string_view continuation) {
  const std::string_view trimmed = StripRight(context);
  EncodedRequest encoded;
  ESPALIER_ASSIGN_OR_RETURN(encoded.tokens, EncodeFromStart(tokenizer, trimmed));
  ESPALIER_ASSIGN_OR_RETURN(const auto whole,
                            EncodeFromStart(tokenizer, std::string(context) + std::string(continuation)));
  if (encoded.tokens.empty()) {  // nothing but white space, and a model without BOS: the harness stops here
    ESPALIER_ASSIGN_OR_RETURN(const int32_t prefix, PrefixToken(tokenizer));
    encoded.tokens = {prefix};
    encoded.n_context = 1;
    encoded.tokens.insert(encoded.tokens.end(), whole.begin(), whole.end());
    return encoded;
  }
  encoded.n_context = static_cast<int64_t>(encoded.tokens.size());
  if (whole.size() > encoded.tokens.size()) {
    encoded.tokens.insert(encoded.tokens.end(), whole.begin() + encoded.n_context, whole.end());
  }
  return encoded;
}

}  // namespace

Result<EncodedRequest> EncodeRequest(const Tokenizer& tokenizer, const TaskRequest& request, int64_t max_inputs) {
  ESPALIER_ASSIGN_OR_RETURN(EncodedRequest encoded, request.context.empty()
                                                        ? EncodeContinuation(tokenizer, request.continuation)
                                                        : EncodePair(tokenizer, request.context, request.continuation));
  const auto n_tokens = static_cast<int64_t>(encoded.tokens.size());
  const int64_t n_continuation = n_tokens - encoded.n_context;
  if (n_continuation < 1) {
    return InvalidArgument(fmt::format("continuation {} adds no token to its context", Quote(request.continuation)));
  }
  if (n_continuation > max_inputs) {
    return InvalidArgument(
        fmt::format("continuation of {} tokens: the model reads {} at most", n_continuation, max_inputs));
  }
  if (const int64_t excess = n_tokens - (max_inputs + 1); excess > 0) {
    encoded.tokens.erase(encoded.tokens.begin(), encoded.tokens.begin() + excess);
    encoded.n_context -= excess;
    encoded.truncated = true;
  }
  return encoded;
}

Result<std::vector<EncodedItem>> EncodeItems(const Tokenizer& tokenizer, std::span<const TaskItem> items,
                                             int64_t max_inputs) {
  std::vector<EncodedItem> encoded;
  encoded.reserve(items.size());
  std::map<std::pair<std::string_view, std::string_view>, int64_t> seen;
  for (const TaskItem& item : items) {
    const int64_t number = ++seen[{item.set, item.task}];
    EncodedItem one;
    for (const TaskRequest& request : item.requests) {
      auto result = EncodeRequest(tokenizer, request, max_inputs);
      if (!result.ok()) {
        return Status(result.status().code(),
                      fmt::format("{}: task {}, item {}, choice {}: {}", Printable(item.set), Quote(item.task), number,
                                  one.requests.size() + 1, result.status().message()));
      }
      one.requests.push_back(std::move(*result));
    }
    encoded.push_back(std::move(one));
  }
  return encoded;
}

}  // namespace espalier

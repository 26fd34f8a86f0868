#include "eval/windows.h"

#include <fmt/format.h>

#include <algorithm>

namespace espalier {

Result<Protocol> ParseProtocol(std::string_view name) {
  if (name == "gptq") {
    return Protocol::kGptq;
  }
  if (name == "llama") {
    return Protocol::kLlama;
  }
  return InvalidArgument(fmt::format("protocol '{}': expected gptq or llama", name));
}

const char* ProtocolName(Protocol protocol) { return protocol == Protocol::kGptq ? "gptq" : "llama"; }

Result<int64_t> WindowLength(const WindowOptions& options, int64_t n_ctx_train) {
  constexpr int64_t kShortest = 4;  // below, the llama protocol has nothing to score
  const int64_t usual = options.protocol == Protocol::kGptq ? 2048 : 512;
  const int64_t length = options.window_tokens != 0 ? options.window_tokens : std::min(usual, n_ctx_train);
  if (length < kShortest || length > n_ctx_train) {
    return InvalidArgument(fmt::format("window of {} tokens: expected {} to {} (the model's training context)", length,
                                       kShortest, n_ctx_train));
  }
  return length;
}

Result<Windows> CutWindows(const Tokenizer& tokenizer, int64_t n_ctx_train, const std::string& corpus,
                           std::string_view text, const WindowOptions& options) {
  ESPALIER_ASSIGN_OR_RETURN(const int64_t length, WindowLength(options, n_ctx_train));
  if (options.max_windows < 0) {
    return InvalidArgument(fmt::format("{} windows: expected a positive number, or 0 for all", options.max_windows));
  }
  const bool llama = options.protocol == Protocol::kLlama;
  if (llama && text.ends_with('\n')) {
    text.remove_suffix(1);
  }
  Windows windows;
  windows.protocol = options.protocol;
  windows.corpus = corpus;
  windows.window_tokens = length;
  windows.first_target = llama ? length / 2 + 1 : 1;
  ESPALIER_ASSIGN_OR_RETURN(windows.tokens, tokenizer.Encode(text, /*add_special=*/true, /*parse_special=*/false));
  windows.text_tokens = static_cast<int64_t>(windows.tokens.size());
  const int64_t needed = llama ? 2 * length : length;
  if (windows.text_tokens < needed) {
    return InvalidArgument(fmt::format("{}: the text has {} tokens, protocol {} with windows of {} needs at least {}",
                                       corpus, windows.text_tokens, ProtocolName(options.protocol), length, needed));
  }
  const int64_t all = windows.text_tokens / length;
  const int64_t count = options.max_windows > 0 ? std::min(all, options.max_windows) : all;
  for (int64_t i = 0; options.spread && i < count; ++i) {
    // Never behind where it goes: i * all / count >= i.
    std::copy_n(windows.tokens.begin() + i * all / count * length, length, windows.tokens.begin() + i * length);
  }
  windows.tokens.resize(static_cast<size_t>(count * length));
  for (int64_t i = 0; llama && tokenizer.adds_bos() && i < count; ++i) {
    windows.tokens[static_cast<size_t>(i * length)] = tokenizer.bos();
  }
  return windows;
}

}  // namespace espalier

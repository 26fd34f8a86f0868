// Cutting a text into the windows that are scored. Figures from different protocols cannot be compared: every result
// names its own.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "text/tokenizer.h"

namespace espalier {

enum class Protocol : uint8_t {
  // The papers': the whole text tokenised once (BOS once), disjoint windows, tokens 2..n of each scored.
  kGptq,
  // llama.cpp's llama-perplexity: BOS replaces the first token of each window, the second half is scored. One newline
  // at the end of the text is dropped, as its -f does.
  kLlama,
};
Result<Protocol> ParseProtocol(std::string_view name);  // "gptq", "llama"
const char* ProtocolName(Protocol protocol);

struct WindowOptions {
  Protocol protocol = Protocol::kGptq;
  int64_t window_tokens = 0;  // 0: 2048 (gptq) or 512 (llama), but no more than the model's training context
  int64_t max_windows = 0;    // 0: all of the text
  // Which windows, where the text has more: the first ones, as llama-perplexity's --chunks has it; or evenly spread
  // over the text, for measurements that shall stand for all of it (the beginning of a collection is a few of its
  // pieces).
  bool spread = false;
};

struct Windows {
  Protocol protocol = Protocol::kGptq;
  std::string corpus;
  int64_t text_tokens = 0;  // of the whole text, BOS included
  int64_t window_tokens = 0;
  int64_t first_target = 0;     // position in a window of the first token whose likelihood counts
  std::vector<int32_t> tokens;  // [count()][window_tokens]

  int64_t count() const { return window_tokens > 0 ? static_cast<int64_t>(tokens.size()) / window_tokens : 0; }
  std::span<const int32_t> at(int64_t window) const {
    return std::span(tokens).subspan(static_cast<size_t>(window * window_tokens), static_cast<size_t>(window_tokens));
  }
  int64_t targets_per_window() const { return window_tokens - first_target; }
};

// The length that `options` mean for a model trained on n_ctx_train tokens. Fails on lengths below 4, and on those
// beyond the training context.
Result<int64_t> WindowLength(const WindowOptions& options, int64_t n_ctx_train);

// `corpus` names the text in results and messages. The last partial window is dropped; a text that does not fill one
// window (two in the llama protocol, as in llama-perplexity) is an error that names both numbers.
Result<Windows> CutWindows(const Tokenizer& tokenizer, int64_t n_ctx_train, const std::string& corpus,
                           std::string_view text, const WindowOptions& options);

}  // namespace espalier

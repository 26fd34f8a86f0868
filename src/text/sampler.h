// Choosing the next token: libllama's samplers, in llama.cpp's order and with llama.cpp's defaults, so that flags mean
// here what they mean there and the same seed gives the same tokens for the same logits. Grammars allow what libllama's
// allow, but are followed by gbnf_matcher.h.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "text/tokenizer.h"

namespace espalier {

struct LogitBias {
  int32_t token = 0;
  float bias = 0;  // added to the logit; -infinity bans the token
};

struct SamplerOptions {
  static constexpr uint32_t kRandomSeed = 0xFFFFFFFF;

  uint32_t seed = kRandomSeed;  // kRandomSeed: another one each time
  float temperature = 0.8f;     // <= 0: greedy
  float dynatemp_range = 0;     // 0: off
  float dynatemp_exponent = 1;
  int32_t top_k = 40;           // <= 0: off
  float top_p = 0.95f;          // 1: off
  float min_p = 0.05f;          // 0: off
  float typical_p = 1;          // 1: off
  float top_n_sigma = -1;       // <= 0: off
  float xtc_probability = 0;    // 0: off
  float xtc_threshold = 0.1f;   // > 0.5: off
  int32_t repeat_last_n = 64;   // tokens that the three penalties look at; 0: off; -1: FitToContext's
  float repeat_penalty = 1;     // 1: off
  float presence_penalty = 0;   // 0: off
  float frequency_penalty = 0;  // 0: off
  float dry_multiplier = 0;     // 0: off
  float dry_base = 1.75f;
  int32_t dry_allowed_length = 2;
  int32_t dry_penalty_last_n = 64;  // 0: off; -1: FitToContext's
  int32_t mirostat = 0;             // 0: off, 1, 2: replaces everything but temperature, bias and grammar
  float mirostat_tau = 5;           // target entropy
  float mirostat_eta = 0.1f;        // learning rate
  std::vector<std::string> dry_sequence_breakers = {"\n", ":", "\"", "*"};
  int32_t min_keep = 0;     // tokens that top_p, min_p, typical_p and XTC leave at least
  bool ignore_eos = false;  // bans every token that ends a generation
  std::vector<LogitBias> logit_bias;
  // Steps that following a grammar may take for one token (GbnfMatcher::work): there are grammars with 2^n ways to read
  // n characters. Beyond, the token is refused, which ends the request instead of holding all others up.
  int64_t grammar_work = int64_t{1} << 18;
  std::string grammar;  // GBNF with the start symbol "root"; empty: none
};

// -1 in what counts tokens means all of the context, and more than that means no more: what is remembered takes memory.
void FitToContext(int64_t context_tokens, SamplerOptions* options);

// kInvalidArgument, naming the place, where a grammar is none that a sampler of this vocabulary can follow (ReadGbnf).
// Bounds the text to 256 KiB.
Status CheckGrammar(const Tokenizer& tokenizer, std::string_view grammar);

// The state of one generation: penalties remember tokens, a grammar where it stands. A few KiB without a grammar: what
// depends on the vocabulary's size belongs to the thread that samples. Thread rule: one thread at a time; keeps no
// reference to anything but the tokenizer, which must outlive it.
class Sampler {
 public:
  // Fails with kInvalidArgument on values outside their range, on a bias for an unknown token, and as CheckGrammar.
  static Result<std::unique_ptr<Sampler>> Create(const Tokenizer& tokenizer, const SamplerOptions& options);
  virtual ~Sampler() = default;

  // The next token. Does not change penalties or grammar: Accept does. REQUIRES: n_vocab logits.
  virtual int32_t Sample(std::span<const float> logits) = 0;

  // Takes a generated token into account. Fails, if a grammar is set, on a token that it does not allow, and where
  // there are too many ways to read the text so far.
  virtual Status Accept(int32_t token) = 0;
  // The prompt counts for the penalties, but not for the grammar.
  virtual void AcceptPrompt(std::span<const int32_t> tokens) = 0;

  // The seed in use: what was drawn for kRandomSeed.
  virtual uint32_t seed() const = 0;
};

}  // namespace espalier

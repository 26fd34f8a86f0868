#include "text/sampler.h"

#include <fmt/format.h>
#include <llama.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <limits>
#include <optional>
#include <utility>

#include "base/check.h"
#include "text/gbnf.h"
#include "text/gbnf_matcher.h"
#include "text/libllama.h"

namespace espalier {
namespace {

struct SamplerDeleter {
  void operator()(llama_sampler* sampler) const { llama_sampler_free(sampler); }
};
using SamplerPtr = std::unique_ptr<llama_sampler, SamplerDeleter>;

constexpr int32_t kMostTokens = 1 << 20;

Status CheckRange(const char* name, double value, double lowest, double highest) {
  if (value >= lowest && value <= highest) {  // false for NaN
    return Status::Ok();
  }
  return InvalidArgument(fmt::format("sampling: {} is {}, expected {} to {}", name, value, lowest, highest));
}

Status CheckOptions(const SamplerOptions& options, int32_t n_vocab) {
  constexpr double kMost = std::numeric_limits<float>::max();
  const auto check = [](const char* name, double value, double lowest, double highest) {
    return CheckRange(name, value, lowest, highest);
  };
  ESPALIER_RETURN_IF_ERROR(check("temperature", options.temperature, -kMost, kMost));
  ESPALIER_RETURN_IF_ERROR(check("dynatemp_range", options.dynatemp_range, 0, kMost));
  ESPALIER_RETURN_IF_ERROR(check("dynatemp_exponent", options.dynatemp_exponent, -kMost, kMost));
  ESPALIER_RETURN_IF_ERROR(check("top_p", options.top_p, 0, kMost));
  ESPALIER_RETURN_IF_ERROR(check("min_p", options.min_p, -kMost, 1));
  ESPALIER_RETURN_IF_ERROR(check("typical_p", options.typical_p, 0, kMost));
  ESPALIER_RETURN_IF_ERROR(check("top_n_sigma", options.top_n_sigma, -kMost, kMost));
  ESPALIER_RETURN_IF_ERROR(check("xtc_probability", options.xtc_probability, 0, 1));
  ESPALIER_RETURN_IF_ERROR(check("xtc_threshold", options.xtc_threshold, 0, kMost));
  ESPALIER_RETURN_IF_ERROR(check("repeat_last_n", options.repeat_last_n, 0, kMostTokens));
  ESPALIER_RETURN_IF_ERROR(check("repeat_penalty", options.repeat_penalty, 1e-30, 1e30));
  ESPALIER_RETURN_IF_ERROR(check("presence_penalty", options.presence_penalty, -kMost, kMost));
  ESPALIER_RETURN_IF_ERROR(check("frequency_penalty", options.frequency_penalty, -kMost, kMost));
  ESPALIER_RETURN_IF_ERROR(check("dry_multiplier", options.dry_multiplier, 0, kMost));
  ESPALIER_RETURN_IF_ERROR(check("dry_base", options.dry_base, 0, kMost));
  ESPALIER_RETURN_IF_ERROR(check("dry_allowed_length", options.dry_allowed_length, 0, kMostTokens));
  ESPALIER_RETURN_IF_ERROR(check("dry_penalty_last_n", options.dry_penalty_last_n, 0, kMostTokens));
  ESPALIER_RETURN_IF_ERROR(check("min_keep", options.min_keep, 0, INT32_MAX));
  ESPALIER_RETURN_IF_ERROR(check("mirostat", options.mirostat, 0, 2));
  ESPALIER_RETURN_IF_ERROR(check("mirostat_tau", options.mirostat_tau, 0, kMost));
  ESPALIER_RETURN_IF_ERROR(check("mirostat_eta", options.mirostat_eta, 0, kMost));
  for (const LogitBias& bias : options.logit_bias) {
    if (bias.token < 0 || bias.token >= n_vocab || std::isnan(bias.bias)) {
      return InvalidArgument(fmt::format("sampling: logit bias {} for token {}, expected a number for a token in 0..{}",
                                         bias.bias, bias.token, n_vocab - 1));
    }
  }
  return Status::Ok();
}

llama_sampler* BiasSampler(const Tokenizer& tokenizer, const llama_vocab* vocab, const SamplerOptions& options) {
  constexpr float kBanned = -std::numeric_limits<float>::infinity();
  std::vector<llama_logit_bias> biases;
  for (const LogitBias& bias : options.logit_bias) {
    biases.push_back({bias.token, bias.bias});
  }
  if (options.ignore_eos) {
    for (const int32_t token : tokenizer.end_of_generation_tokens()) {
      biases.push_back({token, kBanned});
    }
  }
  int32_t n_suppressed = 0;
  const llama_token* suppressed = llama_vocab_get_suppress_tokens(vocab, &n_suppressed);
  for (int32_t i = 0; i < n_suppressed; ++i) {
    biases.push_back({suppressed[i], kBanned});
  }
  return llama_sampler_init_logit_bias(tokenizer.n_vocab(), static_cast<int32_t>(biases.size()), biases.data());
}

void AddTruncatingSamplers(llama_sampler* chain, const llama_vocab* vocab, const SamplerOptions& options) {
  const auto min_keep = static_cast<size_t>(options.min_keep);
  std::vector<const char*> breakers;
  for (const std::string& breaker : options.dry_sequence_breakers) {
    breakers.push_back(breaker.c_str());
  }
  const auto add = [chain](llama_sampler* sampler) { llama_sampler_chain_add(chain, sampler); };
  add(llama_sampler_init_penalties(llama_vocab_n_tokens(vocab), options.repeat_last_n, options.repeat_penalty,
                                   options.frequency_penalty, options.presence_penalty));
  add(llama_sampler_init_dry(vocab, options.dry_multiplier, options.dry_base, options.dry_allowed_length,
                             options.dry_penalty_last_n, breakers.data(), breakers.size()));
  add(llama_sampler_init_top_n_sigma(options.top_n_sigma));
  add(llama_sampler_init_top_k(options.top_k));
  add(llama_sampler_init_typical(options.typical_p, min_keep));
  add(llama_sampler_init_top_p(options.top_p, min_keep));
  add(llama_sampler_init_min_p(options.min_p, min_keep));
  add(llama_sampler_init_xtc(options.xtc_probability, options.xtc_threshold, min_keep, options.seed));
  add(llama_sampler_init_temp_ext(options.temperature, options.dynatemp_range, options.dynatemp_exponent));
  add(llama_sampler_init_dist(options.seed));
}

SamplerPtr BuildChain(const Tokenizer& tokenizer, const llama_vocab* vocab, const SamplerOptions& options) {
  SamplerPtr chain(llama_sampler_chain_init(llama_sampler_chain_default_params()));
  const auto add = [&chain](llama_sampler* sampler) { llama_sampler_chain_add(chain.get(), sampler); };
  add(BiasSampler(tokenizer, vocab, options));
  if (options.mirostat == 0) {
    AddTruncatingSamplers(chain.get(), vocab, options);
    return chain;
  }
  constexpr int32_t kMirostatTokens = 100;  // "m" of arXiv:2007.14966
  add(llama_sampler_init_temp(options.temperature));
  add(options.mirostat == 1 ? llama_sampler_init_mirostat(tokenizer.n_vocab(), options.seed, options.mirostat_tau,
                                                          options.mirostat_eta, kMirostatTokens)
                            : llama_sampler_init_mirostat_v2(options.seed, options.mirostat_tau, options.mirostat_eta));
  return chain;
}

// What a grammar lets through of a vocabulary.
class GrammarSampler {
 public:
  GrammarSampler(const Tokenizer& tokenizer, const GbnfRules& rules, int64_t max_work)
      : tokenizer_(tokenizer), matcher_(rules, max_work) {}

  // There are too many ways to read the text so far.
  bool exhausted() const { return matcher_.exhausted(); }

  bool Allows(int32_t token) {
    return tokenizer_.is_end_of_generation(token) ? matcher_.can_end() : matcher_.Allows(token, PieceOf(token));
  }

  // Bans what does not fit; where that takes too much, not all of it.
  void Apply(std::span<llama_token_data> candidates) {
    for (llama_token_data& candidate : candidates) {
      if (!Allows(candidate.id)) {
        candidate.logit = -std::numeric_limits<float>::infinity();
      }
      if (exhausted()) {
        return;
      }
    }
  }

  Status Accept(int32_t token) {
    const bool end = tokenizer_.is_end_of_generation(token);
    const bool accepted = end ? matcher_.can_end() : matcher_.Accept(token, PieceOf(token));
    if (exhausted()) {
      return TooManyWays();
    }
    return accepted ? Status::Ok()
                    : InvalidArgument(fmt::format("sampling: the grammar does not allow token {} here", token));
  }

  Status TooManyWays() const {
    return InvalidArgument(
        fmt::format("grammar: expected one that is followed within {} steps for a token, found one that takes more: "
                    "there are too many ways to read the text so far",
                    matcher_.max_work()));
  }

 private:
  std::string PieceOf(int32_t token) const { return tokenizer_.Piece(token, /*render_special=*/true); }

  const Tokenizer& tokenizer_;
  GbnfMatcher matcher_;
};

class LibllamaSampler final : public Sampler {
 public:
  LibllamaSampler(SamplerPtr chain, std::unique_ptr<GrammarSampler> grammar, int32_t n_vocab)
      : chain_(std::move(chain)), grammar_(std::move(grammar)), n_vocab_(static_cast<size_t>(n_vocab)) {}

  int32_t Sample(std::span<const float> logits) override {
    const int32_t token = ApplyChain(logits, /*grammar_first=*/false);
    // Asking the grammar about one token is cheap, about the whole vocabulary dear; so only the rare token that it
    // refuses is drawn again. A grammar that can be followed no further refuses in Accept.
    if (!grammar_ || grammar_->Allows(token) || grammar_->exhausted()) {
      return token;
    }
    return ApplyChain(logits, /*grammar_first=*/true);
  }

  Status Accept(int32_t token) override {
    if (grammar_) {
      ESPALIER_RETURN_IF_ERROR(grammar_->Accept(token));
    }
    llama_sampler_accept(chain_.get(), token);
    return Status::Ok();
  }

  void AcceptPrompt(std::span<const int32_t> tokens) override {
    for (const int32_t token : tokens) {
      llama_sampler_accept(chain_.get(), token);
    }
  }

  uint32_t seed() const override { return llama_sampler_get_seed(chain_.get()); }

 private:
  int32_t ApplyChain(std::span<const float> logits, bool grammar_first) {
    // The thread's, not the sampler's: 1.5 MB for a vocabulary of 128 Ki tokens, and requests wait by the hundred.
    thread_local std::vector<llama_token_data> candidates;
    ESPALIER_CHECK(logits.size() == n_vocab_);
    candidates.resize(n_vocab_);
    for (size_t i = 0; i < logits.size(); ++i) {
      candidates[i] = {static_cast<llama_token>(i), logits[i], 0.0f};
    }
    if (grammar_first) {
      grammar_->Apply(candidates);
    }
    llama_token_data_array array = {candidates.data(), candidates.size(), -1, false};
    llama_sampler_apply(chain_.get(), &array);
    ESPALIER_CHECK(array.selected >= 0 && array.selected < static_cast<int64_t>(array.size));
    return array.data[array.selected].id;
  }

  SamplerPtr chain_;
  std::unique_ptr<GrammarSampler> grammar_;
  const size_t n_vocab_;
};

// "<text>" or "<[id]>".
std::optional<uint32_t> TokenOf(const Tokenizer& tokenizer, std::string_view text) {
  if (text.substr(0, 2) != "<[") {
    const auto tokens = tokenizer.Encode(text, /*add_special=*/false, /*parse_special=*/true);
    return tokens.ok() && tokens->size() == 1 ? std::optional(static_cast<uint32_t>(tokens->front())) : std::nullopt;
  }
  uint32_t id = 0;
  const char* const end = text.data() + text.size();
  const auto [rest, error] = std::from_chars(text.data() + 2, end, id);
  const bool known = error == std::errc() && std::string_view(rest, static_cast<size_t>(end - rest)) == "]>" &&
                     id < static_cast<uint32_t>(tokenizer.n_vocab());
  return known ? std::optional(id) : std::nullopt;
}

Result<GbnfRules> ReadGrammar(const Tokenizer& tokenizer, std::string_view grammar) {
  constexpr size_t kMaxBytes = size_t{1} << 18;
  if (grammar.size() > kMaxBytes) {
    return InvalidArgument(
        fmt::format("grammar: expected GBNF of at most {} bytes, found {}", kMaxBytes, grammar.size()));
  }
  return ReadGbnf(grammar, [&](std::string_view text) { return TokenOf(tokenizer, text); });
}

}  // namespace

void FitToContext(int64_t context_tokens, SamplerOptions* options) {
  const auto most = static_cast<int32_t>(std::clamp<int64_t>(context_tokens, 0, kMostTokens));
  for (int32_t* count : {&options->repeat_last_n, &options->dry_penalty_last_n}) {
    *count = *count == -1 ? most : std::min(*count, most);
  }
}

Status CheckGrammar(const Tokenizer& tokenizer, std::string_view grammar) {
  return ReadGrammar(tokenizer, grammar).status();
}

Result<std::unique_ptr<Sampler>> Sampler::Create(const Tokenizer& tokenizer, const SamplerOptions& options) {
  StartLibllama();
  ESPALIER_RETURN_IF_ERROR(CheckOptions(options, tokenizer.n_vocab()));
  const auto* vocab = static_cast<const llama_vocab*>(tokenizer.native_vocab());
  std::unique_ptr<GrammarSampler> grammar;
  if (!options.grammar.empty()) {
    ESPALIER_ASSIGN_OR_RETURN(const GbnfRules rules, ReadGrammar(tokenizer, options.grammar));
    grammar = std::make_unique<GrammarSampler>(tokenizer, rules, options.grammar_work);
    if (grammar->exhausted()) {
      return grammar->TooManyWays();
    }
  }
  return std::unique_ptr<Sampler>(std::make_unique<LibllamaSampler>(BuildChain(tokenizer, vocab, options),
                                                                    std::move(grammar), tokenizer.n_vocab()));
}

}  // namespace espalier

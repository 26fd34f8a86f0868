// Any bytes as a grammar: refused in one line, or taken, and then by libllama too, which would print, or abort the
// process, where our check lets through what it cannot read. What is taken is followed for some tokens within its bound
// of work, and allows what libllama's grammar allows, as long as there are few ways to read the text: libllama's time
// has no bound.
#include <llama.h>
#include <sys/mman.h>
#include <unistd.h>

#include <charconv>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/check.h"
#include "model/model.h"
#include "support/gguf_bytes.h"
#include "text/gbnf.h"
#include "text/gbnf_matcher.h"
#include "text/sampler.h"
#include "text/tokenizer.h"

namespace {

using namespace espalier;        // NOLINT: a fuzz target is about one library
using namespace espalier::test;  // NOLINT: the vocabulary of hand-made files

// Every byte, and some words.
GgufBytes Vocabulary() {
  GgufBytes file = TinyLlama();
  std::vector<std::string> tokens = {"<unk>", "<s>", "</s>"};
  std::vector<int32_t> types = {2, 3, 3};
  const auto add = [&](const std::string& token, int32_t type) {
    tokens.push_back(token);
    types.push_back(type);
  };
  for (int byte = 0; byte < 256; ++byte) {
    constexpr char kHex[] = "0123456789ABCDEF";
    add(std::string("<0x") + kHex[byte / 16] + kHex[byte % 16] + ">", 6);
  }
  add("<end>", 3);
  for (const char* word : {"a", "b", "x", "ab", "abc", "1", "\"", "{", "\u2581", "\u00e9", "\U0001F600"}) {
    add(word, 1);
  }
  file.Set("tokenizer.ggml.tokens", Strings(tokens));
  file.Set("tokenizer.ggml.token_type", Ints(types));
  file.Set("tokenizer.ggml.scores", Floats(std::vector<float>(tokens.size(), -1)));
  file.Tensor("token_embd.weight").ne[1] = static_cast<int64_t>(tokens.size());
  file.Tensor("output.weight").ne[1] = static_cast<int64_t>(tokens.size());
  return file;
}

const Tokenizer& TheTokenizer() {
  static const std::unique_ptr<Tokenizer> tokenizer = [] {
    const std::string content = Vocabulary().Build();
    const int fd = ::memfd_create("model", MFD_CLOEXEC);
    ESPALIER_CHECK(::write(fd, content.data(), content.size()) == static_cast<ssize_t>(content.size()));
    const auto model = Model::Open("/proc/self/fd/" + std::to_string(fd));
    ESPALIER_CHECK(model.ok());
    auto opened = Tokenizer::Open(**model);
    ESPALIER_CHECK(opened.ok());
    return std::move(*opened);
  }();
  return *tokenizer;
}

std::optional<uint32_t> TokenOf(std::string_view text) {
  uint32_t id = 0;
  if (text.starts_with("<[")) {
    std::from_chars(text.data() + 2, text.data() + text.size(), id);
    return id;
  }
  const auto tokens = TheTokenizer().Encode(text, /*add_special=*/false, /*parse_special=*/true);
  return tokens.ok() && tokens->size() == 1 ? std::optional(static_cast<uint32_t>(tokens->front())) : std::nullopt;
}

struct FreeSampler {
  void operator()(llama_sampler* sampler) const { llama_sampler_free(sampler); }
};

// Tokens of whole characters, which both are asked about.
const std::vector<int32_t>& WholeTokens() {
  static const std::vector<int32_t> tokens = [] {
    std::vector<int32_t> found;
    for (int32_t token = 0; token < TheTokenizer().n_vocab(); ++token) {
      const std::string piece = TheTokenizer().Piece(token, /*render_special=*/true);
      if (!TheTokenizer().is_end_of_generation(token) && (piece.size() > 1 || (piece[0] & 0x80) == 0)) {
        found.push_back(token);
      }
    }
    return found;
  }();
  return tokens;
}

void Follow(const std::string& grammar) {
  constexpr int kTokens = 4;
  constexpr int64_t kMaxWork = 1 << 16;
  constexpr int64_t kOracleWork = 300;  // libllama may take this to the power of a token's length
  const Tokenizer& tokenizer = TheTokenizer();
  const auto rules = ReadGbnf(grammar, TokenOf);
  ESPALIER_CHECK(rules.ok());
  GbnfMatcher matcher(*rules, kMaxWork);
  std::unique_ptr<llama_sampler, FreeSampler> oracle(
      llama_sampler_init_grammar(static_cast<const llama_vocab*>(tokenizer.native_vocab()), grammar.c_str(), "root"));
  ESPALIER_CHECK(oracle != nullptr);
  const bool by_number = grammar.find('<') != std::string::npos;
  for (int step = 0; step < kTokens && !matcher.exhausted(); ++step) {
    std::vector<int32_t> allowed;
    std::vector<llama_token_data> candidates;
    for (const int32_t token : WholeTokens()) {
      candidates.push_back({token, matcher.Allows(token, tokenizer.Piece(token, true)) ? 1.0f : 0.0f, 0});
      if (candidates.back().logit > 0) {
        allowed.push_back(token);
      }
    }
    if (matcher.exhausted() || allowed.empty()) {
      break;
    }
    if (matcher.work() > kOracleWork) {
      oracle.reset();
    }
    if (oracle) {
      std::vector<llama_token_data> asked = candidates;
      llama_token_data_array array = {asked.data(), asked.size(), -1, false};
      llama_sampler_apply(oracle.get(), &array);
      for (size_t i = 0; i < asked.size(); ++i) {
        const bool theirs = !std::isinf(asked[i].logit);
        const bool ours = candidates[i].logit > 0;
        // With tokens by their number it allows some that it then fails on.
        ESPALIER_CHECK(ours == theirs || (by_number && theirs));
      }
    }
    const int32_t token = allowed[grammar.size() * 7919 * static_cast<size_t>(step + 1) % allowed.size()];
    if (!matcher.Accept(token, tokenizer.Piece(token, true))) {
      ESPALIER_CHECK(matcher.exhausted());
    } else if (oracle) {
      llama_sampler_accept(oracle.get(), token);
    }
  }
  ESPALIER_CHECK(matcher.work() <= kMaxWork);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const Tokenizer& tokenizer = TheTokenizer();
  SamplerOptions options;
  options.grammar.assign(reinterpret_cast<const char*>(data), size);
  if (options.grammar.empty()) {
    return 0;
  }
  const Status status = CheckGrammar(tokenizer, options.grammar);
  const auto sampler = Sampler::Create(tokenizer, options);
  ESPALIER_CHECK(sampler.ok() == status.ok());
  if (!status.ok()) {
    ESPALIER_CHECK(status.message().find('\n') == std::string::npos);
    return 0;
  }
  Follow(options.grammar);
  return 0;
}

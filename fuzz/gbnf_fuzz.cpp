// Any bytes as a grammar: refused in one line, or taken by libllama, which would print, or abort the process, where our
// check lets through what it cannot read. No token is chosen: grammars that are ambiguous at every character
// ("root ::= [a-z]++++++++++++") pass, and following one takes libllama longer than anyone waits.
#include <sys/mman.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/check.h"
#include "model/model.h"
#include "support/gguf_bytes.h"
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
    // Ours, never libllama's, which would have printed.
    ESPALIER_CHECK(status.message().find("libllama cannot") == std::string::npos);
  }
  return 0;
}

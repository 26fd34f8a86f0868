// Vocabularies of any content as far as the tokenizer: libllama aborts on some of them, and our check has to refuse
// those first. The input is cut into a vocabulary and a text (mutating whole files would break their lengths more
// often than it changes a token). The file lives in memory; libllama opens it by path.
#include <fmt/format.h>
#include <fuzzer/FuzzedDataProvider.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <string>

#include "base/check.h"
#include "model/model.h"
#include "support/gguf_bytes.h"
#include "text/tokenizer.h"

namespace {

using namespace espalier::test;  // NOLINT: the vocabulary of hand-made files

constexpr const char* kPreTokenizers[] = {"default",     "llama-bpe",  "qwen2",  "smollm",      "tekken",   "gpt-2",
                                          "chatglm-bpe", "gemma4",     "gpt-4o", "deepseek-v3", "refact",   "starcoder",
                                          "bloom",       "viking",     "jais-2", "minicpm5",    "superbpe", "kimi-k2",
                                          "whitespace",  "sarvam-moe", "exaone", "falcon",      "grok-2",   "no such"};
constexpr const char* kWords[] = {"<unk>",
                                  "<s>",
                                  "</s>",
                                  "<0x0A>",
                                  "<0x20>",
                                  "\u2581",
                                  "\u0120",
                                  "\u010a",
                                  "<|im_end|>",
                                  "<|end|>",
                                  "<EOT>",
                                  "[EMPTY_0]",
                                  "[EMPTY_1]",
                                  "a",
                                  "b",
                                  "ab",
                                  "<|return|>",
                                  "<|call|>",
                                  "<|tool_response>",
                                  "unused",
                                  "\n",
                                  " ",
                                  "\u2581a",
                                  ""};
constexpr const char* kSpecial[] = {"bos", "eos", "eot", "eom", "unknown", "seperator", "padding", "mask", "fim_pad"};

std::string Word(FuzzedDataProvider& data) {
  return data.ConsumeBool() ? data.PickValueInArray(kWords) : data.ConsumeRandomLengthString(12);
}

void SetVocabulary(GgufBytes& file, FuzzedDataProvider& data) {
  const bool sentencepiece = data.ConsumeBool();
  std::vector<std::string> tokens;
  std::vector<std::string> merges;
  std::vector<int32_t> types;
  std::vector<float> scores;
  // Without all bytes our tokenizer refuses a SentencePiece vocabulary.
  const bool with_bytes = sentencepiece && !data.ConsumeBool();
  for (int byte = 0; byte < 256 && with_bytes; ++byte) {
    tokens.push_back(fmt::format("<0x{:02X}>", byte));
    types.push_back(6);
    scores.push_back(0);
  }
  for (auto n = data.ConsumeIntegralInRange<size_t>(1, 24); n > 0; --n) {
    tokens.push_back(Word(data));
    types.push_back(data.ConsumeIntegralInRange<int32_t>(0, 6));
    scores.push_back(data.ConsumeFloatingPoint<float>());
  }
  for (size_t i = data.ConsumeIntegralInRange<size_t>(0, 8); i > 0; --i) {
    merges.push_back(Word(data) + " " + Word(data));
  }
  file.Set("general.name", Str(data.ConsumeBool() ? "phi-3" : "tiny"));
  file.Set("tokenizer.ggml.model", Str(sentencepiece ? "llama" : "gpt2"));
  file.Set("tokenizer.ggml.pre", Str(data.PickValueInArray(kPreTokenizers)));
  file.Set("tokenizer.ggml.tokens", Strings(tokens));
  file.Set("tokenizer.ggml.merges", Strings(merges));
  file.Remove("tokenizer.ggml.scores");
  file.Remove("tokenizer.ggml.token_type");
  if (data.ConsumeBool()) {
    file.Set("tokenizer.ggml.token_type", Ints(types));
  }
  if (data.ConsumeBool()) {
    file.Set("tokenizer.ggml.scores", Floats(scores));
  }
  file.Tensor("token_embd.weight").ne[1] = static_cast<int64_t>(tokens.size());
  file.Tensor("output.weight").ne[1] = static_cast<int64_t>(tokens.size());
}

void SetSpecialTokens(GgufBytes& file, FuzzedDataProvider& data) {
  for (const char* name : kSpecial) {
    const std::string key = std::string("tokenizer.ggml.") + name + "_token_id";
    file.Remove(key);
    if (data.ConsumeBool()) {
      file.Set(key, U32(data.ConsumeIntegralInRange<uint32_t>(0, 300)));
    }
  }
  for (const char* flag : {"add_bos_token", "add_eos_token", "add_space_prefix", "remove_extra_whitespaces"}) {
    if (data.ConsumeBool()) {
      file.Set(std::string("tokenizer.ggml.") + flag, Bool(data.ConsumeBool() ? 1 : 0));
    }
  }
}

// Tokenising is what costs time here (libllama compiles regular expressions for each text), so once is enough.
void UseTokenizer(const espalier::Tokenizer& tokenizer, const std::string& text, bool special) {
  const auto tokens = tokenizer.Encode(
      text + " Hello  world\n\n123 it's na\u00efve \u4e2d<s>a</s> <|im_end|>\xff<0x0A>", special, special);
  if (tokens.ok()) {
    for (const int32_t token : *tokens) {
      ESPALIER_CHECK(token >= 0 && token < tokenizer.n_vocab());
    }
    tokenizer.Decode(*tokens);
  }
  for (int32_t token = -1; token <= tokenizer.n_vocab(); ++token) {
    tokenizer.Piece(token, true);
    tokenizer.is_end_of_generation(token);
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* bytes, size_t size) {
  static const int fd = ::memfd_create("model", MFD_CLOEXEC);
  static const std::string path = "/proc/self/fd/" + std::to_string(fd);
  FuzzedDataProvider data(bytes, size);
  GgufBytes file = TinyLlama();
  SetVocabulary(file, data);
  SetSpecialTokens(file, data);
  const std::string content = file.Build();
  ESPALIER_CHECK(::ftruncate(fd, 0) == 0);
  ESPALIER_CHECK(::pwrite(fd, content.data(), content.size(), 0) == static_cast<ssize_t>(content.size()));
  const auto model = espalier::Model::Open(path);
  if (!model.ok()) {
    return 0;
  }
  const auto tokenizer = espalier::Tokenizer::Open(**model);
  if (tokenizer.ok()) {
    const bool special = !data.ConsumeBool();
    UseTokenizer(**tokenizer, data.ConsumeRemainingBytesAsString(), special);
  }
  return 0;
}

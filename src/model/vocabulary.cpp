#include "model/vocabulary.h"

#include <fmt/format.h>

#include <cctype>
#include <cmath>
#include <string>
#include <string_view>
#include <unordered_set>

#include "model/quote.h"

namespace espalier {
namespace {

constexpr std::string_view kPrefix = "tokenizer.ggml.";
// The longest tokens in the wild are 512 spaces, which is 1024 bytes of byte-level text.
constexpr size_t kMaxTokenBytes = 4096;
constexpr size_t kMaxMergeBytes = 2 * kMaxTokenBytes + 1;
constexpr uint64_t kMaxPieceBytes = uint64_t{256} << 20;
constexpr double kNormalType = 1;
constexpr double kByteType = 6;

class VocabularyCheck {
 public:
  explicit VocabularyCheck(const GgufFile& file) : file_(file) {}

  Status Run() {
    ESPALIER_RETURN_IF_ERROR(CheckKind());
    ESPALIER_ASSIGN_OR_RETURN(tokens_, Array("tokens", GgufType::kString));
    if (tokens_ == nullptr || tokens_->strings.empty()) {
      return Bad("tokens", "an array of strings", "none");
    }
    ESPALIER_RETURN_IF_ERROR(CheckTokens());
    ESPALIER_RETURN_IF_ERROR(CheckScores());
    ESPALIER_RETURN_IF_ERROR(CheckTypes());
    if (byte_level_) {
      ESPALIER_RETURN_IF_ERROR(CheckMerges());
      ESPALIER_RETURN_IF_ERROR(CheckPieces());
    }
    return CheckSpecialTokens();
  }

 private:
  Status Bad(std::string_view key, std::string_view expected, std::string_view found) const {
    return Corrupt(fmt::format("{}: key '{}{}': expected {}, found {}", file_.path(), kPrefix, key, expected, found));
  }

  // nullptr when the key is absent.
  Result<const GgufArray*> Array(std::string_view key, GgufType element_type) const {
    const GgufEntry* entry = file_.FindEntry(fmt::format("{}{}", kPrefix, key));
    if (entry == nullptr) {
      return static_cast<const GgufArray*>(nullptr);
    }
    const auto* array = std::get_if<GgufArray>(&entry->value);
    if (array == nullptr || array->element_type != element_type) {
      const char* expected = element_type == GgufType::kString    ? "an array of strings"
                             : element_type == GgufType::kFloat32 ? "an array of float32"
                                                                  : "an array of int32";
      return Bad(
          key, expected,
          array == nullptr ? "a single value" : fmt::format("an array of {}", GgufTypeName(array->element_type)));
    }
    return array;
  }

  Status CheckKind();
  Status CheckTokens() const;
  Status CheckScores() const;
  Status CheckTypes();
  Status CheckMerges() const;
  Status CheckPieces() const;
  Status CheckSpecialTokens() const;
  Status CheckAddedToken(std::string_view name, int64_t default_id, bool added_by_default) const;

  const GgufFile& file_;
  bool byte_level_ = false;  // BPE over bytes; otherwise SentencePiece
  std::string pre_tokenizer_;
  const GgufArray* tokens_ = nullptr;
  const GgufArray* types_ = nullptr;
};

Status VocabularyCheck::CheckKind() {
  ESPALIER_ASSIGN_OR_RETURN(const std::string kind, file_.String(fmt::format("{}model", kPrefix)));
  if (kind != "llama" && kind != "gpt2") {
    return Unsupported(fmt::format("{}: key '{}model': expected 'llama' (SentencePiece) or 'gpt2' (BPE), found {}",
                                   file_.path(), kPrefix, Quote(kind)));
  }
  byte_level_ = kind == "gpt2";
  ESPALIER_ASSIGN_OR_RETURN(const auto pre, file_.FindString(fmt::format("{}pre", kPrefix)));
  pre_tokenizer_ = pre.value_or("");
  // libllama aborts on the first space in a text with this one.
  if (byte_level_ && pre_tokenizer_ == "whitespace") {
    return Unsupported(
        fmt::format("{}: key '{}pre': expected a byte-level pre-tokenizer, found 'whitespace'", file_.path(), kPrefix));
  }
  return Status::Ok();
}

// libllama aborts if two tokens have the same text. It reads C strings, and names empty tokens by their index.
Status VocabularyCheck::CheckTokens() const {
  std::unordered_set<std::string> seen;
  seen.reserve(tokens_->strings.size());
  for (size_t i = 0; i < tokens_->strings.size(); ++i) {
    const std::string& token = tokens_->strings[i];
    if (token.size() > kMaxTokenBytes) {
      return Bad("tokens", fmt::format("tokens of at most {} bytes", kMaxTokenBytes),
                 fmt::format("{} bytes in token {}", token.size(), i));
    }
    std::string text = token.c_str();
    if (text.empty()) {
      text = fmt::format("[EMPTY_{}]", i);
    }
    if (!seen.insert(std::move(text)).second) {
      return Bad("tokens", "tokens that differ", fmt::format("{} twice, the second time as token {}", Quote(token), i));
    }
  }
  return Status::Ok();
}

Status VocabularyCheck::CheckScores() const {
  ESPALIER_ASSIGN_OR_RETURN(const GgufArray* scores, Array("scores", GgufType::kFloat32));
  if (scores == nullptr) {
    return Status::Ok();
  }
  if (scores->size() != tokens_->size()) {
    return Bad("scores", fmt::format("one for each of {} tokens", tokens_->size()), fmt::to_string(scores->size()));
  }
  for (size_t i = 0; i < scores->numbers.size(); ++i) {
    if (std::isnan(scores->numbers[i])) {
      return Bad("scores", "numbers", fmt::format("NaN for token {}", i));
    }
  }
  return Status::Ok();
}

bool IsByteToken(std::string_view text) {
  return text.size() == 6 && text.starts_with("<0x") && text.ends_with('>') &&
         std::isxdigit(static_cast<unsigned char>(text[3])) != 0 &&
         std::isxdigit(static_cast<unsigned char>(text[4])) != 0;
}

Status VocabularyCheck::CheckTypes() {
  ESPALIER_ASSIGN_OR_RETURN(types_, Array("token_type", GgufType::kInt32));
  if (types_ == nullptr) {
    return Status::Ok();
  }
  if (types_->size() != tokens_->size()) {
    return Bad("token_type", fmt::format("one for each of {} tokens", tokens_->size()), fmt::to_string(types_->size()));
  }
  for (size_t i = 0; i < types_->numbers.size(); ++i) {
    const double type = types_->numbers[i];
    if (type < 0 || type > kByteType) {
      return Bad("token_type", "types from 0 to 6", fmt::format("{} for token {}", type, i));
    }
    if (type == kByteType && !IsByteToken(tokens_->strings[i])) {
      return Bad("tokens", "byte tokens of the form <0x1F>",
                 fmt::format("{} as token {}", Quote(tokens_->strings[i]), i));
    }
  }
  return Status::Ok();
}

Status VocabularyCheck::CheckMerges() const {
  ESPALIER_ASSIGN_OR_RETURN(const GgufArray* merges, Array("merges", GgufType::kString));
  if (merges == nullptr) {
    return Bad("merges", "an array of strings", "none");
  }
  for (size_t i = 0; i < merges->strings.size(); ++i) {
    const std::string& merge = merges->strings[i];
    const size_t space = merge.find(' ');
    if (merge.size() > kMaxMergeBytes || space == std::string::npos || space == 0 || space + 1 == merge.size() ||
        merge.find(' ', space + 1) != std::string::npos || merge.find('\0') != std::string::npos) {
      return Bad("merges", "two parts with one space between them", fmt::format("{} as merge {}", Quote(merge), i));
    }
  }
  return Status::Ok();
}

// Characters that stand for no byte of a byte-level vocabulary. The alphabet is the 188 printable characters of
// Latin-1 and U+0100 to U+0143; everything whose first byte is beyond 0xC5, and all but '!' to '~' of ASCII, is outside
// it. Counting the few others as inside is good enough for a bound.
uint64_t ForeignCharacters(std::string_view text) {
  uint64_t n = 0;
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    n += byte < 0x21 || byte == 0x7f || byte > 0xc5 ? 1 : 0;
  }
  return n;
}

// libllama writes "[UNK_BYTE_0x<hex><whole token>]" for each foreign character: quadratic in the token's length.
Status VocabularyCheck::CheckPieces() const {
  uint64_t bytes = 0;
  for (size_t i = 0; i < tokens_->strings.size(); ++i) {
    if (types_ == nullptr || types_->numbers[i] == kNormalType) {
      const std::string& token = tokens_->strings[i];
      bytes += ForeignCharacters(token) * (token.size() + 24);
    }
  }
  if (bytes > kMaxPieceBytes) {
    return Bad("tokens", "byte-level text", fmt::format("other text, which would take {} bytes to show", bytes));
  }
  return Status::Ok();
}

// A special token that libllama adds to every prompt must exist, or it aborts.
Status VocabularyCheck::CheckAddedToken(std::string_view name, int64_t default_id, bool added_by_default) const {
  ESPALIER_ASSIGN_OR_RETURN(const auto added, file_.FindBool(fmt::format("{}add_{}_token", kPrefix, name)));
  if (!added.value_or(added_by_default)) {
    return Status::Ok();
  }
  const std::string key = fmt::format("{}_token_id", name);
  const bool given = file_.FindEntry(fmt::format("{}{}", kPrefix, key)) != nullptr;
  if (!given && (default_id < 0 || static_cast<uint64_t>(default_id) >= tokens_->size())) {
    return Bad(key, "a token, since it is added to every text", "none");
  }
  return Status::Ok();
}

Status VocabularyCheck::CheckSpecialTokens() const {
  constexpr std::string_view kNames[] = {"bos",     "eos",     "eot",     "eom",     "unknown", "seperator",
                                         "padding", "cls",     "mask",    "fim_pre", "fim_suf", "fim_mid",
                                         "fim_pad", "fim_rep", "fim_sep", "prefix",  "suffix",  "middle"};
  for (const std::string_view name : kNames) {
    const std::string key = fmt::format("{}_token_id", name);
    const GgufEntry* entry = file_.FindEntry(fmt::format("{}{}", kPrefix, key));
    if (entry == nullptr) {
      continue;
    }
    if (entry->type != GgufType::kUint32) {
      return Bad(key, "a uint32", fmt::format("a value of type {}", GgufTypeName(entry->type)));
    }
    if (const uint64_t id = std::get<uint64_t>(entry->value); id >= tokens_->size()) {
      return Bad(key, fmt::format("a token from 0 to {}", tokens_->size() - 1), fmt::to_string(id));
    }
  }
  // libllama's defaults: SentencePiece begins with token 1; BPE with token 11, where the pre-tokenizer asks for it
  // (which of them do is its table; the ChatGLM one has no such token).
  const bool chatglm = pre_tokenizer_ == "glm4" || pre_tokenizer_ == "chatglm-bpe";
  const int64_t default_bos = !byte_level_ ? 1 : chatglm ? -1 : 11;
  ESPALIER_RETURN_IF_ERROR(CheckAddedToken("bos", default_bos, !chatglm));
  return CheckAddedToken("eos", byte_level_ ? 11 : 2, false);
}

}  // namespace

Status CheckVocabulary(const GgufFile& file) { return VocabularyCheck(file).Run(); }

}  // namespace espalier

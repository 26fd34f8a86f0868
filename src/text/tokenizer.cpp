#include "text/tokenizer.h"

#include <fmt/format.h>
#include <llama.h>

#include <algorithm>
#include <exception>
#include <limits>

#include "base/check.h"
#include "text/libllama.h"

namespace espalier {
namespace {

struct ModelDeleter {
  void operator()(llama_model* model) const { llama_model_free(model); }
};

class LibllamaTokenizer final : public Tokenizer {
 public:
  explicit LibllamaTokenizer(std::unique_ptr<llama_model, ModelDeleter> model)
      : model_(std::move(model)), vocab_(llama_model_get_vocab(model_.get())) {
    for (int32_t token = 0; token < n_vocab(); ++token) {
      if (is_end_of_generation(token)) {
        end_of_generation_.push_back(token);
      }
    }
  }

  Result<std::vector<int32_t>> Encode(std::string_view text, bool add_special, bool parse_special) const override {
    constexpr size_t kMostBytes = size_t{1} << 30;
    if (text.size() > kMostBytes) {
      return Unsupported(fmt::format("text of {} bytes: at most {} can be tokenised", text.size(), kMostBytes));
    }
    // A token covers at least one byte, except BOS, EOS and the space that SentencePiece puts in front.
    std::vector<int32_t> tokens(text.size() + 3);
    try {
      int32_t count = EncodeInto(text, add_special, parse_special, tokens);
      if (count < 0) {  // normalisation may still make text longer: the negative count is what it takes
        ESPALIER_CHECK(count != std::numeric_limits<int32_t>::min());
        tokens.resize(static_cast<size_t>(-count));
        count = EncodeInto(text, add_special, parse_special, tokens);
      }
      ESPALIER_CHECK(count >= 0);
      tokens.resize(static_cast<size_t>(count));
    } catch (const std::exception& error) {  // libllama lets exceptions of its vocabulary out
      return Unsupported(fmt::format("text of {} bytes: libllama cannot tokenise it: {}", text.size(), error.what()));
    }
    tokens.shrink_to_fit();
    return tokens;
  }

  std::string Piece(int32_t token, bool render_special) const override {
    if (token < 0 || token >= n_vocab()) {
      return {};
    }
    std::string piece(32, '\0');
    int32_t length = PieceInto(token, render_special, piece);
    if (length < 0) {
      piece.resize(static_cast<size_t>(-length));
      length = PieceInto(token, render_special, piece);
    }
    piece.resize(static_cast<size_t>(std::max(length, 0)));
    return piece;
  }

  std::string Decode(std::span<const int32_t> tokens) const override {
    // Not concatenated pieces: llama_detokenize also removes the space that SentencePiece put in front of the text.
    std::vector<int32_t> known(tokens.begin(), tokens.end());
    std::erase_if(known, [this](int32_t token) { return token < 0 || token >= n_vocab(); });
    std::string text(known.size() * 8 + 16, '\0');
    int32_t length = DecodeInto(known, text);
    if (length < 0) {
      text.resize(static_cast<size_t>(-length));
      length = DecodeInto(known, text);
    }
    text.resize(static_cast<size_t>(std::max(length, 0)));
    return text;
  }

  int32_t n_vocab() const override { return llama_vocab_n_tokens(vocab_); }
  int32_t bos() const override { return llama_vocab_bos(vocab_); }
  int32_t eos() const override { return llama_vocab_eos(vocab_); }
  bool adds_bos() const override { return llama_vocab_get_add_bos(vocab_); }
  bool is_end_of_generation(int32_t token) const override {
    return token >= 0 && token < n_vocab() && llama_vocab_is_eog(vocab_, token);
  }
  std::span<const int32_t> end_of_generation_tokens() const override { return end_of_generation_; }
  const void* native_vocab() const override { return vocab_; }

 private:
  int32_t EncodeInto(std::string_view text, bool add_special, bool parse_special, std::vector<int32_t>& out) const {
    return llama_tokenize(vocab_, text.data(), static_cast<int32_t>(text.size()), out.data(),
                          static_cast<int32_t>(out.size()), add_special, parse_special);
  }
  int32_t PieceInto(int32_t token, bool render_special, std::string& out) const {
    return llama_token_to_piece(vocab_, token, out.data(), static_cast<int32_t>(out.size()), 0, render_special);
  }
  int32_t DecodeInto(const std::vector<int32_t>& tokens, std::string& out) const {
    return llama_detokenize(vocab_, tokens.data(), static_cast<int32_t>(tokens.size()), out.data(),
                            static_cast<int32_t>(out.size()), /*remove_special=*/false, /*unparse_special=*/false);
  }

  std::unique_ptr<llama_model, ModelDeleter> model_;
  const llama_vocab* vocab_;  // owned by model_
  std::vector<int32_t> end_of_generation_;
};

// libllama aborts on a file without a tokenizer, and throws where SentencePiece has to fall back to bytes that the
// vocabulary lacks. Both are found here, once, instead of in the middle of a text.
Status CheckEncodesEveryByte(const llama_vocab* vocab, const std::string& path) {
  if (llama_vocab_type(vocab) == LLAMA_VOCAB_TYPE_NONE) {
    return Unsupported(fmt::format("{}: the file has no tokenizer (tokenizer.ggml.model is none)", path));
  }
  for (int byte = 0; byte < 256; ++byte) {
    const char text = static_cast<char>(byte);
    int32_t tokens[8];
    try {
      llama_tokenize(vocab, &text, 1, tokens, 8, /*add_special=*/false, /*parse_special=*/false);
    } catch (const std::exception&) {
      return Unsupported(fmt::format("{}: the vocabulary has no token for byte 0x{:02x}", path, byte));
    }
  }
  return Status::Ok();
}

}  // namespace

Result<std::unique_ptr<Tokenizer>> Tokenizer::Open(const Model& model) {
  StartLibllama();
  ClearLibllamaError();
  ggml_backend_dev_t no_devices[] = {nullptr};
  llama_model_params params = llama_model_default_params();
  params.vocab_only = true;
  params.devices = no_devices;  // a vocabulary needs none, and starting a GPU takes memory
  std::unique_ptr<llama_model, ModelDeleter> loaded(llama_model_load_from_file(model.path().c_str(), params));
  if (!loaded) {
    return Unsupported(
        fmt::format("{}: libllama cannot read the vocabulary: {}", model.path(), LibllamaErrorOr("no reason given")));
  }
  ESPALIER_RETURN_IF_ERROR(CheckEncodesEveryByte(llama_model_get_vocab(loaded.get()), model.path()));
  auto tokenizer = std::make_unique<LibllamaTokenizer>(std::move(loaded));
  if (tokenizer->n_vocab() != model.hparams().n_vocab) {
    return Corrupt(fmt::format("{}: token embedding has {} rows, the vocabulary has {} tokens", model.path(),
                               model.hparams().n_vocab, tokenizer->n_vocab()));
  }
  return std::unique_ptr<Tokenizer>(std::move(tokenizer));
}

}  // namespace espalier

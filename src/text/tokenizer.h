// Text to tokens and back, through libllama's vocabulary (loaded with `vocab_only`: no weights). The text layer is
// the only home of llama.h.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "model/model.h"

namespace espalier {

// Thread rule: immutable, safe to share between threads.
class Tokenizer {
 public:
  // REQUIRES: `model` was validated (it was: that is the only way to get one); its vocabulary is read by libllama.
  static Result<std::unique_ptr<Tokenizer>> Open(const Model& model);
  virtual ~Tokenizer() = default;

  // Special tokens are recognised in the text when `parse_special`. `add_special` adds BOS/EOS as the model wants.
  // Fails with kUnsupported on more than 1 GiB of text (libllama counts in 32 bits) and where libllama cannot tokenise
  // it; bytes that are not UTF-8 are no failure.
  virtual Result<std::vector<int32_t>> Encode(std::string_view text, bool add_special, bool parse_special) const = 0;
  // The bytes of one token; may be part of a UTF-8 sequence. Empty for ids outside the vocabulary.
  virtual std::string Piece(int32_t token, bool render_special) const = 0;
  // The text of `tokens`, without special tokens and without the space that SentencePiece puts before a text.
  virtual std::string Decode(std::span<const int32_t> tokens) const = 0;

  virtual int32_t n_vocab() const = 0;
  virtual int32_t bos() const = 0;  // -1 if the vocabulary has none; likewise eos
  virtual int32_t eos() const = 0;
  virtual bool adds_bos() const = 0;
  virtual bool is_end_of_generation(int32_t token) const = 0;
  // All tokens of which that is true, in order.
  virtual std::span<const int32_t> end_of_generation_tokens() const = 0;

  // libllama's vocabulary for the rest of this layer (samplers); opaque elsewhere.
  virtual const void* native_vocab() const = 0;
};

struct ChatMessage {
  std::string role;
  std::string content;
};

bool HasChatTemplate(const Model& model);

// Renders messages with the model's chat template (one of libllama's built-in templates, found by the model's
// tokenizer.chat_template; the template itself is never executed), or as ChatML where the model has none, which is
// llama-server's way. Fails with kUnsupported on a template that libllama does not know, with kInvalidArgument, naming
// the message, on one with a zero byte.
Result<std::string> ApplyChatTemplate(const Model& model, std::span<const ChatMessage> messages, bool add_assistant);

}  // namespace espalier

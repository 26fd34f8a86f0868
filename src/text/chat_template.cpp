#include <fmt/format.h>
#include <llama.h>

#include "text/libllama.h"
#include "text/tokenizer.h"

namespace espalier {

bool HasChatTemplate(const Model& model) {
  const auto source = model.gguf().FindString("tokenizer.chat_template");
  return source.ok() && source->has_value();
}

Result<std::string> ApplyChatTemplate(const Model& model, std::span<const ChatMessage> messages, bool add_assistant) {
  ESPALIER_ASSIGN_OR_RETURN(const std::optional<std::string> source,
                            model.gguf().FindString("tokenizer.chat_template"));
  const std::string name_or_text = source.value_or("chatml");
  StartLibllama();
  std::vector<llama_chat_message> native;
  size_t bytes = 256;
  for (const ChatMessage& message : messages) {
    if (message.role.find('\0') != std::string::npos || message.content.find('\0') != std::string::npos) {
      return InvalidArgument(fmt::format("message {}: expected text without zero bytes, found one", native.size()));
    }
    native.push_back({message.role.c_str(), message.content.c_str()});
    bytes += 2 * (message.role.size() + message.content.size());
  }
  std::string text(bytes, '\0');
  for (int attempt = 0; attempt < 2; ++attempt) {
    const int32_t length = llama_chat_apply_template(name_or_text.c_str(), native.data(), native.size(), add_assistant,
                                                     text.data(), static_cast<int32_t>(text.size()));
    if (length < 0) {
      return Unsupported(fmt::format("{}: chat template is none of those that libllama knows; it begins with \"{}\"",
                                     model.path(), name_or_text.substr(0, 40)));
    }
    const bool fits = static_cast<size_t>(length) <= text.size();
    text.resize(static_cast<size_t>(length));
    if (fits) {
      return text;
    }
  }
  return Corrupt(fmt::format("{}: chat template renders to two different lengths", model.path()));
}

}  // namespace espalier

#include "cli/text_option.h"

#include <fmt/format.h>

#include "base/bytes.h"
#include "base/file.h"
#include "cli/number_check.h"

namespace espalier {

Result<Windows> TextOption::Read(const Model& model, const Tokenizer& tokenizer) const {
  WindowOptions options = {.window_tokens = window_tokens, .max_windows = max_windows, .spread = spread};
  ESPALIER_ASSIGN_OR_RETURN(options.protocol, ParseProtocol(protocol));
  constexpr uint64_t kMaxTextBytes = kGiB;
  ESPALIER_ASSIGN_OR_RETURN(const std::string text, ReadTextFile(file, kMaxTextBytes));
  return CutWindows(tokenizer, model.hparams().n_ctx_train, file, text, options);
}

Result<std::string> ReadTextFile(const std::string& path, uint64_t limit) {
  ESPALIER_ASSIGN_OR_RETURN(std::string text, ReadWholeFile(path, limit));
  if (const size_t zero = text.find('\0'); zero != std::string::npos) {
    return InvalidArgument(fmt::format("{}: expected text, found a zero byte at offset {}", path, zero));
  }
  return text;
}

CLI::Option* AddTextOption(CLI::App& app, TextOption& option, const std::string& purpose) {
  CLI::Option* const text = app.add_option("--text", option.file, purpose)->required();
  app.add_option("--protocol", option.protocol,
                 "gptq: the papers', every token of disjoint windows; llama: as llama-perplexity. Figures of different "
                 "protocols cannot be compared")
      ->capture_default_str();
  app.add_option("-c,--ctx-size", option.window_tokens,
                 "Tokens of a window; 0: 2048 (gptq), 512 (llama) or what the model has")
      ->check(AtLeast(0))
      ->capture_default_str();
  app.add_option("--windows", option.max_windows,
                 option.spread ? "Windows to measure on at most, spread evenly over the text; 0: all of it"
                               : "Windows to measure on at most, the first of the text; 0: all of it")
      ->check(AtLeast(0))
      ->capture_default_str();
  return text;
}

}  // namespace espalier

// --text and how it is cut into windows: the same for every command that measures on a text.
#pragma once

#include <CLI/CLI.hpp>

#include <cstdint>
#include <string>

#include "base/status.h"
#include "eval/windows.h"
#include "model/model.h"
#include "text/tokenizer.h"

namespace espalier {

struct TextOption {
  std::string file = {};
  std::string protocol = "gptq";
  int64_t window_tokens = 0;  // 0: WindowLength's choice
  int64_t max_windows = 0;    // 0: all of the text
  bool spread = false;        // WindowOptions::spread
  Result<Windows> Read(const Model& model, const Tokenizer& tokenizer) const;
};

// The whole file; refuses files over `limit` bytes, and those with a zero byte, which are no text: a model that is
// named by mistake would be tokenised for minutes.
Result<std::string> ReadTextFile(const std::string& path, uint64_t limit);

// --text --protocol -c --windows. `purpose` is what --help says of --text. Returns --text, which is required unless the
// caller changes that.
CLI::Option* AddTextOption(CLI::App& app, TextOption& option, const std::string& purpose);

}  // namespace espalier

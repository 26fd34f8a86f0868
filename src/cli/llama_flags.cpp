#include "cli/llama_flags.h"

#include <array>
#include <string>
#include <utility>

#include "cli/number_check.h"

namespace espalier {

void AddFlagsOfLlamaServer(CLI::App& app) {
  const char* const kGroup = "Taken for llama.cpp's sake, without effect";
  constexpr std::array<std::pair<const char*, const char*>, 9> kFlags = {
      {{"--jinja", "Chat templates are those that libllama knows by themselves"},
       {"--no-mmap", "Blocks are read when they are needed"},
       {"--mlock", "The memory budget decides what stays"},
       {"--cont-batching", "Always so (also -cb)"},
       {"--cache-prompt", "Always so, unless --no-cache-prompt"},
       {"--no-webui", "The page at / stays"},
       {"--slots", "/slots is there"},
       {"--log-disable", "There is no log of requests; --quiet for memory"},
       {"-v,--verbose", "There is no log of requests"}}};
  for (const auto& [name, text] : kFlags) {
    app.add_flag(name, text)->group(kGroup);
  }
  // CLI11 wants a place for the value.
  app.add_option_function<int>(
         "--threads-batch", [](const int&) {}, "Threads are those of -t (also -tb)")
      ->check(InRange(-1, 1 << 16))
      ->group(kGroup);
  app.add_option("--hf-repo", "Refused: nothing is downloaded (also -hf)")
      ->check(CLI::Validator(
          [](std::string&) { return std::string("nothing is downloaded: expected MODEL, a GGUF file"); }, ""))
      ->group(kGroup);
}

}  // namespace espalier

// Flags that stand in llama-server's command lines and change nothing here.
#pragma once

#include <CLI/CLI.hpp>

namespace espalier {

// --jinja --no-mmap --mlock --cont-batching --cache-prompt --no-webui --slots --log-disable -v and --threads-batch are
// taken: what they ask for is so anyway, or is decided elsewhere. --hf-repo (-hf, -hfr) is refused with a word of why.
void AddFlagsOfLlamaServer(CLI::App& app);

}  // namespace espalier

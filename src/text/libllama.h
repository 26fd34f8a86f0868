// Start-up and log of libllama, for this layer's sources. No llama.h here: it stays inside the .cpp files.
#pragma once

#include <string>

namespace espalier {

// Starts libllama and takes its log over: nothing reaches the terminal. Any number of calls, from any thread; every
// entry into libllama begins with one.
void StartLibllama();

// The first error line that libllama logged on this thread since ClearLibllamaError, or `otherwise`. The first line
// carries the reason; those after it only say that the callers failed too.
std::string LibllamaErrorOr(const std::string& otherwise);
void ClearLibllamaError();

}  // namespace espalier

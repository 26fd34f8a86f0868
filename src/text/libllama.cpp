#include "text/libllama.h"

#include <llama.h>

#include <mutex>

namespace espalier {
namespace {

thread_local std::string first_error;

void KeepFirstError(ggml_log_level level, const char* text, void*) {
  if (level == GGML_LOG_LEVEL_ERROR && first_error.empty()) {
    first_error = text;
    first_error.erase(first_error.find_last_not_of(" \n") + 1);
  }
}

}  // namespace

void StartLibllama() {
  static std::once_flag once;
  std::call_once(once, [] {
    llama_log_set(KeepFirstError, nullptr);
    llama_backend_init();
  });
}

void ClearLibllamaError() { first_error.clear(); }

std::string LibllamaErrorOr(const std::string& otherwise) { return first_error.empty() ? otherwise : first_error; }

}  // namespace espalier

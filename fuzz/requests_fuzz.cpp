// Any bytes as a request file: the reader must answer with one line, or with requests that are in range.
#include <cstddef>
#include <cstdint>
#include <set>
#include <string>
#include <string_view>

#include "base/check.h"
#include "cli/request_file.h"

using namespace espalier;  // NOLINT: a fuzz target is about one library

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const auto lines = ParseRequestFile(text, "folder/some.jsonl");
  if (!lines.ok()) {
    ESPALIER_CHECK(lines.status().message().find('\n') == std::string::npos);
    return 0;
  }
  std::set<std::string> ids;
  int64_t last = 0;
  for (const RequestLine& line : *lines) {
    ESPALIER_CHECK(line.line > last);
    last = line.line;
    ESPALIER_CHECK(!line.id.empty() && line.id.find('/') == std::string::npos && line.id.front() != '.');
    if (!line.request.ok()) {
      ESPALIER_CHECK(line.request.status().message().find('\n') == std::string::npos);
      continue;
    }
    ESPALIER_CHECK(CheckRequest(*line.request).ok());
    ESPALIER_CHECK(ids.insert(line.id).second);
    if (line.request->workload) {
      ESPALIER_CHECK(line.request->workload->n_sequences > 0 && line.request->workload->kv_cells > 0);
    }
  }
  return 0;
}

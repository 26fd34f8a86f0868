// Any bytes as a load trace: the reader must answer with one line, or with a trace that is in range and that reads back
// as the same when it is written.
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "base/check.h"
#include "cli/trace_file.h"

using namespace espalier;  // NOLINT: a fuzz target is about one library

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const auto trace = ParseTraceFile(text, "folder/some.jsonl");
  if (!trace.ok()) {
    ESPALIER_CHECK(trace.status().message().find("folder/some.jsonl") != std::string::npos);
    ESPALIER_CHECK(trace.status().message().find('\n') == std::string::npos);
    return 0;
  }
  ESPALIER_CHECK(CheckTrace(*trace).ok());
  const auto again = ParseTraceFile(TraceFileText(*trace), "folder/some.jsonl");
  ESPALIER_CHECK(again.ok());
  ESPALIER_CHECK(*again == *trace);
  return 0;
}

// Load traces as files: JSON Lines, one event a line (docs/formats/traces.md).
#pragma once

#include <string>
#include <string_view>

#include "base/status.h"
#include "serving/load_trace.h"

namespace espalier {

// As the flag and the trace file write it, to the last digit: "70%", or a number of bytes.
std::string ExactText(const Budget& budget);

// The trace, sorted by time. Errors name file, line, field, what was expected and what was found; one wrong line fails
// the whole, since a load with a hole is another load.
Result<LoadTrace> ParseTraceFile(std::string_view text, const std::string& path);
// The same of a file of at most 256 MiB.
Result<LoadTrace> ReadTraceFile(const std::string& path);

// What ParseTraceFile reads as an equal trace. REQUIRES: CheckTrace says ok, and a name in UTF-8.
std::string TraceFileText(const LoadTrace& trace);

}  // namespace espalier

// The target of a request line, taken apart.
#pragma once

#include <string>
#include <string_view>

#include "base/status.h"

namespace espalier {

struct HttpTarget {
  std::string path;   // percent-decoded, begins with '/'
  std::string query;  // as sent, without '?'
};

// Of "/path?query" or "http://host/path?query" (what a proxy's client sends). kInvalidArgument for anything else, for
// an escape that is none or stands for NUL, for '#', and for bytes that are not printable ASCII: whoever checks the
// path later must see the same path as whoever checked it before.
Result<HttpTarget> ParseHttpTarget(std::string_view target);

}  // namespace espalier

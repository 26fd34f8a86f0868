// Compression requests as users hand them in: JSON Lines, one request a line (docs/formats/requests.md).
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "strategy/compression_request.h"

namespace espalier {

// Of an id.
inline constexpr size_t kMaxIdBytes = 128;

struct RequestLine {
  int64_t line = 0;  // from 1
  std::string id;    // of the request; "line-N" where it has none. Fit for a file's name
  Result<CompressionRequest> request;
};

// One line. The error names the field, what was expected and what was found.
struct NamedRequest {
  std::string id;  // empty: none given
  CompressionRequest request;
};
// `id`: its id, where there is one that can be read, also of a line that is wrong elsewhere.
Result<NamedRequest> ParseRequestLine(std::string_view line, std::string* id = nullptr);

// All lines but blank ones, in order. A line that cannot be read does not stop the others: its request is the error,
// which names it. Fails where there is no request at all.
Result<std::vector<RequestLine>> ParseRequestFile(std::string_view text, const std::string& path);
// The same of a file of at most 256 MiB.
Result<std::vector<RequestLine>> ReadRequestFile(const std::string& path);

// kInvalidArgument, naming the field, unless the request's value is in range.
Status CheckRequest(const CompressionRequest& request);
// [l1, l2]: the weights of size and loss, not negative, which sum up to 1.
Result<double> SizePreference(double size, double loss);

}  // namespace espalier

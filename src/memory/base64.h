// Base64 (RFC 4648), as environment variables carry binary data.
#pragma once

#include <string>
#include <string_view>

#include "base/status.h"

namespace espalier {

// Padding is required and white space is refused; bits beyond the last byte must be 0. Else kInvalidArgument.
Result<std::string> DecodeBase64(std::string_view text);

}  // namespace espalier

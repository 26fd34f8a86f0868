// JSON that users hand in, as messages show it.
#pragma once

#include <nlohmann/json.hpp>

#include <cstddef>
#include <string>
#include <string_view>

#include "base/status.h"

namespace espalier {

// The value in at most so many bytes, printable. Of an array or an object only how many members it has: printing it
// takes a stack as deep as it is nested, and files decide how deep that is.
std::string ShowValue(const nlohmann::json& value, size_t max_bytes);

// A line of a JSON Lines file, of at most so many bytes: an object. kInvalidArgument, saying what it is instead.
Result<nlohmann::json> ParseObjectLine(std::string_view line, size_t max_bytes);

}  // namespace espalier

#include "cli/json_value.h"

#include <fmt/format.h>

#include "model/quote.h"

namespace espalier {

std::string ShowValue(const nlohmann::json& value, size_t max_bytes) {
  if (value.is_structured()) {
    return fmt::format("an {} of {}", value.type_name(), value.size());
  }
  return Printable(value.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace), max_bytes);
}

Result<nlohmann::json> ParseObjectLine(std::string_view line, size_t max_bytes) {
  if (line.size() > max_bytes) {
    return InvalidArgument(fmt::format("expected at most {} bytes, found {}", max_bytes, line.size()));
  }
  nlohmann::json object = nlohmann::json::parse(line, nullptr, /*allow_exceptions=*/false);
  if (!object.is_object()) {
    return InvalidArgument(fmt::format("expected a JSON object, found {}",
                                       object.is_discarded() ? "something that is not JSON" : object.type_name()));
  }
  return object;
}

}  // namespace espalier
